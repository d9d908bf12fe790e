"""
What Numba lacks: loads, bit counts, and the masks of 64 bytes at a time, as LLVM instructions.

`WIDTH` is that of the host's byte shuffle: 64 (AVX-512BW), 32 (AVX2), 16 (SSSE3, NEON), or 0 where
it has none; every other instruction here is LLVM's own and compiles anywhere.
"""

import os
import platform

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .tables import FINGERPRINT

BLOCK = 64
"""Bytes that `block_masks` looks at; it reads `FINGERPRINT - 1` more."""

ARM = platform.machine() in ("aarch64", "arm64")

BYTE, LONG = ir.IntType(8), ir.IntType(64)

WIDTHS = {"avx512bw": 64, "avx2": 32, "ssse3": 16, "neon": 16}
"""Bytes that the byte shuffle of each instruction set takes at once, the widest first."""


def host_kernels() -> list[str]:
    """The names in WIDTHS that this host has, the widest first."""
    features = {"neon": True} if ARM else llvm.get_host_cpu_features()
    return [name for name in WIDTHS if features.get(name)]


def chosen_width() -> int:
    """
    The host's widest, 0 if it has none.

    CURATE_KERNEL in the environment may name another that it has, or `scalar` for none.
    """
    names = [*host_kernels(), "scalar"]
    name = os.environ.get("CURATE_KERNEL") or names[0]
    if name not in names:
        known = ", ".join(names)
        raise ImportError(f"CURATE_KERNEL: expected one of {known} on this host, found {name!r}")
    return WIDTHS.get(name, 0)


WIDTH = chosen_width()

SHUFFLES = {
    64: "llvm.x86.avx512.pshuf.b.512",
    32: "llvm.x86.avx2.pshuf.b",
    16: "llvm.x86.ssse3.pshuf.b.128",
}


def _pointer(context, builder, kind, array, index):
    """The address of `array[index]`."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def load64(typingctx, data, index):
    """The eight bytes from `data[index]` (uint8[any]) as a little-endian uint64."""

    def generate(context, builder, signature, args):
        address = _pointer(context, builder, signature.args[0], *args)
        address = builder.bitcast(address, LONG.as_pointer())
        return builder.load(address, align=1)

    return types.uint64(data, types.int64), generate


@intrinsic
def prefetch(typingctx, data, index):
    """Ask for the cache line of `data[index]`, which need not exist."""

    def generate(context, builder, signature, args):
        address = _pointer(context, builder, signature.args[0], *args)
        small = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, small, small, small])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, small(0), small(3), small(1)])
        return context.get_dummy_value()

    return types.void(data, types.int64), generate


@intrinsic
def count_ones(typingctx, value):
    """Set bits of a uint64."""

    def generate(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


@intrinsic
def lowest_one(typingctx, value):
    """Place of the lowest set bit of a uint64, 64 if it is 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(0))

    return types.int64(types.uint64), generate


@intrinsic
def highest_one(typingctx, value):
    """Place of the highest set bit of a uint64 that is not 0."""

    def generate(context, builder, signature, args):
        zeros = builder.ctlz(args[0], ir.IntType(1)(1))
        return builder.sub(ir.Constant(LONG, 63), zeros)

    return types.int64(types.uint64), generate


@intrinsic
def block_masks(typingctx, data, index, shuffles, sets):
    """
    Bits of the 64 bytes from `data[index]`: newlines, blanks, word bytes, and where a phrase may
    begin by the fingerprint in `shuffles` (`Tables.shuffles`), which has so many sets (a constant).
    Four uint64, bit 0 for the first.
    """
    if not isinstance(sets, types.IntegerLiteral):
        return None  # Numba tries again with the constant
    num_sets = sets.literal_value

    def generate(context, builder, signature, args):
        address = _pointer(context, builder, signature.args[0], args[0], args[1])
        zero = ir.Constant(LONG, 0)
        tables = _pointer(context, builder, signature.args[2], args[2], zero)
        masks = [zero] * 4
        rows = [_row(builder, tables, n) for n in range(2 + FINGERPRINT * num_sets)]
        for offset in range(0, BLOCK, WIDTH):
            piece = builder.gep(address, [ir.Constant(LONG, offset)])
            for n, mask in enumerate(_piece_masks(builder, piece, rows, num_sets)):
                wide = mask if WIDTH == BLOCK else builder.zext(mask, LONG)
                shifted = builder.shl(wide, ir.Constant(LONG, offset))
                masks[n] = builder.or_(masks[n], shifted)
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 4)(data, types.int64, shuffles, sets), generate


@intrinsic
def text_masks(typingctx, data, index, first, second):
    """
    Bits of the 64 bytes from `data[index]`: those equal to either of two bytes, and those that are
    0 or above 0x7F. Two uint64, bit 0 for the first. LLVM cuts the vector to what the host has.
    """
    wide = ir.VectorType(BYTE, BLOCK)

    def generate(context, builder, signature, args):
        address = _pointer(context, builder, signature.args[0], args[0], args[1])
        piece = builder.load(builder.bitcast(address, wide.as_pointer()), align=1)
        same = ir.Constant(LONG, 0)
        for byte in args[2:]:
            one = builder.insert_element(ir.Constant(wide, ir.Undefined), byte, ir.IntType(32)(0))
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [0] * BLOCK)
            equal = builder.icmp_unsigned("==", piece, builder.shuffle_vector(one, one, lanes))
            same = builder.or_(same, builder.bitcast(equal, LONG))
        odd = builder.icmp_signed("<=", piece, ir.Constant(wide, [0] * BLOCK))
        masks = [same, builder.bitcast(odd, LONG)]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 2)(data, types.int64, types.uint8, types.uint8), generate


def _vector():
    return ir.VectorType(BYTE, WIDTH)


def _splat(value):
    return ir.Constant(_vector(), [value] * WIDTH)


def _load(builder, address, offset):
    address = builder.gep(address, [ir.Constant(LONG, offset)])
    return builder.load(builder.bitcast(address, _vector().as_pointer()), align=1)


def _row(builder, tables, number):
    """A row of 16 bytes, repeated to the vector's width."""
    small = ir.VectorType(BYTE, 16)
    address = builder.gep(tables, [ir.Constant(LONG, 16 * number)])
    row = builder.load(builder.bitcast(address, small.as_pointer()), align=1)
    row.set_metadata("invariant.load", builder.module.add_metadata([]))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [n % 16 for n in range(WIDTH)])
    return builder.shuffle_vector(row, row, lanes)


def _shuffle(builder, table, index):
    """`table[index]` in each lane of 16 bytes; every index is below 16."""
    if ARM:
        name = "llvm.aarch64.neon.tbl1.v16i8"
    else:
        name = SHUFFLES[WIDTH]
    kind = ir.FunctionType(_vector(), [_vector(), _vector()])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [table, index])


def _mask(builder, lanes):
    """One bit for each true lane."""
    return builder.bitcast(lanes, ir.IntType(WIDTH))


def _piece_masks(builder, address, rows, num_sets):
    piece = _load(builder, address, 0)
    low = builder.and_(piece, _splat(15))
    high = builder.and_(builder.lshr(piece, _splat(4)), _splat(15))
    classes = builder.and_(_shuffle(builder, rows[0], low), _shuffle(builder, rows[1], high))
    found = [None] * num_sets
    for place in range(FINGERPRINT):
        if place > 0:
            low = builder.and_(_load(builder, address, place), _splat(15))
        for number in range(num_sets):
            groups = _shuffle(builder, rows[2 + place * num_sets + number], low)
            found[number] = groups if place == 0 else builder.and_(found[number], groups)
    begins = found[0]
    for groups in found[1:]:
        begins = builder.or_(begins, groups)
    none = _splat(0)
    lanes = (
        builder.icmp_unsigned("==", piece, _splat(10)),
        builder.icmp_unsigned("!=", builder.and_(classes, _splat(0x30)), none),
        builder.icmp_unsigned("!=", builder.and_(classes, _splat(0x0F)), none),
        builder.icmp_unsigned("!=", begins, none),
    )
    return [_mask(builder, lane) for lane in lanes]
