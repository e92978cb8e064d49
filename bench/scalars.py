"""Scalars in plain Python that remember how they were computed; eager variables are compared with them.

The style is that of teaching code: an object and a closure for each operation, and recursion for the order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Scalar:
    """A number with a gradient and a closure that passes it back."""

    def __init__(self, value: float, operands: tuple[Scalar, ...] = ()) -> None:
        self.value = value
        self.grad = 0.0
        self.operands = set(operands)
        self.pass_back: Callable[[], None] = lambda: None

    def __add__(self, other: Any) -> Scalar:
        other = other if isinstance(other, Scalar) else Scalar(other)
        out = Scalar(self.value + other.value, (self, other))

        def pass_back() -> None:
            self.grad += out.grad
            other.grad += out.grad

        out.pass_back = pass_back
        return out

    def __mul__(self, other: Any) -> Scalar:
        other = other if isinstance(other, Scalar) else Scalar(other)
        out = Scalar(self.value * other.value, (self, other))

        def pass_back() -> None:
            self.grad += out.grad * other.value
            other.grad += out.grad * self.value

        out.pass_back = pass_back
        return out

    def relu(self) -> Scalar:
        out = Scalar(max(self.value, 0.0), (self,))

        def pass_back() -> None:
            self.grad += out.grad * (out.value > 0)

        out.pass_back = pass_back
        return out

    def backward(self) -> None:
        order: list[Scalar] = []
        visited = set()

        def visit(scalar: Scalar) -> None:
            if scalar not in visited:
                visited.add(scalar)
                for operand in scalar.operands:
                    visit(operand)
                order.append(scalar)

        visit(self)
        self.grad = 1.0
        for scalar in reversed(order):
            scalar.pass_back()
