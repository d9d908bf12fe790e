"""
Grams of the words of texts, as hashes: an index of items by theirs, and which item a text overlaps.

A gram is GRAM words in a row, or all the words of a text that has fewer. Words are hashed one code
point at a time and grams roll over the words' hashes, so a text costs the same however many grams
it shares. What equal hashes suggest is for the caller to confirm where it matters: these are not
cryptographic either (see `hashing`).
"""

# Kernels are typed by their docstrings: Numba compiles them for the dtypes that they are given.

from typing import NamedTuple

import numpy as np

from ._jit import kernel, part
from .hashing import K2, K3, K4, K5, KEYS, ZERO, mixed

GRAM = 8
"""Words of a gram."""

MIN_PART, MIN_WHOLE = 8, 4
"""
Grams that two texts must share to count as overlapping: where part of either is in the other, and
where all of it is (15 words in a row, and 11). Fewer are what any two questions may have in common.
"""

OLDEST = np.uint64(pow(KEYS[2], GRAM, 1 << 64))
ONE, FILTER_BITS, BITS_6, LOW_6 = (np.uint64(value) for value in (1, 4, 6, 63))


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
