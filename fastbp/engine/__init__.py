"""Whole networks in compiled code: a plan that kernels walk along, steps of training, and predictions."""
