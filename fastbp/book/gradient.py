"""Numerical differentiation (`common/gradient.py`), that of `fastbp.gradcheck`, which has the book's numbers.

It puts an element back also when f raises, and refuses an array of integers, whose gradient is 0 in the book's code.
"""

import numpy as np

from fastbp.gradcheck import numerical_gradient, numerical_gradient_2d

__all__ = ["np", "numerical_gradient", "numerical_gradient_2d"]
