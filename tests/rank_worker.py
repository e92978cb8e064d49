"""What the ranks of tests/test_ranks.py do: `mpiexec -n R python -m tests.rank_worker WORK ARGUMENT ...`."""

import json
import sys

from mpi4py import MPI

from fastbp import num_threads
from tests.rank_cases import digest, fit

COMM = MPI.COMM_WORLD


def cases(threads, *numbers):
    """Fit cases; the first rank prints what every rank ended with."""
    with num_threads(int(threads)):
        own = {number: digest(*fit(int(number), comm=COMM)) for number in numbers}
    found = COMM.gather(own)
    if COMM.rank == 0:
        print(json.dumps({number: [each[number] for each in found] for number in numbers}))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
