"""Pointers for kernels: the memory of an array by address and stride, without the cost of slices."""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic


@intrinsic
def at(typingctx: Any, array: Any, offset: Any) -> Any:
    """Pointer to element `offset` of an array's memory, counted from its first element."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


@intrinsic
def located(typingctx: Any, like: Any, address: Any) -> Any:
    """Pointer of the type of `like` to an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], args[0].type)

    return like(like, types.intp), codegen


@intrinsic
def pointer_to(typingctx: Any, kind: Any, address: Any) -> Any:
    """Pointer to numbers of a dtype, such as np.float64, at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], context.get_value_type(signature.return_type))

    return types.CPointer(kind.dtype)(kind, types.intp), codegen


@intrinsic
def as_words(typingctx: Any, pointer: Any) -> Any:
    """Pointer to machine words where a pointer to other numbers points to."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.intp)(pointer), codegen


@intrinsic
def shift(typingctx: Any, pointer: Any, offset: Any) -> Any:
    """`pointer + offset`, in elements."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), codegen


@intrinsic
def load(typingctx: Any, pointer: Any) -> Any:
    """The element at `pointer`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(args[0])

    return pointer.dtype(pointer), codegen


@intrinsic
def store(typingctx: Any, pointer: Any, value: Any) -> Any:
    """Write `value` to `pointer`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], args[0])
        return context.get_dummy_value()

    return types.void(pointer, pointer.dtype), codegen


@intrinsic
def itemsize(typingctx: Any, pointer: Any) -> Any:
    """Bytes of an element, a constant in the code. An array's itemsize is none, and division by it takes 20 cycles."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(pointer.dtype)))

    return types.intp(pointer), codegen


@intrinsic
def allocate(typingctx: Any, pointer: Any, count: Any) -> Any:
    """Memory for `count` elements like that at `pointer`, which `release` frees; null for none.

    References to an array would be counted at every call that takes it (110 ns in a product of 0×0×0).
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = args[1]
        size = builder.mul(count, count.type(context.get_abi_sizeof(context.get_data_type(pointer.dtype))))
        result = cgutils.alloca_once_value(builder, args[0].type(None))
        with builder.if_then(builder.icmp_signed(">", count, count.type(0))):
            builder.store(builder.bitcast(context.nrt.allocate(builder, size), args[0].type), result)
        return builder.load(result)

    return pointer(pointer, types.intp), codegen


@intrinsic
def release(typingctx: Any, pointer: Any) -> Any:
    """Free what `allocate` gave."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        context.nrt.free(builder, builder.bitcast(args[0], ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(pointer), codegen


def local_memory(count: int) -> Any:
    """An intrinsic local(pointer): memory in the frame of the caller, for `count` elements like that at `pointer`."""

    @intrinsic
    def local(typingctx: Any, pointer: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            memory = cgutils.alloca_once(builder, ir.ArrayType(context.get_data_type(pointer.dtype), count))
            return builder.bitcast(memory, args[0].type)

        return pointer(pointer), codegen

    return local


@intrinsic
def word_at(typingctx: Any, address: Any, number: Any) -> Any:
    """The machine word of that number from an address on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.gep(builder.inttoptr(args[0], args[0].type.as_pointer()), [args[1]]))

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def call_at(typingctx: Any, address: Any, function: Any, arguments: Any) -> Any:
    """Call a compiled kernel that returns nothing by its address (`address_of`).

    A plain call would link the kernel into the caller and its callers, and LLVM would optimise it again in each.
    """
    if not all(kind == types.intp or isinstance(kind, types.CPointer) for kind in arguments.types):
        raise TypingError(f"call_at: expected machine words and pointers, as `address_of` is given, got {arguments}")
    called = function.get_call_type(typingctx, tuple(arguments.types), {})

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        convention = context.call_conv
        kind = convention.get_function_type(called.return_type, called.args)
        values = context.get_arg_packer(called.args).as_arguments(builder, cgutils.unpack_tuple(builder, args[2]))
        result, error = (cgutils.alloca_once(builder, pointer.pointee) for pointer in kind.args[:2])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [result, error, *values])
        return context.get_dummy_value()

    return types.void(types.intp, function, arguments), codegen


@functools.cache
def address_of(kernel: Any, argument_types: tuple[Any, ...]) -> int:
    """The address of a kernel for `argument_types`, which is compiled first if need be.

    It is kept, and holds after a fork: to ask Numba takes its lock, which a thread that the child lacks may have held.
    """
    kernel.compile(argument_types)
    compiled = kernel.overloads[argument_types]
    # The library of a large kernel that was loaded does not know what it has (`fastbp.runtime.linking`).
    address: int = compiled.library.codegen._engine.get_function_address(compiled.fndesc.mangled_name)
    return address


@intrinsic
def aligned(typingctx: Any, pointer: Any, size: Any) -> Any:
    """The first address from `pointer` on that is a multiple of `size` bytes, a power of two."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        before = builder.sub(args[1], args[1].type(1))
        address = builder.add(builder.ptrtoint(args[0], args[1].type), before)
        return builder.inttoptr(builder.and_(address, builder.not_(before)), args[0].type)

    return pointer(pointer, types.intp), codegen


@intrinsic
def record_pointer(typingctx: Any, record: Any) -> Any:
    """Pointer to a copy of a named tuple in this function's frame, for kernels that it calls and that use `view`.

    A record that is passed by value is copied word by word at every call, and the references to each of its arrays are
    counted, in one counter for all threads. A step of a small network spent half of its time there.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return cgutils.alloca_once_value(builder, args[0])

    return types.CPointer(record)(record), codegen


@intrinsic
def view(typingctx: Any, pointer: Any) -> Any:
    """The named tuple at a pointer of `record_pointer`, its arrays uncounted: it must not outlive that copy.

    Its fields are arrays and numbers. Booleans have another form in memory.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        record = builder.load(args[0])
        for number, kind in enumerate(signature.return_type.types):
            if isinstance(kind, types.Array):
                for owner in range(2):  # meminfo and parent, with which the description of an array begins
                    none = ir.Constant(record.type.elements[number].elements[owner], None)
                    record = builder.insert_value(record, none, [number, owner])
        return record

    return pointer.dtype(pointer), codegen
