"""Variables: the arithmetic that builds a graph, and the gradients of its values.

Each operation on variables makes a new variable that holds its value, the operation and the operands: together they
are the graph (`fastbp.graph.structure`). `backward` visits it from the result to the first variables, each operation
once, and adds the gradients where a value branches (section 5.1 to 5.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np

from fastbp.checks import FLOAT64, Array, DType
from fastbp.graph import operations, places
from fastbp.graph.elementwise import Value
from fastbp.graph.expressions import CompileError, Expression, cannot_be_fused
from fastbp.graph.operations import Operation
from fastbp.graph.structure import (
    CLEARED,
    Node,
    as_value,
    behind,
    checksums_of,
    described,
    gradients_of,
    shape_of,
    was_cleared,
)

Known = TypeVar("Known")


class Variable(Node):
    """A number or an array in a computational graph.

    Arithmetic on variables (`+ - * / ** @`, unary minus, indexing by a constant, the functions of `fastbp.graph`)
    with variables, numbers and arrays gives variables, with NumPy's dtypes and broadcasting. `== != < <= > >=`
    compare values and give booleans. `float`, `int`, `round` and formatting give numbers, outside the graph. NumPy's
    functions take variables where the graph knows the operation, as `np.exp(x)` and `np.sum(x)`; `np.asarray(x)` is an
    error. The results of a subclass are of that subclass; its `__init__` does not run for them.

    Parameters
    ----------
    value : scalar or array_like
        An array of float32 or float64 is kept, not copied. A Python number becomes a Python float. Arrays of
        integers and booleans become floats, as in NumPy's exp.
    name : str, optional
        Its name in drawings and messages.

    Attributes
    ----------
    value, data : scalar or ndarray
        The value, under both names. That of a computed variable is read-only, and only others' can be set.
    grad : scalar or ndarray or None
        The gradient from the last `backward` through this variable, in the shape of the value.

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

    __slots__ = ()
    __hash__ = object.__hash__

    # `fastbp.graph` gives the class these methods: the functions of `fastbp.graph.functions`, drawing, and those by
    # which NumPy's functions take variables.
    __array_function__: ClassVar[Callable[..., Any]]
    __array_ufunc__: ClassVar[Callable[..., Any]]
    draw: ClassVar[Callable[..., Any]]
    abs: ClassVar[Callable[..., Variable]]
    clip: ClassVar[Callable[..., Variable]]
    cos: ClassVar[Callable[..., Variable]]
    exp: ClassVar[Callable[..., Variable]]
    log: ClassVar[Callable[..., Variable]]
    sqrt: ClassVar[Callable[..., Variable]]
    tanh: ClassVar[Callable[..., Variable]]
    sigmoid: ClassVar[Callable[..., Variable]]
    max: ClassVar[Callable[..., Variable]]
    min: ClassVar[Callable[..., Variable]]
    relu: ClassVar[Callable[..., Variable]]
    sin: ClassVar[Callable[..., Variable]]
    softplus: ClassVar[Callable[..., Variable]]
    sum: ClassVar[Callable[..., Variable]]
    mean: ClassVar[Callable[..., Variable]]
    _repr_svg_: ClassVar[Callable[..., str | None]]

    def __init__(self, value: Any, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name: expected a text, got {type(name).__name__}; pass name=str(name)")
        self.make(as_value("value", value), name=name)

    @property
    def value(self) -> Value:
        """The number or array. That of a computed variable is read-only."""
        return self.held

    @value.setter
    def value(self, value: Any) -> None:
        if self.operation is not None:
            raise RuntimeError(
                f"{described(self)}: expected its value to come from its operation, got one from outside; "
                f"set the variables that it is computed from, and compute it again"
            )
        self.held = as_value("value", value)

    data = value

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value, () for a number."""
        return _known(self.held, "shape", shape_of(self.held))

    @property
    def ndim(self) -> int:
        """The number of axes, 0 for a number."""
        return _known(self.held, "ndim", len(shape_of(self.held)))

    @property
    def size(self) -> int:
        """The number of elements."""
        return _known(self.held, "size", math.prod(shape_of(self.held)))

    @property
    def dtype(self) -> DType:
        """The dtype of the value, float64 for a Python number."""
        dtype: DType = getattr(self.held, "dtype", FLOAT64)
        return _known(self.held, "dtype", dtype)

    @property
    def T(self) -> Variable:
        """The variable with its axes in the reverse order."""
        return apply(places.Transpose(), self)

    def reshape(self, *shape: Any) -> Variable:
        """Return the elements in another shape, given as numbers or as a tuple; one size may be -1."""
        return apply(places.Reshape(shape[0] if len(shape) == 1 else shape), self)

    def transpose(self, *axes: Any) -> Variable:
        """Return the variable with its axes in another order, numbers or a tuple, by default in the reverse order."""
        given = axes[0] if len(axes) == 1 and not isinstance(axes[0], int | np.integer) else axes or None
        return apply(places.Transpose(given), self)

    def backward(self, seed: Any = 1) -> None:
        """Give every variable behind this one its gradient by the chain rule.

        Each call replaces the gradients of all these variables, so a second call gives the same numbers. To add the
        gradients of several results, call it on their sum.

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
        given: set[int] = set()
        reached, gradients = gradients_of(self, seed)
        for node in reached:
            node.grad = _own(gradients.get(node), given)

    def clear(self) -> None:
        """Remove the graph behind this variable and free its memory; values and gradients stay.

        Cleared variables can be read, but not be operands. Variables that were made from values stay usable.

        Examples
        --------
        >>> total = price * number
        >>> total.clear()
        >>> total.value
        200.0
        """
        for node in behind(self)[0]:
            node.operation = CLEARED
            node.operands = node.arguments = node.checksums = ()

    def __repr__(self) -> str:
        name = f", name={self.name!r}" if self.name else ""
        return f"Variable({self.held!r}{name})"

    def __bool__(self) -> bool:
        return bool(self.held)

    def __float__(self) -> float:
        return float(self.held)

    def __int__(self) -> int:
        return int(self.held)

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.held, digits) if self.ndim == 0 else np.round(self.held, digits or 0)

    def __format__(self, spec: str) -> str:
        if spec and self.ndim:
            raise TypeError(
                f"format: expected a single number for {spec!r}, got shape {self.shape}; format its elements one by one"
            )
        return format(self.held, spec) if spec else str(self)

    def __len__(self) -> int:
        return len(self.held)

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        # Else NumPy would make an array of objects.
        raise TypeError(
            f"array: expected numbers, got {described(self)}, a Variable, whose graph would be lost; pass its .value"
        )

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

    def __pos__(self) -> Variable:
        return self

    def __abs__(self) -> Variable:
        return apply(operations.ABS, self)

    def __getitem__(self, key: Any) -> Variable:
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, Variable) for part in parts):
            raise TypeError("index: expected a constant, got a Variable; there is no gradient by an index, use .value")
        return apply(places.Index(key), self)

    def __eq__(self, other: object) -> Any:
        return self.held == _compared(other)

    def __ne__(self, other: object) -> Any:
        return self.held != _compared(other)

    def __lt__(self, other: Any) -> Any:
        return self.held < _compared(other)

    def __le__(self, other: Any) -> Any:
        return self.held <= _compared(other)

    def __gt__(self, other: Any) -> Any:
        return self.held > _compared(other)

    def __ge__(self, other: Any) -> Any:
        return self.held >= _compared(other)


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

    Examples
    --------
    >>> from fastbp.graph.operations import Exp
    >>> y = apply(Exp(), Variable(0.0))
    >>> y.value
    1.0
    """
    variables: list[Variable | None] = []
    arguments: list[Value] = []
    kind: type[Variable] = Variable
    writeable = False  # whether other code can write to an argument
    for operand in operands:
        given = type(operand)
        if given is Variable or isinstance(operand, Variable):
            if given is not kind and (kind is Variable or issubclass(given, kind)):
                kind = given
            made_by = operand.operation
            if made_by is CLEARED:
                was_cleared(operand, operation.name)
            value = operand.held
            writeable = writeable or (made_by is None and type(value) is np.ndarray)
            variables.append(operand)
        else:
            value = operand if given is float else as_value(f"operand of {operation.name}", operand)
            writeable = writeable or type(value) is np.ndarray
            variables.append(None)
        arguments.append(value)
    try:
        result = operation.forward(*arguments)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        _explain(operation, variables, arguments, error)
    if type(result) is np.ndarray:
        result = _read_only(result, arguments)
    computed: Variable = kind.__new__(kind)
    computed.make(result, operation, tuple(variables), tuple(arguments))
    if writeable:
        computed.checksums = checksums_of(computed)
    return computed


def traced(symbol: Expression, name: str | None = None) -> Variable:
    """Return a variable that holds a symbol of the compiler instead of a number."""
    variable: Variable = Variable.__new__(Variable)
    variable.make(symbol, name=name)
    return variable


def _known(value: Value, name: str, known: Known) -> Known:
    """Return what is `known` of a value that is there: while a function is compiled there are only symbols."""
    if isinstance(value, Expression):
        raise CompileError(
            f"{name}: expected a function that does not read the {name} of its inputs, got one that does; "
            f"pass it to the function as an input, or compile a computed variable"
        )
    return known


def _compared(other: Any) -> Any:
    return other.held if isinstance(other, Variable) else other


def _read_only(result: Array, arguments: list[Value]) -> Value:
    """Return `result` as a read-only array of its own, or as a number."""
    if any(result is argument for argument in arguments):
        result = result.copy()
    result.flags.writeable = False
    return result if result.ndim else result[()]


def _own(gradient: Value, given: set[int]) -> Value:
    """Return `gradient` as an array that no other variable has; `given` are the ids of the arrays before it."""
    if type(gradient) is not np.ndarray:
        return gradient
    if gradient.base is not None or id(gradient) in given or not gradient.flags.writeable:
        gradient = gradient.copy()
    given.add(id(gradient))
    return gradient


def _explain(
    operation: Operation, variables: list[Variable | None], arguments: list[Value], error: Exception
) -> NoReturn:
    """Raise the error again, with the names and shapes of the operands where these are the reason."""
    if any(isinstance(argument, Expression) for argument in arguments):
        cannot_be_fused(operation.name, error)
    operands = " and ".join(
        f"{variable.name + ': ' if variable is not None and variable.name else ''}{np.shape(argument)}"
        for variable, argument in zip(variables, arguments, strict=True)
    )
    if isinstance(operation, places.Index):
        raise type(error)(f"index: expected one that fits the shape {operands}, got another ({error})") from None
    if isinstance(operation, places.Places | operations.Reduction):
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{operation.name}: expected shapes and axes that go together, got {operands} ({error}); "
            f"compare them with .shape"
        ) from None
    if isinstance(operation, operations.MatMul):
        wanted, remedy = "shapes (..., N, D) and (..., D, M)", "the inner sizes must be equal"
    elif "broadcast" in str(error) and not _broadcast(arguments):
        wanted, remedy = "shapes that broadcast", "trailing axes must be equal or 1"
    else:
        raise error
    raise ValueError(f"{operation.name}: expected {wanted}, got {operands}; {remedy}") from None


def _broadcast(arguments: list[Value]) -> bool:
    try:
        np.broadcast_shapes(*(np.shape(argument) for argument in arguments))
    except ValueError:
        return False
    return True
