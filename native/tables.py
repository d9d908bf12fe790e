"""
A lexicon as the tables that every kernel reads.

Three questions are asked of a place in the text, each far rarer than the one before:

1. `shuffles`: may a phrase of one of some groups begin here, by the low halves of its first
   eight bytes? Only a vector kernel asks, of 64 places at once.
2. `filter`: does a phrase begin with these sixteen bytes, or twelve, eight and so on, if it is
   shorter? A byte for each, found by hashing them.
3. The patterns of that bucket, compared one by one: 16 bytes at once, the rest byte by byte.

The case of a letter is its bit 0x20, which the first question does not look at and the second sets
in every byte, in the text and in the tables: they may pass too much but never too little. The third
is exact.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

MAX_CATEGORIES = 16
"""A category is one bit of a uint16."""

WORD, BLANK, STARTS = 1, 2, 4
"""Bits of `Tables.kind`."""

CASE = 0x20
HASH_LOW, HASH_HIGH = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
HEAD = 16
"""Bytes of a phrase that are compared at once, as two integers."""

KEYS = (3, 4, 5, 6, 7, 8, 12, 16)  # eight, as each is a bit of a byte in `Tables.filter`
FEW_KEYS, MANY_KEYS = (0, 5, 6, 7), tuple(range(len(KEYS)))
"""A phrase is found by so many of its first bytes: the most that it has, three if it has fewer. In
a small lexicon it is enough to try few of these."""

BUCKET_BITS = 12
BUCKETS = 1 << BUCKET_BITS
"""For each length of key. Fewer let more places pass by chance, more leave the cache."""

FINGERPRINT = 8
"""Bytes of the first question. More of them cost shuffles and save places to look at."""

FEW_SETS, MANY_SETS = 2, 6
"""Tables of eight groups each: one bit of a byte for a group."""

MOST_JOINED = 512
"""Distinct fingerprints up to which those that are most alike share a group."""

FEW_OPENINGS = 128
"""Distinct fingerprints of a lexicon for which few sets and keys are enough. With 500 phrases 142
of 1,024 places pass few sets, and 42 many; the many sets and keys take 0.5 to 1 GB/s."""

SHARES = np.array(
    [0.20, 0.06, 0.07, 0.08, 0.10, 0.11, 0.02, 0.03, 0.05, 0.07, 0.02, 0.01, 0.05, 0.03, 0.06, 0.05]
)
"""How often a byte of a trace has each low half, about; only speed rests on it."""

HEADS, CASES, MASKS, SIZE, CATEGORY, AT_START = 0, 2, 4, 6, 7, 8
"""Columns of `Tables.patterns`."""

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
WORD_BYTES = LETTERS + LETTERS.upper() + b"0123456789_"
BLANK_BYTES = b"\t\n\v\f\r "

Pattern = tuple[int, bytes, bool]


class Tables(NamedTuple):
    """
    What a kernel needs to know of a lexicon. All arrays are C-contiguous and read only.

    kind : uint8[256]
        Bits of a byte: WORD (ASCII letter, digit, underscore), BLANK (0x09 to 0x0D, 0x20), STARTS
        (some phrase begins with it, in either case).
    shuffles : uint8[(2 + FINGERPRINT * FEW_SETS) * 16], or MANY_SETS
        Rows of 16. Two give a byte's class, by its low and by its high half (see `_classes`). The
        rest, one for each byte of the fingerprint and each set, give by its low half the groups, as
        bits, whose phrases may have such a byte there.
    filter : uint8[len(KEYS) * BUCKETS]
        Bit n if bucket h is not empty, h being the `bucket_of` folded bytes, and n that of KEYS.
    buckets : uint32[len(KEYS) * BUCKETS + 1]
        Bucket h holds the patterns `buckets[h]` to `buckets[h + 1]`.
    patterns : uint64[num_patterns, 9]
        By bucket, and there the longest first. HEADS: the first 16 bytes of the phrase in lower
        case, as two little-endian integers; CASES: bit 0x20 of its letters; MASKS: all bits of the
        bytes that it has. Text t matches a head h where (t | case) & mask == h. SIZE: its bytes,
        and from bit 32 on where the bytes beyond the head stand in `letters`. CATEGORY. AT_START: 1
        if it matches only at the first byte of a step that is not blank.
    letters : uint8[any]
        The bytes beyond the heads, in lower case.
    large : bool
        Whether there are many sets and many keys.
    num_categories : int
        1 to 16. Category 0 is `branch`.
    plain : bool
        Whether no phrase holds a line break or begins with a blank: where one begins, there is a
        step that began at or before it, and it ends in the same.
    """

    kind: np.ndarray
    shuffles: np.ndarray
    filter: np.ndarray
    buckets: np.ndarray
    patterns: np.ndarray
    letters: np.ndarray
    large: bool
    num_categories: int
    plain: bool


def build_tables(patterns: Sequence[Pattern], num_categories: int) -> Tables:
    """
    Tables of a lexicon's patterns: (category, phrase lower-cased in ASCII, only at a step's start).

    Raises ValueError for what no lexicon may hold: an empty phrase, a category out of range.
    """
    if not 1 <= num_categories <= MAX_CATEGORIES:
        raise ValueError(f"num_categories must be 1 to {MAX_CATEGORIES}, found {num_categories}")
    for category, phrase, _ in patterns:
        if not phrase or not 0 <= category < num_categories:
            raise ValueError(f"pattern out of range: category {category}, phrase {phrase!r}")
    large = len({phrase[:FINGERPRINT] for _, phrase, _ in patterns}) > FEW_OPENINGS
    keys = [KEYS[number] for number in (MANY_KEYS if large else FEW_KEYS)]
    order, filter_bits, buckets = _buckets([phrase for _, phrase, _ in patterns], keys)
    placed = [patterns[n] for n in order]
    phrases = [phrase for _, phrase, _ in placed]
    tables = Tables(
        kind=_kinds(phrases),
        shuffles=_shuffles(phrases, MANY_SETS if large else FEW_SETS),
        filter=filter_bits,
        buckets=buckets,
        patterns=_rows(placed),
        letters=np.frombuffer(
            b"".join(phrase[HEAD:] for phrase in phrases) + b"\0", np.uint8
        ).copy(),
        large=large,
        num_categories=num_categories,
        plain=not any(b"\n" in phrase or phrase[0] in BLANK_BYTES for phrase in phrases),
    )
    for array in tables[:-3]:
        array.flags.writeable = False
    return tables


def bucket_of(key: bytes) -> int:
    """The bucket of the first bytes of a phrase, folded; the kernels compute the same."""
    low, high = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    mixed = (low * HASH_LOW + high * HASH_HIGH) & 0xFFFFFFFFFFFFFFFF
    return KEYS.index(len(key)) * BUCKETS + (mixed * BUCKETS >> 64)


def _kinds(phrases: Sequence[bytes]) -> np.ndarray:
    kind = np.zeros(256, np.uint8)
    for phrase in phrases:
        kind[list(phrase[:1] + phrase[:1].upper())] |= STARTS
    kind[list(WORD_BYTES)] |= WORD
    kind[list(BLANK_BYTES)] |= BLANK
    return kind


def _rows(placed: Sequence[Pattern]) -> np.ndarray:
    """`Tables.patterns`."""
    phrases = [phrase for _, phrase, _ in placed]
    rows = np.zeros((len(placed), 9), np.uint64)
    rows[:, HEADS : HEADS + 2] = _halves([phrase[:HEAD] for phrase in phrases])
    letters = [bytes(CASE * (b in LETTERS) for b in phrase[:HEAD]) for phrase in phrases]
    rows[:, CASES : CASES + 2] = _halves(letters)
    rows[:, MASKS : MASKS + 2] = _halves([b"\xff" * len(phrase[:HEAD]) for phrase in phrases])
    tail = 0
    for number, (category, phrase, at_start) in enumerate(placed):
        rows[number, SIZE] = len(phrase) | tail << 32
        rows[number, CATEGORY], rows[number, AT_START] = category, at_start
        tail += len(phrase[HEAD:])
    return rows


def _halves(pieces: Sequence[bytes]) -> np.ndarray:
    """Pieces of up to 16 bytes, as two little-endian integers each."""
    padded = b"".join(piece.ljust(HEAD, b"\0") for piece in pieces)
    return np.frombuffer(padded, "<u8").astype(np.uint64).reshape(-1, 2)


def _buckets(
    phrases: Sequence[bytes], keys: Sequence[int]
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The phrases by bucket (a short one stands in many), `Tables.filter` and `Tables.buckets`."""
    places = sorted(
        {(bucket_of(o), -len(p), n) for n, p in enumerate(phrases) for o in _openings(p, keys)}
    )
    sizes = np.bincount([bucket for bucket, _, _ in places], minlength=len(KEYS) * BUCKETS)
    buckets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint32)
    bits = np.repeat(1 << np.arange(len(KEYS)), BUCKETS)
    return [n for _, _, n in places], np.where(sizes, bits, 0).astype(np.uint8), buckets


def _openings(phrase: bytes, keys: Sequence[int]) -> Sequence[bytes]:
    """The folded keys that a match of a phrase may begin with."""
    held = _places(phrase, max((size for size in keys if size <= len(phrase)), default=KEYS[0]))
    return [bytes(opening) for opening in product(*({b | CASE for b in place} for place in held))]


def _places(phrase: bytes, count: int) -> list[set[int]]:
    """The bytes that each of the first places can hold, but for case; any byte beyond the next."""
    places = [{byte} for byte in phrase[:count]]
    if len(places) < count:
        closed = phrase[-1] in WORD_BYTES
        places.append({b for b in range(256) if not (closed and b in WORD_BYTES)})
    return places + [set(range(256))] * (count - len(places))


def _shuffles(phrases: Sequence[bytes], sets: int) -> np.ndarray:
    classes = np.zeros((2, 16), np.uint8)
    _classes(classes)
    openings = sorted({phrase[:FINGERPRINT] for phrase in phrases})
    held = np.zeros((len(openings), FINGERPRINT, 16), np.bool_)
    for number, opening in enumerate(openings):
        for place, bytes_there in enumerate(_places(opening, FINGERPRINT)):
            held[number, place, [byte & 15 for byte in bytes_there]] = True
    groups = _grouped(_neighbours(held, MOST_JOINED), 8 * sets)
    bits = np.zeros((8 * sets, FINGERPRINT, 16), np.bool_)
    bits[: len(groups)] = groups
    by_set = bits.reshape(sets, 8, FINGERPRINT, 16).transpose(2, 0, 3, 1)
    rows = np.packbits(by_set, axis=-1, bitorder="little")
    return np.concatenate([classes.ravel(), rows.ravel()])


def _neighbours(held: np.ndarray, most: int) -> np.ndarray:
    """Join neighbours in the alphabet until `most` sets are left, as `_grouped` takes n^3 for n."""
    if len(held) <= most:
        return held
    return np.logical_or.reduceat(held, np.arange(most) * len(held) // most, axis=0)


def _grouped(held: np.ndarray, most: int) -> np.ndarray:
    """
    Join sets of openings until `most` are left, those first that let the least more text pass.

    bool[num_sets, FINGERPRINT, 16] of low halves that an opening may have, and such again.
    """

    def passes(sets: np.ndarray) -> np.ndarray:
        share: np.ndarray = np.prod(sets @ SHARES, axis=-1)
        return share

    sets, cost = held.copy(), passes(held)
    joined = np.stack([passes(sets | one) for one in sets]) if len(sets) else np.zeros((0, 0))
    while len(sets) > most:
        added = joined - cost[:, None] - cost
        np.fill_diagonal(added, np.inf)
        one, other = sorted(divmod(int(added.argmin()), len(sets)))
        sets[one] |= sets[other]
        sets, cost = np.delete(sets, other, 0), np.delete(cost, other)
        joined = np.delete(np.delete(joined, other, 0), other, 1)
        cost[one] = passes(sets[one])
        joined[one] = joined[:, one] = passes(sets | sets[one])
    return sets


def _classes(table: np.ndarray) -> None:
    """
    Rows 0 and 1: the AND of a byte's two entries is its class.

    Bits 0 to 3 are set for word bytes alone, bits 4 and 5 for blanks alone: each bit stands for one
    rectangle of low and high halves.
    """
    rectangles = (
        (range(10), (3,)),  # digits
        (range(1, 16), (4, 6)),  # A to O
        (range(11), (5, 7)),  # P to Z
        ((15,), (5,)),  # underscore
        (range(9, 14), (0,)),  # tab to CR
        ((0,), (2,)),  # space
    )
    for bit, (lows, highs) in enumerate(rectangles):
        table[0, list(lows)] |= 1 << bit
        table[1, list(highs)] |= 1 << bit
