"""What begins here? The exact question, which kernels ask of the few places that may match."""

import numpy as np

from ._jit import part
from .simd import load64
from .tables import BUCKETS, CASE, HASH_MULTIPLIER, HEAD, WORD

FOLD = 0x2020202020202020


@part
def head_at(data, place, stop):
    """The 16 bytes from `place` as two integers; those from `stop` on are 0, as if blank."""
    if place + HEAD <= stop:
        return load64(data, place), load64(data, place + 8)
    low, high = np.uint64(0), np.uint64(0)
    for n in range(stop - place):
        byte = np.uint64(data[place + n]) << np.uint64(8 * (n & 7))
        if n < 8:
            low |= byte
        else:
            high |= byte
    return low, high


@part
def same_tail(data, begin, end, letters, tail):
    """Whether bytes, in lower case, are those of `letters` from `tail`."""
    for n in range(end - begin):
        byte = data[begin + n]
        if 0x41 <= byte <= 0x5A:
            byte |= CASE
        if byte != letters[tail + n]:
            return False
    return True


@part
def match_bucket(data, place, stop, first, tables, bucket, low, high, seen, ends):
    """Add the categories that a bucket's patterns match to `seen`, their longest ends to `ends`."""
    heads, cases, masks = tables.heads, tables.cases, tables.masks
    for pattern in range(tables.buckets[bucket], tables.buckets[bucket + 1]):
        if (low | cases[pattern, 0]) & masks[pattern, 0] != heads[pattern, 0]:
            continue
        if (high | cases[pattern, 1]) & masks[pattern, 1] != heads[pattern, 1]:
            continue
        end = place + tables.sizes[pattern]
        if end > stop or (tables.at_start[pattern] and place != first):
            continue
        if end < stop and tables.kind[data[end - 1]] & tables.kind[data[end]] & WORD:
            continue
        tail = tables.tails[pattern]
        if end > place + HEAD and not same_tail(data, place + HEAD, end, tables.letters, tail):
            continue
        accept = np.int64(tables.accepts[pattern])
        for category in range(tables.num_categories):
            if accept >> category & 1 and (not seen >> category & 1 or end > ends[category]):
                ends[category] = end
        seen |= accept
    return seen


@part
def match_at(data, place, stop, first, tables, free, ends):
    """
    The categories that match at `place` and do not overlap their last match, as bits.

    The place is not inside a word, or its byte is none of a word. `stop` ends the step, or lies
    behind it where no phrase can reach beyond the step; `first` is the step's first byte that is
    not blank; `free[c]` the end of the last match of category c, moved on for each bit returned;
    `ends` is scratch.
    """
    low, high = head_at(data, place, stop)
    folded = low | np.uint64(FOLD)
    long = np.int64(folded * np.uint64(HASH_MULTIPLIER) >> np.uint64(48))
    short = np.int64((folded & np.uint64(0xFFFFFF)) * np.uint64(HASH_MULTIPLIER) >> np.uint64(48))
    short += BUCKETS
    passes = tables.filter
    seen = 0
    if passes[long >> 3] >> (long & 7) & 1:
        seen = match_bucket(data, place, stop, first, tables, long, low, high, seen, ends)
    if passes[short >> 3] >> (short & 7) & 1:
        seen = match_bucket(data, place, stop, first, tables, short, low, high, seen, ends)
    if seen == 0:
        return 0
    matched = 0
    for category in range(tables.num_categories):
        if seen >> category & 1 and place >= free[category]:
            free[category] = ends[category]
            matched |= 1 << category
    return matched
