"""Products of whole arrays as Python asks for them, shared among threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbp.runtime import threads
from fastbp.runtime.gemm.epilogue import NONE
from fastbp.runtime.gemm.multiply import (
    COPY_ROWS,
    ROW_GRAIN,
    Product,
    address_of_multiply,
    boundary,
    multiply,
    scratch_size,
)
from fastbp.runtime.gemm.rows import is_long_row, multiply_row
from fastbp.runtime.gemm.tile import PANEL, zeros
from fastbp.runtime.jit import entry_kernel, kernel
from fastbp.runtime.pointers import (
    aligned,
    allocate,
    at,
    call_at,
    itemsize,
    load,
    pointer_to,
    record_pointer,
    release,
    shift,
    store,
    word_at,
)
from fastbp.runtime.threads import in_parallel, parts_of, release_gil, take_gil
from fastbp.runtime.vectors import REGISTER_BYTES

# Forms of a product, to be combined by |.
PLAIN, A_TRANSPOSED, B_TRANSPOSED, FROM_ROW, SUMS_TO_ROW, SUBTRACT = 0, 1, 2, 4, 8, 16

# The addresses of `multiply` for float32 and float64, 0 until first needed. A product calls it by its address: linked
# in, it would be optimised once more in each of its callers (1 s).
_addresses = np.zeros(2, np.intp)
_ADDRESSES = _addresses.ctypes.data

# The argument `row` of a product that takes none, by the size of an element.
_NO_ROW = {4: np.zeros(0, np.float32), 8: np.zeros(0)}

# Every panel of B reads all rows of A. An A of LARGE_BYTES fits no cache, so it is divided into blocks of rows that fit
# the second-level cache: 10,000×784×50 takes 0.6 times as long in float32 and in float64. A smaller A comes from the
# third-level cache as fast. Blocks would cost a tenth there, because each of them copies B.
LARGE_BYTES, BLOCK_BYTES = 16_000_000, 400_000


def product(A: Any, B: Any, row: Any, C: Any, form: int = PLAIN) -> None:
    """C = A·B, Aᵀ·B or A·Bᵀ, on several threads where that pays.

    Parameters
    ----------
    A : ndarray (M, K), or (K, M) for A_TRANSPOSED
    B : ndarray (K, N), or (N, K) for B_TRANSPOSED
    row : ndarray (N,) or None
        With FROM_ROW it is added to every row of the product, as a bias is. With SUMS_TO_ROW it receives the sum of
        each column of B. With SUBTRACT, which wants rows of A that do not lie in one piece, it is one number, and
        C -= row·A·B. It is C-contiguous.
    C : ndarray (M, N)
        Written to. A, B and C have any strides. All are of one dtype, float32 or float64.
    form : int
        PLAIN, or A_TRANSPOSED or B_TRANSPOSED, | FROM_ROW, SUMS_TO_ROW or SUBTRACT.
    """
    if row is None:
        row = _NO_ROW[C.itemsize]
    if not _product(threads.TEAM, _ADDRESSES, A, B, row, C, form):
        threads.start()
        _addresses[C.itemsize // 4 - 1] = address_of_multiply(C.dtype)
        _product(threads.TEAM, _ADDRESSES, A, B, row, C, form)


@entry_kernel
def _product(team, addresses, A, B, row, C, form):
    """Returns whether it was done: `multiply`, or threads that would be worth their cost, may not be ready yet."""
    address = word_at(addresses, itemsize(at(C, 0)) // 4 - 1)
    if address == 0:
        return False
    K = A.shape[0] if form & A_TRANSPOSED else A.shape[1]
    is_long, done = C.size * K >= threads.WORTH_A_REGION, True
    blocks = _blocks(C.shape[0], K, itemsize(at(C, 0)))
    parts = max(blocks, parts_of(team) if is_long else 1)
    gil = release_gil(is_long)
    if parts_of(team) == 1 or not is_long:
        for block in range(blocks):
            _product_part(block, blocks, blocks > 1, address, A, B, row, C, form)
    else:
        done = in_parallel(team, parts, _product_part, (blocks > 1, address, A, B, row, C, form))
    take_gil(gil)
    return done


@kernel
def _blocks(M, K, item):
    """The number of blocks into which the rows of A are divided; 1 for an A that stays in a cache.

    More blocks than threads also share the work well when a thread has its core for half of the time.
    """
    block = BLOCK_BYTES // (K * item + 1)
    return M // block if M * K * item >= LARGE_BYTES and block >= 2 * COPY_ROWS else 1


@kernel
def _product_part(part, parts, in_blocks, address, A, B, row, C, form):
    """One of `parts` shares of a product, which are blocks of rows where it goes `in_blocks`."""
    item = itemsize(at(C, 0))
    V = REGISTER_BYTES // item
    M, N = C.shape
    K, a_row, a_col, b_row, b_col = A.shape[1], A.strides[0], A.strides[1], B.strides[0], B.strides[1]
    if form & A_TRANSPOSED:
        K, a_row, a_col = A.shape[0], a_col, a_row
    if form & B_TRANSPOSED:
        b_row, b_col = b_col, b_row
    if N == 1:
        b_col = item  # an axis of one element may have any stride
    a_row, a_col, b_row, b_col = a_row // item, a_col // item, b_row // item, b_col // item
    i0, i1, j0, j1 = _share(part, parts, in_blocks, M, N, b_col, V)
    c, c_row, c_col = at(C, 0), C.strides[0] // item, C.strides[1] // item
    zero, row = np.intp(0), at(row, 0)
    start, start_col = zeros(c), zero
    if form & FROM_ROW:
        start, start_col = row, np.intp(1)
    has_sums = np.intp(form & SUMS_TO_ROW != 0 and i0 == 0)
    if M == 1 and b_col == 1 and c_col == 1 and is_long_row(N, V) and form & (SUMS_TO_ROW | SUBTRACT) == 0:
        multiply_row(at(A, 0), a_col, at(B, 0), b_row, start, start_col, c, j0, j1, K)
        return
    is_in_rows = c_col == 1 or N == 1
    memory = allocate(c, scratch_size(a_row, a_col, b_row, b_col, start_col, i1 - i0, j1 - j0, K, V))
    rows = allocate(c, 0 if is_in_rows else M * N)
    out, out_row = c if is_in_rows else rows, c_row if is_in_rows else N
    product = Product(
        a=at(A, 0), a_row=a_row, a_col=a_col, source=c, source_row=zero, chosen=zero, b=at(B, 0), b_row=b_row,
        b_col=b_col, start=start, start_col=start_col, start_row=zero, sums=row, has_sums=has_sums, c=out,
        c_row=out_row, i0=i0, i1=i1, j0=j0, j1=j1, K=K, rate=row, subtracts=np.intp(form & SUBTRACT != 0),
        epilogue=np.intp(NONE), beside=out, beside_row=zero, settings=pointer_to(np.float64, zero),
        scratch=aligned(memory, REGISTER_BYTES),  # else every register would lie in two cache lines
    )  # fmt: skip
    call_at(address, multiply, (record_pointer(product),))
    if not is_in_rows:
        for i in range(i0, i1):
            for j in range(j0, j1):
                store(shift(c, i * c_row + j * c_col), load(shift(rows, i * N + j)))
    release(rows)
    release(memory)


@kernel
def _share(part, parts, in_blocks, M, N, b_col, V):
    """Rows i0:i1 and columns j0:j1 of C that are the share of `part`, one of `parts`.

    Columns are shared where B has panels enough to copy: each panel is then copied once. Rows are shared in
    narrower products, if there are enough of them.
    """
    if parts == 1:
        return 0, M, 0, N
    is_wide = 2 * parts * PANEL * V <= N
    if in_blocks or (b_col == 1 and parts * ROW_GRAIN <= M and not is_wide):
        return boundary(M, ROW_GRAIN, part, parts), boundary(M, ROW_GRAIN, part + 1, parts), 0, N
    return 0, M, boundary(N, PANEL * V, part, parts), boundary(N, PANEL * V, part + 1, parts)
