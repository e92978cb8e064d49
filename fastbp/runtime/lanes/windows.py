"""Windows of images with the samples side by side, as instructions of LLVM: a vector is one pixel of some samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.runtime.jit import kernel
from fastbp.runtime.vectors import VectorCode, while_whole

_I64 = ir.IntType(64)


class Windows(NamedTuple):
    """Windows of one line of the result, and what part of each lies in the image.

    Pixel i, j of a window has the number i·width + j. Samples lie side by side in all memory.
    """

    count: Any
    step: Any  # pixels from one to the next
    i0: Any  # lines i0:i1
    i1: Any
    j0: Any  # columns j0:j1
    j1: Any
    width: Any
    line: Any  # elements of a line of the image
    S: Any  # samples, and elements of a pixel
    apart: Any  # elements from one result to the next


@kernel
def windows_from(q, y, H, W, OW, S, pool_h, pool_w, stride, pad):
    """The windows of line y from number q on: all that lie between the borders together, else one."""
    line, column = y * stride - pad, q * stride - pad
    i0, i1 = max(0, -line), min(pool_h, H - line)
    begin, end = (pad + stride - 1) // stride, min(OW, (W + pad - pool_w) // stride + 1)
    if begin <= q < end:
        return Windows(end - q, stride, i0, i1, np.intp(0), pool_w, pool_w, W * S, S, S)
    return Windows(np.intp(1), stride, i0, i1, max(0, -column), min(pool_w, W - column), pool_w, W * S, S, S)


class _Loops:
    """Emits the loops over windows, vectors of samples, and pixels of a window.

    Code of its own for two columns, without the loop over them, took as long.
    """

    def __init__(self, context: Any, builder: Any, scalar: Any, windows: Any) -> None:
        self.builder, self._context, self._scalar = builder, context, scalar
        self._windows = Windows(*cgutils.unpack_tuple(builder, windows))

    def for_each(self, body: Callable[[VectorCode, Any, Any], None]) -> None:
        """body(instructions, place in the image, place in the result) for some samples of each window."""
        builder, w = self.builder, self._windows

        def samples(n: Any, nothing: list[Any]) -> list[Any]:
            emit = VectorCode(self._context, builder, self._scalar, builder.sub(w.S, n))
            pixels = builder.mul(w.step, w.S)

            def window(q: Any, nothing: list[Any]) -> list[Any]:
                body(emit, builder.add(builder.mul(q, pixels), n), builder.add(builder.mul(q, w.apart), n))
                return nothing

            while_whole(builder, _I64(0), w.count, 1, window, [])
            return nothing

        width = VectorCode(self._context, builder, self._scalar, w.S).width
        while_whole(builder, _I64(0), builder.add(w.S, _I64(width - 1)), width, samples, [])

    def over_pixels(self, image: Any, body: Callable[[Any, list[Any]], list[Any]], values: list[Any]) -> list[Any]:
        """values = body(place of a pixel in the image, values) for each pixel of a window."""
        builder, w = self.builder, self._windows

        def line(i: Any, values: list[Any]) -> list[Any]:
            begin = builder.add(image, builder.mul(i, w.line))

            def column(j: Any, values: list[Any]) -> list[Any]:
                return body(builder.add(begin, builder.mul(j, w.S)), values)

            return while_whole(builder, w.j0, w.j1, 1, column, values)[1]

        return while_whole(builder, w.i0, w.i1, 1, line, values)[1]

    def over_numbered_pixels(
        self, emit: VectorCode, image: Any, body: Callable[[Any, Any, list[Any]], list[Any]], values: list[Any]
    ) -> list[Any]:
        """values = body(place of a pixel in the image, a vector of its number, values) for each pixel of a window.

        The numbers are counted in vectors: converted from whole ones they took a third of the time.
        """
        builder, w = self.builder, self._windows
        one = ir.Constant(emit.vector, [1.0] * emit.width)
        left_out = self._vector(emit, builder.sub(w.width, builder.sub(w.j1, w.j0)))

        def line(i: Any, values: list[Any]) -> list[Any]:
            begin = builder.add(image, builder.mul(i, w.line))

            def column(j: Any, values: list[Any]) -> list[Any]:
                number, *others = values
                changed = body(builder.add(begin, builder.mul(j, w.S)), number, others)
                return [builder.fadd(number, one), *changed]

            number, *others = while_whole(builder, w.j0, w.j1, 1, column, values)[1]
            return [builder.fadd(number, left_out), *others]

        return while_whole(builder, w.i0, w.i1, 1, line, [self.first(emit), *values])[1][1:]

    def first(self, emit: VectorCode) -> Any:
        """A vector of the number of the first pixel."""
        builder, w = self.builder, self._windows
        return self._vector(emit, builder.add(builder.mul(w.i0, w.width), w.j0))

    def _vector(self, emit: VectorCode, number: Any) -> Any:
        return emit.splat(self.builder.sitofp(number, emit.vector.element))


@intrinsic
def largest(typingctx, x, out, place, windows):
    """out = the largest pixel of each window, place = its number; the first of several, and NaN before all others."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, out, place, windows = args
        loops = _Loops(context, builder, signature.args[0].dtype, windows)

        def window(emit: VectorCode, image: Any, result: Any) -> None:
            def pixel(at: Any, number: Any, values: list[Any]) -> list[Any]:
                best, found = values
                value = emit.load(builder.gep(x, [at]), 0, masked=True)
                above = builder.fcmp_unordered(">", value, best)
                is_larger = builder.and_(above, builder.fcmp_ordered("ord", best, best))
                return [builder.select(is_larger, *pair) for pair in ((value, best), (number, found))]

            lowest = ir.Constant(emit.vector, [float("-inf")] * emit.width)
            best, found = loops.over_numbered_pixels(emit, image, pixel, [lowest, loops.first(emit)])
            emit.store(best, builder.gep(out, [result]), 0, masked=True)
            emit.store_number(found, builder.gep(place, [result]))

        loops.for_each(window)
        return context.get_dummy_value()

    return types.void(x, out, place, windows), codegen


@intrinsic
def means(typingctx, x, out, scale, windows):
    """out = the sum of the pixels of each window, line by line, times `scale`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, out, scale, windows = args
        loops = _Loops(context, builder, signature.args[0].dtype, windows)

        def window(emit: VectorCode, image: Any, result: Any) -> None:
            def pixel(at: Any, values: list[Any]) -> list[Any]:
                return [builder.fadd(values[0], emit.load(builder.gep(x, [at]), 0, masked=True))]

            total = loops.over_pixels(image, pixel, [emit.zero])[0]
            emit.store(builder.fmul(total, emit.splat(scale)), builder.gep(out, [result]), 0, masked=True)

        loops.for_each(window)
        return context.get_dummy_value()

    return types.void(x, out, x.dtype, windows), codegen


@intrinsic
def spread_to_largest(typingctx, dout, place, dx, adds, windows):
    """dx = dout at the pixel of each window that has the number at `place`, else 0; added to dx where it `adds`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        dout, place, dx, adds, windows = args
        loops = _Loops(context, builder, signature.args[0].dtype, windows)

        def window(emit: VectorCode, image: Any, result: Any) -> None:
            d = emit.load(builder.gep(dout, [result]), 0, masked=True)
            found = emit.load_as_number(builder.gep(place, [result]))

            def pixel(at: Any, number: Any, nothing: list[Any]) -> list[Any]:
                is_it = builder.fcmp_ordered("==", found, number)
                _put(builder, emit, builder.gep(dx, [at]), adds, builder.select(is_it, d, emit.zero))
                return nothing

            loops.over_numbered_pixels(emit, image, pixel, [])

        loops.for_each(window)
        return context.get_dummy_value()

    return types.void(dout, place, dx, types.boolean, windows), codegen


@intrinsic
def spread_evenly(typingctx, dout, scale, dx, adds, windows):
    """dx = dout·scale at each pixel of each window; added to dx where it `adds`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        dout, scale, dx, adds, windows = args
        loops = _Loops(context, builder, signature.args[0].dtype, windows)

        def window(emit: VectorCode, image: Any, result: Any) -> None:
            d = builder.fmul(emit.load(builder.gep(dout, [result]), 0, masked=True), emit.splat(scale))

            def pixel(at: Any, nothing: list[Any]) -> list[Any]:
                _put(builder, emit, builder.gep(dx, [at]), adds, d)
                return nothing

            loops.over_pixels(image, pixel, [])

        loops.for_each(window)
        return context.get_dummy_value()

    return types.void(dout, dout.dtype, dx, types.boolean, windows), codegen


def _put(builder: Any, emit: VectorCode, place: Any, adds: Any, value: Any) -> None:
    before = builder.select(adds, emit.load(place, 0, masked=True), emit.zero)
    emit.store(builder.fadd(before, value), place, 0, masked=True)
