"""`fastbp train`: a network trained on images of digits, compared with plain NumPy, drawn."""

from __future__ import annotations

import argparse
import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from fastbp import demonstrations, optimizers
from fastbp.commands.arguments import command, one_of, rate, whole_number
from fastbp.commands.outputs import check_plot, complain
from fastbp.data import Dataset, load_digits, load_mnist
from fastbp.network import Sequential
from fastbp.ops.contract import use_reference
from fastbp.ranks import world
from fastbp.training.display import Bar
from fastbp.training.fit import Progress, StopTraining
from fastbp.training.history import History

IMPLEMENTATIONS = "fastbp", "numpy"

# An accuracy in training below which the network has hardly begun to learn.
LEARNED = 0.5

# Seconds of NumPy that a comparison takes at least.
ENOUGH = 1.0


def add_parser(commands: Any) -> None:
    """Add the subcommand with its options."""
    parser = command(commands, "train", train, "train a network on images of digits", "fastbp train --plot curves.png")
    defaults, names = demonstrations.defaults, [kind.__name__.lower() for kind in optimizers.OPTIMIZERS]
    parser.add_argument("--data", **one_of(["digits", "mnist"]), default="digits", help="8×8 or 28×28 images")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with the MNIST files (default: download)")
    parser.add_argument(
        "--network",
        **one_of(demonstrations.NETWORKS),
        default="two-layer",
        help="the book's, or LeNet-5 (default: two-layer)",
    )
    parser.add_argument("--epochs", type=whole_number(1), metavar="N", help=f"(default: {defaults('epochs')})")
    parser.add_argument("--batch-size", type=whole_number(1), default=100, metavar="N", help="(default: 100)")
    parser.add_argument(
        "--optimizer",
        **one_of(names) | {"metavar": "NAME"},
        help=f"{', '.join(names)} (default: {defaults('optimizer')})",
    )
    parser.add_argument(
        "--lr", type=rate, metavar="RATE", help=f"(default: {defaults('lr')}; that of a given optimizer)"
    )
    parser.add_argument("--dtype", **one_of(["float32", "float64"]), help=f"(default: {defaults('dtype')})")
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="of the weights and the order of the images"
    )
    parser.add_argument("--impl", **one_of(IMPLEMENTATIONS), default="fastbp", help="compiled or plain NumPy")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="train with the other implementation as well, which takes minutes with NumPy for images of 28×28 and a "
        "convolutional network; compare times and weights",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="save the learning curves as a picture")


def train(options: argparse.Namespace) -> int:
    """Train as the options say, alone or with the other ranks of MPI, and return the exit status."""
    comm = world.world()
    with world.first_speaks(comm):
        return _train_with(options, comm)


def _train_with(options: argparse.Namespace, comm: Any) -> int:
    is_first = comm is None or comm.rank == 0
    if options.plot:
        check_plot(options.plot)
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
    with _implementation(options.impl), Bar(steps * options.epochs, is_first, unit="step", leave=False) as bar:

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

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                _fit(options, data, network, on_epoch=on_epoch, on_steps=on_steps, comm=comm)
            except KeyboardInterrupt:
                is_interrupted = True
    _summarize(network.history, len(data.x_train))
    for warning in caught:
        complain(f"warning: {warning.message}")
    if options.plot and is_first and len(curves):
        figure = curves.plot()
        figure.suptitle(f"{data.name}, {_short(options, data)}")
        figure.savefig(options.plot)
        print(f"learning curves saved to {options.plot}", flush=True)
    if options.compare and is_first and not is_interrupted:
        _compare(options, data, network)
    if is_interrupted:
        complain(f"interrupted after {len(curves)} of {options.epochs} epochs")
        return 130
    loss = curves["loss"][-1]
    if not math.isfinite(loss):
        complain(
            f"error: --lr: expected a rate at which the loss stays finite, got {options.lr:g} and a loss of {loss} in "
            f"epoch {len(curves)}; choose a smaller one"
        )
        return 1
    usual = demonstrations.NETWORKS[options.network].epochs
    if options.epochs < usual and curves["accuracy"][-1] < LEARNED:
        print(
            f"{steps * options.epochs} steps are few: the first weights are small, and the accuracy rises late; "
            f"train for {usual} epochs, as without --epochs"
        )
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
    """Train with the other implementation as `network` was trained; print the times and how far the weights differ.

    Where that is over soon, both train again in turns, until the times say something.
    """
    other = next(name for name in IMPLEMENTATIONS if name != options.impl)
    twin, seconds = _trained_again(options, data, other)
    found = {options.impl: [float(network.history["seconds"].sum())], other: [seconds]}
    if found["numpy"][0] < ENOUGH:
        found = {name: [] for name in IMPLEMENTATIONS}
        while sum(found["numpy"]) < ENOUGH:
            for name, times in found.items():
                times.append(_trained_again(options, data, name)[1])
    numpy, ours, count = sum(found["numpy"]), sum(found["fastbp"]), len(found["numpy"])
    largest = max(float(np.abs(value - twin.params[key]).max()) for key, value in network.params.items())
    print(
        f"NumPy took {numpy:.2f} s in training{f' {count} times' if count > 1 else ''}, {numpy / ours:.1f} times "
        f"fastbp's {ours:.2f}; largest difference of weights {largest:.2g}"
    )


def _trained_again(options: argparse.Namespace, data: Dataset, implementation: str) -> tuple[Sequential, float]:
    """A new network, trained, and the seconds in training."""
    network = _network(options, data)
    with _implementation(implementation):
        _fit(options, data, network)
    return network, float(network.history["seconds"].sum())


def _implementation(name: str) -> AbstractContextManager[object]:
    return use_reference() if name == "numpy" else nullcontext()


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
