"""
Hashes of text: of the grams of its words, of the whole of it, and a table of hashes seen before.

A gram is GRAM words in a row, or all the words of a text that has fewer. Words are hashed one code
point at a time and grams roll over the words' hashes, so a text costs the same however many grams
it shares. What equal hashes suggest is for the caller to confirm where it matters; equal texts
have equal hashes. None of these is cryptographic: whoever wants two texts to collide can have it.
"""

# Kernels are typed by their docstrings: Numba compiles them for the dtypes that they are given.

from hashlib import sha512
from typing import NamedTuple

import numpy as np

from ._jit import kernel, part
from .simd import load64, prefetch

GRAM = 8
"""Words of a gram."""

MIN_PART, MIN_WHOLE = 8, 4
"""
Grams that two texts must share to count as overlapping: where part of either is in the other, and
where all of it is (15 words in a row, and 11). Fewer are what any two questions may have in common.
"""

KEYS = [int(key) | 1 for key in np.frombuffer(sha512(b"curate").digest(), "<u8")]
"""Odd multipliers with nothing up their sleeve."""

K0, K1, K2, K3, K4, K5, K6, K7 = (np.uint64(key) for key in KEYS)
OLDEST = np.uint64(pow(KEYS[2], GRAM, 1 << 64))
ZERO, ONE, FILTER_BITS, BITS_6, BITS_8, BITS_29, BITS_31, BITS_32, BITS_33, LOW_6 = (
    np.uint64(value) for value in (0, 1, 4, 6, 8, 29, 31, 32, 33, 63)
)

STRIPE = 32
"""Bytes that a whole text's hash takes in at a time, in four lanes of eight."""

AHEAD = 16
"""Hashes whose place in the table of those seen is asked for before its turn."""


class Index(NamedTuple):
    """
    The grams of all items: `grams` (uint64[pairs]) ascending, and beside each the item that has it.

    `items` is int32[pairs], `first` int64[2**bits + 1]: those whose top `bits` bits are `b` stand
    at `first[b]:first[b + 1]`; `shift` is 64 - bits. `sizes` is int32[items], distinct grams each.
    `filter` is uint64[2**(bits - 2)], whose bit `f` says that some gram's top `bits + 4` bits are
    `f`: one in sixteen or fewer, so that nearly all of a text's grams stop at a bit in the cache.
    """

    grams: np.ndarray
    items: np.ndarray
    first: np.ndarray
    shift: np.uint64
    sizes: np.ndarray
    filter: np.ndarray


def build_index(grams: np.ndarray, items: np.ndarray, sizes: np.ndarray) -> Index:
    """The index of what `list_grams` wrote: uint64[pairs], int32[pairs], int32[items]."""
    order = np.argsort(grams, kind="stable")
    grams, items = grams[order], items[order]
    bits = max(len(grams).bit_length(), 2)
    shift = np.uint64(64 - bits)
    first = np.searchsorted(grams >> shift, np.arange((1 << bits) + 1, dtype=np.uint64))
    places = grams >> (shift - FILTER_BITS)
    filled = np.zeros(1 << (bits - 2), np.uint64)
    np.bitwise_or.at(filled, places >> BITS_6, ONE << (places & LOW_6))
    return Index(grams, items, first.astype(np.int64), shift, sizes, filled)


class Room(NamedTuple):
    """Scratch for texts of at most so many words: `words`, `grams`, uint64; `slots`, 4 times it."""

    words: np.ndarray
    grams: np.ndarray
    slots: np.ndarray


def new_room(max_bytes: int) -> Room:
    """Scratch for texts of at most so many bytes; up to 24 bytes for each of them."""
    words = max_bytes // 2 + 1
    slots = 1 << (2 * words - 1).bit_length()
    return Room(*(np.empty(size, np.uint64) for size in (words, words, slots)))


@part
def mixed(value):
    """Each bit of a uint64 spread over all of them; a bijection."""
    value = (value ^ (value >> BITS_33)) * K0
    value = (value ^ (value >> BITS_29)) * K1
    return value ^ (value >> BITS_32)


@part
def code_point(data, at):
    """The code point at a place of valid UTF-8, and where the next one begins."""
    byte = np.int64(data[at])
    if byte < 0x80:
        return byte, at + 1
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | data[at + 1] & 0x3F, at + 2
    code = np.int64(data[at + 1] & 0x3F) << 6 | data[at + 2] & 0x3F
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | code, at + 3
    return (byte & 0x07) << 18 | code << 6 | data[at + 3] & 0x3F, at + 4


@part
def hash_words(data, at, end, is_word, words):
    """Write the hash of each word of a text, ASCII in lower case; how many there are."""
    count = 0
    inside = False
    value = K3
    while at < end:
        code, at = code_point(data, at)
        if is_word[code]:
            if 0x41 <= code <= 0x5A:
                code += 0x20
            value = (value ^ np.uint64(code)) * K4
            inside = True
        elif inside:
            words[count] = mixed(value)
            count += 1
            inside = False
            value = K3
    if inside:
        words[count] = mixed(value)
        count += 1
    return count


@part
def hash_grams(data, start, end, is_word, room):
    """Write the hash of each gram of a text to `room.grams`, none of them 0; how many there are."""
    count = hash_words(data, start, end, is_word, room.words)
    if count == 0:
        return 0
    length = min(count, GRAM)
    value = ZERO
    for i in range(count):
        value = value * K2 + room.words[i]
        if i >= GRAM:
            value -= OLDEST * room.words[i - GRAM]
        if i >= length - 1:
            room.grams[i - length + 1] = max(mixed(value ^ (np.uint64(length) * K5)), ONE)
    return count - length + 1


@part
def leave_distinct(count, room):
    """Leave the distinct ones of `room.grams[:count]`, in their order; how many they are."""
    size = 2
    while size < 2 * count:
        size *= 2
    room.slots[:size] = ZERO
    distinct = 0
    for i in range(count):
        gram = room.grams[i]
        slot = np.int64(gram & np.uint64(size - 1))
        while room.slots[slot] != ZERO and room.slots[slot] != gram:
            slot = (slot + 1) & (size - 1)
        if room.slots[slot] == ZERO:
            room.slots[slot] = gram
            room.grams[distinct] = gram
            distinct += 1
    return distinct


@part
def may_hold(index, gram):
    """False where no item has a gram."""
    place = gram >> (index.shift - FILTER_BITS)
    return (index.filter[place >> BITS_6] >> (place & LOW_6)) & ONE != ZERO


@part
def may_share(count, index, room):
    """False where no item has any of `room.grams[:count]`, or too few of them to tell."""
    held = 0
    for i in range(count):
        held += may_hold(index, room.grams[i])
    return held >= min(count, MIN_WHOLE)


@part
def share(shared, size, item_size):
    """Coverage of two texts of so many grams that share so many; see `curate.contamination`."""
    if shared == size and shared == item_size:
        return 1.0
    least = MIN_WHOLE if shared == size or shared == item_size else MIN_PART
    return shared / min(size, item_size) if shared >= least else 0.0


@kernel
def list_grams(
    data,
    starts,
    ends,
    is_word,
    room,
    out_grams,
    out_items,
    out_sizes,
):
    """
    List the distinct grams of items, in their order.

    Parameters
    ----------
    data : uint8[num_bytes]
        Valid UTF-8, in lower case but for ASCII. Read only.
    starts, ends : int64[num_items]
        Item `i` is `data[starts[i]:ends[i]]`. Read only.
    is_word : bool[0x110000]
        Whether each code point is of a word. Read only.
    room : Room
        Scratch for the longest item.
    out_grams, out_items : uint64[capacity], int32[capacity]
        A gram's hash, and its item; room for half of the items' bytes and one more each.
    out_sizes : int32[num_items]
        Distinct grams of each item.

    Returns how many were written. Never raises, allocates nothing. O(num_bytes).
    """
    total = 0
    for item in range(starts.size):
        count = hash_grams(data, starts[item], ends[item], is_word, room)
        count = leave_distinct(count, room)
        out_sizes[item] = count
        for i in range(count):
            out_grams[total] = room.grams[i]
            out_items[total] = item
            total += 1
    return total


@kernel
def find_overlaps(
    data,
    starts,
    ends,
    is_word,
    index,
    room,
    shared,
    touched,
    out_coverage,
    out_item,
):
    """
    Find the item that each text overlaps most, going by hashes.

    Parameters
    ----------
    data, starts, ends, is_word, room
        As `list_grams` has them; texts instead of items.
    index : Index
        Of the items. Read only.
    shared, touched : int32[num_items]
        Scratch; `shared` is all zeros, before and after.
    out_coverage, out_item : float32[num_texts], int32[num_texts]
        The highest `share`, and the first item that has it; 0 and -1 where none is above 0.

    Never raises, allocates nothing. O(num_bytes), and for each gram the items that have it.
    """
    for text in range(starts.size):
        out_coverage[text] = 0.0
        out_item[text] = -1
        count = hash_grams(data, starts[text], ends[text], is_word, room)
        if not may_share(count, index, room):
            continue
        count = leave_distinct(count, room)
        met = 0
        for i in range(count):
            gram = room.grams[i]
            if not may_hold(index, gram):
                continue
            bucket = np.int64(gram >> index.shift)
            for pair in range(index.first[bucket], index.first[bucket + 1]):
                if index.grams[pair] == gram:
                    item = index.items[pair]
                    if shared[item] == 0:
                        touched[met] = item
                        met += 1
                    shared[item] += 1
        best = 0.0
        for i in range(met):
            item = touched[i]
            covered = share(np.int64(shared[item]), count, np.int64(index.sizes[item]))
            shared[item] = 0
            if covered > best or (covered == best and best > 0 and item < out_item[text]):
                best = covered
                out_item[text] = item
        out_coverage[text] = best


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
