"""What public objects say of themselves: what they are made of, and no address in memory."""

import importlib
import importlib.util
import inspect

import numpy as np
import pytest

import fastbp.book
from bench.cases import LAYERS, Draw
from fastbp import TwoLayerNet, graph, optimizers
from fastbp.book import ch04, ch05, ch07
from fastbp.book import layers as book
from fastbp.book.trainer import Trainer as BooksTrainer
from fastbp.layers import Affine, BatchNormalization, Dropout, Pooling, ReLU
from fastbp.optimizers import SGD, Adam, AdamW, Nesterov
from tests.test_public_names import MODULES, public_names

BOOK = tuple(f"fastbp.book.{name}" for name in fastbp.book.__all__)


def public_classes():
    for name in (*MODULES, *BOOK):
        if name == "fastbp.sklearn" and importlib.util.find_spec("sklearn") is None:
            continue
        module = importlib.import_module(name)
        for public in public_names(module):
            thing = getattr(module, public, None)  # the book's lists also name modules
            if inspect.isclass(thing) and not issubclass(thing, BaseException):
                yield thing


@pytest.mark.parametrize("kind", sorted(set(public_classes()), key=lambda kind: kind.__name__))
def test_every_public_class_has_a_text_of_its_own(kind):
    assert kind.__repr__ is not object.__repr__


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_a_layer_names_its_class(case):
    text = repr(case.layer(Draw("float64", (7, 3, 2))))
    assert text.startswith(f"{case.name}(")
    assert " at 0x" not in text


def test_a_layer_shows_the_shapes_of_its_arrays_and_the_settings_that_are_not_the_defaults():
    assert repr(Affine(np.zeros((784, 50)), np.zeros(50))) == "Affine(W 784×50, b 50)"
    assert repr([ReLU(), Dropout(0.2, seed=3)]) == "[ReLU(), Dropout(dropout_ratio=0.2, seed=3)]"
    assert repr(Dropout(seed=3)) == "Dropout(seed=3)"
    assert repr(Pooling(2, 2, mode="average")) == "Pooling(pool_h=2, pool_w=2, mode='average')"
    normalization = BatchNormalization(np.ones(3), np.zeros(3), momentum=0.5)
    assert repr(normalization) == "BatchNormalization(gamma 3, beta 3, running_mean 3, running_var 3, momentum=0.5)"


def test_a_class_derived_from_a_layer_has_its_own_name():
    class Leaky(ReLU):
        pass

    assert repr(Leaky()) == "Leaky()"


@pytest.mark.parametrize("kind", optimizers.OPTIMIZERS)
def test_an_optimizer_shows_its_rate(kind):
    assert repr(kind(0.25)) == f"{kind.__name__}(lr=0.25)"


def test_an_optimizer_shows_the_settings_that_are_not_the_defaults():
    assert repr(Adam()) == "Adam(lr=0.001)"
    assert repr(AdamW(0.01, beta2=0.99)) == "AdamW(lr=0.01, beta2=0.99)"
    assert repr(AdamW(weight_decay=0.0)) == "AdamW(lr=0.001, weight_decay=0.0)"
    optimizer = Nesterov(1)
    optimizer.momentum = 0.5
    assert repr(optimizer) == "Nesterov(lr=1.0, momentum=0.5)"


def test_an_optimizer_shows_a_changing_rate_in_short():
    def warm(step):
        return 0.1

    class Falling:
        def __call__(self, step):
            return 0.1

    assert repr(SGD(warm)) == "SGD(lr=warm)"
    assert repr(SGD(Falling())) == "SGD(lr=Falling)"
    assert repr(SGD(np.linspace(1, 0, 101))) == "SGD(lr=[1.  , 0.99, ..., 0.01, 0.  ])"


def test_a_graph_shows_what_it_is_made_of():
    x, y = graph.Variable(2.0, "x"), graph.Variable(3.0, "y")
    product = x * y
    assert repr(product.draw(title="A product")) == "Drawing(title='A product', steps=3)"
    assert repr(product.operation) == "Multiply(×)"
    assert repr(graph.exp(x).operation) == "Exp(exp)"
    assert repr(graph.compile(product, [x, y])) == "Compiled(x, y)"
    assert repr(graph.compile(lambda a, b: a * b)) == "Compiled(a, b)"
    assert repr(graph.compile(lambda *a: a[0] * a[1])) == "Compiled(any number of inputs)"


def test_a_trainer_shows_what_it_trains_and_how():
    x, t = np.zeros((1200, 4)), np.zeros(1200, int)
    trainer = fastbp.Trainer(TwoLayerNet(4, 3, 2, seed=0), x, t, x, t, epochs=2, optimizer="Adam", seed=0)
    assert repr(trainer) == "Trainer(TwoLayerNet, 1,200 samples, epochs=2, optimizer=Adam(lr=0.001))"


def test_the_networks_of_the_book_show_the_shapes_of_their_parameters():
    assert repr(ch04.TwoLayerNet(784, 50, 10)) == "TwoLayerNet(W1 784×50, b1 50, W2 50×10, b2 10)"
    assert repr(ch05.TwoLayerNet(4, 3, 2)) == "TwoLayerNet(W1 4×3, b1 3, W2 3×2, b2 2)"
    text = repr(ch07.SimpleConvNet())
    assert text == "SimpleConvNet(W1 30×1×5×5, b1 30, W2 4320×100, b2 100, W3 100×10, b3 10)"


def test_the_layers_and_the_trainer_of_the_book_show_what_they_are_made_of():
    layers = [book.Relu(), book.Dropout(0.25), book.SoftmaxWithLoss()]
    assert repr(layers) == "[Relu(), Dropout(dropout_ratio=0.25), SoftmaxWithLoss()]"
    x, t = np.zeros((20, 4)), np.zeros(20, int)
    trainer = BooksTrainer(ch05.TwoLayerNet(4, 3, 2), x, t, x, t, epochs=3, verbose=False)
    assert repr(trainer) == "Trainer(TwoLayerNet, 20 samples, epochs=3, optimizer=SGD(lr=0.01))"
