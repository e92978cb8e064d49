"""How every kernel is compiled: the one place with compile flags."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba import njit, types
from numba.core.ccallback import CFunc
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic

from fastbp.runtime.cache import kernel_cache
from fastbp.runtime.linking import leave_out_if_large, make_known

if numba.config.DISABLE_JIT:
    raise RuntimeError(
        f"NUMBA_DISABLE_JIT: expected unset or 0, got {numba.config.DISABLE_JIT}, with which no kernel can be made; "
        "unset it, and step through plain NumPy with fastbp.use_reference()"
    )

Function = TypeVar("Function", bound=Callable[..., Any])

# Without it a division raises ZeroDivisionError, unlike NumPy, and loops with one are 9 times slower.
_ERROR_MODEL = "numpy"


class _Kernel(CPUDispatcher):  # type: ignore[misc]
    """A compiled function for calls by other kernels. What calls by Python need takes a quarter of the compilation."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"{self.py_func.__qualname__}: expected a call by another kernel, got one by Python; "
            "make it with entry_kernel"
        )

    def get_call_template(self, args: Any, kws: Any) -> Any:
        # A constant would compile the kernel once more. LLVM sees it where the code becomes part of the caller.
        return super().get_call_template([types.unliteral(kind) for kind in args], kws)

    def add_overload(self, cres: Any) -> None:
        if not self.targetoptions.get("forceinline"):
            leave_out_if_large(_name_of(self.py_func), cres)
        super().add_overload(cres)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` on the first call by a kernel with each set of argument types. Python cannot call it.

    Its arithmetic is done as it is written, on every CPU and in every place that the code is linked into. A sum that is
    to use vectors says its order itself (`fastbp.runtime.vectors`).
    """
    return _made(_Kernel, function, no_cpython_wrapper=True)


def entry_kernel(function: Callable[..., Any]) -> Any:
    """`kernel` that Python calls, too."""
    return _made(CPUDispatcher, function)


def named(function: Function, name: str) -> Function:
    """Give a function that another function made a name of its own in the cache."""
    function.__qualname__ = f"{name}.{function.__name__}"
    return function


def unlocked_kernel(function: Callable[..., Any]) -> Any:
    """`entry_kernel` that other Python threads run beside: it gives the GIL back for the length of a call."""
    return _made(CPUDispatcher, function, nogil=True)


def inlined_kernel(function: Callable[..., Any]) -> Any:
    """`kernel` that becomes part of its one caller, so that LLVM optimises large code once less."""
    return njit(inline="always", fastmath=False, error_model=_ERROR_MODEL)(function)


def function_of_a_number(function: Callable[..., Any]) -> Any:
    """`kernel` that LLVM makes part of every caller, however large it is: else a loop around it has no vectors.

    Softplus of 100,000 float64: 0.45 ms in place of 2.8.
    """
    return _made(_Kernel, function, no_cpython_wrapper=True, forceinline=True)


@intrinsic
def noinline(typingctx: Any) -> Any:
    """Keep this kernel out of the code of its callers, however small it is."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


def generated_kernel(source: str, namespace: dict[str, Any], arguments: tuple[Any, ...]) -> Any:
    """The function `kernel` of a generated source, compiled for `arguments`; `.address` is where it can be called.

    Its place in the cache is a digest of the source, which must be all that it depends on beside the kernel sources and
    `arguments`.
    """
    namespace = {**namespace, "__name__": "fastbp.runtime.generated"}
    exec(compile(source, "<fastbp.graph>", "exec"), namespace)
    options = {"nopython": True, "fastmath": False, "error_model": _ERROR_MODEL}
    function: Any = CFunc(namespace["kernel"], (arguments, types.void), {}, options)
    cache = kernel_cache(f"graph-{hashlib.sha256(source.encode()).hexdigest()[:16]}")
    if cache is not None:
        function._cache = cache
    function.compile()
    return function


def _made(kind: Any, function: Callable[..., Any], **options: Any) -> Any:
    # Without flags of its own a kernel would get those of the kernel that calls it first.
    flags = {"nopython": True, "fastmath": False, "error_model": _ERROR_MODEL, "no_cfunc_wrapper": True}
    dispatcher, name = kind(function, targetoptions=flags | options), _name_of(function)
    make_known(name, dispatcher)
    cache = kernel_cache(name)
    if cache is not None:
        dispatcher._cache = cache
    return dispatcher


def _name_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
