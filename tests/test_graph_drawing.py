"""Drawings: everything that a graph holds is in them, in its place, and nothing lies on anything else."""

import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from fastbp import graph, pictures
from fastbp.cli import main
from fastbp.graph import Variable, figures
from fastbp.graph.layout import crossings
from fastbp.graph.structure import behind
from tests.subprocesses import run_python

SVG = "{http://www.w3.org/2000/svg}"


def texts(drawing):
    return [element.text for element in ET.fromstring(drawing.svg).iter(f"{SVG}text") if element.text]


def apples():
    return Variable(100, "apple") * Variable(2, "number") * Variable(1.1, "tax")


def chain(count):
    y = Variable(1.0, "x")
    for _ in range(count):
        y = y + 1
    return y


def tangle(count, rng):
    """`count` operations on operands drawn from everything before them."""
    pool = [Variable(float(i), f"x{i}") for i in range(1, 5)]
    for _ in range(count - 1):
        i, j = rng.integers(0, len(pool), 2)
        pool.append(pool[i] * pool[j] if rng.random() < 0.5 else graph.tanh(pool[i] + 0 * pool[j].value))
    used = {id(operand) for variable in pool for operand in variable.operands}
    ends = [variable for variable in pool if variable.operation is not None and id(variable) not in used]
    return sum(ends[1:], ends[0])


def boxes(drawing):
    diagram = drawing._diagram
    items = [node.item for node in diagram.nodes] + [flow.edge.items[0] for flow in diagram.flows]
    return [(i.x - i.width / 2, i.y - i.height / 2, i.x + i.width / 2, i.y + i.height / 2) for i in items]


@pytest.mark.parametrize("make", [lambda rng: chain(1), lambda rng: chain(2), lambda rng: chain(60)]
                         + [lambda rng, n=n: tangle(n, rng) for n in (2, 7, 20, 60)])  # fmt: skip
def test_nothing_lies_on_anything_else(make, rng):
    drawing = make(rng).draw()
    for (left, top, right, bottom), (l2, t2, r2, b2) in itertools.combinations(boxes(drawing), 2):
        assert left >= r2 - 1e-6 or l2 >= right - 1e-6 or top >= b2 - 1e-6 or t2 >= bottom - 1e-6
    for left, top, right, bottom in boxes(drawing):
        assert left >= 0
        assert top >= 0
        assert right <= drawing.picture.width
        assert bottom <= drawing.picture.height


def test_values_flow_from_left_to_right(rng):
    for flow in tangle(30, rng).draw()._diagram.flows:
        across = [flow.edge.items[0].before[0].x, *(item.x for item in flow.edge.items), flow.edge.items[-1].after[0].x]
        assert across == sorted(set(across))


@pytest.mark.parametrize("name", figures.names())
def test_the_chapters_figures_have_no_crossing(name):
    diagram = figures.figure(name).draw()._diagram
    assert crossings([node.item for node in diagram.nodes], [flow.edge for flow in diagram.flows]) == 0


def test_a_tree_has_no_crossing(rng):
    values = [Variable(float(i), f"x{i}") for i in range(32)]
    while len(values) > 1:
        i = int(rng.integers(0, len(values) - 1))
        values[i : i + 2] = [values[i] * values[i + 1]]
    diagram = values[0].draw()._diagram
    assert crossings([node.item for node in diagram.nodes], [flow.edge for flow in diagram.flows]) == 0


def test_an_svg_holds_every_name_operation_value_and_gradient():
    assert sorted(texts(apples().draw())) == sorted(
        ["apple", "number", "tax", "×", "×", "100", "2", "200", "1.1", "220", "2.2", "110", "1.1", "200", "1"]
    )


def test_a_value_used_twice_branches_and_shows_both_parts():
    x = Variable(3.0, "x")
    found = texts((x * x * 5).draw())
    assert found.count("15") == 2  # on each branch
    assert found.count("30") == 1  # their sum


def test_backwards_numbers_are_those_of_the_last_backward():
    y = apples()
    y.backward(10)
    assert "2000" in texts(y.draw())
    z = apples()
    z.draw()
    assert z.grad is None


def test_forward_only_formulas_and_given_texts():
    y = apples()
    y.name = "L"
    forward = texts(y.draw(gradients=None))
    assert "2.2" not in forward
    formulas = texts(y.draw(gradients="formulas"))
    for text in ("∂L/∂apple", "∂L/∂number", "∂L/∂tax", "∂L/∂L", "∂L/∂h1", "h1 = 200", "L = 220"):
        assert text in formulas
    x = Variable(3.0, "x")
    assert "∂L/∂h1·∂h1/∂x" in texts((x * x * 5).draw(gradients="formulas"))
    given = texts(y.draw(gradients={y: "seed"}))
    assert "seed" in given
    assert "2.2" not in given


def test_shapes_in_the_place_of_values():
    x, W = Variable(np.ones((5, 2)), "X"), Variable(np.ones((2, 3)), "W")
    found = texts((x @ W).draw(shapes=True))
    assert found.count("(5, 2)") == found.count("(2, 3)") == found.count("(5, 3)") == 2
    assert "∂L/∂W (2, 3)" in texts((x @ W).draw(shapes=True, gradients="formulas"))


def test_a_step_shows_what_has_happened_by_then():
    y = apples()
    drawing = y.draw()
    assert drawing.steps == 5
    values = [{"100", "2", "1.1"}, {"200"}, {"220"}, {"1"}, {"1.1", "200"}, {"2.2", "110"}]
    labels = {"apple", "number", "tax", "×"}
    shown = []
    for step, new in enumerate(values):
        previous, shown = shown, texts(y.draw(step=step))
        assert set(shown) == labels | set().union(*values[: step + 1])
        assert len(shown) - len(previous) == len(new) + (4 + 1 if step == 0 else 0)
    assert sorted(shown) == sorted(texts(drawing))


def test_numbers_are_drawn_in_the_operation():
    x = Variable(3.0, "x")
    assert "×2" in texts((x * 2).draw())
    assert "×(−2)" in texts((x * -2).draw())
    assert "1−" in texts((1 - x).draw())
    assert "**2" in texts((x**2).draw())
    assert "max(·, 0)" in texts(graph.maximum(x, 0).draw())
    assert "[0:2]" in texts((Variable([1.0, 2, 3])[0:2]).draw())


def places(drawing, text):
    return [
        (float(element.get("x")), float(element.get("y")))
        for element in ET.fromstring(drawing.svg).iter(f"{SVG}text")
        if element.text == text
    ]


@pytest.mark.parametrize(
    ("operation", "marks"),
    [
        (lambda x, y: x - y, "+−"),
        (lambda x, y: x / y, "×÷"),
        (lambda x, y: x**y, "12"),
        (lambda x, y: graph.concatenate([x, y]), "12"),
    ],
)
def test_marks_say_which_operand_is_which(operation, marks):
    x, y = Variable([2.0], "left"), Variable([3.0], "right")
    for first, second in ((x, y), (y, x), (x, x)):
        drawing = operation(first, second).draw()
        flows = [flow for flow in drawing._diagram.flows if flow.mark]
        assert "".join(flow.mark for flow in flows) == marks
        (node,) = {flow.edge.target for flow in flows}
        item = drawing._diagram.nodes[node].item
        heights = {}
        for flow in flows:
            inside = [
                (a, b) for a, b in places(drawing, flow.mark) if abs(a - item.x) < item.width / 2 and a < item.x - 5
            ]
            ((_, heights[flow.mark]),) = [place for place in inside if abs(place[1] - item.y) < item.height / 2]
        above = sorted(flows, key=lambda flow: flow.edge.items[-1].y)
        assert heights[above[0].mark] < heights[above[1].mark]
    assert f'headlabel="{marks[1]}"' in drawing.dot
    assert f"{marks[1]}<br/>" in drawing.mermaid
    for one in (operation(x, [1.0]),):
        assert {flow.mark for flow in one.draw()._diagram.flows} == {*marks, ""}
    assert not [flow.mark for flow in (x - 1.0).draw()._diagram.flows if flow.mark]


def test_a_title_stands_above_the_drawing():
    plain, titled = apples().draw(), apples().draw(title="Apples & <tax>")
    ((_, y),) = places(titled, "Apples & <tax>")
    assert all(y < top for _, top in places(titled, "apple"))
    assert titled.picture.height > plain.picture.height
    assert "Apples &amp; &lt;tax&gt;" in titled.html
    assert 'label="Apples & <tax>" labelloc=t' in titled.dot
    assert titled.mermaid.startswith('---\ntitle: "Apples & <tax>"\n---\nflowchart LR')
    wide = apples().draw(title="apples " * 40)
    assert wide.picture.width > 2 * plain.picture.width
    assert figures.figure("fruit").title in texts(figures.figure("fruit").draw())


def test_a_vector_may_be_drawn_apart():
    a, t = Variable([1.0, 2.0, 3.0], "a"), Variable([0.0, 1.0, 0.0], "t")
    y = graph.softmax(a)
    y.name = "y"
    L = graph.cross_entropy(y, t)
    drawing = L.draw(gradients={a: ["da1", "da2", "da3"], y: ["dy1", "dy2", "dy3"], t: ["", "", ""]})
    found = texts(drawing)
    for text in ("a1", "a2", "a3", "t1", "t2", "t3", "da1", "da2", "da3", "dy1", "dy2", "dy3", "y1 = 0.090031"):
        assert found.count(text) == 1
    arrows = [(flow.edge.source, flow.edge.target) for flow in drawing._diagram.flows]
    assert max(arrows.count(arrow) for arrow in arrows) == 3
    assert len(arrows) == 10
    with pytest.raises(ValueError, match=r"gradients: expected .* got 2 texts for variable 'a' of shape \(3,\)"):
        L.draw(gradients={a: ["da1", "da2"]})


def test_a_value_may_stand_again_where_lines_would_cross():
    x = Variable(2.0, "x")
    e = x.exp()
    e.name = "e"
    y = e / (e + 1)
    drawing = y.draw(again=[(e, y)])
    found = texts(drawing)
    assert (found.count("e"), found.count("e = 7.3891")) == (1, 2)
    assert texts(y.draw()).count("e") == 0
    e_nodes = [number for number, node in enumerate(drawing._diagram.nodes) if node.text == "e"]
    assert [flow.backward for flow in drawing._diagram.flows if flow.edge.source in e_nodes] == ["0.1192"]
    for wrong in ([(x, y)], [(y, y)], [(e + 1, y)]):
        with pytest.raises(
            ValueError, match="again: expected pairs of a variable with a name and one that is computed"
        ):
            y.draw(again=wrong)
    with pytest.raises(ValueError, match="again: expected"):
        (-x.exp()).draw(again=[(Variable(1.0, "other"), x)])


JAPANESE, CHINESE = "りんごの値段", "苹果价格"


@pytest.mark.parametrize("name", [JAPANESE, CHINESE, "사과"])
def test_wide_characters_are_measured_as_squares(name):
    assert pictures.text_width(name) == pictures.FONT_SIZE * len(name)
    assert pictures.text_width("か" + chr(0x3099)) == pictures.FONT_SIZE  # a mark on the character before
    drawing = (Variable(1.0, name) * Variable(2.0, "x")).draw()
    node = next(node for node in drawing._diagram.nodes if node.text == name)
    assert node.item.width > pictures.FONT_SIZE * len(name)


@pytest.fixture
def fonts(monkeypatch):
    """Matplotlib's fonts without any that has Chinese or Japanese characters."""
    manager = pytest.importorskip("matplotlib.font_manager")
    known = [font for font in manager.fontManager.ttflist if "DejaVu" in font.name or "Last Resort" in font.name]
    monkeypatch.setattr(manager.fontManager, "ttflist", known)
    monkeypatch.setattr(pictures, "_without_font", set())
    return manager.fontManager


def test_a_png_warns_once_of_characters_that_no_font_has(fonts, tmp_path):
    y = Variable(1.0, CHINESE) * 2
    says = f"picture: expected a font with {''.join(sorted(CHINESE))!r}, got none .* install one such as Noto Sans CJK"
    with pytest.warns(UserWarning, match=says):
        y.draw(tmp_path / "a.png")
    y.draw(tmp_path / "a.png")  # a warning would be an error
    y.draw(tmp_path / "a.svg")


def test_a_png_takes_another_font_for_what_the_first_one_lacks(fonts, tmp_path, recwarn):
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pen = __import__("fontTools.pens.ttGlyphPen", fromlist=["TTGlyphPen"]).TTGlyphPen(None)
    for place, point in enumerate([(0, 0), (0, 800), (1000, 800), (1000, 0)]):
        (pen.lineTo if place else pen.moveTo)(point)
    pen.closePath()
    glyphs = {".notdef": pen.glyph(), **{f"c{ord(c)}": pen.glyph() for c in JAPANESE}}
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap({ord(c): f"c{ord(c)}" for c in JAPANESE})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Square Gothic", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "square.ttf")
    y = Variable(1.0, JAPANESE) * 2
    with pytest.warns(UserWarning, match="picture: expected a font"):
        y.draw(tmp_path / "without.png")
    fonts.addfont(tmp_path / "square.ttf")
    y.draw(tmp_path / "with.png")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()
    assert not recwarn


def test_names_are_escaped():
    y = Variable(1.0, '<x> & "y"') * 2
    assert '<x> & "y"' in texts(y.draw())
    assert "#quot;y#quot;" in y.draw().mermaid
    assert r"\"y\"" in y.draw().dot


def test_every_format_is_saved(tmp_path):
    y = apples()
    for suffix in ("svg", "png", "html", "dot", "mmd"):
        y.draw(tmp_path / f"apples.{suffix}")
    assert (tmp_path / "apples.png").read_bytes().startswith(b"\x89PNG")
    ET.fromstring((tmp_path / "apples.svg").read_text())
    html = (tmp_path / "apples.html").read_text()
    assert 'type="range" min="0" max="5"' in html
    assert html.count("data-step") > 20
    dot = (tmp_path / "apples.dot").read_text()
    assert dot.startswith("digraph {")
    assert 'label="100\\n2.2"' in dot
    mermaid = (tmp_path / "apples.mmd").read_text()
    assert mermaid.startswith("flowchart LR")
    assert '-->|"100<br/>2.2"|' in mermaid


def test_a_notebook_shows_the_graph():
    y = apples()
    y.backward()
    assert y._repr_svg_() == y.draw()._repr_svg_() == y.draw().svg
    assert Variable(1.0)._repr_svg_() is None
    assert chain(300)._repr_svg_() is None


def test_a_notebook_shows_no_gradients_before_backward():
    y = Variable(100, "apple") * Variable(2, "number")
    assert y._repr_svg_() == y.draw(gradients=None).svg != y.draw().svg
    y.backward()
    assert y._repr_svg_() == y.draw().svg


def test_wrong_use_is_refused(tmp_path):
    y = apples()
    for wrong, kind, says in (
        (lambda: y.draw(tmp_path / "a.gif"), ValueError, "path: expected a file ending in .svg"),
        (
            lambda: y.draw(tmp_path / "none" / "a.svg"),
            FileNotFoundError,
            "path: expected a folder .*none, got none there",
        ),
        (lambda: y.draw(gradients="letters"), ValueError, "gradients: expected"),
        (lambda: y.draw(step=6), ValueError, "step: expected 0 to 5, got 6"),
        (lambda: y.draw(step=1.5), TypeError, "step: expected a whole number"),
        (lambda: chain(2001).draw(), ValueError, "y: expected a graph of at most 2,000 operations, got 2,001"),
        (lambda: graph.draw(3), TypeError, "y: expected a Variable"),
        (lambda: Variable(1.0).draw(), RuntimeError, "no graph behind it"),
    ):
        with pytest.raises(kind, match=says):
            wrong()


def test_png_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib$"):
        apples().draw(tmp_path / "apples.png")


# The chapter's numbers: result, then the gradients of the named variables.
NUMBERS = {
    "apples": (220, {"apple": 2.2}),
    "apples-variables": (220, {"apple": 2.2, "number": 110, "tax": 200}),
    "plus": (15, {"x": 1.3, "y": 1.3}),
    "times": (50, {"x": 6.5, "y": 13}),
    "plus-formulas": (15, {"x": 1, "y": 1}),
    "times-formulas": (50, {"x": 5, "y": 10}),
    "apples-gradients": (220, {"apple": 2.2, "number": 110, "tax": 200}),
    "fruit": (715, {"apple": 2.2, "apples": 110, "orange": 3.3, "oranges": 165, "tax": 650}),
    "chain-rule": (9, {"x": 6, "y": 6}),
    "square": (9, {"x": 6, "y": 6}),
    "sigmoid": (1 / (1 + np.exp(-1)), {"x": np.exp(-1) / (1 + np.exp(-1)) ** 2}),
    "sigmoid-node": (1 / (1 + np.exp(-1)), {"x": np.exp(-1) / (1 + np.exp(-1)) ** 2}),
    "affine": ([0.7, 1.1, 1.5], {"X": [0.3, 1.2], "W": [[1, 1, 1], [2, 2, 2]], "B": [1, 1, 1]}),
    "affine-batch": (None, {"X": [[0.3, 1.2]] * 5, "W": [[25] * 3, [30] * 3], "B": [5, 5, 5]}),
    "softmax-with-loss": (-np.log(0.2), {"a": [0.3, -0.8, 0.5]}),
    "softmax-with-loss-opened": (-np.log(0.2), {"a1": 0.3, "a2": -0.8, "a3": 0.5}),
    "derivation": (-np.log(0.2), {"a1": 0.3, "a2": -0.8, "a3": 0.5}),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_figure_has_the_chapters_numbers(name):
    value, gradients = NUMBERS[name]
    y = figures.figure(name).y
    y.backward(1 if y.grad is None else y.grad)
    if value is not None:
        np.testing.assert_allclose(y.value, value, rtol=1e-14)
    found = {v.name: v.grad for v in behind(y)[1] if v.operation is None}
    for variable, gradient in gradients.items():
        np.testing.assert_allclose(found[variable], gradient, rtol=1e-12)


def test_every_figure_is_tested_and_drawn():
    assert [name for name in figures.names() if not re.fullmatch(r"derivation-\d", name)] == list(NUMBERS)
    for name in figures.names():
        ET.fromstring(figures.figure(name).draw().svg)


def test_figures_show_the_chapters_formulas():
    assert "∂L/∂y·y(1−y)" in texts(figures.figure("sigmoid-node").draw())
    assert any(text.endswith("= ∂L/∂y·y(1−y)") for text in texts(figures.figure("sigmoid").draw()))
    for name in ("derivation", "softmax-with-loss"):
        found = texts(figures.figure(name).draw())
        assert {f"y{i} − t{i}" for i in (1, 2, 3)} <= set(found)
        assert {f"a{i}" for i in (1, 2, 3)} <= set(found)
    assert "∂L/∂z" in texts(figures.figure("plus-formulas").draw())
    assert {"∂L/∂z", "∂L/∂z·x", "∂L/∂z·y"} <= set(texts(figures.figure("times-formulas").draw()))
    assert {"×2", "×1.1"} <= set(texts(figures.figure("apples").draw()))


def test_the_derivation_goes_step_by_step():
    shown = [set(texts(figures.figure(f"derivation-{number}").draw())) for number in range(1, 6)]
    for number, text in enumerate(["y1 = 0.3", "L = 1.6094", "−t1/y1", "1/S", "y1 − t1"]):
        assert [text in stage for stage in shown] == [False] * number + [True] * (5 - number)


def test_the_command_lists_and_saves_figures(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["graph"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == figures.names()
    assert main(["graph", "fruit"]) == 0
    assert "715" in (tmp_path / "fruit.svg").read_text()
    assert main(["graph", "sigmoid", "-o", "s.html"]) == 0
    assert (tmp_path / "s.html").read_text().startswith("<!DOCTYPE html>")
    assert main(["graph", "pears"]) == 2
    assert "figure: expected one of apples," in capsys.readouterr().err
    assert main(["graph", "fruit", "-o", "a.gif"]) == 2
    assert "expected a file ending in .svg" in capsys.readouterr().err
    assert main(["graph", "-o", "a.svg"]) == 2
    assert "-o: expected a NAME beside it, got a.svg alone" in capsys.readouterr().err


def test_graph_is_imported_when_it_is_asked_for_and_needs_no_extra():
    code = """
import sys, fastbp
assert "fastbp.graph" not in sys.modules
assert fastbp.graph.Variable(1).value == 1
print(sorted({"matplotlib", "networkx", "jax"} & set(sys.modules)))
"""
    assert run_python(code) == "[]"


def test_the_picture_in_the_readme_is_what_the_library_draws():
    readme_picture = figures.__file__.replace("figures.py", "apples.svg")
    with open(readme_picture, encoding="utf-8") as file:
        assert file.read() == figures.figure("apples-gradients").draw().svg
