"""
Count the distinct steps of a trace, so that loops show.

Each step, blanks trimmed from both ends, is hashed into an open-addressing table; equal hashes are
settled by comparing the bytes, so the count is exact. Specification: `reference.unique_steps`.
"""

import numpy as np

from ._jit import kernel
from .tables import BLANK

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)


@kernel
def trimmed(data, start, end, kind):
    """A span without the blanks at its ends."""
    while start < end and kind[data[start]] & BLANK:
        start += 1
    while start < end and kind[data[end - 1]] & BLANK:
        end -= 1
    return start, end


@kernel
def hashed(data, start, end):
    """FNV-1a of a span, its high half folded in, as a table's slot is taken from the low bits."""
    value = FNV_OFFSET
    for i in range(start, end):
        value = (value ^ np.uint64(data[i])) * FNV_PRIME
    return value ^ (value >> np.uint64(32))


@kernel
def same_bytes(data, a, b, size):
    """Whether the `size` bytes at `a` and at `b` are equal."""
    for i in range(size):
        if data[a + i] != data[b + i]:
            return False
    return True


@kernel
def count_unique_steps(data, offsets, steps, spans, kind, slots, out):
    """
    Count the distinct steps of every trace of a batch.

    Parameters
    ----------
    data : uint8[num_bytes]
        The traces, as `scalar.measure_traces` had them. Read only.
    offsets : int64[num_traces + 1]
        Likewise.
    steps : int32[num_traces]
        Steps of each trace. Read only.
    spans : int64[num_steps, 2]
        Byte offsets of each step into its trace, traces end to end. Trimmed in place.
    kind : uint8[256]
        `Tables.kind`.
    slots : int64[capacity]
        Scratch; a power of two, more than twice the most steps of a trace.
    out : int32[num_traces]
        Overwritten.

    Notes
    -----
    Never raises, allocates nothing. O(num_bytes) unless hashes are made to collide.
    """
    step = 0
    for trace in range(offsets.size - 1):
        size = 2
        while size < 2 * steps[trace] + 2:
            size *= 2
        slots[:size] = -1
        unique = 0
        for _ in range(steps[trace]):
            begin = offsets[trace]
            start, end = trimmed(data, begin + spans[step, 0], begin + spans[step, 1], kind)
            spans[step, 0] = start
            spans[step, 1] = end
            slot = np.int64(hashed(data, start, end) & np.uint64(size - 1))
            while slots[slot] >= 0:
                other = slots[slot]
                length = spans[other, 1] - spans[other, 0]
                if length == end - start and same_bytes(data, spans[other, 0], start, length):
                    break
                slot = (slot + 1) & (size - 1)
            if slots[slot] < 0:
                slots[slot] = step
                unique += 1
            step += 1
        out[trace] = unique
