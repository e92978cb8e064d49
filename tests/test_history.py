"""What a training run came to: columns, rows, the table and the learning curves."""

import csv
import json
import math
import pickle

import matplotlib.figure
import numpy as np
import pandas
import pytest

from fastbp import History
from tests.compare import assert_same
from tests.subprocesses import run_python


@pytest.fixture
def history():
    history = History()
    history.append(epoch=1, loss=2.25, accuracy=0.25, val_loss=2.5, val_accuracy=0.125, seconds=0.5)
    history.append(epoch=2, loss=1.5, accuracy=0.5, val_loss=1.25, val_accuracy=0.75, seconds=0.25)
    history.append(epoch=3, loss=0.75, accuracy=0.75, val_loss=1.75, val_accuracy=0.5, seconds=0.25)
    return history


def with_columns(**columns):
    return History.from_dict({"columns": columns, "steps": []})


def test_a_column_is_an_array_of_its_own(history):
    assert_same(history["loss"], np.array([2.25, 1.5, 0.75]))
    assert_same(history["epoch"], np.array([1.0, 2.0, 3.0]))
    history["loss"][:] = 0
    assert history["loss"].tolist() == [2.25, 1.5, 0.75]


def test_rows_are_dicts_of_what_was_appended(history):
    rows = list(history)
    assert len(history) == len(rows) == 3
    assert rows[1] == {
        "epoch": 2, "loss": 1.5, "accuracy": 0.5, "val_loss": 1.25, "val_accuracy": 0.75, "seconds": 0.25
    }  # fmt: skip
    assert type(rows[1]["epoch"]) is int
    assert history.columns == ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")


def test_numbers_of_numpy_become_plain_ones():
    history = History()
    history.append(epoch=np.int64(1), loss=np.float32(0.5))
    assert [type(value) for value in next(iter(history)).values()] == [int, float]


def test_a_new_history_is_empty():
    history = History()
    assert (len(history), list(history), history.columns, str(history)) == (0, [], (), "no epochs")
    assert_same(history.steps, np.empty(0))


def test_a_refused_row_changes_nothing(history):
    before = history.to_dict()
    with pytest.raises(ValueError, match=r"row: expected the columns of the first row, \['epoch', .*got \['loss'\]"):
        history.append(loss=1.0)
    with pytest.raises(TypeError, match="seconds: expected a number, got str"):
        history.append(**(next(iter(history)) | {"seconds": "1"}))
    with pytest.raises(TypeError, match="loss: expected a number, got bool"):
        history.append(**(next(iter(history)) | {"loss": True}))
    assert history.to_dict() == before


def test_a_row_of_nothing_is_refused():
    with pytest.raises(ValueError, match="row: expected at least one column"):
        History().append()


def test_steps_are_recorded_in_order(history):
    history.extend_steps([3.0, 2.0])
    history.extend_steps(np.array([1.5], np.float32))
    assert_same(history.steps, np.array([3.0, 2.0, 1.5]))
    history.steps[:] = 0
    assert history.steps.tolist() == [3.0, 2.0, 1.5]
    with pytest.raises(ValueError, match=r"losses: expected one dimension, got shape \(1, 2\)"):
        history.extend_steps([[1.0, 2.0]])


def test_the_best_row_has_the_lowest_loss_or_the_highest_accuracy(history):
    assert history.best()["epoch"] == 2
    assert history.best("loss")["epoch"] == 3
    assert history.best("val_accuracy")["epoch"] == 2
    assert history.best("accuracy")["epoch"] == 3


def test_the_best_row_is_the_first_of_equals_and_never_nan():
    history = with_columns(epoch=[1, 2, 3, 4], loss=[math.nan, 1.0, 0.5, 0.5], val_loss=[math.nan] * 4)
    assert history.best("loss")["epoch"] == 3
    with pytest.raises(ValueError, match="val_loss: expected a number in some row, got only NaN"):
        history.best()


def test_an_unknown_column_names_those_there_are(history):
    with pytest.raises(KeyError, match=r"'lr': expected one of \['epoch', 'loss'"):
        history["lr"]
    with pytest.raises(KeyError, match=r"'val_loss': expected one of \['loss'\]"):
        with_columns(loss=[1.0]).best()


def test_the_table_is_aligned():
    history = with_columns(
        epoch=[1, 10], loss=[2.30259, 0.0125], seconds=[123.456, 7.0], rate=[1e-7, 0.1], note=[math.nan, 1.0]
    )
    assert str(history).splitlines() == [
        "epoch    loss  seconds       rate    note",
        "    1  2.3026   123.46  1.000e-07     nan",
        "   10  0.0125     7.00  1.000e-01  1.0000",
    ]


def test_large_numbers_keep_no_decimals():
    assert str(with_columns(loss=[123456.7])).splitlines()[1] == "123457"
    assert str(with_columns(loss=[1e9])).splitlines()[1] == "1.000e+09"


def test_the_notebook_shows_a_table_and_escapes_names(history):
    shown = history._repr_html_()
    assert shown.count("<tr>") == 4
    assert "<th>val_accuracy</th>" in shown
    assert "<td>2.2500</td>" in shown
    odd = with_columns(**{"<b>": [1]})
    assert "<th>&lt;b&gt;</th>" in odd._repr_html_()
    assert History()._repr_html_() == "<p>no epochs</p>"


def test_repr_is_one_line(history):
    assert repr(history).startswith("History(3 epochs, columns ['epoch', 'loss'")


def test_a_dict_of_plain_lists_gives_the_history_back(history):
    history.extend_steps([2.0, math.inf])
    content = json.loads(json.dumps(history.to_dict()))
    again = History.from_dict(content)
    assert again.to_dict() == history.to_dict() == content
    assert (list(again), again.steps.tolist()) == (list(history), [2.0, math.inf])
    assert History.from_dict(History().to_dict()).columns == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "content: expected a dict with 'columns' and 'steps', got list"),
        ({"loss": []}, r"content: expected a dict with 'columns' and 'steps', got \['loss'\]"),
        ({"columns": [], "steps": []}, "columns: expected a dict of lists, got list"),
        ({"columns": {"a": [1], "b": []}, "steps": []}, "columns: expected lists of one length, got {'a': 1, 'b': 0}"),
    ],
)
def test_a_dict_of_something_else_is_refused(content, says):
    with pytest.raises(ValueError, match=says):
        History.from_dict(content)


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_learning_curves_are_saved(history, tmp_path, suffix, start):
    path = tmp_path / f"curves.{suffix}"
    history.plot(path)
    assert path.read_bytes().startswith(start)


def test_learning_curves_show_training_and_validation_in_each_picture(history):
    losses, accuracies = history.plot().axes
    assert (losses.get_ylabel(), accuracies.get_ylabel()) == ("loss", "accuracy")
    for axes, kind in ((losses, "loss"), (accuracies, "accuracy")):
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "validation"]
        for line, column in zip(axes.lines, (kind, f"val_{kind}"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), history["epoch"])
            np.testing.assert_array_equal(line.get_ydata(), history[column])


def test_regression_has_one_picture_and_negative_losses_stay_in_it():
    (axes,) = with_columns(loss=[1.0, -2.0]).plot().axes
    assert axes.get_ylim()[0] < -2
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 2])


def test_there_must_be_something_to_draw_and_a_format_to_save(history, tmp_path):
    with pytest.raises(ValueError, match=r"plot: expected a column of loss or accuracy, got \[\]"):
        History().plot()
    with pytest.raises(ValueError, match=r"path: expected a file ending in one of .*png.*, got .*curves.xyz"):
        history.plot(tmp_path / "curves.xyz")
    with pytest.raises(FileNotFoundError, match=r"path: expected a folder .*none, got none there; make it first"):
        history.plot(tmp_path / "none" / "curves.png")


def test_a_notebook_shows_the_learning_curves(history, tmp_path):
    figure = history.plot(tmp_path / "curves.png")
    for shown in (figure, pickle.loads(pickle.dumps(figure))):
        assert shown._repr_png_().startswith(b"\x89PNG")
    assert isinstance(figure, matplotlib.figure.Figure)


def test_a_frame_has_the_columns_and_rows(history):
    frame = history.to_frame()
    assert list(frame.columns) == list(history.columns)
    assert frame.to_dict("records") == list(history)
    assert frame["epoch"].dtype.kind == "i"
    frame.loc[0, "loss"] = 0.0
    assert history["loss"][0] == 2.25
    assert len(History().to_frame()) == 0


def test_a_table_in_a_file_has_every_digit(tmp_path):
    odd = {"a, b": [1e-300, 2.0, 3.0, 4.0]}
    history = with_columns(epoch=[1, 2, 3, 4], loss=[0.1, 1 / 3, math.nan, math.inf], **odd)
    path = tmp_path / "history.csv"
    history.to_csv(path)
    assert path.read_bytes().startswith(b'epoch,loss,"a, b"\r\n1,0.1,1e-300\r\n2,0.3333333333333333,2.0\r\n')
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in history.columns:
        np.testing.assert_array_equal([float(row[name]) for row in rows], history[name])
    history.to_csv(str(path))
    assert list(pandas.read_csv(path).columns) == list(history.columns)
    assert np.isnan(pandas.read_csv(path)["loss"][2])


def test_a_table_needs_rows_and_a_place(history, tmp_path):
    with pytest.raises(ValueError, match="history: expected at least one epoch, got none; train first"):
        History().to_csv(tmp_path / "history.csv")
    with pytest.raises(FileNotFoundError, match=r"path: expected a folder .*none, got none there; make it first"):
        history.to_csv(tmp_path / "none" / "history.csv")
    assert list(tmp_path.iterdir()) == []


def test_plotting_leaves_pyplot_alone():
    code = """
import sys
from fastbp import History
history = History()
history.append(epoch=1, loss=0.5)
history.plot()
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    assert run_python(code) == "True False"


def test_epochs_are_whole_numbers_on_the_axis():
    (axes,) = with_columns(loss=[1.0]).plot().axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1.0]
