"""fastbp: the backpropagation of "Deep Learning from Scratch", chapter 5, as compiled kernels.

The layers are in `fastbp.layers`, the networks in `fastbp.network`, computational graphs in `fastbp.graph`, files for
other programs in `fastbp.export` (both imported when first asked for); importing this package compiles nothing.
"""

import importlib
from types import ModuleType

from fastbp import functions, gradcheck, layers, network, optimizers, reference, saving
from fastbp._version import __version__
from fastbp.convolutional import DeepConvNet, LeNet, SimpleConvNet
from fastbp.gradcheck import gradient_check, numerical_gradient, numerical_gradient_2d
from fastbp.kernels import get_num_threads, num_threads, set_num_threads
from fastbp.multi_layer import MultiLayerNet, MultiLayerNetExtend
from fastbp.network import Sequential, TwoLayerNet
from fastbp.ops.contract import use_reference
from fastbp.saving import load, save
from fastbp.training.fit import Progress, StopTraining
from fastbp.training.history import History
from fastbp.training.trainer import Trainer

__all__ = [
    "DeepConvNet",
    "History",
    "LeNet",
    "MultiLayerNet",
    "MultiLayerNetExtend",
    "Progress",
    "Sequential",
    "SimpleConvNet",
    "StopTraining",
    "Trainer",
    "TwoLayerNet",
    "__version__",
    "functions",
    "get_num_threads",
    "gradcheck",
    "gradient_check",
    "layers",
    "load",
    "network",
    "num_threads",
    "numerical_gradient",
    "numerical_gradient_2d",
    "optimizers",
    "reference",
    "save",
    "saving",
    "set_num_threads",
    "use_reference",
]


def __getattr__(name: str) -> ModuleType:
    if name in ("export", "graph"):
        return importlib.import_module(f"fastbp.{name}")
    raise AttributeError(f"module 'fastbp' has no attribute {name!r}")
