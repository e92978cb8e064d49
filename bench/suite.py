"""What the files of the suite share: fastbp and NumPy are timed in turns, before asv asks for the figures one by one.

asv alone would time fastbp and NumPy in two processes, one after the other. It would also read the clock and run
`setup` for each call. So each file has a `setup_cache`, which asv runs once for a commit in a process of its own.
`setup_cache` builds every case and calls it once, which compiles it and touches its pages. Then it times all cases,
round by round. The benchmarks return these figures as samples, and asv computes its usual statistics from them.
"""

import abc
import contextlib
import os
import pickle
import statistics
import tempfile
import traceback
from pathlib import Path

import numpy as np

import fastbp

from .processes import run
from .tree import measure

IMPLEMENTATIONS = ("fastbp", "numpy")
PROCESSES = 3
PAGE, LINE = 4096, 64  # bytes

# A process finds the suite by its own folder. The parent folder has a fastbp too, which need not be the one to measure.
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
    """Mark the benchmark as not available, not as failed, where the `module` of a commit has no `name`."""
    if not hasattr(module, name):
        raise NotImplementedError(f"{module.__name__} has no {name}")


@contextlib.contextmanager
def threads(n):
    """fastbp and every BLAS on `n` threads."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - in asv's environments, not in every user's

    with fastbp.num_threads(n), threadpool_limits(n, user_api="blas"):
        yield


def in_turns(cases, rounds=11, **settings):
    """Seconds of a call by case and implementation, one figure for each round; `FASTBP_BENCH_ROUNDS` sets the rounds.

    `cases` holds functions that return one function for each implementation. A case that cannot be built or called
    has the reason in place of its figures.
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
        except Exception:  # asv shows the fault of this case, and the other cases are timed
            found[case] = RuntimeError(traceback.format_exc())
    timed = {key: function for key, function in functions.items() if key[0] not in found}
    for (case, implementation), seconds in measure.samples(timed, rounds=rounds, **settings).items():
        found.setdefault(case, {})[implementation] = seconds
    return found


def on_one_thread(cases):
    """`in_turns` for functions that take microseconds on one thread and need no pause."""
    with threads(1):
        return in_turns(cases, rounds=4, block=0.004, settling=0.001, pause=0)


def in_processes(file):
    """The figures of `measured` of a file of the suite, joined from three new processes.

    The addresses of code and memory change the time of a kernel by up to 20%, and a process keeps them all its life.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found")
        for _ in range(PROCESSES):
            run(MEASURED.format(root=str(Path(__file__).parent), file=file, path=str(path)))
            for case, seconds in pickle.loads(path.read_bytes()).items():
                if case == "least" or isinstance(seconds, Exception) or isinstance(found.get(case), Exception):
                    found.setdefault(case, seconds)
                    continue
                joined = found.setdefault(case, {})
                for implementation, values in seconds.items():
                    joined.setdefault(implementation, []).extend(values)
    return found


def on_both(make):
    """Two functions from `make`: one runs on the kernels, the other on the reference."""
    compiled, plain = make(), make()

    def on_reference():
        with fastbp.use_reference():
            plain()

    return dict(zip(IMPLEMENTATIONS, (compiled, on_reference), strict=True))


def placed(arguments):
    """The arguments with copies of the arrays, which have the same offset in a page in every process.

    NumPy's offsets differ from process to process, and change the time of the shortest kernels by up to 24%.
    """
    found = list(arguments)
    for number, argument in enumerate(arguments):
        if isinstance(argument, np.ndarray):
            buffer = np.empty(argument.nbytes + 2 * PAGE, np.uint8)
            # Arrays with equal offsets in their pages would look to a core as if they overlapped.
            start = -buffer.ctypes.data % PAGE + 5 * LINE * number
            found[number] = buffer[start : start + argument.nbytes].view(argument.dtype).reshape(argument.shape)
            found[number][...] = argument
    return found


class Recorded(abc.ABC):
    """A benchmark whose figures come from `setup_cache`; asv treats them as samples of its own timings."""

    version = "1"  # raise it when a benchmark begins to measure something else
    timeout = 600

    @property
    @abc.abstractmethod
    def params(self):
        """Every benchmark has them; asv leaves abstract classes out."""

    def samples(self, found, *case):
        """The figures of a case; the reason is raised where there are none."""
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

    def track_time(self, *_):
        return self.result()


class Ratio(Recorded):
    """fastbp's time divided by NumPy's: fastbp is faster below 1, and lower is better."""

    unit = "fastbp/NumPy"
    against = "numpy"

    def setup(self, found, *parameters):
        seconds = self.samples(found, *parameters)
        self.values = [own / other for own, other in zip(seconds["fastbp"], seconds[self.against], strict=True)]

    def track_ratio(self, *_):
        return self.result()


class Limit(Recorded):
    """fastbp's time divided by the least that its multiply-adds can take: 1 is the limit, and lower is better."""

    unit = "times the limit"

    def setup(self, found, *parameters):
        self.values = [value / found["least"][parameters] for value in self.samples(found, *parameters)["fastbp"]]

    def track_times_limit(self, *_):
        return self.result()


def median_ratio(seconds):
    """fastbp's median time divided by NumPy's."""
    return statistics.median(seconds["fastbp"]) / statistics.median(seconds["numpy"])
