"""Large kernels are compiled once: those that call them hold no copy of their code.

Numba links the code of a kernel into each of its callers. LLVM then optimises it once more there, in their callers, and
so on, although it makes only small functions part of others. So the code of large kernels is left out. The machine code
of a caller names them, and they are found among what was compiled or loaded before. In the cache the file of a caller
says which ones it needs.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

from llvmlite import binding

# Instructions from which on code is left out. With 100 a step of 24-8-2 with batch 200 takes 1.05 times as long: LLVM
# would make some of that size part of others. From 250 on it takes as long as with everything linked in.
LARGE = 250

_kernels: dict[str, Any] = {}  # by name
_large: dict[str, Need] = {}  # by the name of the code


class Need(NamedTuple):
    """Code that was left out of a caller: its name in machine code, and the kernel and the types that it is of."""

    symbol: str
    kernel: str
    arguments: tuple[Any, ...]


def make_known(name: str, kernel: Any) -> None:
    """Let files in the cache need a kernel."""
    _kernels[name] = kernel


def leave_out_if_large(name: str, compiled: Any) -> None:
    """Leave code out of its callers, and its IR out of the cache, if it is large or `noinline`."""
    symbol, library = compiled.fndesc.mangled_name, compiled.library
    if library._shared_module is not None:  # it was loaded
        return
    function = library.get_function(symbol)
    instructions = (each for block in function.blocks for each in block.instructions)
    if b"noinline" in function.attributes or next(islice(instructions, LARGE, None), None) is not None:
        library._shared_module = binding.parse_assembly("")
        _large[symbol] = Need(symbol, name, compiled.signature.args)


def needs_of(compiled: Any) -> tuple[Need | None, list[Need]]:
    """What a caller of this code needs, where it is left out, and what this code needs."""
    names = [function.name for function in compiled.library._final_module.functions if function.is_declaration]
    return _large.get(compiled.fndesc.mangled_name), [_large[name] for name in names if name in _large]


def are_met(itself: Need | None, needs: list[Need]) -> bool:
    """Load what code needs; returns whether it is there. Code that was compiled anew has another name."""
    for need in needs:
        if need.kernel not in _kernels:
            return False
        _kernels[need.kernel].compile(need.arguments)
        if need.symbol not in _large:
            return False
    if itself is not None:
        _large[itself.symbol] = itself
    return True
