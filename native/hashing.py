"""
Hashes of whole texts, and a table of the hashes seen before.

Equal texts have equal hashes. These are not cryptographic: whoever wants two texts to collide can
have it.
"""

# Kernels are typed by their docstrings: Numba compiles them for the dtypes that they are given.

from hashlib import sha512

import numpy as np

from ._jit import kernel, part
from .simd import load64, prefetch

KEYS = [int(key) | 1 for key in np.frombuffer(sha512(b"curate").digest(), "<u8")]
"""Odd multipliers with nothing up their sleeve."""

K0, K1, K2, K3, K4, K5, K6, K7 = (np.uint64(key) for key in KEYS)
ZERO, BITS_8, BITS_29, BITS_31, BITS_32, BITS_33 = (
    np.uint64(value) for value in (0, 8, 29, 31, 32, 33)
)

STRIPE = 32
"""Bytes that a whole text's hash takes in at a time, in four lanes of eight."""

AHEAD = 16
"""Hashes whose place in the table of those seen is asked for before its turn."""


@part
def mixed(value):
    """Each bit of a uint64 spread over all of them; a bijection."""
    value = (value ^ (value >> BITS_33)) * K0
    value = (value ^ (value >> BITS_29)) * K1
    return value ^ (value >> BITS_32)


@part
def absorbed(lane, word, first, second):
    """A lane with eight more bytes."""
    lane += word * first
    return ((lane << BITS_31) | (lane >> BITS_33)) * second


@part
def word_at(data, at, end):
    """Eight bytes as a little-endian uint64, zeros from `end` on."""
    if at + 8 <= end:
        return load64(data, at)
    word = ZERO
    for i in range(end - 1, at - 1, -1):
        word = word << BITS_8 | np.uint64(data[i])
    return word


@part
def folded(size, a, b, c, d):
    """Four lanes and the length as one."""
    return mixed(mixed(mixed(mixed(np.uint64(size) + a) + b) + c) + d)


@kernel
def hash_texts(data, starts, ends, out):
    """
    Hash whole texts, any bytes, to 128 bits.

    The text, filled up with zeros to whole stripes, goes eight bytes at a time through four lanes,
    once for each half of the hash with multipliers of its own; lanes and length are then mixed.

    Parameters
    ----------
    data : uint8[num_bytes]
        Read only.
    starts, ends : int64[num_texts]
        Text `i` is `data[starts[i]:ends[i]]`. Read only.
    out : uint64[num_texts, 2]
        Overwritten.

    Never raises, allocates nothing. O(num_bytes).
    """
    for text in range(starts.size):
        at, end = starts[text], ends[text]
        a0, a1, a2, a3 = K0, K1, K2, K3
        b0, b1, b2, b3 = K4, K5, K6, K7
        while at < end:
            w0, w1 = word_at(data, at, end), word_at(data, at + 8, end)
            w2, w3 = word_at(data, at + 16, end), word_at(data, at + 24, end)
            a0, b0 = absorbed(a0, w0, K4, K5), absorbed(b0, w0, K6, K7)
            a1, b1 = absorbed(a1, w1, K4, K5), absorbed(b1, w1, K6, K7)
            a2, b2 = absorbed(a2, w2, K4, K5), absorbed(b2, w2, K6, K7)
            a3, b3 = absorbed(a3, w3, K4, K5), absorbed(b3, w3, K6, K7)
            at += STRIPE
        out[text, 0] = folded(end - starts[text], a0, a1, a2, a3)
        out[text, 1] = folded(end - starts[text], b0, b1, b2, b3)


@part
def slot_of(high, capacity):
    """Where a hash would stand in a table: the order of the slots is that of the hashes."""
    return np.int64(((high >> BITS_32) * np.uint64(capacity)) >> BITS_32)


@kernel
def mark_seen(hashes, taken, table, state, out):
    """
    Mark the hashes that were seen before, and see the others.

    Parameters
    ----------
    hashes : uint64[rows, 2]
        Read only.
    taken : bool[rows]
        Rows that take part; the others are neither marked nor seen. Read only.
    table : uint64[capacity, 2]
        Those seen, each at its `slot_of` or in the next free slot behind it, round the end; free
        slots are zeros. There are more free ones than rows.
    state : int64[2]
        Slots in use; 1 if a hash of zeros, which no slot can hold, was seen.
    out : bool[rows]
        Overwritten.

    Never raises, allocates nothing. O(rows) while a quarter of the slots is free.
    """
    rows, capacity = hashes.shape[0], table.shape[0]
    for row in range(rows):
        if row + AHEAD < rows:
            prefetch(table, 2 * slot_of(hashes[row + AHEAD, 0], capacity))
        high, low = hashes[row, 0], hashes[row, 1]
        out[row] = False
        if not taken[row]:
            continue
        if high == ZERO and low == ZERO:
            out[row] = state[1] == 1
            state[1] = 1
            continue
        slot = slot_of(high, capacity)
        while table[slot, 0] != ZERO or table[slot, 1] != ZERO:
            if table[slot, 0] == high and table[slot, 1] == low:
                out[row] = True
                break
            slot = slot + 1 if slot + 1 < capacity else 0
        if not out[row]:
            table[slot, 0] = high
            table[slot, 1] = low
            state[0] += 1


@kernel
def move_seen(table, larger):
    """Copy a table of `mark_seen` into a larger one of zeros, in order, so that memory streams."""
    capacity = larger.shape[0]
    for at in range(table.shape[0]):
        high, low = table[at, 0], table[at, 1]
        if high == ZERO and low == ZERO:
            continue
        slot = slot_of(high, capacity)
        while larger[slot, 0] != ZERO or larger[slot, 1] != ZERO:
            slot = slot + 1 if slot + 1 < capacity else 0
        larger[slot, 0] = high
        larger[slot, 1] = low
