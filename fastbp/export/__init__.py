"""Networks that leave: what a network predicts as an ONNX model, as a C file, or as a Python file with NumPy alone.

`walk` goes over the layers once and gives every target the same steps, with shapes and parameters (`steps`). A target
has a function for each kind of step. The formulas of activations are read off their NumPy twins (`expressions`).
"""

from fastbp.export.c_file import to_c
from fastbp.export.numpy_file import to_numpy
from fastbp.export.onnx_file import to_onnx

__all__ = ["to_c", "to_numpy", "to_onnx"]
