"""Every compiled function of fastbp, under the names of its NumPy twins in `fastbp.reference`.

A kernel computes and nothing else: arrays come checked, C-contiguous, of one dtype, and results are written to
trailing arguments. Shapes and dtypes are settled by the callers (`fastbp.validation`). Importing this package
compiles nothing; a kernel compiles on its first call with each dtype, or is loaded from the cache.
"""

from fastbp.kernels._jit import cache_status as cache_status
from fastbp.kernels._threads import get_num_threads as get_num_threads
from fastbp.kernels._threads import num_threads as num_threads
from fastbp.kernels._threads import set_num_threads as set_num_threads
from fastbp.kernels.activations import exp_forward as exp_forward
from fastbp.kernels.activations import log_forward as log_forward
from fastbp.kernels.activations import power_forward as power_forward
from fastbp.kernels.activations import relu_backward as relu_backward
from fastbp.kernels.activations import relu_forward as relu_forward
from fastbp.kernels.activations import sigmoid_backward as sigmoid_backward
from fastbp.kernels.activations import sigmoid_forward as sigmoid_forward
from fastbp.kernels.activations import softmax_backward as softmax_backward
from fastbp.kernels.activations import softmax_forward as softmax_forward
from fastbp.kernels.activations import tanh_backward as tanh_backward
from fastbp.kernels.activations import tanh_forward as tanh_forward
from fastbp.kernels.affine import affine_activation_backward as affine_activation_backward
from fastbp.kernels.affine import affine_activation_forward as affine_activation_forward
from fastbp.kernels.affine import affine_backward as affine_backward
from fastbp.kernels.affine import affine_backward_parameters as affine_backward_parameters
from fastbp.kernels.affine import affine_forward as affine_forward
from fastbp.kernels.dropout import dropout_backward as dropout_backward
from fastbp.kernels.dropout import dropout_forward as dropout_forward
from fastbp.kernels.losses import cross_entropy_backward as cross_entropy_backward
from fastbp.kernels.losses import cross_entropy_forward as cross_entropy_forward
from fastbp.kernels.losses import first_bad_distribution as first_bad_distribution
from fastbp.kernels.losses import first_bad_label as first_bad_label
from fastbp.kernels.losses import first_bad_probability as first_bad_probability
from fastbp.kernels.losses import poisson_deviance_forward as poisson_deviance_forward
from fastbp.kernels.losses import poisson_deviance_of_rows as poisson_deviance_of_rows
from fastbp.kernels.losses import sigmoid_cross_entropy_forward as sigmoid_cross_entropy_forward
from fastbp.kernels.losses import sigmoid_cross_entropy_of_rows as sigmoid_cross_entropy_of_rows
from fastbp.kernels.losses import softmax_cross_entropy_backward as softmax_cross_entropy_backward
from fastbp.kernels.losses import softmax_cross_entropy_forward as softmax_cross_entropy_forward
from fastbp.kernels.losses import softmax_cross_entropy_of_rows as softmax_cross_entropy_of_rows
from fastbp.kernels.losses import squared_error_backward as squared_error_backward
from fastbp.kernels.losses import squared_error_forward as squared_error_forward
from fastbp.kernels.losses import squared_error_of_rows as squared_error_of_rows
from fastbp.kernels.updates import adagrad_update as adagrad_update
from fastbp.kernels.updates import adam_update as adam_update
from fastbp.kernels.updates import decayed_gradient as decayed_gradient
from fastbp.kernels.updates import momentum_update as momentum_update
from fastbp.kernels.updates import nesterov_update as nesterov_update
from fastbp.kernels.updates import rmsprop_update as rmsprop_update
from fastbp.kernels.updates import sgd_update as sgd_update
from fastbp.kernels.vectors import REGISTER_BYTES as REGISTER_BYTES
