"""The history of a training run, by the name of its class in pickles."""

from fastbp.training.history import History

__all__ = ["History"]
