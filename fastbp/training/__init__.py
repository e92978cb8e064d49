"""Training: `Sequential.fit` and what belongs to it, and the book's loop of epochs.

`fit` has the loop over epochs, `run` the steps of one, `samples` what they read. `display`, `checkpoint`, `best`,
`history` and `interrupts` each do one thing around them. What training asks of a network is `protocol.Network`.
"""

from fastbp.training.epochs import Epoch, train

__all__ = ["Epoch", "train"]
