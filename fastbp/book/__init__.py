"""The modules of the repository of "Deep Learning from Scratch", name by name and number by number, on kernels.

`fastbp.layers` and `fastbp.functions` have the exact forms. Here is what the book's code computes, with what its code
does on its own account: the 1e-7 in the cross-entropy error, dropout that scales at prediction, batch normalization of
every pixel for itself, draws with replacement. Each module says what it has of that kind.

========================  =======================================================================
here                      in the book's repository
========================  =======================================================================
`functions`               `common/functions.py`
`layers`                  `common/layers.py`
`gradient`                `common/gradient.py`
`optimizer`               `common/optimizer.py`
`trainer`                 `common/trainer.py`
`util`                    `common/util.py`
`multi_layer_net`         `common/multi_layer_net.py`
`multi_layer_net_extend`  `common/multi_layer_net_extend.py`
`mnist`                   `dataset/mnist.py`
`ch03`                    `ch03/neuralnet_mnist.py`: its functions
`ch04`                    `ch04/two_layer_net.py`: the network with sigmoid
`ch05`                    `ch05/two_layer_net.py`: the network of layers
`ch07`                    `ch07/simple_convnet.py`
`ch08`                    `ch08/deep_convnet.py`
========================  =======================================================================

A star import gives what that of the book's module gives, NumPy as `np` among it. Numbers agree to rounding: sums of
products are added in another order. What differs beyond that:

- Results have the dtype that NumPy gives for x and W. The book's convolution and pooling make float64 of anything.
- A wrong shape or type is an error that says what to do, where the book's code ends with one of NumPy's.
- No matrix of windows is built, so a `Convolution` has no `col` and `col_W`.
- A network's `gradient` does not form the gradient by the images, which nobody reads.
"""

__all__ = [
    "ch03",
    "ch04",
    "ch05",
    "ch07",
    "ch08",
    "functions",
    "gradient",
    "layers",
    "mnist",
    "multi_layer_net",
    "multi_layer_net_extend",
    "optimizer",
    "trainer",
    "util",
]
