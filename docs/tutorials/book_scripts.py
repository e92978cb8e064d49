"""
The book's scripts, unmodified
==============================

``fastbp run`` runs a script of the book's repository as it is. What the script imports from ``common``, from
``dataset`` and from the network of its chapter is answered by ``fastbp.book``: the book's modules name by name and
number by number, on compiled kernels.

In a clone of the book's repository that is one line:

.. code-block:: sh

    fastbp run ch07/train_convnet.py

This page cannot bring that repository along, nor MNIST. So it makes what it needs in a folder of its own: a script that
uses the book's names, and files in the format of MNIST with the digits that come with scikit-learn.
"""

# %%
# Files as MNIST has them
# -----------------------
# The format is simple: two zero bytes, a code for the type, the number of axes, their lengths, and the bytes. The 8×8
# digits become three times as wide and high, with a margin around them: 28×28.

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from fastbp.data import load_digits

folder = Path(tempfile.mkdtemp())
data = folder / "mnist"
data.mkdir()
digits = load_digits()


def as_idx(values):
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def enlarged(rows):
    images = (rows.reshape(-1, 8, 8) * 255).astype(np.uint8)
    return np.pad(images.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))


for part, x, t in (("train", digits.x_train, digits.t_train), ("t10k", digits.x_test, digits.t_test)):
    (data / f"{part}-images-idx3-ubyte").write_bytes(as_idx(enlarged(x)))
    (data / f"{part}-labels-idx1-ubyte").write_bytes(as_idx(t.astype(np.uint8)))

# %%
# A script with the book's names
# ------------------------------
# It stands in a folder ``ch05``, as scripts of that chapter do, and knows nothing of fastbp.

script = folder / "ch05" / "train_digits.py"
script.parent.mkdir()
script.write_text("""\
import sys, os
sys.path.append(os.pardir)
import matplotlib.pyplot as plt
import numpy as np
from common.optimizer import Adam
from dataset.mnist import load_mnist
from two_layer_net import TwoLayerNet

(images, labels), (new_images, new_labels) = load_mnist(normalize=True, one_hot_label=True)
net = TwoLayerNet(input_size=784, hidden_size=50, output_size=10)
adam, curve = Adam(), []
for i in range(600):
    chosen = np.random.choice(images.shape[0], 100)
    adam.update(net.params, net.gradient(images[chosen], labels[chosen]))
    curve.append(net.loss(images[chosen], labels[chosen]))
    if i % 150 == 0:
        print(i, curve[-1])
print("accuracy", net.accuracy(new_images, new_labels))

plt.plot(curve)
plt.xlabel("step")
plt.ylabel("loss")
plt.show()
""")
# sphinx_gallery_start_ignore
None
# sphinx_gallery_end_ignore

# %%
# What does it need?
# ------------------
# ``--list`` says that for each script of a clone, and runs none.


def fastbp(*arguments):
    """Type it without Python: fastbp run ..."""
    command = [sys.executable, "-m", "fastbp", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    print((done.stdout + done.stderr).replace(f"{folder}/", ""))


fastbp("run", "--data", data, "--list", folder)

# %%
# Run it
# ------
# What ``plt.show()`` shows goes to files, as a script on a server has no window.

fastbp("run", "--data", data, "--seed", 0, "--plots", "plots", script)

# %%
[picture] = sorted((folder / "plots").iterdir())
figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
axes.imshow(plt.imread(picture))
axes.axis("off")
axes.set_title(picture.name)

# %%
# Beside the book's own code
# --------------------------
# In a clone of the book's repository two more options help. ``--numpy`` runs a script on the book's own modules.
# ``--compare`` runs it on both, one after the other and from one seed. It prints both times and the first line of the
# output that differs:
#
# .. code-block:: sh
#
#     fastbp run --compare ch06/optimizer_compare_mnist.py
