"""What begins here? The exact question, which kernels ask of the few places that may match."""

import numpy as np
from numba import literal_unroll

from ._jit import part
from .simd import highest_one, load64
from .tables import (
    AT_START,
    BUCKET_BITS,
    BUCKETS,
    CASE,
    CASES,
    CATEGORY,
    FEW_KEYS,
    HASH_HIGH,
    HASH_LOW,
    HEAD,
    HEADS,
    KEYS,
    MANY_KEYS,
    MASKS,
    SIZE,
    WORD,
)

FOLD = 0x2020202020202020

LOW, HIGH = (
    tuple(np.uint64((1 << 8 * min(max(size - skipped, 0), 8)) - 1) for size in KEYS)
    for skipped in (0, 8)
)
"""The bits of each key, of the first eight bytes and of the next."""


@part
def head_at(data, place, stop):
    """The 16 bytes from `place` as two integers; those from `stop` on are 0, as if blank."""
    if place + HEAD <= stop:
        return load64(data, place), load64(data, place + 8)
    if stop >= HEAD:  # the last 16 bytes, those before `place` shifted out
        low, high = load64(data, stop - 16), load64(data, stop - 8)
        bits = 8 * (place + HEAD - stop)
        if bits >= 64:
            return high >> np.uint64(bits - 64), np.uint64(0)
        return low >> np.uint64(bits) | high << np.uint64(64 - bits), high >> np.uint64(bits)
    low, high = np.uint64(0), np.uint64(0)
    for n in range(stop - 1, place - 1, -1):
        high = high << np.uint64(8) | low >> np.uint64(56)
        low = low << np.uint64(8) | np.uint64(data[n])
    return low, high


@part
def bucket_at(low, high, number):
    """The bucket that 16 bytes fall in by one of KEYS; as `tables.bucket_of`."""
    low = (low | np.uint64(FOLD)) & LOW[number]
    high = (high | np.uint64(FOLD)) & HIGH[number]
    mixed = low * np.uint64(HASH_LOW) + high * np.uint64(HASH_HIGH)
    return number * np.uint64(BUCKETS) + (mixed >> np.uint64(64 - BUCKET_BITS))


def asker(numbers):
    """`likely` for lexicons in which so many of KEYS are tried."""

    @part
    def likely(low, high, passes):
        keys = np.uint8(0)
        for number in literal_unroll(numbers):
            keys |= passes[bucket_at(low, high, np.uint64(number))]
        return np.uint64(keys)

    return likely


likely_in_small, likely_in_large = asker(FEW_KEYS), asker(MANY_KEYS)


@part
def likely(low, high, tables):
    """The keys that some phrase has in common with these 16 bytes, as bits; a few too many."""
    if tables.large:
        return likely_in_large(low, high, tables.filter)
    return likely_in_small(low, high, tables.filter)


@part
def rows_of(tables, bucket):
    """The patterns of a bucket. Unsigned, as Numba asks of any other index if it is negative."""
    buckets = tables.buckets
    return range(np.uint64(buckets[bucket]), np.uint64(buckets[bucket + np.uint64(1)]))


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
def match_end(data, place, stop, first, low, high, tables, row):
    """
    Where a pattern's match at `place` ends, 0 if it does not match; `low`, `high` as `head_at`.

    The place is not inside a word, or its byte is none of a word. `stop` ends the step, or lies
    behind it where no phrase can reach beyond the step; `first` is the step's first byte that is
    not blank. Free of branches but for the rare long phrase, as which phrase it is is a surprise.
    """
    rows = tables.patterns
    differs = ((low | rows[row, CASES]) & rows[row, MASKS]) ^ rows[row, HEADS]
    differs |= ((high | rows[row, CASES + 1]) & rows[row, MASKS + 1]) ^ rows[row, HEADS + 1]
    size = np.int64(rows[row, SIZE] & np.uint64(0xFFFFFFFF))
    end = place + size
    behind = min(end, stop - 1)
    before = max(behind - 1, place)
    word = tables.kind[data[np.uint64(behind)]] & tables.kind[data[np.uint64(before)]] & WORD
    matches = (differs == 0) & (end <= stop) & ((word == 0) | (end == stop))
    matches &= (rows[row, AT_START] == 0) | (place == first)
    if matches & (size > HEAD):
        tail = np.int64(rows[row, SIZE] >> np.uint64(32))
        matches = same_tail(data, place + HEAD, end, tables.letters, tail)
    return end if matches else 0


@part
def matches_at(data, place, stop, first, tables, free):
    """
    The categories that match at `place` and do not overlap their last match, as bits.

    Arguments as of `match_end`; `free[c]` is the end of the last match of category c, moved on for
    each bit returned. Longer phrases are tried first, so that the first to match is the longest.
    """
    low, high = head_at(data, place, stop)
    matched = 0
    keys = likely(low, high, tables)
    while keys:
        number = np.uint64(highest_one(keys))
        keys ^= np.uint64(1) << number
        for row in rows_of(tables, bucket_at(low, high, number)):
            end = match_end(data, place, stop, first, low, high, tables, row)
            category = np.int64(tables.patterns[row, CATEGORY])
            if end and place >= free[category]:
                free[category] = end
                matched |= 1 << category
    return matched
