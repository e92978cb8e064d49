"""`fastbp run`: scripts of a reader, with the imports of the book, in a clone of its shape."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastbp.cli import main
from fastbp.scripts.comparison import differences
from tests.subprocesses import ROOT

# The first lines of most scripts of the book.
PARENT = "import sys, os\nsys.path.append(os.pardir)\nimport numpy as np\n"


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Makes files of a clone, and has a working directory beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def write(**files):
        for name, text in files.items():
            path = tmp_path / "clone" / (name.replace("__", "/", 1) + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "clone"

    return write


def run(capfd, *arguments):
    status = main(["run", *map(str, arguments)])
    captured = capfd.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("package", [{"common____init__": ""}, {}], ids=["package", "folder"])
def test_the_modules_of_the_book_are_answered_by_fastbp(clone, capfd, package):
    folder = clone(
        **package,
        common__functions="raise AssertionError",
        common__mine="from common.functions import *\ndef half(x): return sigmoid(x) / 2",
        ch05__try=PARENT
        + """
from common.layers import *
from common.mine import half
from common.optimizer import SGD
from common.trainer import Trainer
import common.functions
from two_layer_net import TwoLayerNet
print(half(0), SGD.__module__, Trainer.__module__, TwoLayerNet.__module__, common.functions.__name__)
""",
    )
    status, out, err = run(capfd, folder / "ch05" / "try.py")
    assert (status, err) == (0, "")
    assert out == "0.25 fastbp.ops.updates fastbp.book.trainer fastbp.book.ch05 common.functions\n"


@pytest.mark.parametrize(
    ("chapter", "network"),
    [("ch04", "two_layer_net"), ("ch05", "two_layer_net"), ("ch07", "simple_convnet"), ("ch08", "deep_convnet")],
)
def test_a_chapter_has_its_own_network(clone, capfd, chapter, network):
    name = {"two_layer_net": "TwoLayerNet", "simple_convnet": "SimpleConvNet", "deep_convnet": "DeepConvNet"}[network]
    folder = clone(
        **{
            f"{chapter}__{network}": "raise AssertionError",
            f"{chapter}__try": f"from {network} import {name}\nprint({name}.__module__)",
            f"mine__{network}": f"class {name}: pass",
            "mine__try": f"from {network} import {name}\nprint({name}.__module__)",
        }
    )
    assert run(capfd, folder / chapter / "try.py")[1] == f"fastbp.book.{chapter}\n"
    assert run(capfd, folder / "mine" / "try.py")[1] == f"{network}\n"


def test_numpy_runs_the_books_own_modules(clone, capfd):
    folder = clone(
        common____init__="",
        common__functions="def sigmoid(x): return 'own'",
        ch04__two_layer_net="net = 'own net'",
        ch04__try=PARENT
        + "from common.functions import sigmoid\nfrom two_layer_net import net\nprint(sigmoid(0), net)",
    )
    assert run(capfd, "--numpy", folder / "ch04" / "try.py")[:2] == (0, "own own net\n")


def test_a_script_has_its_folder_its_arguments_and_nothing_is_left(clone, capfd):
    folder = clone(
        ch01__beside="value = 7",
        ch01__try="""
import os, sys
from beside import value
from common.util import np
print(__name__, os.path.basename(os.getcwd()), sys.argv, value, os.path.isabs(__file__))
os.environ["LEFT"] = ""
""",
    )
    before = os.getcwd(), list(sys.path), list(sys.meta_path), sys.argv, sys.modules["__main__"]
    status, out, _ = run(capfd, folder / "ch01" / "try.py", "--epochs", "3")
    os.environ.pop("LEFT")
    assert (status, out) == (0, "__main__ ch01 ['try.py', '--epochs', '3'] 7 True\n")
    assert (os.getcwd(), list(sys.path), list(sys.meta_path), sys.argv, sys.modules["__main__"]) == before
    assert {"beside", "common", "common.util"} & sys.modules.keys() == set()


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit", 0, ""),
        ("import sys; sys.exit('no data')", 1, "no data\n"),
        ("x = [1]\nx[2]", 1, 'try.py", line 2, in <module>'),
        ("open('missing')", 1, "FileNotFoundError"),
        ("x = = 1", 1, "SyntaxError"),
        ("raise KeyboardInterrupt", 130, "fastbp: interrupted\n"),
    ],
)
def test_a_script_ends_as_it_would_on_its_own(clone, capfd, code, status, says):
    got, _, err = run(capfd, clone(ch01__try=code) / "ch01" / "try.py")
    assert got == status
    assert says in err
    assert "fastbp/scripts" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.py"], "SCRIPT: expected a file, got nowhere.py"),
        (["--compare", "nowhere.py"], "SCRIPT: expected a file, got nowhere.py"),
        (["--data", "nowhere", __file__], "--data: expected a folder with the MNIST files, got nowhere"),
        (["--list", "nowhere"], "--list: expected a folder, got nowhere"),
        (["--list", "."], "--list: expected a clone with folders such as ch04"),
        ([], "SCRIPT: expected a script, or --list and a clone"),
        (["--list", ".", "--seed", "0"], "--seed: expected a script to run, got --list, which runs none"),
        (["--list", ".", "--compare"], "--compare: expected a script to run, got --list, which runs none"),
        (["--list", ".", __file__], "SCRIPT: expected a script, or --list and a clone"),
    ],
)
def test_a_mistake_is_one_clear_line(capfd, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capfd, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"fastbp: error: {says}")
    assert err.count("\n") == 1


def test_what_is_shown_goes_to_files(clone, capfd):
    pytest.importorskip("matplotlib")
    folder = clone(
        ch03__try="""
import matplotlib.pylab as plt
import numpy as np
from PIL import Image
plt.plot([1, 2])
plt.figure()
plt.show()
plt.plot([3])
plt.show()
Image.fromarray(np.zeros((2, 2), np.uint8)).show()
"""
    )
    status, _, err = run(capfd, folder / "ch03" / "try.py")
    assert status == 0
    plots = Path.cwd() / "plots"
    files = [plots / f"ch03-try-{number}.png" for number in (1, 2, 3, 4)]
    assert err.splitlines() == [f"fastbp: picture saved to {path}" for path in files]
    assert [path.read_bytes()[:4] for path in sorted(plots.iterdir())] == [b"\x89PNG"] * 4


def test_a_script_that_shows_nothing_makes_no_folder(clone, capfd):
    run(capfd, clone(ch03__try="print(1)") / "ch03" / "try.py")
    assert not (Path.cwd() / "plots").exists()


def test_images_come_from_a_folder(clone, capfd, mnist_folder):
    folder = clone(ch03__try=PARENT + "from dataset.mnist import load_mnist\nprint(load_mnist()[1][0].shape[1])")
    for options in ([], ["--numpy"]):
        assert run(capfd, "--data", mnist_folder, *options, folder / "ch03" / "try.py")[:2] == (0, "784\n")


TRAINING = """
from {where}functions import *
from {where}optimizer import Adam
W = np.random.randn(4, 3)
x, t = np.random.rand(20, 4), np.random.randint(0, 3, 20)
adam = Adam()
for step in range(5):
    y = softmax(np.dot(x, W))
    print("loss:" + str(cross_entropy_error(y, t)))
    adam.update({{"W": W}}, {{"W": np.dot(x.T, y - np.eye(3)[t]) / 20}})
"""

OWN_FUNCTIONS = """
import numpy as np
def softmax(x):
    y = np.exp(x)
    return y / y.sum(axis=1)[:, None]
def cross_entropy_error(y, t):
    return -np.mean(np.log(y[np.arange(len(t)), t] + 1e-7)){extra}
"""

OWN_ADAM = """
import numpy as np
class Adam:
    def __init__(self): self.t, self.m, self.v = 0, 0, 0
    def update(self, params, grads):
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * grads["W"]
        self.v = 0.999 * self.v + 0.001 * grads["W"] ** 2
        rate = 0.001 * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        params["W"] -= rate * self.m / (np.sqrt(self.v) + 1e-7)
"""


@pytest.mark.parametrize("extra", ["", " + (len(calls.append(0) or calls) == 3) * 1e-3\ncalls = []"])
def test_a_comparison_runs_both_and_says_what_differs(clone, capfd, extra):
    folder = clone(
        common____init__="",
        common__functions=OWN_FUNCTIONS.format(extra=extra),
        common__optimizer=OWN_ADAM,
        ch06__try=PARENT + TRAINING.format(where="common."),
    )
    status, out, _ = run(capfd, "--compare", folder / "ch06" / "try.py")
    assert re.match(r"fastbp \d+\.\d\d s, NumPy \d+\.\d\d s: \d+\.\d times as fast\n", out)
    if extra:
        assert status == 1
        assert re.search(r"(line that differs|more than it): 3\n  fastbp  loss:\d", out)
    else:
        assert status == 0
        assert "the same text, 5 lines" in out or "all in the last digit of float32 at most" in out


def test_a_comparison_of_what_fails_is_no_success(clone, capfd):
    folder = clone(
        common____init__="", common__util="", ch01__try=PARENT + "import common.util\nprint(common.util.im2col is None)"
    )
    status, out, err = run(capfd, "--compare", folder / "ch01" / "try.py")
    assert status == 1
    assert "exit status 0 on fastbp, 1 on NumPy" in out
    assert "AttributeError" in err


@pytest.mark.parametrize(
    ("ours", "theirs", "found"),
    [
        (["a 1"], ["a 1"], []),
        (["a 0.1234567890"], ["a 0.1234567891"], [(1, True)]),
        (["a 0.12345"], ["a 0.12346"], [(1, False)]),
        (["a 1e-05, 2.5"], ["a 1.00000001e-05, 2.5"], [(1, True)]),
        (["epoch 1"], ["epoch 2"], [(1, False)]),
        (["x", "a 0.5"], ["x", "b 0.5"], [(2, False)]),
        (["x", "y"], ["x"], [(2, False)]),
        (["nan"], ["inf"], [(1, False)]),
        (["-0.5"], ["0.5"], [(1, False)]),
    ],
)
def test_lines_differ_by_a_last_digit_of_float32_or_more(ours, theirs, found):
    assert [(one.line, one.is_last_digit) for one in differences(ours, theirs)] == found


def test_a_list_says_what_each_script_needs(clone, capfd, mnist_folder):
    folder = clone(
        ch04__two_layer_net="",
        ch04__ready=PARENT + "from dataset.mnist import load_mnist\nfrom two_layer_net import TwoLayerNet",
        ch04__beside="import nobody_has_this.module",
        ch04__lacks="import beside\nwith open('weights.pkl', 'rb') as f: pass\nsave('made.pkl')\n",
    )
    status, out, _ = run(capfd, "--data", mnist_folder, "--list", folder)
    assert status == 1
    assert [line.split(None, 1) for line in out.splitlines()] == [
        ["ch04/beside.py", "missing nobody_has_this  needs nobody_has_this"],
        ["ch04/lacks.py", "missing nobody_has_this, weights.pkl  needs nobody_has_this, weights.pkl"],
        ["ch04/ready.py", "ready     needs numpy; by fastbp: dataset.mnist, two_layer_net"],
    ]


def test_a_list_misses_images_that_are_nowhere(clone, capfd, tmp_path):
    folder = clone(ch03__try="from dataset.mnist import load_mnist")
    status, out, _ = run(capfd, "--data", tmp_path, "--list", folder / "ch03")
    assert status == 1
    assert "missing train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images" in out


def test_ctrl_c_ends_a_script(clone):
    script = clone(ch01__try="print('started', flush=True)\nwhile True: pass") / "ch01" / "try.py"
    heed = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = f"{heed}from fastbp.cli import main\nsys.exit(main(['run', {str(script)!r}]))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "fastbp: interrupted\n")
