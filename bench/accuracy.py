"""The accuracies that the book's convolutional networks reach: `python -m bench.accuracy [--seconds N] [--plots DIR]`.

They train as the book's scripts do, by Adam of rate 0.001 in batches of 100, for 20 epochs or until N seconds are over
(default: 120). They train on the training images that are in the folder of MNIST's files alone. The test images decide
nothing: they are only counted after each epoch. The learning curves are saved in DIR (default: plots).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bench import mnist
from bench.table import Table, print_machine
from fastbp import demonstrations
from fastbp.data import Dataset, load_mnist
from fastbp.optimizers import optimizer
from fastbp.training.fit import Progress, StopTraining
from fastbp.training.history import History

NETWORKS = ("simple-conv", "deep-conv")
BATCH = 100


def trained(name: str, data: Dataset, seconds: float, table: Table) -> History:
    """Train a network, print a row for each epoch, and return the rows."""
    how = demonstrations.NETWORKS[name]
    data = demonstrations.as_taken(name, data)
    network = demonstrations.network(name, data, "float32", seed=0)
    method = optimizer(how.optimizer)
    method.lr = how.lr
    curves, start = History(), time.perf_counter()

    def on_epoch(progress: Progress) -> None:
        train, test = (demonstrations.accuracy(network, *each) for each in demonstrations.pairs(data))
        curves.append(epoch=progress.epoch, loss=progress.loss, accuracy=train, val_accuracy=test)
        shown = f"{progress.loss:.4f}", f"{train:.4f}", f"{test:.4f}", f"{progress.history['seconds'][-1]:.2f}"
        table.row(f"{name}, epoch {progress.epoch}", *shown)
        if time.perf_counter() - start > seconds:
            raise StopTraining

    network.fit(
        data.x_train, data.t_train,
        epochs=how.epochs, batch_size=BATCH, optimizer=method, seed=0, on_epoch=on_epoch, verbose=False,
    )  # fmt: skip
    return curves


def main() -> None:
    """Print the table and save the pictures."""
    parser = argparse.ArgumentParser(description="The accuracies that the book's convolutional networks reach.")
    parser.add_argument("--seconds", type=float, default=120, metavar="N", help="for each network")
    parser.add_argument("--plots", type=Path, default=Path("plots"), metavar="DIR", help="folder for learning curves")
    options = parser.parse_args()
    data = load_mnist(mnist.FOLDER, "float32")
    options.plots.mkdir(parents=True, exist_ok=True)
    print_machine(f"float32; {len(data.x_train):,} images to train, {len(data.x_test):,} others to test")
    table = Table(("loss", "train", "test", "seconds"), names=24)
    for name in NETWORKS:
        curves, path = trained(name, data, options.seconds, table), options.plots / f"{name}.png"
        figure = curves.plot()
        figure.axes[-1].set_ylim(min(curves["val_accuracy"]) - 0.01, 1.005)  # the two curves lie close
        figure.suptitle(f"{name}, {len(data.x_train):,} images of MNIST")
        figure.savefig(path)
        print(f"learning curves saved to {path}")


if __name__ == "__main__":
    main()
