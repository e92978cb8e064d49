"""The same bits on every CPU with fused multiply-add: one training, compiled for each that this machine can run."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import njit
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from fastbp import Sequential, graph, layers, optimizers
from fastbp.runtime.pointers import at
from fastbp.runtime.vectors import FEATURES, MULTIPLY_ADD, REGISTER_BYTES, sum_in_double, sum_of
from tests.subprocesses import run_python

OPTIMIZERS = (
    optimizers.SGD,
    optimizers.Momentum,
    optimizers.Nesterov,
    optimizers.AdaGrad,
    optimizers.RMSprop,
    optimizers.Adam,
)
LOSSES = (layers.SoftmaxWithLoss, layers.SigmoidWithLoss, layers.IdentityWithLoss, layers.ExpWithLoss)

# What Numba compiles for, by the registers that it has.
REGISTERS = {
    16: {"NUMBA_CPU_NAME": "sandybridge", "NUMBA_CPU_FEATURES": "+avx,+fma"},
    32: {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"},
}

# What LLVM makes of a kernel for another CPU before it chooses instructions, run with the instructions of this one.
ARRANGED_FOR = {
    "AVX-512": ("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f,+avx2,+fma"),
    "NEON": ("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon"),
}
ARRANGE = """
import llvmlite.binding as llvm
from numba.core import codegen, registry

def arrange_for(triple, name, features):
    registry.cpu_target.target_context.codegen()  # for this CPU
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name, features=features, opt=3)
    pass_builder = codegen.CPUCodegen._pass_builder
    def other_pass_builder(self, **options):
        own, self._tm = self._tm, machine
        try:
            return pass_builder(self, **options)
        finally:
            self._tm = own
    codegen.CPUCodegen._pass_builder = other_pass_builder
    llvm.get_host_cpu_features = lambda: dict.fromkeys(["fma", *features.replace("+", "").split(",")], True)
"""

# Of instructions whose result LLVM may choose: flags, and multiply-adds that may be rounded once.
LOOSE = (
    *(f" {flag} " for flag in ("fast", "nnan", "ninf", "nsz", "arcp", "contract", "afn", "reassoc")),
    "llvm.fmuladd",
)
LOOK = """
from numba.core import codegen
from fastbp.kernels import REGISTER_BYTES
from tests.test_bits import fingerprints, loosened
found = set()
finalize = codegen.CPUCodeLibrary._finalize_final_module
def look_and_finalize(self):
    finalize(self)
    found.update(loosened(str(self._final_module)))
codegen.CPUCodeLibrary._finalize_final_module = look_and_finalize
print(REGISTER_BYTES, *fingerprints(), *sorted(found), sep="\\n")
"""


def loosened(code):
    return {word for word in LOOSE if word in code}


def sha256(values):
    digest = hashlib.sha256()
    for value in values:
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def trained(dtype, way, loss, t, rng):
    """Fingerprints of 20 epochs of a network whose products have every kind of tail."""
    sizes = (70, 50, 21, 10)
    weights = [np.asarray(0.2 * rng.standard_normal(pair), dtype) for pair in itertools.pairwise(sizes)]
    first, second, last = (layers.Affine(W, np.zeros(W.shape[1], dtype)) for W in weights)
    number = OPTIMIZERS.index(way)
    between = [layers.Tanh(), layers.Dropout(0.1, seed=0), second, (layers.ReLU, layers.Sigmoid)[number % 2]()]
    network = Sequential([first, *between, last], loss())
    x = np.asarray(rng.standard_normal((90, 70)), dtype)
    history = network.fit(
        x, t, epochs=20, batch_size=40, optimizer=way(0.003, weight_decay=1e-3 * (number % 3)), seed=0
    )
    yield "weights", sha256(network.params.values())
    yield "losses", sha256([history["loss"], network.loss(x, t)])
    yield "predictions", sha256([network.predict(x), network.predict(x[:1])])
    if number == 0:
        yield "gradients", sha256(network.gradient(x, t).values())


def fingerprints():
    """A line for each result of training, of the layers that stand alone, and of compiled graphs."""
    rng = np.random.default_rng(0)
    labels, shares = rng.integers(0, 10, 90), rng.random((90, 10))
    shares *= shares * shares
    shares /= shares.sum(1, keepdims=True)
    for dtype in (np.float32, np.float64):
        t = shares.astype(dtype)
        for way, (loss, target) in itertools.product(
            OPTIMIZERS, [*((loss, t) for loss in LOSSES), (LOSSES[0], labels)]
        ):
            for what, sha in trained(dtype, way, loss, target, rng):
                yield f"{dtype.__name__} {way.__name__} {loss.__name__} {target.ndim} {what} {sha}"
        for C in (3, 10, 300):
            x, dout = rng.standard_normal((2, 20, C)).astype(dtype)
            softmax, cross_entropy = layers.Softmax(), layers.CrossEntropyError()
            y = softmax.forward(x)
            losses = [cross_entropy.forward(y, t) for t in (y[::-1].copy(), np.arange(20) % C)]
            yield f"{dtype.__name__} layers {C} {sha256([y, *losses, softmax.backward(dout)])}"
    example = graph.compile(lambda a, b, c: (graph.exp(-a * b) / (c + graph.exp(-a)) * graph.tanh(b)).sum())
    for dtype in (np.float32, np.float64):
        a, b = rng.standard_normal((2, 5003)).astype(dtype)
        value, gradients = example.value_and_grad(a, b, dtype(1.5))
        yield f"{dtype.__name__} graph {sha256([value, *gradients])}"


def run(prelude="", **environment):
    """In a process of its own the size of a register, the fingerprints, and what LLVM might have changed."""
    return run_python(prelude + LOOK, timeout=500, **environment).splitlines()


def runs(folder):
    """The arguments of `run` for this CPU, for one with narrower registers, and for one that is not here."""
    absent = "NEON" if "avx512f" in FEATURES else "AVX-512"
    cpus = {"this CPU": {}, absent: {"prelude": f"{ARRANGE}\narrange_for(*{ARRANGED_FOR[absent]})"}}
    # NumPy, too, takes no wider registers then.
    dispatched = " ".join(name for name in __cpu_dispatch__ if __cpu_features__[name])
    for size in [size for size in REGISTERS if size < REGISTER_BYTES][-1:]:
        cpus[f"{size} bytes"] = {**REGISTERS[size], "NPY_DISABLE_CPU_FEATURES": dispatched}
    return {name: {**cpu, "FASTBP_CACHE": folder / name} if cpu else {} for name, cpu in cpus.items()}


@pytest.mark.skipif(MULTIPLY_ADD != "fma", reason="a CPU without fused multiply-add rounds twice: its bits are its own")
def test_every_cpu_trains_to_the_same_bits(tmp_path):
    cpus = runs(tmp_path)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(cpus, pool.map(lambda cpu: run(**cpu), cpus.values()), strict=True))
    assert len({lines.pop(0) for lines in found.values()}) == len(cpus)  # each has other registers
    expected = found["this CPU"]
    assert len(expected) == 198
    for name, lines in found.items():
        assert lines == expected, name


def test_a_kernel_that_llvm_may_reorder_would_be_seen():
    assert loosened("%1 = fadd reassoc <8 x float> %2, %3") == {" reassoc "}
    assert loosened("%1 = call float @llvm.fmuladd.f32(float %2, float %3, float %4)") == {"llvm.fmuladd"}
    assert not loosened("%1 = call float @llvm.fma.f32(float %2, float %3, float %4)")


def in_order(values, lanes):
    """The sum of `values` as `fastbp.runtime.vectors` orders it, in NumPy."""
    if len(values) < lanes:
        return functools.reduce(np.add, values, values.dtype.type(0))
    vectors = np.append(values, np.zeros(-len(values) % lanes, values.dtype)).reshape(-1, lanes)
    groups = len(values) // (4 * lanes)
    a, b, c, d = functools.reduce(
        np.add, vectors[: 4 * groups].reshape(groups, 4, lanes), np.zeros((4, lanes), values.dtype)
    )
    total = functools.reduce(np.add, vectors[4 * groups :], (a + b) + (c + d))
    while len(total) > 1:
        lower, upper = np.split(total, 2)
        total = lower + upper
    return total[0]


@njit
def sums_of(x):
    return sum_of((at(x, 0),), (), x.size), sum_in_double((at(x, 0),), (), x.size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sum_has_the_order_that_is_written_down(dtype, rng):
    for size in (0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 200, 512, 1000):
        x = rng.standard_normal(size).astype(dtype)
        assert sums_of(x) == (in_order(x, 64 // x.itemsize), in_order(x.astype(np.float64), 8))
