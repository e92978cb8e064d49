"""Vectors of the CPU for kernels: what it has, instructions for one dtype, and sums with an order of their own.

LLVM may reorder nothing in a kernel, so that no bit depends on the width of a CPU's registers. The sum of a row
therefore has its order in the code. A vector has VECTOR_BYTES on every CPU. Its lane l sums elements l, l + lanes, ...
one after the other, from 0. Then the upper half of the lanes is added to the lower half until one lane is left.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic


def _target_features() -> set[str]:
    """Features of the CPU that Numba compiles for: the host's, or what NUMBA_CPU_FEATURES says."""
    if config.CPU_FEATURES is not None:
        return {feature[1:] for feature in config.CPU_FEATURES.split(",") if feature.startswith("+")}
    return {name for name, present in llvm.get_host_cpu_features().items() if present}


FEATURES = _target_features()

# A vector in the code, on every CPU; one that has narrower registers takes several for it.
VECTOR_BYTES = 64

# A vector register of this CPU, which sets the size of the tiles of a product. No bit depends on the size of a tile.
REGISTER_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx2" in FEATURES else 16

# On a CPU without the instruction llvm.fma is a call to a slow library function, and llvm.fmuladd multiplies and adds.
_IS_ARM = platform.machine().lower() in ("aarch64", "arm64")
MULTIPLY_ADD = "fma" if "fma" in FEATURES or _IS_ARM else "fmuladd"

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def declared(module: Any, name: str, result: Any, operands: list[Any]) -> Any:
    """The function of LLVM of that name in a module."""
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, operands), name)


class VectorCode:
    """Emits LLVM vector instructions for one element type, with a mask of the first `lanes` lanes."""

    def __init__(self, context: Any, builder: Any, scalar: Any, lanes: Any, size: int = REGISTER_BYTES) -> None:
        self.builder = builder
        self._module = builder.module
        self.width = size * 8 // scalar.bitwidth
        self._bytes = scalar.bitwidth // 8
        self.piece = 16 // self._bytes  # elements in 16 bytes, within which registers are shuffled most quickly
        self._element = context.get_data_type(scalar)
        self._suffix = f"v{self.width}f{scalar.bitwidth}"
        self.vector = ir.VectorType(self._element, self.width)
        number = ir.IntType(scalar.bitwidth)  # as wide as an element: the comparison is the mask
        lane_numbers = ir.Constant(ir.VectorType(number, self.width), list(range(self.width)))
        lanes = lanes if number == _I64 else builder.trunc(lanes, number)
        self._mask = builder.icmp_signed("<", lane_numbers, self._broadcast(lanes, number))
        self.zero = ir.Constant(self.vector, [0.0] * self.width)

    def prefetch(self, row: Any, j: int) -> None:
        """Ask for vector j of a row."""
        pointer = self.builder.bitcast(self._vector_pointer(row, j), ir.IntType(8).as_pointer())
        function = declared(self._module, "llvm.prefetch.p0", ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        self.builder.call(function, [pointer, *(ir.Constant(_I32, n) for n in (0, 3, 1))])  # to read, to keep, data

    def splat(self, value: Any) -> Any:
        """A vector of one value."""
        return self._broadcast(value, self._element)

    def load(self, row: Any, j: int, masked: bool) -> Any:
        """Vector j of a row, with 0 where it is masked."""
        pointer = self._vector_pointer(row, j)
        if not masked:
            value = self.builder.load(pointer)
            value.align = self._bytes
            return value
        kinds = [pointer.type, _I32, self._mask.type, self.vector]
        load = self._declare("masked.load", self.vector, kinds, ".p0")
        return self.builder.call(load, [pointer, self._alignment(), self._mask, self.zero])

    def store(self, value: Any, row: Any, j: int, masked: bool) -> None:
        """Write vector j of a row."""
        pointer = self._vector_pointer(row, j)
        if not masked:
            self.builder.store(value, pointer).align = self._bytes
            return
        kinds = [self.vector, pointer.type, _I32, self._mask.type]
        store = self._declare("masked.store", ir.VoidType(), kinds, ".p0")
        self.builder.call(store, [value, pointer, self._alignment(), self._mask])

    def load_as_number(self, row: Any) -> Any:
        """The masked vector at a pointer to whole numbers from 0 on, or to elements, as elements."""
        if row.type.pointee == self._element:
            return self.load(row, 0, masked=True)
        vector, name = self._whole_numbers(row)
        kinds = [row.type, _I32, self._mask.type, vector]
        load = declared(self._module, f"llvm.masked.load.{name}", vector, kinds)
        zeros = ir.Constant(vector, [0] * self.width)
        return self.builder.uitofp(self.builder.call(load, [row, _I32(1), self._mask, zeros]), self.vector)

    def store_number(self, value: Any, row: Any) -> None:
        """The reverse."""
        if row.type.pointee == self._element:
            self.store(value, row, 0, masked=True)
            return
        vector, name = self._whole_numbers(row)
        kinds = [vector, row.type, _I32, self._mask.type]
        store = declared(self._module, f"llvm.masked.store.{name}", ir.VoidType(), kinds)
        self.builder.call(store, [self.builder.fptoui(value, vector), row, _I32(1), self._mask])

    def _whole_numbers(self, row: Any) -> tuple[Any, str]:
        """The type of a vector of what a pointer points to, and the ending of LLVM's names for it."""
        kind = row.type.pointee
        return ir.VectorType(kind, self.width), f"v{self.width}i{kind.width}.p0"

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """a·b + c."""
        return self.builder.call(self._declare(MULTIPLY_ADD, self.vector, [self.vector] * 3), [a, b, c])

    def turned(self, rows: list[Any]) -> list[Any]:
        """`piece` registers: element 0, 1, ... of each of `width` rows, in this element type."""
        pieces = range(0, self.width, self.piece)
        registers = [
            self._joined([self._piece(rows[number + first]) for first in pieces]) for number in range(self.piece)
        ]
        if self.piece == 2:
            return self._interleaved(1, *registers)
        (a, b), (c, d) = (self._interleaved(1, *pair) for pair in (registers[:2], registers[2:]))
        return [*self._interleaved(2, a, c), *self._interleaved(2, b, d)]

    def _piece(self, row: Any) -> Any:
        """The first `piece` numbers of a row, floating point or unsigned integers, as elements."""
        given = row.type.pointee
        kind, elements = ir.VectorType(given, self.piece), ir.VectorType(self._element, self.piece)
        piece = self.builder.load(self.builder.bitcast(row, kind.as_pointer()))
        piece.align = 1
        if given == self._element:
            piece.align = self._bytes
            return piece
        if isinstance(given, ir.IntType):
            return self.builder.uitofp(piece, elements)
        return self.builder.fptrunc(piece, elements) if self._bytes == 4 else self.builder.fpext(piece, elements)

    def _joined(self, pieces: list[Any]) -> Any:
        while len(pieces) > 1:
            lanes = [*range(2 * pieces[0].type.count)]
            pieces = [self._shuffled(*pair, lanes) for pair in zip(pieces[::2], pieces[1::2], strict=True)]
        return pieces[0]

    def _interleaved(self, size: int, a: Any, b: Any) -> list[Any]:
        """Of each 16 bytes of two registers the lower halves by turns, `size` elements each, and the upper halves."""
        halves = []
        for begin in (0, self.piece // 2):
            places = [
                first + begin + k for first in range(0, self.width, self.piece) for k in range(0, self.piece // 2, size)
            ]
            lanes = [place + other + k for place in places for other in (0, self.width) for k in range(size)]
            halves.append(self._shuffled(a, b, lanes))
        return halves

    def _shuffled(self, a: Any, b: Any, lanes: list[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))

    def _broadcast(self, value: Any, element: Any) -> Any:
        vector = ir.VectorType(element, self.width)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def _vector_pointer(self, row: Any, j: int) -> Any:
        element = self.builder.gep(row, [ir.Constant(_I64, j * self.width)])
        return self.builder.bitcast(element, self.vector.as_pointer())

    def _alignment(self) -> Any:
        return ir.Constant(_I32, self._bytes)

    def _declare(self, operation: str, result: Any, kinds: list[Any], ending: str = "") -> Any:
        return declared(self._module, f"llvm.{operation}.{self._suffix}{ending}", result, kinds)


# Vectors of a long row that are summed side by side: an addition takes three cycles, and two can begin in each.
_ABREAST = 4

# What a sum does to its totals: (instructions, totals, a vector of each row, further numbers) -> totals.
_Step = Callable[[VectorCode, Any, list[Any], list[Any]], Any]


def _sum(step: _Step, in_double: bool = False) -> Any:
    """An intrinsic sum(rows, numbers, count): over `count` elements of rows, a tuple of pointers.

    Groups of four vectors go to four totals side by side, which are then added as (0 + 1) + (2 + 3); the vectors that
    are left follow one by one, the last of them masked. A row shorter than a vector is one chain: most of a vector
    loop would be its beginning and end.
    """

    @intrinsic
    def total(typingctx, rows, numbers, count):
        scalar = rows.dtype.dtype
        result = types.float64 if in_double else scalar
        lanes = VECTOR_BYTES * 8 // result.bitwidth

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointers, others = (cgutils.unpack_tuple(builder, values) for values in args[:2])
            count = args[2]
            element = context.get_data_type(result)
            zero, nothing = (ir.Constant(ir.VectorType(element, n), [0.0] * n) for n in (lanes, 1))

            def code(width: int, left: Any = None) -> VectorCode:
                size = width * scalar.bitwidth // 8
                return VectorCode(context, builder, scalar, count.type(width) if left is None else left, size)

            def added(emit: VectorCode, totals: Any, first: Any, j: int, masked: bool) -> Any:
                vectors = [emit.load(builder.gep(pointer, [first]), j, masked) for pointer in pointers]
                return step(emit, totals, vectors, others)

            def group(emit: VectorCode, first: Any, totals: list[Any]) -> list[Any]:
                return [added(emit, total, first, j, masked=False) for j, total in enumerate(totals)]

            def short() -> Any:
                one = partial(group, code(1))
                return while_whole(builder, count.type(0), count, 1, one, [nothing])[1][0]

            def long() -> Any:
                whole = partial(group, code(lanes))
                first, totals = while_whole(builder, count.type(0), count, _ABREAST * lanes, whole, [zero] * _ABREAST)
                while len(totals) > 1:
                    totals = [builder.fadd(*pair) for pair in zip(totals[::2], totals[1::2], strict=True)]
                first, totals = while_whole(builder, first, count, lanes, whole, totals)
                return _folded(builder, added(code(lanes, builder.sub(count, first)), totals[0], first, 0, True), lanes)

            ends = []
            with builder.if_else(builder.icmp_signed("<", count, count.type(lanes))) as ways:
                for way, total in zip(ways, (short, long), strict=True):
                    with way:
                        ends.append((builder.extract_element(total(), ir.Constant(_I32, 0)), builder.block))
            chosen = builder.phi(element)
            for value, block in ends:
                chosen.add_incoming(value, block)
            return chosen

        return result(rows, numbers, types.intp), codegen

    return total


def while_whole(builder: Any, first: Any, count: Any, size: int, body: Any, values: list[Any]) -> tuple[Any, list[Any]]:
    """A loop while `size` elements are left: values = body(first, values), first += size."""
    before = builder.block
    test, turn, done = (builder.append_basic_block(name) for name in ("whole", "sum", "summed"))
    builder.branch(test)
    builder.position_at_end(test)
    place, *carried = (builder.phi(value.type) for value in (first, *values))
    after = builder.add(place, first.type(size))
    builder.cbranch(builder.icmp_signed("<=", after, count), turn, done)
    builder.position_at_end(turn)
    changed = body(place, carried)
    for phi, start, new in zip((place, *carried), (first, *values), (after, *changed), strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(new, builder.block)
    builder.branch(test)
    builder.position_at_end(done)
    return place, carried


def _folded(builder: Any, vector: Any, lanes: int) -> Any:
    """The sum of the lanes: the upper half is added to the lower one until one is left."""
    while lanes > 1:
        lanes //= 2
        halves = [
            builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(_I32, lanes), [*range(begin, begin + lanes)])
            )
            for begin in (0, lanes)
        ]
        vector = builder.fadd(*halves)
    return vector


def folded_together(builder: Any, vectors: list[Any], lanes: int) -> list[Any]:
    """The sums of the lanes of vectors, as `_folded` adds them: in order in vectors, the last filled with copies.

    Two vectors that were halved alike share one. The upper half of each of their segments is added to its lower half.
    """
    sums: list[Any] = []
    for first in range(0, len(vectors), lanes):
        group = vectors[first : first + lanes]
        size = lanes
        while size > 1:
            size //= 2
            group += group[-1:] * (len(group) % 2)
            segments = range(0, 2 * lanes, 2 * size)
            halves = [
                ir.Constant(
                    ir.VectorType(_I32, lanes), [segment + half + k for segment in segments for k in range(size)]
                )
                for half in (0, size)
            ]
            group = [
                builder.fadd(*(builder.shuffle_vector(*pair, half) for half in halves))
                for pair in zip(group[::2], group[1::2], strict=True)
            ]
        sums += group
    return sums


def _element(emit: VectorCode, totals: Any, rows: list[Any], numbers: list[Any]) -> Any:
    return _plus(emit, totals, rows[0])


def _product(emit: VectorCode, totals: Any, rows: list[Any], numbers: list[Any]) -> Any:
    x, y = rows
    return emit.multiply_add(x, y, totals)


def _squared_difference(emit: VectorCode, totals: Any, rows: list[Any], numbers: list[Any]) -> Any:
    difference = emit.builder.fsub(*rows)
    return _plus(emit, totals, emit.builder.fmul(difference, difference))


def _surprise(emit: VectorCode, totals: Any, rows: list[Any], numbers: list[Any]) -> Any:
    (t, x), (top, log_total), builder = rows, map(emit.splat, numbers), emit.builder
    surprise = builder.fmul(t, builder.fsub(log_total, builder.fsub(x, top)))
    return _plus(emit, totals, builder.select(builder.fcmp_unordered("!=", t, emit.zero), surprise, emit.zero))


def _plus(emit: VectorCode, totals: Any, vector: Any) -> Any:
    if vector.type != totals.type:
        vector = emit.builder.fpext(vector, totals.type)
    return emit.builder.fadd(totals, vector)


def _nothing(emit: VectorCode, totals: Any, rows: list[Any], numbers: list[Any]) -> Any:
    return emit.multiply_add(rows[0], emit.zero, totals)


# Each is called with a tuple of pointers, a tuple of further numbers, and a count.
sum_of = _sum(_element)  # of x
sum_in_double = _sum(_element, in_double=True)
sum_of_nothing = _sum(_nothing)  # of 0·x: NaN where one is not finite
sum_of_products = _sum(_product)  # of x·y
sum_of_squared_differences = _sum(_squared_difference, in_double=True)  # of (x - y)²
cross_entropy_of = _sum(
    _surprise, in_double=True
)  # of t·(log_total - (x - top)) where t is not 0, for (top, log_total)
