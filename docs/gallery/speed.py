"""
The speed picture
=================

``fastbp bench --plot speed.png`` times training with fastbp and with the libraries that are installed beside it, and
draws the times as multiples of a limit: what the multiply-adds of a task take at this machine's peak. A point at 2
means that another program could take half the time at best.

This is the picture of the machine that built the site, cut to four tasks and a few seconds. The command takes all tasks
and a minute and a half.
"""

import tempfile
from pathlib import Path

from fastbp.benchmark import comparison, picture

comparison.TASKS = comparison.TASKS[:4]
comparison.SECONDS = 10
measured = comparison.Comparison()
print(measured.head())
for row in measured.run():
    print(measured.line(row))
picture.save(measured, Path(tempfile.mkdtemp()) / "speed.png")

# %%
# ``numpy`` is the book's way of writing it, the readable twin of every kernel. What else stands in the picture
# depends on what is installed: PyTorch, JAX and scikit-learn are timed where they are there. ``--as-users`` leaves
# out the pauses between the libraries, and ``--json`` saves every figure.
#
# A machine that does something else at the same time gives other figures:

for warning in measured.warnings:
    print(warning)
print(f"{len(measured.warnings)} warnings")
