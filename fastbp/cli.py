"""The `fastbp` command: train on digits, check gradients, time it, draw graphs, run scripts of the book, compile."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from fastbp import demonstrations, kernels, optimizers
from fastbp._version import __version__
from fastbp.data import Dataset, load_digits, load_mnist
from fastbp.extras import require
from fastbp.gradcheck import gradient_check
from fastbp.network import Sequential, TwoLayerNet
from fastbp.ops.contract import use_reference
from fastbp.ranks import world
from fastbp.training.display import Bar
from fastbp.training.fit import Progress, StopTraining
from fastbp.training.history import History, check_picture


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0, 1 for a failed check or training, 2 for a mistake, 130 for Ctrl-C, 141 if nobody reads the output any more.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The rest of the output goes nowhere. Else Python would try to print it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ImportError, OSError, ValueError) as error:
        _complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    return status


def _complain(message: str) -> None:
    """Print a line of its own to stderr, after all that was printed before."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    print(f"fastbp: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastbp", description="Backpropagation in compiled kernels.")
    parser.add_argument("--version", action="version", version=f"fastbp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    training = commands.add_parser("train", help="train a network on images of digits")
    training.set_defaults(run=_train)
    training.add_argument("--data", choices=["digits", "mnist"], default="digits", help="8×8 or 28×28 images")
    training.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder with the MNIST files (default: download)"
    )
    training.add_argument(
        "--network",
        choices=demonstrations.NETWORKS,
        default="two-layer",
        help="the book's, or LeNet-5 (default: two-layer)",
    )
    training.add_argument(
        "--epochs", type=_whole_number(1), metavar="N", help=f"(default: {demonstrations.defaults('epochs')})"
    )
    training.add_argument("--batch-size", type=_whole_number(1), default=100, metavar="N", help="(default: 100)")
    training.add_argument(
        "--optimizer",
        choices=[kind.__name__.lower() for kind in optimizers.OPTIMIZERS],
        help=f"(default: {demonstrations.defaults('optimizer')})",
    )
    training.add_argument(
        "--lr",
        type=_rate,
        metavar="RATE",
        help=f"(default: {demonstrations.defaults('lr')}; that of a given optimizer)",
    )
    training.add_argument(
        "--dtype", choices=["float32", "float64"], help=f"(default: {demonstrations.defaults('dtype')})"
    )
    training.add_argument(
        "--seed", type=_whole_number(0), default=0, metavar="N", help="of the weights and the order of the images"
    )
    training.add_argument("--impl", choices=["fastbp", "numpy"], default="fastbp", help="compiled or plain NumPy")
    training.add_argument(
        "--compare",
        action="store_true",
        help="train with plain NumPy as well, which takes minutes for images of 28×28 and a convolutional network; "
        "compare times and weights",
    )
    training.add_argument("--plot", type=Path, metavar="FILE", help="save the learning curves as a picture")

    checking = commands.add_parser("check", help="compare backpropagation with numerical differentiation")
    checking.set_defaults(run=_check)

    comparing = commands.add_parser("bench", help="time training against NumPy and others, in a minute and a half")
    comparing.set_defaults(run=_bench)
    comparing.add_argument(
        "--as-users", action="store_true", help="without pauses between the libraries, as in a program that uses them"
    )
    comparing.add_argument("--json", type=Path, metavar="FILE", help="save every figure, and the machine")
    comparing.add_argument("--plot", type=Path, metavar="FILE", help="save a picture, with the machine's limit in it")

    drawing = commands.add_parser("graph", help="draw a computational graph of the chapter")
    drawing.set_defaults(run=_graph)
    drawing.add_argument("name", metavar="NAME", nargs="?", help="of the figure (default: list them all)")
    drawing.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="a .svg, .png, .html (with a slider through the steps), .dot or .mmd (default: NAME.svg)",
    )

    running = commands.add_parser(
        "run",
        help="run a script of the book, its modules answered by fastbp.book",
        usage="fastbp run [options] SCRIPT [ARGS ...]\n       fastbp run [--data DIR] --list DIR",
    )
    running.set_defaults(run=_run)
    running.add_argument("--data", type=Path, metavar="DIR", help="folder with the MNIST files (default: download)")
    running.add_argument("--list", type=Path, metavar="DIR", help="say what each script of a clone needs, and run none")
    which = running.add_mutually_exclusive_group()
    which.add_argument("--numpy", action="store_true", help="run it with the book's own modules")
    which.add_argument(
        "--compare", action="store_true", help="run it with both, one after the other: times, and what differs"
    )
    running.add_argument(
        "--plots", type=Path, default=Path("plots"), metavar="DIR", help="folder for what it shows (default: plots)"
    )
    running.add_argument(
        "--seed", type=_whole_number(0), metavar="N", help="of np.random (default: none; 0 with --compare)"
    )
    running.add_argument("--seconds", type=Path, help=argparse.SUPPRESS)  # where a comparison finds the time
    running.add_argument("script", type=Path, metavar="SCRIPT", nargs="?", help="in its folder of a clone")
    running.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="of the script")

    compiling = commands.add_parser(
        "compile", help="fill the cache of compiled kernels, for an image or a cluster node"
    )
    compiling.set_defaults(run=_compile)
    compiling.add_argument(
        "--all",
        action="store_true",
        help="every layer, loss and optimizer in float32 and float64, in some minutes; else what affine layers in "
        "float32 need to learn and predict",
    )

    describing = commands.add_parser("info", help="print what belongs in a bug report")
    describing.set_defaults(run=_info)
    return parser


def _whole_number(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if text.isascii() and text.isdigit() and int(text) >= least:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected a whole number, at least {least}, got {text!r}")

    return convert


def _rate(text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 < value < np.inf:
            return value
    raise argparse.ArgumentTypeError(f"expected a number greater than 0, got {text!r}")


def _train(options: argparse.Namespace) -> int:
    comm = world.world()
    with world.first_speaks(comm):
        return _train_with(options, comm)


def _train_with(options: argparse.Namespace, comm: Any) -> int:
    """Train together with the other ranks of a communicator, or alone."""
    is_first = comm is None or comm.rank == 0
    if options.plot:
        _check_plot(options.plot)
    _complete(options)
    data = world.in_turn(comm, lambda: _data(options))
    network = _network(options, data)
    print(
        f"{data.name}: {len(data.x_train):,} images to train, {len(data.x_test):,} to test; "
        f"network {_short(options, data)}, {options.dtype}, {options.impl}\n"
        f"{demonstrations.layers(network)}; {options.optimizer}, rate {options.lr:g}"
    )
    if comm is not None:
        print(f"{comm.size} {'rank trains' if comm.size == 1 else 'ranks train together'} over MPI")
    steps = -(-len(data.x_train) // options.batch_size)
    curves, is_interrupted = History(), False
    implementation = use_reference() if options.impl == "numpy" else contextlib.nullcontext()
    with implementation, Bar(steps * options.epochs, is_first, unit="step", leave=False) as bar:

        def on_epoch(progress: Progress) -> None:
            train, test = (demonstrations.accuracy(network, *each) for each in demonstrations.pairs(data))
            curves.append(epoch=progress.epoch, loss=progress.loss, accuracy=train, val_accuracy=test)
            bar.print(
                f"epoch {progress.epoch:>{len(str(options.epochs))}}/{options.epochs}  loss {progress.loss:.4f}  "
                f"train {train:.4f}  test {test:.4f}"
            )
            if not math.isfinite(progress.loss):
                raise StopTraining

        def on_steps(progress: Progress) -> None:
            bar.reach((progress.epoch - 1) * steps + progress.step)

        try:
            _fit(options, data, network, on_epoch=on_epoch, on_steps=on_steps, comm=comm)
        except KeyboardInterrupt:
            is_interrupted = True
    _summarize(network.history, len(data.x_train))
    if options.compare and is_first and not is_interrupted:
        _compare(options, data, network)
    if options.plot and is_first and len(curves):
        figure = curves.plot()
        figure.suptitle(f"{data.name}, {_short(options, data)}")
        figure.savefig(options.plot)
        print(f"learning curves saved to {options.plot}")
    if is_interrupted:
        _complain(f"interrupted after {len(curves)} of {options.epochs} epochs")
        return 130
    loss = curves["loss"][-1]
    if not math.isfinite(loss):
        _complain(
            f"error: --lr: expected a rate at which the loss stays finite, got {options.lr:g} and a loss of {loss} in "
            f"epoch {len(curves)}; choose a smaller one"
        )
        return 1
    return 0


def _complete(options: argparse.Namespace) -> None:
    """Enter the defaults of the network for the options that were not given."""
    trained = demonstrations.NETWORKS[options.network]
    options.epochs, options.dtype = options.epochs or trained.epochs, options.dtype or trained.dtype
    if options.optimizer is None:
        options.optimizer, options.lr = trained.optimizer, options.lr or trained.lr
    options.lr = options.lr or optimizers.optimizer(options.optimizer).current_lr


def _fit(options: argparse.Namespace, data: Dataset, network: Sequential, **more: Any) -> None:
    optimizer = optimizers.optimizer(options.optimizer)
    optimizer.lr = options.lr
    settings = {"epochs": options.epochs, "batch_size": options.batch_size, "optimizer": optimizer}
    settings |= {"seed": options.seed, "on_nan": "ignore", "verbose": False}
    network.fit(data.x_train, data.t_train, **settings, **more)


def _short(options: argparse.Namespace, data: Dataset) -> str:
    """The network in a word."""
    return options.network if data.x_train.ndim > 2 else f"{data.x_train.shape[1]}-50-10"


def _summarize(history: History, images: int) -> None:
    if not len(history):
        return
    seconds = history["seconds"]
    settled = seconds[1:] if len(seconds) > 1 else seconds  # the first epoch finds cold caches
    rate = images * len(settled) / settled.sum()
    print(f"{seconds.sum():.2f} s in training, {rate:,.0f} images/s after the first epoch")


def _compare(options: argparse.Namespace, data: Dataset, network: Sequential) -> None:
    """Train a network on plain NumPy as `network` was trained, and print the times and how far the weights differ."""
    twin = _network(options, data)
    with use_reference():
        _fit(options, data, twin)
    numpy, ours = (float(trained.history["seconds"].sum()) for trained in (twin, network))
    largest = max(float(np.abs(value - twin.params[key]).max()) for key, value in network.params.items())
    print(
        f"NumPy took {numpy:.2f} s in training, {numpy / ours:.1f} times {options.impl}'s {ours:.2f}; "
        f"largest difference of weights {largest:.2g}"
    )


def _data(options: argparse.Namespace) -> Dataset:
    if options.data == "mnist":
        data = load_mnist(options.data_dir, options.dtype)
    elif options.data_dir:
        raise ValueError(
            "--data-dir: expected together with --data mnist, got --data digits; the digits need no folder"
        )
    else:
        data = load_digits(options.dtype)
    return demonstrations.as_taken(options.network, data)


def _network(options: argparse.Namespace, data: Dataset) -> Sequential:
    return demonstrations.network(options.network, data, options.dtype, options.seed)


def _check_plot(path: Path) -> None:
    require("matplotlib").use("Agg")
    check_picture("--plot", path, require("matplotlib.figure").Figure())
    _check_file("--plot", path)


def _check_file(option: str, path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{option}: expected a folder {path.absolute().parent}, got none there; make it first")
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise PermissionError(
            f"{option}: expected a file that can be written, got {path}, which cannot; choose another"
        )


def _bench(options: argparse.Namespace) -> int:
    if options.json:
        _check_file("--json", options.json)
    if options.plot:
        _check_plot(options.plot)
    from fastbp.benchmark.comparison import Comparison  # noqa: PLC0415 - training starts sooner without it

    comparison = Comparison(options.as_users)
    print(comparison.head(), flush=True)
    for row in comparison.run():
        print(comparison.line(row), flush=True)
    for name, reason in comparison.missing.items():
        print(f"{name}: {reason}")
    for warning in comparison.warnings:
        _complain(f"warning: {warning}")
    if options.json:
        options.json.write_text(json.dumps(comparison.as_dict(), indent=1) + "\n", encoding="utf-8")
        print(f"figures saved to {options.json}")
    if options.plot:
        from fastbp.benchmark import picture  # noqa: PLC0415

        picture.save(comparison, options.plot)
        print(f"picture saved to {options.plot}")
    return 0


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
        for name in figures.names():
            print(f"{name:<26}{figures.figure(name).title}")
        return 0
    figure = figures.figure(options.name)
    path = options.output or Path(f"{options.name}.svg")
    figure.draw(path)
    print(f"{figure.title}: saved to {path}")
    return 0


def _run(options: argparse.Namespace) -> int:
    if (options.script is None) == (options.list is None):
        raise ValueError("SCRIPT: expected a script, or --list and a clone, got neither or both; give one of them")
    if options.list is not None:
        return _list(options.list, options.data)
    from fastbp.scripts import comparison, pictures, script  # noqa: PLC0415 - training starts sooner without it

    if options.compare:
        script.check_script(options.script)
        script.check_data(options.data)
        more = ["--seed", str(options.seed or 0), *(["--data", str(options.data)] if options.data else [])]
        found = comparison.compare(options.script, options.arguments, more, options.plots)
        print("\n".join(found.report()))
        return 0 if found.is_equal else 1
    name = f"{options.script.resolve().parent.name}-{options.script.stem}"
    album = pictures.Album(options.plots.absolute(), name, _complain)
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


def _info(_: argparse.Namespace) -> int:
    rows = {
        "fastbp": __version__,
        "Python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "numpy": np.__version__,
        "numba": importlib.metadata.version("numba"),
        "llvmlite": importlib.metadata.version("llvmlite"),
        "extras": ", ".join(f"{name} {_version(name)}" for name in ("scikit-learn", "matplotlib", "tqdm", "pooch")),
        "CPU": f"{llvm.get_host_cpu_name()}, {os.cpu_count()} logical cores",
        "vectors": f"{kernels.REGISTER_BYTES * 8} bits",
        "threads": f"{kernels.get_num_threads()}",
        "MPI": world.found(),
        "kernel cache": kernels.cache_status(),
    }
    for name, value in rows.items():
        print(f"{name:<13} {value}")
    return 0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
