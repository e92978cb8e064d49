"""What the files of the suite share: fastbp and NumPy timed in turns, before asv asks for one figure after another.

asv alone would time fastbp and NumPy in two processes, some time apart, and call by call with a clock reading and a
`setup` between. So each file has a `setup_cache`, which asv runs once for a commit in a process of its own: it builds
every case, calls it once, which compiles and touches every page, and then times all of them, round by round. The
benchmarks only hand out what it found, as samples, from which asv has the statistics that it makes of its own timings.
"""

import contextlib
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np

import fastbp

from .tree import measure

IMPLEMENTATIONS = ("fastbp", "numpy")
PROCESSES = 3
PAGE, LINE = 4096, 64  # bytes

# The suite is imported by its folder alone: beside that lies a fastbp, which need not be the one to measure.
MEASURED = """
import importlib.util, pickle, sys
from pathlib import Path
root = {root!r}
spec = importlib.util.spec_from_file_location("bench", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["bench"] = importlib.util.module_from_spec(spec)
file = importlib.import_module("bench.{file}")
Path({path!r}).write_bytes(pickle.dumps(file.measured()))
"""


def missing_from(module, name):
    """The benchmark is not available, rather than failed, for a commit whose `module` has no `name`."""
    if not hasattr(module, name):
        raise NotImplementedError(f"{module.__name__} has no {name}")


@contextlib.contextmanager
def threads(n):
    """fastbp and every BLAS on `n` threads."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - in asv's environments, not in every user's

    with fastbp.num_threads(n), threadpool_limits(n, user_api="blas"):
        yield


def in_turns(cases, rounds=11, **settings):
    """Seconds of a call by case and implementation, one figure for each round; `FASTBP_BENCH_ROUNDS` says how many.

    `cases` has functions that return the function to time of each implementation. In the place of a case that could
    not be built or called stands the reason.
    """
    rounds = int(os.environ.get("FASTBP_BENCH_ROUNDS", rounds))
    functions, found = {}, {}
    for case, build in cases.items():
        try:
            for implementation, function in build().items():
                function()
                functions[case, implementation] = function
        except NotImplementedError as error:
            found[case] = error
        except Exception:  # whatever is wrong with one case, asv shows it there, and the others are timed
            found[case] = RuntimeError(traceback.format_exc())
    timed = {key: function for key, function in functions.items() if key[0] not in found}
    for (case, implementation), seconds in measure.samples(timed, rounds=rounds, **settings).items():
        found.setdefault(case, {})[implementation] = seconds
    return found


def on_one_thread(cases):
    """`in_turns` for functions that take microseconds, which need no pause for other threads."""
    with threads(1):
        return in_turns(cases, rounds=4, block=0.004, settling=0.001, pause=0)


def in_processes(file):
    """What `measured` of a file of the suite finds in each of three new processes, the figures of a case joined.

    Where a process has its code and its memory may change the time of a kernel by 20%, for as long as it lives.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found")
        for _ in range(PROCESSES):
            in_a_process(MEASURED.format(root=str(Path(__file__).parent), file=file, path=str(path)))
            for case, seconds in pickle.loads(path.read_bytes()).items():
                if case == "least" or isinstance(seconds, Exception) or isinstance(found.get(case), Exception):
                    found.setdefault(case, seconds)
                    continue
                joined = found.setdefault(case, {})
                for implementation, values in seconds.items():
                    joined.setdefault(implementation, []).extend(values)
    return found


def placed(arguments):
    """The arguments with copies of the arrays, which lie at the same place of a page in every process.

    Where NumPy puts them differs from process to process, and with it the time of the shortest kernels, by up to 24%.
    """
    found = list(arguments)
    for number, argument in enumerate(arguments):
        if isinstance(argument, np.ndarray):
            room = np.empty(argument.nbytes + 2 * PAGE, np.uint8)
            # Arrays at one and the same place of their pages would seem to a core to overlap.
            start = -room.ctypes.data % PAGE + 5 * LINE * number
            found[number] = room[start : start + argument.nbytes].view(argument.dtype).reshape(argument.shape)
            found[number][...] = argument
    return found


def in_a_process(code, **environment):
    """What `code` prints in a new process, which has the fastbp that this one has."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(fastbp.__file__).parents[1])} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return done.stdout


class Recorded:
    """A benchmark whose figures were found by `setup_cache`; asv takes `samples` as it takes those of its timings."""

    version = "1"  # to be raised when a benchmark begins to measure something else
    timeout = 600

    def samples(self, found, *case):
        """What was found, or what kept it from being found."""
        if isinstance(found[case], Exception):
            raise found[case]
        return found[case]

    def result(self):
        return {"samples": self.values, "number": 1}


class Time(Recorded):
    """Seconds of one call; the last parameter is the implementation."""

    unit = "seconds"
    type = "time"

    def setup(self, found, *parameters):
        self.values = self.samples(found, *parameters[:-1])[parameters[-1]]


class Ratio(Recorded):
    """fastbp's time as a part of NumPy's: below 1 fastbp is faster, and lower is better."""

    unit = "fastbp/NumPy"
    against = "numpy"

    def setup(self, found, *parameters):
        seconds = self.samples(found, *parameters)
        self.values = [own / other for own, other in zip(seconds["fastbp"], seconds[self.against], strict=True)]


class Limit(Recorded):
    """fastbp's time as a multiple of the least that its multiply-adds can take: 1 is the limit, and lower is better."""

    unit = "times the limit"

    def setup(self, found, *parameters):
        self.values = [value / found["least"][parameters] for value in self.samples(found, *parameters)["fastbp"]]


def median_ratio(seconds):
    """fastbp's median time as a part of NumPy's."""
    return statistics.median(seconds["fastbp"]) / statistics.median(seconds["numpy"])
