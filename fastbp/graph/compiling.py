"""Compiling an elementwise graph to one kernel: the value and all gradients in one pass over memory.

The operations of the graph run forward and backward on symbols (`fastbp.graph.expressions`). The resulting
expressions, each once, become the lines of a Numba function (`fastbp.graph.sources`). The formulas and their order
are those of the graph, so the bits are the same, up to the order of a sum.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

import numpy as np

from fastbp.checks import FLOAT16, FLOAT32, FLOAT64, Array, DType, as_array, empty, float_dtype, from_kernel, to_kernel
from fastbp.graph.elementwise import COMPILED
from fastbp.graph.expressions import CompileError, Expression, Trace
from fastbp.graph.nodes import Variable, apply, traced
from fastbp.graph.operations import Operation
from fastbp.graph.sources import VALUE, Program
from fastbp.graph.structure import Node, behind, chain_rule, described
from fastbp.runtime import generated


def compile(f: Callable[..., Variable] | Variable, inputs: Sequence[Variable] | None = None) -> Compiled:  # noqa: A001
    """Compile an elementwise graph, which may end in a sum or mean, to one kernel.

    Parameters
    ----------
    f : function, or Variable
        A function of its inputs, made of operations on variables. It runs once, on symbols, so it must not branch on
        values. Or a computed variable.
    inputs : sequence of Variable, optional
        With a computed variable: the variables behind it that are the inputs, in order.

    Returns
    -------
    Compiled
        `g(*arrays)` gives the value, `g.value_and_grad(*arrays)` the value and the gradients.

    Raises
    ------
    CompileError
        A ValueError, if an operation cannot be fused (the message names it), if the result does not come from the
        inputs, or if the graph uses a variable that is not an input.
    TypeError
        If f is neither a function nor a computed variable.

    Examples
    --------
    >>> g = compile(lambda a, b: (exp(-a * b) * tanh(b)).sum())
    >>> value, (da, db) = g.value_and_grad(a, b)
    """
    if isinstance(f, Variable):
        if inputs is None:
            raise TypeError("inputs: expected the variables that are inputs, got None; pass compile(y, [x1, x2])")
        program = _replayed(f, list(inputs))
        return Compiled(lambda _: program, len(program.names))
    if not callable(f):
        raise TypeError(f"f: expected a function or a Variable, got {type(f).__name__}; pass a function of the inputs")
    if inputs is not None:
        raise TypeError("inputs: expected none with a function, got some; the function's arguments are the inputs")
    return _compiled_function(f)


class Compiled:
    """An elementwise graph as one kernel, which is compiled for each dtype on the first call with it.

    Inputs are numbers and arrays. All arrays have one shape, and numbers are broadcast to it. float32 and float64 are
    native. The dtype of the result is NumPy's. Several threads share large arrays. A result is bitwise the same for
    any number of threads.

    Examples
    --------
    >>> f = compile(lambda x, y: (x * y).sum())
    >>> f(np.ones(3), np.arange(3.0))
    np.float64(3.0)
    >>> f.value_and_grad(np.ones(3), np.arange(3.0))
    (np.float64(3.0), (array([0., 1., 2.]), array([1., 1., 1.])))
    >>> "def " in f.source
    True
    """

    def __init__(self, program: Callable[[int], Program], count: int | None) -> None:
        self._program_for, self._count = program, count
        self._programs: dict[int, Program] = {}
        self._kernels: dict[Any, _Kernel] = {}
        if count is not None:
            self._program(count)

    def __repr__(self) -> str:
        if not self._programs:
            return "Compiled(any number of inputs)"
        return f"Compiled({', '.join(next(iter(self._programs.values())).names)})"

    def __call__(self, *arrays: Any, out: Array | None = None) -> Any:
        """Return the value: a number after a sum or mean, else an array.

        Parameters
        ----------
        *arrays : scalar or array_like
            The inputs.
        out : ndarray, optional
            The array for the value, in its shape and dtype.

        Raises
        ------
        TypeError
            If an input is not real numbers, there are too many or too few, or `out` has another dtype.
        ValueError
            If the arrays do not have one shape, or `out` has another.
        """
        return self._run(arrays, False, {} if out is None else {VALUE: out})[0]

    def value_and_grad(self, *arrays: Any, out: Any = None) -> tuple[Any, tuple[Any, ...]]:
        """Return (value, (gradient of the first input, ...)); an array's gradients are those of its sum.

        Parameters
        ----------
        *arrays : scalar or array_like
            The inputs.
        out : tuple, optional
            The arrays for the results in the same form, (value, (gradient of the first input, ...)), with None for a
            new array.

        Raises
        ------
        TypeError, ValueError
            As for a call.
        """
        result: tuple[Any, tuple[Any, ...]] = self._run(arrays, True, {} if out is None else _by_number(out))
        return result

    @property
    def source(self) -> str:
        """The generated code for the value and gradients of float64 arrays."""
        if not self._programs:
            raise RuntimeError("source: expected a call first, got none; the number of inputs is not known before it")
        program = next(iter(self._programs.values()))
        return program.code((False,) * len(program.names), True, np.dtype(np.float64)).source

    def _program(self, count: int) -> Program:
        if self._count is not None and count != self._count:
            raise TypeError(
                f"arrays: expected {self._count} inputs ({', '.join(self._program(self._count).names)}), got {count}; "
                f"pass one for each"
            )
        if count not in self._programs:
            self._programs[count] = self._program_for(count)
        return self._programs[count]

    def _run(self, arrays: tuple[Any, ...], gradients: bool, out: _Out) -> Any:
        program = self._program(len(arrays))
        # There may be hundreds of single numbers, and an array of each would take long.
        inputs = [a if isinstance(a, float) else as_array(n, a) for n, a in zip(program.names, arrays, strict=True)]
        kinds = {1.0 if type(a) in (float, int) else np.asarray(a).dtype for a in arrays}
        dtype = float_dtype(np.result_type(*kinds)) if kinds else FLOAT64
        scalars = tuple([isinstance(a, float) or not a.ndim for a in inputs])
        key = (scalars, gradients, dtype)
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = _Kernel(program, scalars, gradients, dtype)
        return kernel(inputs, out)


# The arrays that the caller gave for results, by the number of the output.
_Out = dict[int, Any]


class _Kernel:
    """A compiled kernel for one dtype and one choice of numbers among the inputs, with or without gradients."""

    def __init__(self, program: Program, scalars: tuple[bool, ...], gradients: bool, dtype: DType) -> None:
        self._program, self._dtype = program, dtype
        self._numbers = [k for k, scalar in enumerate(scalars) if scalar]
        self._arrays = [k for k, scalar in enumerate(scalars) if not scalar and program.used[k]]
        self._unused = [k for k, scalar in enumerate(scalars) if not (scalar or program.used[k])] * gradients
        self._wanted = [VALUE, *range(len(scalars))] if gradients else [VALUE]
        self._code = program.code(scalars, gradients, FLOAT32 if dtype is FLOAT16 else dtype)
        self._function = generated.compiled(self._code.source, self._code.dtype, COMPILED)

    def __call__(self, inputs: list[Any], out: _Out) -> tuple[Any, tuple[Any, ...]]:
        code = self._code
        shape = self._shape(inputs)
        size = math.prod(shape)
        arrays = [to_kernel(inputs[k], self._dtype) for k in self._arrays]
        written: dict[int, Array] = {}
        for n in code.outputs:
            others = [*(inputs[k] for k in self._arrays), *written.values()]
            written[n] = self._destination(out.get(n), others, shape)
        sums = np.empty((len(code.sums), -(-size // generated.BLOCK)))
        buffers = [np.array([inputs[k] for k in self._numbers], code.dtype), *arrays, *written.values(), sums]
        addresses = np.array([array.__array_interface__["data"][0] for array in buffers], np.intp)
        generated.run(self._function.address, size, addresses, size * code.cost)
        results: dict[int, Any] = {n: from_kernel(array, self._dtype) for n, array in written.items()}
        results |= zip(code.sums, self._totals(sums, size), strict=True)
        results |= {k: np.zeros(inputs[k].shape, self._dtype) for k in self._unused}
        if out:
            results = {n: self._copied(result, out.get(n)) for n, result in results.items()}
        value, *gradients = [results[n] for n in self._wanted]
        return value, tuple(gradients)

    def _totals(self, sums: Array, size: int) -> Array:
        totals = sums.sum(axis=1)
        if self._program.reduction == "mean":  # its total is the first
            totals[0] = totals[0] / size if size else np.nan
        result: Array = totals.astype(self._dtype)
        return result

    def _shape(self, inputs: list[Any]) -> tuple[int, ...]:
        """Return the one shape of all arrays that the value depends on."""
        shape: tuple[int, ...] = ()
        first = ""
        for k in self._arrays:
            name, array = self._program.names[k], inputs[k]
            if first and array.shape != shape:
                raise ValueError(
                    f"{name}: expected shape {shape}, as {first}, or a number, got {array.shape}; "
                    f"broadcast it with np.broadcast_to"
                )
            first, shape = name, array.shape
        return shape

    def _destination(self, out: Any, others: list[Array], shape: tuple[int, ...]) -> Array:
        """Return the array that the kernel writes to: `out`, unless it overlaps another array of the kernel."""
        if out is None:
            return empty(shape, self._dtype)
        self._check_out(out, shape)
        plain = np.asarray(out)  # a subclass may describe its memory in another way
        fits = plain.flags.carray and plain.dtype.isnative and self._dtype is not FLOAT16
        overlaps = any(np.may_share_memory(plain, array) for array in others)
        return plain if fits and not overlaps else empty(shape, self._dtype)

    def _copied(self, result: Any, out: Any) -> Any:
        """Return `out` with the result in it, or the result where there is no `out`."""
        if out is None or result is out:
            return result
        self._check_out(out, np.shape(result))
        out[...] = result
        return out

    def _check_out(self, given: Any, shape: tuple[int, ...]) -> None:
        out = np.asarray(given)
        if not isinstance(given, np.ndarray) or out.dtype != self._dtype:
            kind = out.dtype if isinstance(given, np.ndarray) else type(given).__name__
            raise TypeError(f"out: expected an array of {self._dtype}, got {kind}; make it with np.empty")
        if out.shape != shape or not out.flags.writeable:
            what = f"shape {out.shape}" if out.shape != shape else "a read-only one"
            raise ValueError(f"out: expected a writeable array of shape {shape}, got {what}; make it with np.empty")


def _compiled_function(f: Callable[..., Variable]) -> Compiled:
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except ValueError:  # a function written in C
        parameters = [inspect.Parameter("x", inspect.Parameter.VAR_POSITIONAL)]
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    positional = [p.name for p in parameters if p.kind in kinds and p.default is p.empty]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)

    def program(count: int) -> Program:
        names = [*positional, *(f"{rest}{n}" for n in range(count - len(positional)))]
        return _traced_program(f, names[:count])

    return Compiled(program, len(positional) if rest is None else None)


def _traced_program(f: Callable[..., Variable], names: list[str]) -> Program:
    trace = Trace()
    variables = [traced(trace.symbol(name), name) for name in names]
    y = f(*variables)
    if not isinstance(y, Variable):
        raise TypeError(f"f: expected it to return a Variable, got {type(y).__name__}; return the result of operations")
    if not isinstance(y.held, Expression) or y.held.trace is not trace:
        raise CompileError(
            f"f: expected a result computed from its inputs, got {described(y)}, which is not; use the inputs"
        )
    if y.operation is not None:
        for variable in behind(y)[1]:
            if variable.operation is None and not any(variable is known for known in variables):
                _not_an_input(variable)
    return _program(trace, names, y, variables)


def _replayed(y: Variable, inputs: list[Variable]) -> Program:
    """Return the program of a graph that was computed before, from its operations on symbols."""
    trace = Trace()
    order, reached = behind(y)
    for variable in inputs:
        if not isinstance(variable, Variable):
            raise TypeError(f"inputs: expected variables, got {type(variable).__name__}; pass a list of variables")
        if variable not in reached:
            raise CompileError(
                f"inputs: expected variables that the result is computed from, got {described(variable)}, which is "
                f"not behind it; leave it out"
            )
    names: list[str] = []
    for number, variable in enumerate(inputs):
        name = variable.name or f"x{number}"
        names.append(name if name not in names else f"{name}_{number}")
    variables = [traced(trace.symbol(name), name) for name in names]
    copies: dict[Node, Variable] = dict(zip(inputs, variables, strict=True))
    for old in reversed(order):
        if old in copies:
            continue
        for operand in old.operands:
            if operand is not None and operand not in copies:
                _not_an_input(operand)
        operands = [argument if operand is None else copies[operand] for operand, argument in old.pairs]
        copies[old] = apply(cast(Operation, old.operation), *operands)
    return _program(trace, names, copies[y], variables)


def _program(trace: Trace, names: list[str], y: Variable, variables: list[Variable]) -> Program:
    """Return the program of a graph that was computed from symbols."""
    gradients: dict[Node, Any] = {y: 1.0}
    if y.operation is not None:
        gradients = chain_rule(y, behind(y)[0])
    inputs = [variable.held for variable in variables]
    return Program(names, y.held, inputs, [trace.expression(gradients.get(variable, 0.0)) for variable in variables])


def _not_an_input(variable: Node) -> NoReturn:
    raise CompileError(
        f"compile: expected only the inputs and constants, got {described(variable)}, which is not among the inputs; "
        f"make it an input, or use its .value as a constant"
    )


def _by_number(out: Any) -> _Out:
    if isinstance(out, tuple | list) and len(out) == 2 and isinstance(out[1], tuple | list):
        return {VALUE: out[0], **dict(enumerate(out[1]))}
    raise TypeError(f"out: expected (value, (gradient of the first input, ...)), got {type(out).__name__}; pass a pair")
