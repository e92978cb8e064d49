"""What a network says of itself: its layers in a line each, a table, a drawing."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from fastbp import DeepConvNet, LeNet, MultiLayerNetExtend, Sequential, SimpleConvNet, TwoLayerNet
from fastbp.engine.plan import Engine
from fastbp.layers import (
    Affine,
    BatchNormalization,
    Dropout,
    Embedding,
    Flatten,
    LeakyReLU,
    MatMul,
    ReLU,
    Reshape,
    SoftmaxWithLoss,
)
from fastbp.optimizers import SGD

SVG = "{http://www.w3.org/2000/svg}"


class Twice:
    """A layer of one's own, with a parameter."""

    parameter_names = ("W",)

    def __init__(self):
        self.W = np.ones((2, 3))

    def forward(self, x):
        return 2 * x

    def backward(self, dout):
        return 2 * dout


def affine(D, M):
    return Affine(np.zeros((D, M)), np.zeros(M))


def embedded():
    layers = [Embedding(np.zeros((100, 8))), Flatten(), affine(32, 3)]
    return Sequential(layers, SoftmaxWithLoss())


def mixed():
    layers = [affine(64, 30), Dropout(0.2, seed=3), BatchNormalization(np.ones(30), np.zeros(30)), LeakyReLU(0.2)]
    return Sequential([*layers, Reshape((5, 6)), Flatten(), MatMul(np.zeros((30, 3)))], SoftmaxWithLoss(0.1))


def with_ones_own():
    return Sequential([affine(4, 3), Twice(), affine(3, 2)], SoftmaxWithLoss())


NETWORKS = {
    "two layers": (lambda: TwoLayerNet(784, 50, 10, dtype="float32", seed=0), (784,)),
    "small": (lambda: TwoLayerNet(4, 3, 2, seed=0), (4,)),
    "simple": (lambda: SimpleConvNet(seed=0), (1, 28, 28)),
    "deep": (lambda: DeepConvNet(seed=0), (1, 28, 28)),
    "LeNet": (lambda: LeNet(seed=0), (1, 28, 28)),
    "extended": (lambda: MultiLayerNetExtend(20, [10, 10], 3, use_batchnorm=True, seed=0), (20,)),
    "embedded": (embedded, (4,)),
    "mixed": (mixed, (64,)),
}


@pytest.fixture(params=NETWORKS)
def made(request):
    make, sample = NETWORKS[request.param]
    return make(), sample


def test_shapes_and_parameters_are_those_of_the_layers(made):
    network, sample = made
    found = network.summary()
    assert found.sample == sample
    out = np.zeros((2, *sample), int if isinstance(next(iter(network.layers.values())), Embedding) else float)
    for line, (name, layer) in zip(found.lines, network.layers.items(), strict=True):
        out = layer.forward(out)
        assert (line.name, line.kind, line.output) == (name, type(layer).__name__, out.shape[1:])
        assert line.parameters == sum(getattr(layer, key).size for key in getattr(layer, "parameter_names", ()))
    assert found.parameters == sum(value.size for value in network.params.values())


def test_the_memory_of_fit_is_that_of_its_engine(made):
    network, sample = made
    dtype = next(iter(network.params.values())).dtype
    layers = list(network.layers.values())
    engine = Engine(layers, network.last_layer, SGD(), network.params, dtype, sample, 60)
    arrays = (getattr(engine._network, name) for name in ("params", "workspace", "sums", "running"))
    assert network.summary(batch_size=60).memory == sum(array.nbytes for array in arrays)


def test_arithmetic_is_two_for_each_weight_at_each_place():
    flops = {line.name: line.flops for line in LeNet(seed=0).summary().lines if line.flops}
    assert flops == {
        "Conv1": 2 * 6 * 25 * 28 * 28,
        "Conv2": 2 * 16 * 6 * 25 * 10 * 10,
        "Affine1": 2 * 400 * 120,
        "Affine2": 2 * 120 * 84,
        "Affine3": 2 * 84 * 10,
    }
    assert LeNet(seed=0).summary().flops == sum(flops.values())
    assert [line.flops for line in embedded().summary().lines] == [0, 0, 2 * 32 * 3]


def test_layouts_are_those_of_fit():
    layouts = {line.name: line.layout for line in LeNet(seed=0).summary().lines}
    assert (layouts["Conv1"], layouts["Pool2"], layouts["Affine1"]) == ("lanes", "lanes", "rows")
    small = TwoLayerNet(4, 3, 2, seed=0)
    assert {line.layout for line in small.summary(batch_size=100).lines} == {"lanes"}
    assert {line.layout for line in small.summary(batch_size=5).lines} == {"rows"}
    assert {line.name: line.layout for line in mixed().summary().lines}["Flatten1"] == ""


def test_the_layouts_of_a_table_are_explained_below_it():
    rows, lanes = "rows, each sample's numbers side by side", "lanes, the same number of many samples side by side"
    assert repr(LeNet(seed=0).summary()).splitlines()[-1] == f"layout in fit: {rows}; {lanes}"
    small = TwoLayerNet(4, 3, 2, seed=0)
    assert repr(small.summary(batch_size=5)).splitlines()[-1] == f"layout in fit: {rows}"
    assert repr(small.summary(batch_size=100)).splitlines()[-1] == f"layout in fit: {lanes}"
    assert f"layout in fit: {lanes}" in small.summary(batch_size=100)._repr_html_()
    assert "layout in fit" not in repr(with_ones_own().summary())


def test_another_size_of_samples_may_be_given():
    found = LeNet((3, 32, 32), seed=0).summary((3, 32, 32), batch_size=1)
    assert (found.sample, found.lines[0].output) == ((3, 32, 32), (6, 32, 32))
    assert found.lines[0].memory == 8 * (6 * 32 * 32 + 6 * 3 * 25 + 6)
    with pytest.raises(ValueError, match=r"x: expected samples of 4 numbers, .* got 5"):
        TwoLayerNet(4, 3, 2).summary((5,))
    with pytest.raises(TypeError, match="sample_shape: expected a tuple of sizes, got int"):
        TwoLayerNet(4, 3, 2).summary(4)
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        TwoLayerNet(4, 3, 2).summary(batch_size=0)


def test_a_layer_of_ones_own_has_no_shape_and_hides_none_before_it():
    found = with_ones_own().summary()
    assert [line.output for line in found.lines] == [(3,), None, None]
    assert [line.parameters for line in found.lines] == [15, 6, 8]
    assert (found.flops, found.memory) == (None, None)
    assert re.search(r"^Twice1 +\? +6 +\? +\?$", repr(found), re.MULTILINE)


def test_the_table_is_text_and_html(made):
    network, _ = made
    found = network.summary()
    text, html = repr(found), found._repr_html_()
    table = text.splitlines()[1 : len(found.lines) + 5]
    assert len({len(line) for line in table}) == 1
    root = ET.fromstring(f"<div>{html.replace('<br>', '<br/>')}</div>")
    cells = [[cell.text or "" for cell in row] for row in root.iter("tr")]
    assert [len(row) for row in cells] == [6] * (len(found.lines) + 2)
    for line, row in zip([table[0], *table[2:-2], table[-1]], cells, strict=True):
        assert line.split() == " ".join(row).split()


def test_names_are_escaped():
    network = Sequential({"<b>": affine(2, 3)}, SoftmaxWithLoss())
    assert "&lt;b&gt;" in network.summary()._repr_html_()
    assert "&lt;b&gt;" in network._repr_svg_()


def test_a_summary_changes_nothing():
    network = TwoLayerNet(4, 3, 2, seed=0)
    network.gradient(np.ones((5, 4)), np.zeros(5, int))
    before = {name: dict(vars(layer)) for name, layer in network.layers.items()}
    network.summary()
    repr(network)
    network._repr_svg_()
    for name, layer in network.layers.items():
        assert vars(layer).keys() == before[name].keys()
        assert all(vars(layer)[key] is value for key, value in before[name].items())


def test_repr_lists_the_layers():
    assert repr(TwoLayerNet(784, 50, 10)).splitlines() == [
        "TwoLayerNet(",
        "  Affine1: Affine(W 784×50, b 50)",
        "  Relu1: ReLU()",
        "  Affine2: Affine(W 50×10, b 10)",
        "  loss: SoftmaxWithLoss()",
        ")",
    ]
    lines = repr(mixed()).splitlines()
    assert lines[2] == "  Dropout1: Dropout(dropout_ratio=0.2, seed=3)"
    assert lines[4:6] == ["  LeakyReLU1: LeakyReLU(alpha=0.2)", "  Reshape1: Reshape(shape=(5, 6))"]
    assert lines[-2] == "  loss: SoftmaxWithLoss(label_smoothing=0.1)"
    assert repr(with_ones_own()).splitlines()[2] == "  Twice1: Twice(W 2×3)"
    assert repr(Sequential([ReLU()], Twice())).splitlines()[-2] == "  loss: Twice(W 2×3)"


def test_a_notebook_shows_the_layers_and_the_shapes_between_them(made):
    network, sample = made
    root = ET.fromstring(network._repr_svg_())
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    for name in network.layers:
        assert name in texts
    assert "×".join(map(str, sample)) in texts
    assert texts[-1] == type(network.last_layer).__name__
    width, height = float(root.get("width")), float(root.get("height"))
    boxes = [
        [float(box.get(key)) for key in ("x", "y", "width", "height")]
        for box in root.iter(f"{SVG}rect")
        if box.get("x")
    ]
    assert len(boxes) == len(network.layers) + 1
    assert width <= 800
    for number, (x, y, w, h) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        for left, top, wide, high in boxes[:number]:
            assert x >= left + wide or left >= x + w or y >= top + high or top >= y + h


def test_a_drawing_needs_no_known_layers():
    texts = [element.text for element in ET.fromstring(with_ones_own()._repr_svg_()).iter(f"{SVG}text")]
    assert [text for text in texts if text] == ["4", "Affine1", "4×3", "3", "Twice1", "2×3", "Affine2", "3×2"] + [
        "SoftmaxWithLoss"
    ]
