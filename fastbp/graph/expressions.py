"""Symbols that record the arithmetic that is done on them, for the compiler.

The `forward` and `backward` of an operation, applied to symbols, return the expressions that they compute. An
expression that occurs twice is one object, so a kernel computes it once.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, NoReturn

REDUCTIONS = ("sum", "mean")
# The symbol for 1 divided by the number of elements, which only the kernel knows.
INVERSE_SIZE = "1/size"
COMMUTATIVE = frozenset({"+", "*", "|"})


class CompileError(ValueError):
    """A graph that cannot become one kernel; the message names the operation.

    Examples
    --------
    >>> try:
    ...     compile(lambda x: x @ x)(np.eye(2))
    ... except CompileError:
    ...     print("a product of matrices is no graph of numbers")
    a product of matrices is no graph of numbers
    """


def cannot_be_fused(name: str, error: Exception) -> NoReturn:
    """Raise the `CompileError` for an operation that failed on symbols."""
    if isinstance(error, CompileError):
        raise error
    raise CompileError(
        f"{name}: expected an operation on single elements, got one that cannot be fused into a kernel; "
        f"compile what comes before and after it ({error})"
    ) from None


def refuse_symbols(
    name: str, operands: tuple[Any, ...], remedy: str = "compile what comes before and after it"
) -> None:
    """Raise `CompileError` for an operation that does not work on single elements, where operands are symbols."""
    if any(isinstance(operand, Expression) for operand in operands):
        raise CompileError(
            f"{name}: expected an operation on single elements, got one that cannot be fused into a kernel; {remedy}"
        )


class Trace:
    """A record of expressions, each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Expression] = {}

    def symbol(self, name: str) -> Expression:
        """Return an input by its name."""
        return self._once("symbol", (name,))

    def apply(self, kind: str, *operands: Any) -> Expression:
        """Return `kind` applied to expressions and numbers."""
        for operand in operands:
            if isinstance(operand, Expression) and operand.kind in REDUCTIONS:
                raise CompileError(
                    f"{operand.kind}: expected it to be the last operation, got {kind!r} after it; "
                    f"compile what comes before, and do the rest with its result"
                )
        return self._once(kind, tuple(self.expression(operand) for operand in operands))

    def expression(self, operand: Any) -> Expression:
        """Return an expression as it is, and a number as an expression."""
        if isinstance(operand, Expression):
            return operand
        if not isinstance(operand, Real):
            raise CompileError(
                f"compile: expected constants that are numbers, got {type(operand).__name__} of shape "
                f"{getattr(operand, 'shape', '?')}; make it an input"
            )
        return self._once("number", (float(operand),))

    def _once(self, kind: str, operands: tuple[Any, ...]) -> Expression:
        if kind in COMMUTATIVE:
            operands = tuple(sorted(operands, key=lambda operand: operand.index))
        key = (kind, *(o.index if isinstance(o, Expression) else repr(o) for o in operands))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Expression(self, len(self._known), kind, operands)
        return found


class Expression:
    """A symbol, a number, or an operation on expressions."""

    __slots__ = ("index", "kind", "operands", "trace")

    # NumPy leaves an operation between an array and an expression to the methods below.
    __array_ufunc__ = None

    def __init__(self, trace: Trace, index: int, kind: str, operands: tuple[Any, ...]) -> None:
        self.trace, self.index, self.kind, self.operands = trace, index, kind, operands

    @property
    def number(self) -> float | None:
        """The value of a number, None for anything else."""
        return self.operands[0] if self.kind == "number" else None

    def function(self, name: str) -> Expression:
        """Return a function of one operand, or a sum or mean, of this expression."""
        return self.trace.apply(name, self)

    def __add__(self, other: Any) -> Expression:
        return self.trace.apply("+", self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Expression:
        return self.trace.apply("-", self, other)

    def __rsub__(self, other: Any) -> Expression:
        return self.trace.apply("-", other, self)

    def __mul__(self, other: Any) -> Expression:
        # A product with 1 is exact, and the seed 1 makes many of them.
        if _is_one(other):
            return self
        if _is_one(self) and isinstance(other, Expression):
            return other
        return self.trace.apply("*", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Expression:
        return self if _is_one(other) else self.trace.apply("/", self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return self.trace.apply("/", other, self)

    def __pow__(self, other: Any) -> Expression:
        return self.trace.apply("**", self, other)

    def __rpow__(self, other: Any) -> Expression:
        return self.trace.apply("**", other, self)

    def __neg__(self) -> Expression:
        return self.operands[0] if self.kind == "negative" else self.trace.apply("negative", self)

    def __abs__(self) -> Expression:
        return self.function("abs")

    def __lt__(self, other: Any) -> Expression:
        return self.trace.apply("<", self, other)

    def __le__(self, other: Any) -> Expression:
        return self.trace.apply("<=", self, other)

    def __gt__(self, other: Any) -> Expression:
        return self.trace.apply(">", self, other)

    def __ge__(self, other: Any) -> Expression:
        return self.trace.apply(">=", self, other)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return self.trace.apply("==", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return self.trace.apply("!=", self, other)

    __hash__ = object.__hash__

    def __or__(self, other: Any) -> Any:
        if isinstance(other, bool):
            return other or self
        return self.trace.apply("|", self, other)

    def __bool__(self) -> NoReturn:
        raise CompileError(
            "compile: expected a function without branches on the values of its inputs, got a comparison used as "
            "True or False; write it with relu, maximum or clip"
        )

    __float__ = __int__ = __bool__


def _is_one(value: Any) -> bool:
    """Return whether `value` is the number 1."""
    return value.number == 1 if isinstance(value, Expression) else isinstance(value, int | float) and value == 1
