"""
Checkpoints, and a run that is killed
=====================================

A long run should survive a power cut. With ``checkpoint=path`` `fit` writes all that the run needs to go on. This page
kills a run in the middle, goes on from its file, and ends with the very bits of a run that was never stopped.
"""

# %%
# A run to be killed
# ------------------
# It is a program of its own, so that it can be killed as the system kills one: without a warning. Dropout and Adam are
# in it on purpose. The masks, the state of the optimizer and the order of the samples must all go on where they were.

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fastbp

folder = Path(tempfile.mkdtemp())
program = folder / "train.py"
program.write_text("""\
import json
import sys
import time

import fastbp
from fastbp.data import load_digits

checkpoint, epochs, *options = sys.argv[1:]
digits = load_digits()
network = fastbp.MultiLayerNetExtend(64, [100], 10, use_dropout=True, dropout_ration=0.2, seed=0)
for layer in network.layers.values():
    if hasattr(layer, "seed"):
        layer.seed = 1  # of the masks; else each process draws one of its own
network.fit(
    digits.x_train,
    digits.t_train,
    epochs=int(epochs),
    optimizer="adam",
    seed=0,
    checkpoint=checkpoint,
    resume=checkpoint if "resume" in options else None,
    on_epoch=(lambda progress: time.sleep(0.2)) if "slowly" in options else None,
)
network.save(f"{checkpoint}.trained")
with open(f"{checkpoint}.json", "w") as file:
    json.dump(network.history.to_dict(), file)
print("epochs in all:", len(network.history), " loss:", network.history["loss"][-1])
""")
# sphinx_gallery_start_ignore
None
# sphinx_gallery_end_ignore


def start(*arguments):
    command = [sys.executable, program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


# %%
# One that nobody stops
# ---------------------

print(start("whole.npz", 20).communicate()[0])

# %%
# One that is killed
# ------------------
# It writes its checkpoint after each epoch. As soon as the file is there, the process gets the signal that no program
# can catch.

killed = start("killed.npz", 20, "slowly")
while not (folder / "killed.npz").exists():
    time.sleep(0.01)
killed.kill()
killed.communicate()
arrays, meta = fastbp.saving.read(folder / "killed.npz")
print("ended with", killed.returncode, "and left a whole file of", (folder / "killed.npz").stat().st_size, "bytes")
print("with, among others:", *list(arrays)[:8])

# %%
# A file is replaced at once, by a change of its name. Whenever the process dies, there is a whole file, the new one
# or the one before.
#
# On from there
# -------------
# The same program with ``resume``. It begins after the epochs in the file, and goes on to 20 in all.

print(start("killed.npz", 20, "resume").communicate()[0])

# %%
# Not nearly the same, but the same
# ---------------------------------

whole, resumed = (fastbp.load(folder / f"{name}.npz.trained") for name in ("whole", "killed"))
for name, value in whole.params.items():
    print(name, value.shape, "equal to the last bit:", np.array_equal(value, resumed.params[name]))

# %%
# The histories are one history, too. It goes on where it stopped.

import json

import matplotlib.pyplot as plt

from fastbp import History

histories = [History.from_dict(json.loads((folder / f"{name}.npz.json").read_text())) for name in ("whole", "killed")]
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for history, label, style in zip(histories, ("never stopped", "killed, and gone on"), ("-", "o"), strict=True):
    axes.plot(history["epoch"], history["loss"], style, fillstyle="none", label=label)
axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None), xticks=range(0, 21, 5))
axes.grid(alpha=0.3)
axes.legend()

# %%
# In long epochs
# --------------
# ``every=timedelta(minutes=10)`` writes in the middle of an epoch as well. ``every=5`` writes after each fifth epoch.
#
# Ctrl-C is gentler than a kill: `fit` ends at a finished step, within a fraction of a second. Parameters, optimizer and
# history are those of that step.
#
# A finished network is saved with `network.save(path, optimizer)`. `fastbp.load` reads it, and the optimizer is its
# attribute `optimizer`. A file that is damaged is refused; nothing in a file is ever run.
