"""What the benchmarks must show before a change lands: `python -m bench.gate`.

asv runs every benchmark of the suite once, with the fastbp that is installed, and each must return a figure. Some calls
have a bound for fastbp's time divided by NumPy's, measured in turns in one process. The bounds are two to four times
the usual figures. They hold on any machine, however busy, and a kernel beyond its bound is no longer worth having.
"""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import engine, graph, kernels, layers, suite
from bench.table import Ratio, Table

ROOT = Path(__file__).resolve().parents[1]
TRIES = 3

# The most that fastbp's time on one thread may be, divided by NumPy's.
BOUNDS = {
    "affine_forward, float32": (1.5, lambda: _kernel("affine_forward", "float32")),
    "affine_forward, float64": (1.5, lambda: _kernel("affine_forward", "float64")),
    "relu_forward, float64": (0.5, lambda: _kernel("relu_forward", "float64")),
    "sigmoid_forward, float64": (1.0, lambda: _kernel("sigmoid_forward", "float64")),
    "softmax_cross_entropy_forward, float64": (
        0.4,
        lambda: _kernel("softmax_cross_entropy_forward[labels]", "float64"),
    ),
    "adam_update, float32": (0.4, lambda: _kernel("adam_update", "float32")),
    "Affine, float64": (1.5, lambda: layers.functions(layers.CASES["Affine"], 100, "float64")),
    "SoftmaxWithLoss, float64": (0.6, lambda: layers.functions(layers.CASES["SoftmaxWithLoss"], 100, "float64")),
    "gradient and SGD, float64": (1.2, functools.partial(engine.step, "float64")),
    "fit, batch 100, float32": (0.9, functools.partial(engine.epoch, "784-50-10, batch 100, SGD", "float32")),
    "fit, batch 1, float32": (0.4, functools.partial(engine.epoch, "784-50-10, batch 1, SGD", "float32")),
    "compiled graph, float64": (0.5, functools.partial(graph.functions, graph.SIZE, "float64")),
}


def main() -> int:
    """Print the faults, and return 1 if there are any."""
    faults = [*unmeasured(), *slow()]
    for fault in faults:
        print(f"bench.gate: {fault}", file=sys.stderr)
    return 1 if faults else 0


def unmeasured() -> Iterator[str]:
    """Run every benchmark once, and name those without a figure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "asv.conf.json")
        settings = json.loads((ROOT / "asv.conf.json").read_text(encoding="utf-8"))
        folders = {"repo": str(ROOT), "benchmark_dir": str(ROOT / "bench"), "results_dir": f"{folder}/results"}
        # A checkout of a pull request has no branch main.
        path.write_text(json.dumps(settings | folders | {"branches": ["HEAD"]}), encoding="utf-8")
        if not Path("~/.asv-machine.json").expanduser().exists():
            _asv("machine", "--yes", "--config", str(path))
        status = _asv(
            "run", "--quick", "--python=same", "--set-commit-hash=HEAD", "--show-stderr", "--config", str(path)
        )
        if status != 0:
            yield f"asv run: expected status 0, got {status}; what failed is above"
        yield from _without_figure(path)


def _without_figure(path: Path) -> Iterator[str]:
    # asv imports all files of the suite where only its runner is installed.
    from asv.benchmarks import Benchmarks  # noqa: PLC0415
    from asv.config import Config  # noqa: PLC0415
    from asv.results import iter_results  # noqa: PLC0415

    conf = Config.load(str(path))
    found = list(iter_results(conf.results_dir)) if Path(conf.results_dir).is_dir() else []
    if not found:
        yield "asv run: expected results, got none"
        return
    (result,) = found
    for name, benchmark in Benchmarks.load(conf).items():
        measured = name in result.get_all_result_keys()
        values = result.get_result_value(name, benchmark["params"]) if measured else [None]
        lost = sum(not _is_measured(value) for value in values)
        if lost:
            yield f"{name}: expected a figure for every case, got none for {lost} of {len(values)}"


def slow() -> Iterator[str]:
    """Print fastbp's times divided by NumPy's, and name those that are beyond their bounds at every try."""
    left, table = dict(BOUNDS), Table((), names=40)
    for attempt in range(TRIES):
        with suite.threads(1):
            found = suite.in_turns({(name,): build for name, (_, build) in left.items()}, rounds=7, block=0.01, pause=0)
        for name, (bound, _) in list(left.items()):
            ratio = Ratio(_ratio(found[name,]), "of NumPy's time", at_most=bound)
            table.row(name, notes=[ratio])
            if ratio.is_held:
                del left[name]
            elif attempt == TRIES - 1:
                reason = found[name,] if isinstance(found[name,], Exception) else f"got {ratio.value:.2f}"
                yield f"{name}: expected at most {bound} of NumPy's time, {reason}"
        if not left:
            return


def _kernel(name: str, dtype: str) -> dict[str, Any]:
    return kernels.functions(kernels.CASES[name], dtype)


def _ratio(seconds: Any) -> float:
    return math.inf if isinstance(seconds, Exception) else suite.median_ratio(seconds)


def _is_measured(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _asv(*arguments: str) -> int:
    command = [sys.executable, "-m", "asv", *arguments]
    return subprocess.run(command, env=os.environ | {"FASTBP_BENCH_ROUNDS": "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
