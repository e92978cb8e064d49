"""Variables: values that remember how they were computed, and the chain rule back through that graph.

Each arithmetic operation on variables makes a new variable that holds its value, the operation and the operands:
together they are the graph. `backward` visits it from the result to the first variables, each operation once, in an
order of its own (no recursion), and adds up the gradients where a value branches (section 5.1 to 5.3).
"""

from __future__ import annotations

import itertools
import zlib
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from fastbp.graph import operations
from fastbp.graph.elementwise import Value
from fastbp.graph.expressions import CompileError, Expression
from fastbp.graph.operations import Operation
from fastbp.validation import Array, as_array, float_dtype

_numbers = itertools.count()


class Variable:
    """A number or an array in a computational graph.

    Arithmetic on variables (`+ - * / ** @`, unary minus, indexing by a constant, the functions of `fastbp.graph`)
    with variables, numbers and arrays gives variables, with NumPy's dtypes and broadcasting. `== != < <= > >=`
    compare values and give booleans.

    Parameters
    ----------
    value : scalar or array_like
        An array of float32 or float64 is kept, not copied; a Python number stays one; integers and booleans become
        floats as NumPy's exp would make them.
    name : str, optional
        What it is called in drawings and messages.

    Attributes
    ----------
    grad : scalar or ndarray or None
        What the last `backward` through this variable gave, in the shape of the value.

    Raises
    ------
    TypeError
        If the value is not real numbers.

    Examples
    --------
    >>> price, number = Variable(100, "price"), Variable(2, "number")
    >>> total = price * number * 1.1
    >>> total.backward()
    >>> price.grad, number.grad
    (2.2, 110.00000000000001)
    """

    __slots__ = ("_arguments", "_marks", "_number", "_operands", "_operation", "_value", "grad", "name")
    __hash__ = object.__hash__

    # NumPy leaves an operation between an array and a variable to the methods below.
    __array_ufunc__ = None

    _value: Value
    grad: Value
    name: str | None

    # How it was computed; None for a variable that was made from a value.
    _operation: Operation | None
    # The variables it was computed from, None in the place of a constant, and the values they all had.
    _operands: tuple[Variable | None, ...]
    _arguments: tuple[Value, ...]
    # Checksums of those arguments that somebody else could write to, by position.
    _marks: tuple[tuple[int, int], ...]
    # Later variables have higher numbers.
    _number: int

    def __init__(self, value: Any, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name: expected a text, got {type(name).__name__}; pass name=str(name)")
        self._value = _as_value("value", value)
        self.name = name
        self.grad = None
        self._operation = None
        self._operands = self._arguments = self._marks = ()
        self._number = next(_numbers)

    @property
    def value(self) -> Value:
        """The number or array. That of a computed variable is read-only."""
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        if self._operation is not None:
            raise RuntimeError(
                f"{described(self)}: expected its value to come from its operation, got one from outside; "
                f"set the variables that it is computed from, and compute it again"
            )
        self._value = _as_value("value", value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value, () for a number."""
        return _shape(self._value)

    def backward(self, seed: Any = 1) -> None:
        """Give every variable behind this one its gradient by the chain rule.

        Each call begins by forgetting the gradients of all these variables, so that calling it twice gives the same
        numbers. To add up the gradients of several results, run it on their sum.

        Parameters
        ----------
        seed : scalar or array_like
            The gradient of this variable itself: one number, or an array in its shape.

        Raises
        ------
        RuntimeError
            If this variable was not computed from others, if its graph was cleared, or if a value was changed since
            the graph was built.
        ValueError
            If the seed has another shape.
        """
        order, reached = behind(self)
        check_unchanged(order)
        gradients = chain_rule(self, order, seed)
        handed_out: set[int] = set()
        for variable in reached:
            variable.grad = _own(gradients.get(variable), handed_out)

    def clear(self) -> None:
        """Forget the graph behind this variable, and all the memory in it; values and gradients stay.

        The cleared variables can be read, but not computed with; the variables that were made from values can.
        """
        for variable in behind(self)[0]:
            variable._operation = _CLEARED
            variable._operands = variable._arguments = variable._marks = ()

    def draw(self, path: str | Path | None = None, **options: Any) -> Any:
        """Draw the graph behind this variable; see `fastbp.graph.draw`."""
        from fastbp.graph.drawing import draw  # noqa: PLC0415 - only where a picture is asked for

        return draw(self, path, **options)

    def _repr_svg_(self) -> str | None:
        from fastbp.graph.drawing import notebook_svg  # noqa: PLC0415

        return notebook_svg(self)

    def __repr__(self) -> str:
        name = f", name={self.name!r}" if self.name else ""
        return f"Variable({self._value!r}{name})"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __float__(self) -> float:
        return float(self._value)

    def __len__(self) -> int:
        return len(self._value)

    def __add__(self, other: Any) -> Variable:
        return apply(operations.ADD, self, other)

    def __radd__(self, other: Any) -> Variable:
        return apply(operations.ADD, other, self)

    def __sub__(self, other: Any) -> Variable:
        return apply(operations.SUBTRACT, self, other)

    def __rsub__(self, other: Any) -> Variable:
        return apply(operations.SUBTRACT, other, self)

    def __mul__(self, other: Any) -> Variable:
        return apply(operations.MULTIPLY, self, other)

    def __rmul__(self, other: Any) -> Variable:
        return apply(operations.MULTIPLY, other, self)

    def __truediv__(self, other: Any) -> Variable:
        return apply(operations.DIVIDE, self, other)

    def __rtruediv__(self, other: Any) -> Variable:
        return apply(operations.DIVIDE, other, self)

    def __pow__(self, other: Any) -> Variable:
        if isinstance(other, Real):
            return apply(operations.POWER, self, float(other))
        return apply(operations.VARIABLE_POWER, self, other)

    def __rpow__(self, other: Any) -> Variable:
        return apply(operations.VARIABLE_POWER, other, self)

    def __matmul__(self, other: Any) -> Variable:
        return apply(operations.MATMUL, self, other)

    def __rmatmul__(self, other: Any) -> Variable:
        return apply(operations.MATMUL, other, self)

    def __neg__(self) -> Variable:
        return apply(operations.NEGATE, self)

    def __getitem__(self, key: Any) -> Variable:
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, Variable) for part in parts):
            raise TypeError("index: expected a constant, got a Variable; there is no gradient by an index, use .value")
        return apply(operations.Index(key), self)

    def __eq__(self, other: object) -> Any:
        return self._value == _compared(other)

    def __ne__(self, other: object) -> Any:
        return self._value != _compared(other)

    def __lt__(self, other: Any) -> Any:
        return self._value < _compared(other)

    def __le__(self, other: Any) -> Any:
        return self._value <= _compared(other)

    def __gt__(self, other: Any) -> Any:
        return self._value > _compared(other)

    def __ge__(self, other: Any) -> Any:
        return self._value >= _compared(other)

    def exp(self) -> Variable:
        """exp(x)."""
        return apply(operations.EXP, self)

    def log(self) -> Variable:
        """log(x), the natural logarithm."""
        return apply(operations.LOG, self)

    def sqrt(self) -> Variable:
        """√x."""
        return apply(operations.SQRT, self)

    def tanh(self) -> Variable:
        """tanh(x)."""
        return apply(operations.TANH, self)

    def sigmoid(self) -> Variable:
        """1/(1 + exp(-x))."""
        return apply(operations.SIGMOID, self)

    def relu(self) -> Variable:
        """0 where x <= 0, else x."""
        return apply(operations.RELU, self)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Variable:
        """The sum of all elements, or along axes."""
        return apply(operations.Sum(axis, keepdims), self)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Variable:
        """The mean of all elements, or along axes."""
        return apply(operations.Mean(axis, keepdims), self)


class _Cleared(Operation):
    """In the place of the operation of a variable whose graph was cleared."""


_CLEARED = _Cleared()


def apply(operation: Operation, *operands: Any) -> Variable:
    """Return the variable that `operation` computes from variables, numbers and arrays.

    Raises
    ------
    RuntimeError
        If an operand's graph was cleared.
    TypeError
        If an operand is not real numbers.
    ValueError
        If the shapes do not go together.
    """
    variables: list[Variable | None] = []
    arguments: list[Value] = []
    marked = False
    for operand in operands:
        if type(operand) is Variable:
            made_by = operand._operation
            if made_by is _CLEARED:
                _was_cleared(operand, operation.name)
            value = operand._value
            marked = marked or (made_by is None and type(value) is np.ndarray)
            variables.append(operand)
        else:
            value = operand if type(operand) is float else _as_value(f"operand of {operation.name}", operand)
            marked = marked or type(value) is np.ndarray
            variables.append(None)
        arguments.append(value)
    try:
        result = operation.forward(*arguments)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        _explain(operation, variables, arguments, error)
    return _computed(operation, result, tuple(variables), tuple(arguments), marked)


def _computed(
    operation: Operation,
    result: Value,
    variables: tuple[Variable | None, ...],
    arguments: tuple[Value, ...],
    marked: bool,
) -> Variable:
    if type(result) is np.ndarray:
        if any(result is argument for argument in arguments):
            result = result.copy()
        result.flags.writeable = False
        if result.ndim == 0:
            result = result[()]
    computed: Variable = Variable.__new__(Variable)
    computed._value = result
    computed.name = None
    computed.grad = None
    computed._operation = operation
    computed._operands = variables
    computed._arguments = arguments
    computed._marks = _checksums(variables, arguments) if marked else ()
    computed._number = next(_numbers)
    return computed


def traced(value: Any, name: str | None = None) -> Variable:
    """A variable that holds a symbol of the compiler instead of a number."""
    variable: Variable = Variable.__new__(Variable)
    variable._value, variable.name, variable.grad = value, name, None
    variable._operation = None
    variable._operands = variable._arguments = variable._marks = ()
    variable._number = next(_numbers)
    return variable


def behind(y: Variable) -> tuple[list[Variable], set[Variable]]:
    """The computed variables behind `y`, itself among them, the latest first; and all variables behind it.

    Raises
    ------
    RuntimeError
        If `y` was not computed from others, or its graph was cleared.
    """
    if y._operation is None:
        raise RuntimeError(
            f"{described(y)}: expected a variable that was computed from others, got one with no graph behind it; "
            f"call backward or draw on the result of a computation"
        )
    reached, computed, waiting = {y}, [y], [y]
    while waiting:
        variable = waiting.pop()
        if variable._operation is _CLEARED:
            _was_cleared(variable, "backward")
        for operand in variable._operands:
            if operand is not None and operand not in reached:
                reached.add(operand)
                if operand._operation is not None:
                    computed.append(operand)
                    waiting.append(operand)
    computed.sort(key=_by_number, reverse=True)
    return computed, reached


def chain_rule(
    y: Variable, order: list[Variable], seed: Any = 1, record: dict[tuple[Variable, int], Value] | None = None
) -> dict[Variable, Value]:
    """The gradient of each variable behind `y`.

    `record`, if given, also receives what each computed variable passes back to each of its operands, by
    (variable, position).
    """
    gradients: dict[Variable, Value] = {y: _seed(y, seed)}
    for variable in order:
        if variable not in gradients:
            continue
        operation: Any = variable._operation
        passed = operation.backward(gradients[variable], variable._value, *variable._arguments)
        for position, (operand, gradient) in enumerate(zip(variable._operands, passed, strict=True)):
            if operand is None or gradient is None:
                continue
            if type(gradient) is not float:
                gradient = _in_shape_of(gradient, operand._value)  # noqa: PLW2901
            if record is not None:
                record[variable, position] = gradient
            known = gradients.get(operand)
            gradients[operand] = gradient if known is None else known + gradient
    return gradients


def check_unchanged(order: list[Variable]) -> None:
    """Raise `RuntimeError` if a value in the graph was replaced or written to since it was built."""
    sums: dict[int, int] = {}
    for variable in order:
        for operand, argument in zip(variable._operands, variable._arguments, strict=True):
            if operand is not None and operand._value is not argument:
                _was_changed(described(operand), variable)
        for position, checksum in variable._marks:
            argument = variable._arguments[position]
            if id(argument) not in sums:
                sums[id(argument)] = _checksum(argument)
            if sums[id(argument)] != checksum:
                operand = variable._operands[position]
                _was_changed("an array of constants" if operand is None else described(operand), variable)


def described(variable: Variable) -> str:
    """A variable as messages call it."""
    if variable.name:
        return f"variable {variable.name!r}"
    if variable._operation is not None:
        return f"the result of {variable._operation.name}"
    return f"a variable of shape {variable.shape}"


def _by_number(variable: Variable) -> int:
    return variable._number


def _as_value(name: str, value: Any) -> Value:
    """A Python number as a Python float; anything else as an array of floats, or its one element."""
    if type(value) is float:
        return value
    if type(value) is int or type(value) is bool:
        return float(value)
    if isinstance(value, Variable):
        raise TypeError(f"{name}: expected numbers, got a Variable; pass its .value")
    array = as_array(name, value)
    dtype = float_dtype(array.dtype)
    if array.dtype != dtype:
        array = array.astype(dtype)
    return array if array.ndim else array[()]


def _compared(other: Any) -> Any:
    return other._value if isinstance(other, Variable) else other


def _shape(value: Value) -> tuple[int, ...]:
    return getattr(value, "shape", ())


def _seed(y: Variable, seed: Any) -> Value:
    if isinstance(y._value, Expression):
        return float(seed)
    seed = cast(Any, _as_value("seed", seed))
    if _shape(seed) == y.shape:
        return seed
    if _shape(seed):
        raise ValueError(
            f"seed: expected one number or the shape {y.shape} of the result, got {seed.shape}; reshape it to that"
        )
    dtype = cast(Any, y._value).dtype if type(seed) is float else None
    return np.broadcast_to(np.asarray(seed, dtype), y.shape)


def _in_shape_of(gradient: Value, value: Value) -> Value:
    """Sum `gradient` over the axes along which `value` was broadcast."""
    shape, given = _shape(value), _shape(gradient)
    if shape == given:
        return gradient
    added = len(given) - len(shape)
    axes = *range(added), *(added + i for i, size in enumerate(shape) if size == 1 and given[added + i] != 1)
    summed = np.add.reduce(gradient, axis=axes).reshape(shape)[()]
    return float(summed) if type(value) is float else summed


def _own(gradient: Value, handed_out: set[int]) -> Value:
    """`gradient` as an array that no other variable has."""
    if type(gradient) is not np.ndarray:
        return gradient
    if gradient.base is not None or id(gradient) in handed_out or not gradient.flags.writeable:
        gradient = gradient.copy()
    handed_out.add(id(gradient))
    return gradient


def _checksums(variables: tuple[Variable | None, ...], arguments: tuple[Value, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(
        (position, _checksum(argument))
        for position, (variable, argument) in enumerate(zip(variables, arguments, strict=True))
        if type(argument) is np.ndarray and (variable is None or variable._operation is None)
    )


def _checksum(array: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _was_changed(what: str, variable: Variable) -> NoReturn:
    raise RuntimeError(
        f"backward: expected the values that the graph was built with, got another value of {what} since "
        f"{described(variable)} was computed; compute the result again, then call backward"
    )


def _was_cleared(variable: Variable, doing: str) -> NoReturn:
    raise RuntimeError(
        f"{doing}: expected variables whose graph is there, got {described(variable)}, which was cleared; "
        f"compute it again, or go on from its value with Variable(y.value)"
    )


def cannot_be_fused(operation: Operation, error: Exception) -> NoReturn:
    """Say that an operation failed on the symbols of the compiler."""
    if isinstance(error, CompileError):
        raise error
    raise CompileError(
        f"{operation.name}: expected an operation on single elements, got one that cannot be fused into a kernel; "
        f"compile what comes before and after it ({error})"
    ) from None


def _explain(
    operation: Operation, variables: list[Variable | None], arguments: list[Value], error: Exception
) -> NoReturn:
    """Raise the error again, with the operands' names and shapes where these are the reason."""
    if any(isinstance(argument, Expression) for argument in arguments):
        cannot_be_fused(operation, error)
    operands = " and ".join(
        f"{variable.name + ': ' if variable is not None and variable.name else ''}{_shape(argument)}"
        for variable, argument in zip(variables, arguments, strict=True)
    )
    if isinstance(error, IndexError) or isinstance(operation, operations.Index):
        raise type(error)(f"index: expected one that fits the shape {operands}, got another ({error})") from None
    if isinstance(operation, operations.MatMul):
        wanted, remedy = "shapes (..., N, D) and (..., D, M)", "the inner sizes must be equal"
    elif "broadcast" in str(error) and not _broadcast(arguments):
        wanted, remedy = "shapes that broadcast", "trailing axes must be equal or 1"
    else:
        raise error
    raise ValueError(f"{operation.name}: expected {wanted}, got {operands}; {remedy}") from None


def _broadcast(arguments: list[Value]) -> bool:
    try:
        np.broadcast_shapes(*(_shape(argument) for argument in arguments))
    except ValueError:
        return False
    return True
