"""The matrix product: every form at the edges of every block, within a bound from K, and nothing written outside."""

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from fastbp import num_threads
from fastbp.runtime.gemm import product as gemm
from fastbp.runtime.gemm import tile
from fastbp.runtime.gemm.multiply import BLOCK
from fastbp.runtime.gemm.outer import subtract_outer
from fastbp.runtime.pointers import at
from fastbp.runtime.vectors import REGISTER_BYTES
from tests.subprocesses import run_python

FORMS = {"A·B": gemm.PLAIN, "Aᵀ·B": gemm.A_TRANSPOSED, "A·Bᵀ": gemm.B_TRANSPOSED}
BY_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
BY_DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def operands(M, K, N, form, dtype, seed=0):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((K, M) if form == gemm.A_TRANSPOSED else (M, K)).astype(dtype)
    B = rng.standard_normal((N, K) if form == gemm.B_TRANSPOSED else (K, N)).astype(dtype)
    return A, B, rng.standard_normal(N).astype(dtype)


def oriented(A, B, form):
    return (A.T if form == gemm.A_TRANSPOSED else A), (B.T if form == gemm.B_TRANSPOSED else B)


def guarded(shape, dtype):
    """An array inside a larger one, and the bytes around it."""
    size = int(np.prod(shape))
    whole = np.full(size + 128, 12345, dtype)
    return whole[64 : 64 + size].reshape(shape), whole


def assert_product(M, K, N, form, dtype):
    A, B, start = operands(M, K, N, form, dtype)
    left, right = (a.astype(np.longdouble) for a in oriented(A, B, form))
    for addend in (None, start):
        C, whole = guarded((M, N), dtype)
        gemm.product(A, B, addend, C, form | (0 if addend is None else gemm.FROM_ROW))
        exact = left @ right + (0 if addend is None else addend)
        # Each of K roundings is at most half a unit of the sum of magnitudes (Higham, "Accuracy and Stability", 3.5).
        bound = (K + 1) * np.finfo(dtype).eps * (np.abs(left) @ np.abs(right) + np.abs(start))
        assert np.all(np.abs(C - exact) <= bound)
        assert np.all(whole[:64] == 12345)
        assert np.all(whole[-64:] == 12345)


V = {np.float32: gemm.REGISTER_BYTES // 4, np.float64: gemm.REGISTER_BYTES // 8}


@BY_FORM
@BY_DTYPE
def test_columns_around_every_vector_and_panel(form, dtype):
    panel = gemm.PANEL * V[dtype]
    edges = {size + step for size in (V[dtype], 2 * V[dtype], panel, 2 * panel, 16 * V[dtype]) for step in (-1, 0, 1)}
    for N in sorted({0, 1, 2, 3} | edges):
        for M in (1, 5, gemm.COPY_ROWS):
            assert_product(M, 19, N, form, dtype)


@BY_FORM
@BY_DTYPE
def test_rows_around_every_tile(form, dtype):
    edges = {
        size + step
        for size in (*(h for heights in tile.HEIGHTS for h in heights), gemm.ROW_GRAIN, gemm.COPY_ROWS, 48)
        for step in (-1, 0, 1)
    }
    for M in sorted({0, 1, 2} | edges):
        for N in (3, 2 * gemm.PANEL * V[dtype] + 5):
            assert_product(M, 17, N, form, dtype)


@BY_FORM
@BY_DTYPE
@pytest.mark.parametrize("K", [0, 1, 7, 8, 9, 100, 785])
def test_any_length_of_the_sum(form, dtype, K):
    for M, N in ((1, 1), (1, 300), (13, 50), (30, 300)):
        assert_product(M, K, N, form, dtype)


@BY_FORM
@BY_DTYPE
@pytest.mark.parametrize("shape", [(1, 9), (5, 50), (13, 3), (30, 100), (50, 140)], ids=str)
def test_a_long_sum_goes_on_where_a_block_of_it_ended(form, dtype, shape):
    (M, N), K, first = shape, 3 * BLOCK + 37, 777
    A, B, start = operands(M, K, N, form, dtype)
    C, row = np.empty((M, N), dtype), np.empty((1, N), dtype)
    gemm.product(A, B, start, C, form | gemm.FROM_ROW)
    left, right = oriented(A, B, form)
    for i in range(M):
        begin, end = np.ascontiguousarray(left[i : i + 1, :first]), np.ascontiguousarray(left[i : i + 1, first:])
        gemm.product(begin, np.ascontiguousarray(right[:first]), start, row, gemm.FROM_ROW)
        gemm.product(end, np.ascontiguousarray(right[first:]), row[0], row, gemm.FROM_ROW)
        np.testing.assert_array_equal(C[i], row[0])


def strided(array, steps):
    """The same numbers, with other elements between them; a negative step also turns an axis around in memory."""
    row, column = steps
    whole = np.full((array.shape[0] * abs(row), array.shape[1] * abs(column)), 12345, array.dtype)
    view = whole[::row, ::column]
    view[...] = array
    return view, whole


STRIDES = [(1, 2), (2, 1), (3, 2), (-1, 1), (1, -1), (-2, -3)]


@BY_FORM
@BY_DTYPE
@pytest.mark.parametrize("steps", STRIDES, ids=str)
def test_any_strides_give_the_same(form, dtype, steps):
    for M, K, N in ((1, 40, 1), (1, 9, 300), (5, 0, 3), (30, 70, 50), (29, 33, 2 * gemm.PANEL * V[dtype] + 5)):
        A, B, _ = operands(M, K, N, form, dtype)
        expected = np.empty((M, N), dtype)
        gemm.product(A, B, None, expected, form)
        left, right = strided(A, steps)[0], strided(B, steps[::-1])[0]
        C, whole = strided(np.zeros((M, N), dtype), steps)
        gemm.product(left, right, None, C, form)
        np.testing.assert_array_equal(C, expected)
        C[...] = 12345
        assert np.all(whole == 12345)


@settings(max_examples=150, deadline=None)
@given(
    M=st.integers(1, 70),
    K=st.integers(0, 60),
    N=st.integers(1, 140),
    form=st.sampled_from([*FORMS.values()]),
    dtype=st.sampled_from([np.float32, np.float64]),
    data=st.data(),
)
def test_an_element_has_the_same_bits_whichever_way_it_goes(M, K, N, form, dtype, data):
    A, B, start = operands(M, K, N, form, dtype)
    left, right = oriented(A, B, form)
    C = np.empty((M, N), dtype)
    gemm.product(A, B, start, C, form | gemm.FROM_ROW)
    rows, columns = (slice(*sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2)))) for size in (M, N))
    part = np.empty_like(C[rows, columns])
    other = data.draw(st.sampled_from([np.ascontiguousarray, np.asfortranarray]))
    gemm.product(other(left[rows]), other(right[:, columns]), start[columns], part, gemm.FROM_ROW)
    np.testing.assert_array_equal(part, C[rows, columns])


@settings(max_examples=300, deadline=None)
@given(
    M=st.integers(0, 40),
    K=st.integers(0, 40) | st.integers(0, 2),
    N=st.integers(0, 40),
    form=st.sampled_from([*FORMS.values()]),
    has_start=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_nothing_is_written_beside_the_result(M, K, N, form, has_start, dtype):
    beside = 64
    memory = np.full(M * N + 2 * beside, 12345, dtype)
    A, B, start = operands(M, K, N, form, dtype)
    C = memory[beside : beside + M * N].reshape(M, N)
    gemm.product(A, B, start if has_start else None, C, form | (gemm.FROM_ROW if has_start else 0))
    assert np.all(memory[:beside] == 12345)
    assert np.all(memory[beside + M * N :] == 12345)


@BY_DTYPE
@pytest.mark.parametrize("N", [1, 3, 50, 300])
def test_sums_of_columns_come_with_the_product(dtype, N):
    for M, K in ((784, 100), (1, 30), (0, 7), (5, 0), (13, 2 * BLOCK)):
        A, B, _ = operands(M, K, N, gemm.A_TRANSPOSED, dtype)
        C, (sums, whole) = np.empty((M, N), dtype), guarded((N,), dtype)
        gemm.product(A, B, sums, C, gemm.A_TRANSPOSED | gemm.SUMS_TO_ROW)
        bound = K * np.finfo(dtype).eps * np.abs(B).sum(0)
        assert np.all(np.abs(sums - B.astype(np.longdouble).sum(0)) <= bound)
        assert np.all(whole[:64] == 12345)
        assert np.all(whole[-64:] == 12345)
        np.testing.assert_allclose(C, A.T @ B, rtol=1e-4, atol=1e-4)


@BY_FORM
@BY_DTYPE
@pytest.mark.parametrize(
    "shape", [(100, 784, 50), (1, 784, 1030), (300, 200, 300), (10, 784, 82), (10, 784, 73)], ids=str
)
def test_threads_do_not_change_a_bit(form, dtype, shape):
    M, K, N = shape
    A, B, start = operands(M, K, N, form, dtype)
    results = []
    for n in (1, 2, 3, 5):
        C = np.empty((M, N), dtype)
        with num_threads(n):
            gemm.product(A, B, start, C, form | gemm.FROM_ROW)
        results.append(C)
    for C in results[1:]:
        np.testing.assert_array_equal(C, results[0])


@BY_FORM
@BY_DTYPE
def test_a_product_too_large_for_every_cache_is_that_of_its_rows(form, dtype):
    K, N, rows = 700, 43, 50
    M = gemm.LARGE_BYTES // (K * np.dtype(dtype).itemsize) + 1
    A, B, start = operands(M, K, N, form, dtype)
    whole = np.empty((M, N), dtype)
    for first in (0, M // 2, M - rows):
        part = np.empty((rows, N), dtype)
        selected = np.s_[:, first : first + rows] if form == gemm.A_TRANSPOSED else np.s_[first : first + rows]
        gemm.product(np.ascontiguousarray(A[selected]), B, start, part, form | gemm.FROM_ROW)
        for n in (1, 2):
            with num_threads(n):
                gemm.product(A, B, start, whole, form | gemm.FROM_ROW)
            np.testing.assert_array_equal(whole[first : first + rows], part)


@njit
def subtract(a, b, rate, C):
    subtract_outer(at(a, 0), at(b, 0), at(rate, 0), at(C, 0), len(a), len(b))


@BY_DTYPE
@pytest.mark.parametrize("more", [0, 1, 2, 15, 16, 17, 34, 50])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_column_times_a_row_is_subtracted_with_each_step_rounded(dtype, rows, more):
    rng, columns = np.random.default_rng(0), REGISTER_BYTES // np.dtype(dtype).itemsize + more
    a, b, rate = (rng.standard_normal(size).astype(dtype) for size in (rows, columns, 1))
    C, whole = guarded((rows, columns), dtype)
    C[...] = rng.standard_normal(C.shape)
    expected, around = C - rate * (a[:, None] * b), whole.copy()
    subtract(a, b, rate, C)
    np.testing.assert_array_equal(C, expected)
    around[64 : 64 + C.size] = expected.reshape(-1)
    np.testing.assert_array_equal(whole, around)


@BY_DTYPE
@pytest.mark.parametrize("shape", [(2, 1, 1), (784, 100, 50), (50, 100, 10), (13, 7, 82), (25, 300, 130)], ids=str)
def test_a_product_is_subtracted_where_it_is_summed(dtype, shape):
    M, K, N = shape
    A, B, _ = operands(M, K, N, gemm.A_TRANSPOSED, dtype)
    product, C = np.empty((M, N), dtype), np.ones((M, N), dtype)
    gemm.product(A, B, None, product, gemm.A_TRANSPOSED)
    rate = np.array([0.3], dtype)
    gemm.product(A, B, rate, C, gemm.A_TRANSPOSED | gemm.SUBTRACT)
    np.testing.assert_array_equal(C, 1 - rate * product)


@BY_FORM
@BY_DTYPE
def test_nan_and_inf_are_where_numpy_has_them(form, dtype):
    A, B, _ = operands(30, 40, 70, form, dtype)
    A[3, 2], A[7, 5], B[4, 9], B[11, 1] = np.nan, np.inf, -np.inf, np.nan
    C = np.empty((30, 70), dtype)
    gemm.product(A, B, None, C, form)
    with np.errstate(all="ignore"):
        left, right = oriented(A, B, form)
        expected = left @ right
    np.testing.assert_array_equal(np.isnan(C), np.isnan(expected))
    np.testing.assert_array_equal(np.isposinf(C), np.isposinf(expected))
    np.testing.assert_array_equal(np.isneginf(C), np.isneginf(expected))


@pytest.mark.parametrize(
    ("name", "features", "bits"),
    [("x86-64", "+sse2", 128), ("haswell", "+avx,+avx2,+fma,+bmi,+bmi2", 256)],
    ids=["SSE", "AVX2"],
)
def test_every_vector_width_that_this_cpu_has(name, features, bits, tmp_path):
    host = llvm.get_host_cpu_features()
    wanted = [feature[1:] for feature in features.split(",")]
    if not all(host.get(feature) for feature in wanted):
        pytest.skip(f"this CPU lacks one of {wanted}")
    code = """
import numpy as np
from fastbp import kernels
from fastbp.runtime.gemm import product as gemm
from fastbp.runtime.gemm import tile
from fastbp.runtime.gemm.multiply import BLOCK
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    for M, K, N in ((1, 9, 300), (13, 50, 50), (30, 20, 131)):
        A, B, C = rng.random((M, K)).astype(dtype), rng.random((K, N)).astype(dtype), np.empty((M, N), dtype)
        for form, left, right in ((0, A, B), (1, A.T.copy(), B), (2, A, B.T.copy())):
            gemm.product(left, right, None, C, form)
            np.testing.assert_allclose(C, A @ B, rtol=1e-5)
        if M > 1:
            gemm.product(A.T.copy(), B, np.ones(1, dtype), C, 1 | gemm.SUBTRACT)
            np.testing.assert_allclose(C, 0, atol=1e-4)
    x, y = rng.standard_normal((40, 10)).astype(dtype), np.empty((40, 10), dtype)
    kernels.softmax_forward(x, y)
    np.testing.assert_allclose(y, np.exp(x) / np.exp(x).sum(1, keepdims=True), rtol=1e-5)
print(kernels.REGISTER_BYTES * 8)
"""
    printed = run_python(code, FASTBP_CACHE=tmp_path, NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features)
    assert int(printed) == bits
