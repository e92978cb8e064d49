"""The `fastbp` command: train on digits, check gradients, time it, draw graphs, run scripts, compile, export."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
import timeit
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from fastbp import kernels
from fastbp._version import __version__
from fastbp.commands import training
from fastbp.commands.arguments import command, one_of, refuse_unknown, shape, whole_number
from fastbp.commands.outputs import check_plot, complain
from fastbp.files import check_place
from fastbp.gradcheck import gradient_check
from fastbp.network import TwoLayerNet
from fastbp.ranks import world
from fastbp.training.display import Bar
from fastbp.training.screen import told_of_compiling


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0, 1 for a failed check or training, 2 for a mistake, 130 for Ctrl-C, 141 if nobody reads the output any more.

    Examples
    --------
    >>> main(["graph", "apples", "-o", "apples.svg"])
    Two apples with tax: saved to apples.svg
    0
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parser()
    refuse_unknown(parser, commands, given)
    options = parser.parse_args(given)
    try:
        with told_of_compiling(False if options.run is _compile else None):  # `_compile` has a bar of its own
            status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The rest of the output goes nowhere. Else Python would try to print it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ImportError, OSError, ValueError) as error:
        complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    return status


_EXAMPLES = """\
examples:
  fastbp train --plot curves.png
  fastbp run --compare ch05/train_neuralnet.py
  fastbp train --help                           every option of a command
"""


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser, and the names of the commands."""
    parser = argparse.ArgumentParser(
        prog="fastbp",
        description="Backpropagation in compiled kernels.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastbp {__version__}")
    commands = parser.add_subparsers(required=True, title="commands", metavar="command")

    training.add_parser(commands)

    command(commands, "check", _check, "compare backpropagation with numerical differentiation", "fastbp check")

    comparing = command(
        commands,
        "bench",
        _bench,
        "time training against NumPy and others, in a minute and a half",
        "fastbp bench --plot speed.png",
    )
    comparing.add_argument(
        "--as-users", action="store_true", help="without pauses between the libraries, as in a program that uses them"
    )
    comparing.add_argument("--json", type=Path, metavar="FILE", help="save every figure, and the machine")
    comparing.add_argument("--plot", type=Path, metavar="FILE", help="save a picture, with the machine's limit in it")

    drawing = command(
        commands, "graph", _graph, "draw a computational graph of the chapter", "fastbp graph affine -o affine.html"
    )
    drawing.add_argument("name", metavar="NAME", nargs="?", help="of the figure (default: list them all)")
    drawing.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="a .svg, .png, .html (with a slider through the steps), .dot or .mmd (default: NAME.svg)",
    )

    running = command(
        commands,
        "run",
        _run,
        "run a script of the book, its modules answered by fastbp.book",
        "fastbp run --compare ch05/train_neuralnet.py",
        usage="fastbp run [options] SCRIPT [ARGS ...]\n       fastbp run [--data DIR] --list DIR",
    )
    running.add_argument("--data", type=Path, metavar="DIR", help="folder with the MNIST files (default: download)")
    running.add_argument("--list", type=Path, metavar="DIR", help="say what each script of a clone needs, and run none")
    which = running.add_mutually_exclusive_group()
    which.add_argument("--numpy", action="store_true", help="run it with the book's own modules")
    which.add_argument(
        "--compare", action="store_true", help="run it with both, one after the other: times, and what differs"
    )
    running.add_argument("--plots", type=Path, metavar="DIR", help="folder for what it shows (default: plots)")
    running.add_argument(
        "--seed", type=whole_number(0), metavar="N", help="of np.random (default: none; 0 with --compare)"
    )
    running.add_argument("--seconds", type=Path, help=argparse.SUPPRESS)  # where a comparison finds the time
    running.add_argument("script", type=Path, metavar="SCRIPT", nargs="?", help="in its folder of a clone")
    running.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="of the script")

    compiling = command(
        commands, "compile", _compile, "fill the cache of compiled kernels ahead", "fastbp compile --all"
    )
    compiling.add_argument(
        "--all",
        action="store_true",
        help="every layer, loss and optimizer in float32 and float64, in some minutes; else what affine layers in "
        "float32 need to learn and predict",
    )

    exporting = command(
        commands,
        "export",
        _export,
        "write a saved network as ONNX, C, or Python with NumPy alone",
        "fastbp export lenet.npz --to c --shape 1,28,28 -o lenet.c",
    )
    exporting.add_argument("model", type=Path, metavar="MODEL", help="a file that network.save wrote")
    exporting.add_argument("--to", **one_of(["onnx", "c", "numpy"]), required=True, help="an ONNX model, C99 or Python")
    exporting.add_argument("-o", "--output", type=Path, metavar="PATH", help="(default: MODEL as .onnx, .c or .py)")
    exporting.add_argument("--shape", type=shape, metavar="N,...", help="of one sample, where the layers do not tell")
    exporting.add_argument(
        "--end", **one_of(["softmax", "sigmoid"]), help="what follows the last layer (default: nothing)"
    )

    command(commands, "info", _info, "print what belongs in a bug report", "fastbp info > report.txt")
    return parser, list(commands.choices)


def _bench(options: argparse.Namespace) -> int:
    if options.json:
        check_place("--json", options.json)
    if options.plot:
        check_plot(options.plot)
    from fastbp.benchmark.comparison import Comparison  # noqa: PLC0415 - training starts sooner without it

    comparison = Comparison(options.as_users)
    print(comparison.head(), flush=True)
    is_interrupted = False
    try:
        for row in comparison.run():
            print(comparison.line(row), flush=True)
    except KeyboardInterrupt:
        is_interrupted = True
    for name, reason in comparison.missing.items():
        print(f"{name}: {reason}")
    for warning in comparison.warnings:
        complain(f"warning: {warning}")
    if options.json and comparison.rows:
        options.json.write_text(json.dumps(comparison.as_dict(), indent=1) + "\n", encoding="utf-8")
        print(f"figures saved to {options.json}")
    if options.plot and comparison.rows:
        from fastbp.benchmark import picture  # noqa: PLC0415

        picture.save(comparison, options.plot)
        print(f"picture saved to {options.plot}")
    if is_interrupted:
        complain(f"interrupted after {len(comparison.rows)} rows")
    return 130 if is_interrupted else 0


def _check(_: argparse.Namespace) -> int:
    network, x, t = _network_away_from_kinks()
    count = sum(value.size for value in network.params.values())
    print(f"784-50-10, three images, float64: {count:,} gradients by backpropagation and by numerical differentiation")
    network.gradient(x, t)
    backpropagation = min(timeit.repeat(lambda: network.gradient(x, t), number=1, repeat=20))
    start = time.perf_counter()
    report = gradient_check(network, x, t)
    numerical = time.perf_counter() - start
    print(report)
    print(
        f"backpropagation {backpropagation * 1e6:,.0f} µs, numerical differentiation {numerical:.1f} s: "
        f"{numerical / backpropagation:,.0f} times faster"
    )
    return 0 if report.passed else 1


def _network_away_from_kinks() -> tuple[TwoLayerNet, Any, Any]:
    """The book's network with inputs whose pre-activations are all far enough from ReLU's kink at 0."""
    for seed in range(1000):
        network = TwoLayerNet(784, 50, 10, seed=seed)
        rng = np.random.default_rng(seed)
        x, t = rng.random((3, 784)), rng.integers(0, 10, 3)
        if np.abs(network.layers["Affine1"].forward(x)).min() > 1e-3:
            return network, x, t
    raise RuntimeError("seed: expected one below 1000 to keep away from the kink, got none; report this")


def _graph(options: argparse.Namespace) -> int:
    from fastbp.graph import figures  # noqa: PLC0415 - training starts sooner without it

    if options.name is None:
        if options.output is not None:
            raise ValueError(f"-o: expected a NAME beside it, got {options.output} alone; fastbp graph lists the names")
        for name in figures.names():
            print(f"{name:<26}{figures.figure(name).title}")
        return 0
    figure = figures.figure(options.name)
    path = options.output or Path(f"{options.name}.svg")
    check_place("-o", path)
    figure.draw(path)
    print(f"{figure.title}: saved to {path}")
    return 0


def _run(options: argparse.Namespace) -> int:
    if (options.script is None) == (options.list is None):
        raise ValueError("SCRIPT: expected a script, or --list and a clone, got neither or both; give one of them")
    plots = options.plots or Path("plots")
    if options.list is not None:
        values = {name: getattr(options, name) for name in ("numpy", "compare", "plots", "seed")}
        given = [name for name, value in values.items() if value is not None and value is not False]
        if given:
            raise ValueError(
                f"--{given[0]}: expected a script to run, got --list, which runs none; leave out one of them"
            )
        return _list(options.list, options.data)
    from fastbp.scripts import comparison, pictures, script  # noqa: PLC0415 - training starts sooner without it

    if options.compare:
        script.check_script(options.script)
        script.check_data(options.data)
        more = ["--seed", str(options.seed or 0), *(["--data", str(options.data)] if options.data else [])]
        found = comparison.compare(options.script, options.arguments, more, plots)
        print("\n".join(found.report()))
        return 0 if found.is_equal else 1
    name = f"{options.script.resolve().parent.name}-{options.script.stem}"
    album = pictures.Album(plots.absolute(), name, complain)
    status, seconds = script.run(
        options.script, options.arguments, album, is_numpy=options.numpy, data=options.data, seed=options.seed
    )
    if options.seconds is not None:
        options.seconds.write_text(str(seconds))
    return status


def _list(clone: Path, data: Path | None) -> int:
    from fastbp.scripts.listing import listed  # noqa: PLC0415

    found = listed(clone, data)
    width = max(len(needs.script) for needs in found)
    for needs in found:
        state = f"missing {', '.join(needs.missing)}" if needs.missing else "ready"
        by_fastbp = f"; by fastbp: {', '.join(needs.answered)}" if needs.answered else ""
        print(f"{needs.script:<{width}}  {state:<8}  needs {', '.join(needs.others) or 'nothing'}{by_fastbp}")
    return 1 if any(needs.missing for needs in found) else 0


def _compile(options: argparse.Namespace) -> int:
    from fastbp import precompile  # noqa: PLC0415 - training starts sooner without it

    folder = kernels.cache_folder()
    before, start = len([*folder.iterdir()]), time.perf_counter()
    steps = precompile.EVERYTHING if options.all else precompile.COMMON
    with Bar(len(steps), unit="step", leave=False) as bar:
        bar.reach(0, next=steps[0].name)
        for done in precompile.run(steps):
            bar.reach(done, next=steps[done].name if done < len(steps) else "nothing")
    kernels.check_all_saved()
    sizes = [path.stat().st_size for path in folder.iterdir()]
    print(
        f"{len(sizes) - before} kernels compiled in {time.perf_counter() - start:.1f} s; "
        f"{len(sizes)} in {folder}, {sum(sizes) / 1e6:.1f} MB"
    )
    return 0


def _export(options: argparse.Namespace) -> int:
    from fastbp.export.command import export  # noqa: PLC0415 - training starts sooner without it

    path = export(options.model, options.to, options.output, options.shape, options.end)
    print(f"{options.model}: saved to {path}, {path.stat().st_size:,} bytes")
    return 0


def _info(_: argparse.Namespace) -> int:
    rows = {
        "fastbp": __version__,
        "Python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "numpy": np.__version__,
        "numba": importlib.metadata.version("numba"),
        "llvmlite": importlib.metadata.version("llvmlite"),
        "extras": ", ".join(
            f"{name} {_version(name)}" for name in ("scikit-learn", "matplotlib", "onnx", "tqdm", "pooch")
        ),
        "CPU": f"{llvm.get_host_cpu_name()}, {os.cpu_count()} logical cores",
        "vectors": f"{kernels.REGISTER_BYTES * 8} bits",
        "threads": f"{kernels.get_num_threads()}",
        "MPI": world.found(),
        "kernel cache": kernels.cache_status(),
    }
    for name, value in (rows | _addresses()).items():
        print(f"{name:<13} {value}")
    return 0


def _addresses() -> dict[str, str]:
    """Where the project lives, as its metadata say: the table `project.urls` of pyproject.toml, by label."""
    try:
        entries = importlib.metadata.metadata("fastbp").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {label.lower(): address for label, address in (entry.split(", ", 1) for entry in entries)}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
