"""The arguments of the command: subcommands with an example each, and values that are checked with the way out."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from fastbp.checks import closest

Run = Callable[[argparse.Namespace], int]


def command(commands: Any, name: str, run: Run, what: str, example: str, **settings: Any) -> argparse.ArgumentParser:
    """Add a subcommand, which `run` does; its help ends with the example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **settings,
    )
    parser.set_defaults(run=run)
    return parser


def refuse_unknown(parser: argparse.ArgumentParser, names: Collection[str], arguments: Sequence[str]) -> None:
    """End with an error for a command that is none of `names`; it says which one was meant."""
    given = next((argument for argument in arguments if not argument.startswith("-")), None)
    if given is not None and given not in names:
        parser.error(f"command: expected one of {', '.join(names)}, got {given!r}; {closest(given, names)}")


def one_of(names: Collection[str]) -> dict[str, Any]:
    """The settings of an argument that is one of some names."""

    def convert(text: str) -> str:
        if text in names:
            return text
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text!r}; {closest(text, names)}")

    return {"type": convert, "metavar": f"{{{','.join(names)}}}"}


def whole_number(least: int) -> Callable[[str], int]:
    """What converts a text to a whole number that is at least `least`."""

    def convert(text: str) -> int:
        if text.isascii() and text.isdigit() and int(text) >= least:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected a whole number, at least {least}, got {text!r}")

    return convert


def shape(text: str) -> tuple[int, ...]:
    """A text such as 1,28,28 as the shape of a sample."""
    return tuple(whole_number(1)(axis) for axis in text.split(","))


def rate(text: str) -> float:
    """A text as a learning rate."""
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 < value < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"expected a number greater than 0, got {text!r}")
