"""The book's optimizers (`common/optimizer.py`), those of `fastbp.optimizers`, which have the book's numbers.

AdaGrad, RMSprop and Adam add 1e-7 to the root. Adam folds the correction of the bias into the rate.
"""

import numpy as np

from fastbp.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "np"]
