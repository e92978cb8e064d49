"""The matrix product that the affine layer is made of: C = start + A·B over strided memory.

One register tile of C at a time: its rows × vectors of accumulators stay in registers while k runs, and each
step of k loads one row of vectors from B and multiplies it by a broadcast element of A for every row
(Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34, 2008). A is read
through both of its strides, so A transposed costs nothing; B must lie in rows, and is copied panel by panel where
it does not (B transposed) or where its rows are far apart. A single long row takes B row by row instead.

The sum over k runs in one order whatever tile an element falls in, so an element's bits depend neither on the size
of the product nor on how threads share it.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import config, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels import _threads
from fastbp.kernels._jit import exact_kernel, kernel, parallel_kernel
from fastbp.kernels.elementary import multiply_add


def _target_features() -> set[str]:
    """Features of the CPU that Numba compiles for: the host's, or what NUMBA_CPU_FEATURES says."""
    if config.CPU_FEATURES is not None:
        return {feature[1:] for feature in config.CPU_FEATURES.split(",") if feature.startswith("+")}
    return {name for name, present in llvm.get_host_cpu_features().items() if present}


_FEATURES = _target_features()
VECTOR_BYTES = 64 if "avx512f" in _FEATURES else 32 if "avx2" in _FEATURES else 16

# The accumulators, one row of vectors from B and a broadcast from A must fit the registers: 32 with AVX-512 and
# NEON, else 16. ROWS[v - 1] is the height of a tile v vectors wide; the widest tile makes a panel.
ROWS = (12, 12, 8, 6) if "avx512f" in _FEATURES or "neon" in _FEATURES else (8, 6)
PANEL = len(ROWS)

_I64 = ir.IntType(64)

# Forms of a product.
PLAIN, A_TRANSPOSED, B_TRANSPOSED = 0, 1, 2

# What a product with no `start` starts from, by the size of an element.
_NOTHING = {4: np.zeros(PANEL * VECTOR_BYTES // 4, np.float32), 8: np.zeros(PANEL * VECTOR_BYTES // 8)}

# Rows are shared among threads in multiples of this, so that few tiles are cut short.
ROW_GRAIN = 12

# Vectors in a row that is multiplied by B row by row: from here on the rows of B are longer than a few tiles.
LONG_ROW = 16

# A panel of B is copied when it will be read by at least this many rows of tiles, and B is wider than one panel.
COPY_ROWS = 24


@intrinsic
def _at(typingctx: Any, array: Any, offset: Any) -> Any:
    """Pointer to element `offset` of an array's memory."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


@intrinsic
def _shift(typingctx: Any, pointer: Any, offset: Any) -> Any:
    """`pointer + offset`, in elements."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), codegen


@intrinsic
def _load(typingctx: Any, pointer: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(args[0])

    return pointer.dtype(pointer), codegen


@intrinsic
def _store(typingctx: Any, pointer: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], args[0])
        return context.get_dummy_value()

    return types.void(pointer, pointer.dtype), codegen


@intrinsic
def _tile(typingctx, vectors, used, a, a_row, a_col, b, b_row, c, c_row, start, K, lanes):
    """C[:used, :] = start + A[:used, :K]·B[:K, :] for one register tile `vectors` vectors wide.

    Strides are in elements. A tile is as high as ROWS says, or one row: rows from `used` on repeat the last
    one and are not stored. The last vector holds `lanes` elements and is masked.
    """
    pointer, size = a, types.intp
    signature = types.void(size, size, pointer, size, size, pointer, size, pointer, size, pointer, size, size)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, used, *operands = args
        emit = _VectorCode(context, builder, pointer.dtype, operands[-1])
        one_row = builder.icmp_signed("==", used, ir.Constant(_I64, 1))
        for width, rows in enumerate(ROWS, start=1):
            this_width = builder.icmp_signed("==", vectors, ir.Constant(_I64, width))
            with builder.if_then(this_width), builder.if_else(one_row) as (alone, several):
                with alone:
                    _emit_tile(builder, emit, 1, width, used, *operands[:-1])
                with several:
                    _emit_tile(builder, emit, rows, width, used, *operands[:-1])
        return context.get_dummy_value()

    return signature, codegen


def _emit_tile(builder, emit, height, width, used, a, a_row, a_col, b, b_row, c, c_row, start, K):
    """The instructions of one tile of `height` rows and `width` vectors."""
    zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
    rows, columns = range(height), range(width)
    is_used = [builder.icmp_signed("<", ir.Constant(_I64, i), used) for i in rows]
    last_row = builder.sub(used, one)
    index = [builder.select(is_used[i], ir.Constant(_I64, i), last_row) for i in rows]

    def load(row: Any) -> list[Any]:
        return [emit.load(row, j, masked=j == width - 1) for j in columns]

    a_rows = [builder.gep(a, [builder.mul(a_row, index[i])]) for i in rows]
    initial = load(start)

    before = builder.block
    loop, done = builder.append_basic_block("k"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", K, zero), loop, done)

    builder.position_at_end(loop)
    k = builder.phi(_I64)
    sums = [[builder.phi(emit.vector) for _ in columns] for _ in rows]
    b_k = load(builder.gep(b, [builder.mul(k, b_row)]))
    a_offset = builder.mul(k, a_col)
    updated = []
    for i in rows:
        a_ik = emit.splat(builder.load(builder.gep(a_rows[i], [a_offset])))
        updated.append([emit.multiply_add(a_ik, b_k[j], sums[i][j]) for j in columns])
    k_next = builder.add(k, one)
    k.add_incoming(zero, before)
    k.add_incoming(k_next, loop)
    builder.cbranch(builder.icmp_signed("<", k_next, K), loop, done)

    builder.position_at_end(done)
    results = [[builder.phi(emit.vector) for _ in columns] for _ in rows]
    for i in rows:
        for j in columns:
            for phi in (sums[i][j], results[i][j]):
                phi.add_incoming(initial[j], before)
                phi.add_incoming(updated[i][j], loop)
    for i in rows:
        with builder.if_then(is_used[i]):
            row = builder.gep(c, [builder.mul(c_row, index[i])])
            for j in columns:
                emit.store(results[i][j], row, j, masked=j == width - 1)


@intrinsic
def _copy_panel(typingctx, vectors, b, b_row, panel, K, lanes):
    """panel[k, :] = B[k, :] for k < K: rows of `vectors` vectors, of which the last has `lanes` elements of B."""
    signature = types.void(types.intp, b, types.intp, b, types.intp, types.intp)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, source, source_row, target, K, lanes = args
        emit = _VectorCode(context, builder, b.dtype, lanes)
        for width in range(1, PANEL + 1):
            this_width = builder.icmp_signed("==", vectors, ir.Constant(_I64, width))
            with builder.if_then(this_width), cgutils.for_range(builder, K) as k:
                from_row = builder.gep(source, [builder.mul(k.index, source_row)])
                to_row = builder.gep(target, [builder.mul(k.index, ir.Constant(_I64, width * emit.width))])
                for j in range(width):
                    emit.store(emit.load(from_row, j, masked=j == width - 1), to_row, j, masked=False)
        return context.get_dummy_value()

    return signature, codegen


class _VectorCode:
    """Emits LLVM vector instructions for one element type, with a mask of the first `lanes` lanes."""

    def __init__(self, context: Any, builder: Any, scalar: Any, lanes: Any) -> None:
        self._builder = builder
        self._module = builder.module
        self.width = VECTOR_BYTES * 8 // scalar.bitwidth
        self._bytes = scalar.bitwidth // 8
        self._element = context.get_data_type(scalar)
        self._suffix = f"v{self.width}f{scalar.bitwidth}"
        self.vector = ir.VectorType(self._element, self.width)
        lane_numbers = ir.Constant(ir.VectorType(_I64, self.width), list(range(self.width)))
        self._mask = builder.icmp_signed("<", lane_numbers, self._broadcast(lanes, _I64))
        self._zero = ir.Constant(self.vector, [0.0] * self.width)

    def splat(self, value: Any) -> Any:
        return self._broadcast(value, self._element)

    def load(self, row: Any, j: int, masked: bool) -> Any:
        pointer = self._vector_pointer(row, j)
        if not masked:
            value = self._builder.load(pointer)
            value.align = self._bytes
            return value
        kinds = [pointer.type, ir.IntType(32), self._mask.type, self.vector]
        load = self._declare("masked.load", self.vector, kinds, ".p0")
        return self._builder.call(load, [pointer, self._alignment(), self._mask, self._zero])

    def store(self, value: Any, row: Any, j: int, masked: bool) -> None:
        pointer = self._vector_pointer(row, j)
        if not masked:
            self._builder.store(value, pointer).align = self._bytes
            return
        kinds = [self.vector, pointer.type, ir.IntType(32), self._mask.type]
        store = self._declare("masked.store", ir.VoidType(), kinds, ".p0")
        self._builder.call(store, [value, pointer, self._alignment(), self._mask])

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        # Not llvm.fma: on a CPU without the instruction that is a call to a slow library function.
        return self._builder.call(self._declare("fmuladd", self.vector, [self.vector] * 3), [a, b, c])

    def _broadcast(self, value: Any, element: Any) -> Any:
        vector = ir.VectorType(element, self.width)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self._builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self._builder.shuffle_vector(first, undefined, zeros)

    def _vector_pointer(self, row: Any, j: int) -> Any:
        element = self._builder.gep(row, [ir.Constant(_I64, j * self.width)])
        return self._builder.bitcast(element, self.vector.as_pointer())

    def _alignment(self) -> Any:
        return ir.Constant(ir.IntType(32), self._bytes)

    def _declare(self, operation: str, result: Any, kinds: list[Any], ending: str = "") -> Any:
        name = f"llvm.{operation}.{self._suffix}{ending}"
        known = self._module.globals.get(name)
        return known or ir.Function(self._module, ir.FunctionType(result, kinds), name)


@kernel
def _multiply(a, a_row, a_col, b, b_row, b_col, start, start_col, c, c_row, i0, i1, j0, j1, K, V, panel):
    """C[i0:i1, j0:j1] = start + A[i0:i1, :K]·B[:K, j0:j1] through pointers and strides in elements.

    `start` is a row with stride `start_col`, 0 for one panel of zeros. `V` elements fill a vector; `panel` has room
    for K rows of PANEL vectors. K is not divided into blocks: a panel is read from the second-level cache as fast
    as it is multiplied (100×784×256: 128, 256 and 784 rows at a time within 3% of each other).
    """
    copied = _copies_panels(b_col, i1 - i0, j1 - j0, V)
    vectors_left = (j1 - j0 + V - 1) // V
    j = j0
    while j < j1:
        panels_left = (vectors_left + PANEL - 1) // PANEL
        vectors = (vectors_left + panels_left - 1) // panels_left
        width = min(vectors * V, j1 - j)
        lanes = width - (vectors - 1) * V
        b_panel, b_panel_row = _shift(b, j * b_col), b_row
        if copied:
            if b_col == 1:
                _copy_panel(vectors, b_panel, b_row, panel, K, lanes)
            else:
                for column in range(width):
                    source = _shift(b_panel, column * b_col)
                    for k in range(K):
                        _store(_shift(panel, k * vectors * V + column), _load(_shift(source, k * b_row)))
            b_panel, b_panel_row = panel, vectors * V
        rows = ROWS[vectors - 1]
        for i in range(i0, i1, rows):
            _tile(
                vectors, min(rows, i1 - i), _shift(a, i * a_row), a_row, a_col, b_panel, b_panel_row,
                _shift(c, i * c_row + j), c_row, _shift(start, j * start_col), K, lanes,
            )  # fmt: skip
        j += width
        vectors_left -= vectors


@exact_kernel
def _multiply_row(a, a_col, b, b_row, start, start_col, c, j0, j1, K):
    """c[j0:j1] = start + a·B[:, j0:j1] for one row, eight rows of B at a time.

    Each is read from end to end, where a tile would touch a piece of every row: 1×1024×1024 in float32 takes 45 µs,
    by tiles 98.
    """
    for j in range(j0, j1):
        _store(_shift(c, j), _load(_shift(start, j * start_col)))
    k = 0
    while k + 8 <= K:
        a_0, a_1 = _load(_shift(a, k * a_col)), _load(_shift(a, (k + 1) * a_col))
        a_2, a_3 = _load(_shift(a, (k + 2) * a_col)), _load(_shift(a, (k + 3) * a_col))
        a_4, a_5 = _load(_shift(a, (k + 4) * a_col)), _load(_shift(a, (k + 5) * a_col))
        a_6, a_7 = _load(_shift(a, (k + 6) * a_col)), _load(_shift(a, (k + 7) * a_col))
        row = _shift(b, k * b_row)
        for j in range(j0, j1):
            total = multiply_add(a_0, _load(_shift(row, j)), _load(_shift(c, j)))
            total = multiply_add(a_1, _load(_shift(row, b_row + j)), total)
            total = multiply_add(a_2, _load(_shift(row, 2 * b_row + j)), total)
            total = multiply_add(a_3, _load(_shift(row, 3 * b_row + j)), total)
            total = multiply_add(a_4, _load(_shift(row, 4 * b_row + j)), total)
            total = multiply_add(a_5, _load(_shift(row, 5 * b_row + j)), total)
            total = multiply_add(a_6, _load(_shift(row, 6 * b_row + j)), total)
            total = multiply_add(a_7, _load(_shift(row, 7 * b_row + j)), total)
            _store(_shift(c, j), total)
        k += 8
    while k < K:
        a_k, row = _load(_shift(a, k * a_col)), _shift(b, k * b_row)
        for j in range(j0, j1):
            _store(_shift(c, j), multiply_add(a_k, _load(_shift(row, j)), _load(_shift(c, j))))
        k += 1


@kernel
def _copies_panels(b_col, M, N, V):
    """Whether B is copied panel by panel: where it does not lie in rows, or its rows are far apart.

    Rows far apart fall into few sets of the cache when their distance is a power of two; a copy pays once it is read
    by some tiles.
    """
    return b_col != 1 or (M >= COPY_ROWS and N > PANEL * V)


def product(A: Any, B: Any, start: Any, C: Any, form: int = PLAIN) -> None:
    """C = start + A·B, Aᵀ·B or A·Bᵀ, on several threads where that pays.

    Parameters
    ----------
    A : ndarray (M, K), or (K, M) for A_TRANSPOSED
    B : ndarray (K, N), or (N, K) for B_TRANSPOSED
    start : ndarray (N,) or None
        A row that is added to every row of the product, such as a bias.
    C : ndarray (M, N)
        Written to. All arrays are C-contiguous and of one dtype, float32 or float64.
    form : int
        PLAIN, A_TRANSPOSED or B_TRANSPOSED.
    """
    K = A.shape[0] if form == A_TRANSPOSED else A.shape[1]
    if start is None:
        _threads.run(_product_part, _product_parts, C.size * K, A, B, _NOTHING[C.itemsize], 0, C, form)
    else:
        _threads.run(_product_part, _product_parts, C.size * K, A, B, start, 1, C, form)


@kernel
def _product_part(part, parts, A, B, start, start_col, C, form):
    """One of `parts` shares of a product."""
    V = VECTOR_BYTES // C.itemsize
    K, a_row, a_col, b_row, b_col = A.shape[1], A.shape[1], 1, B.shape[1], 1
    if form == A_TRANSPOSED:
        K, a_row, a_col = A.shape[0], 1, A.shape[1]
    elif form == B_TRANSPOSED:
        b_row, b_col = 1, B.shape[1]
    i0, i1, j0, j1 = _share(part, parts, C, b_col, V)
    if C.shape[0] == 1 and b_col == 1 and C.shape[1] >= LONG_ROW * V:
        _multiply_row(_at(A, 0), a_col, _at(B, 0), b_row, _at(start, 0), start_col, _at(C, 0), j0, j1, K)
        return
    copied = _copies_panels(b_col, i1 - i0, j1 - j0, V)
    panel = np.empty(K * PANEL * V + V if copied else V, C.dtype)
    aligned = (-panel.ctypes.data % VECTOR_BYTES) // C.itemsize  # else every vector would lie in two cache lines
    _multiply(
        _at(A, 0), a_row, a_col, _at(B, 0), b_row, b_col, _at(start, 0), start_col,
        _at(C, 0), C.shape[1], i0, i1, j0, j1, K, V, _at(panel, aligned),
    )  # fmt: skip


@parallel_kernel
def _product_parts(parts, A, B, start, start_col, C, form):
    for part in prange(parts):
        # A prange index is unsigned, and would compile everything below once more.
        _product_part(np.intp(part), parts, A, B, start, start_col, C, form)


@kernel
def _share(part, parts, C, b_col, V):
    """Rows i0:i1 and columns j0:j1 of C that are the share of `part`, one of `parts`.

    Columns are shared where B has panels enough to copy: each panel is then copied once. Rows are shared in
    narrower products, if there are enough of them.
    """
    M, N = C.shape
    is_wide = N >= 2 * parts * PANEL * V
    if b_col == 1 and M >= parts * ROW_GRAIN and not is_wide:
        return _boundary(M, ROW_GRAIN, part, parts), _boundary(M, ROW_GRAIN, part + 1, parts), 0, N
    return 0, M, _boundary(N, PANEL * V, part, parts), _boundary(N, PANEL * V, part + 1, parts)


@kernel
def _boundary(size, grain, part, parts):
    """Where `part` begins when `size` is divided among `parts` at multiples of `grain`."""
    if part == parts:
        return size
    return min(size, (size * part // parts + grain // 2) // grain * grain)
