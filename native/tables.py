"""
A lexicon as the tables that every kernel reads.

Three questions are asked of a place in the text, each far rarer than the one before:

1. `shuffles`: may a phrase of one of sixteen groups begin here, by its first bytes? Only a vector
   kernel asks, of 64 places at once.
2. `filter`: does a phrase begin with these eight bytes, or a short one with these three? One bit
   each, found by hashing them.
3. The patterns of that bucket, compared one by one: 16 bytes at once, the rest byte by byte.

The first two fold case by setting bit 0x20 of every byte, in the text and in the tables, so that
they may pass too much but never too little; the third is exact.
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
HASH_MULTIPLIER = 0x9E3779B97F4A7C15
HEAD = 16
"""Bytes of a phrase that are compared at once, as two integers."""

LONG = 8
"""A phrase of so many bytes is found by all of them, a shorter one by three."""

BUCKETS = 1 << 16

FINGERPRINT = 8
"""Bytes of the first question. More of them cost shuffles and save places to look at: 1.9 GB/s with
four, 2.0 with five, 2.1 with six, 2.3 with eight (default lexicon, one core with AVX-512)."""

SETS = 2
"""Tables of eight groups each: one bit of a byte for a group."""

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
    shuffles : uint8[(2 + 2 * FINGERPRINT * SETS) * 16]
        Rows of 16, by the low and the high half of a byte in turns: its class (see `_classes`), and
        for each byte of the fingerprint and each set the groups, as bits, that it may belong to.
    filter : uint8[16384]
        Bit h is set if bucket h is not empty; h is the `bucket_of` folded bytes.
    buckets : int32[131073]
        Bucket h holds the patterns `buckets[h]` to `buckets[h + 1]`.
    heads, cases, masks : uint64[num_patterns, 2]
        The first 16 bytes of a phrase in lower case, little-endian; bit 0x20 of its letters; and
        all bits of the bytes that it has. Text t matches a head h where (t | case) & mask == h.
    sizes : int32[num_patterns]
        Bytes of a phrase.
    tails : int32[num_patterns]
        Where the bytes beyond the head stand in `letters`.
    letters : uint8[any]
        Those bytes, in lower case.
    accepts : uint16[num_patterns]
        The category of a pattern, as a bit.
    at_start : bool[num_patterns]
        Whether it matches only at the first byte of a step that is not blank.
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
    heads: np.ndarray
    cases: np.ndarray
    masks: np.ndarray
    sizes: np.ndarray
    tails: np.ndarray
    letters: np.ndarray
    accepts: np.ndarray
    at_start: np.ndarray
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
    order, filter_bits, buckets = _buckets([phrase for _, phrase, _ in patterns])
    placed = [patterns[n] for n in order]
    phrases = [phrase for _, phrase, _ in placed]
    beyond = [phrase[HEAD:] for phrase in phrases]
    tables = Tables(
        kind=_kinds(phrases),
        shuffles=_shuffles([phrase for _, phrase, _ in patterns]),
        filter=filter_bits,
        buckets=buckets,
        heads=_halves([phrase[:HEAD] for phrase in phrases]),
        cases=_halves([bytes(CASE * (b in LETTERS) for b in p[:HEAD]) for p in phrases]),
        masks=_halves([b"\xff" * len(phrase[:HEAD]) for phrase in phrases]),
        sizes=np.array([len(phrase) for phrase in phrases], np.int32),
        tails=np.cumsum([0, *map(len, beyond)], dtype=np.int32)[:-1].copy(),
        letters=np.frombuffer(b"".join(beyond) + b"\0", np.uint8).copy(),
        accepts=np.array([1 << category for category, _, _ in placed], np.uint16),
        at_start=np.array([at_start for _, _, at_start in placed], np.bool_),
        num_categories=num_categories,
        plain=not any(b"\n" in phrase or phrase[0] in BLANK_BYTES for phrase in phrases),
    )
    for array in tables[:-2]:
        array.flags.writeable = False
    return tables


def bucket_of(opening: bytes) -> int:
    """
    The bucket of the eight folded bytes that open a phrase, or of three, if it has fewer.

    0 to 65535 for eight, 65536 to 131071 for three. The kernels compute the same.
    """
    key = int.from_bytes(opening, "little") * HASH_MULTIPLIER & 0xFFFFFFFFFFFFFFFF
    return (key >> 48) + (BUCKETS if len(opening) < LONG else 0)


def _kinds(phrases: Sequence[bytes]) -> np.ndarray:
    kind = np.zeros(256, np.uint8)
    for phrase in phrases:
        kind[list(phrase[:1] + phrase[:1].upper())] |= STARTS
    kind[list(WORD_BYTES)] |= WORD
    kind[list(BLANK_BYTES)] |= BLANK
    return kind


def _halves(pieces: Sequence[bytes]) -> np.ndarray:
    """Pieces of up to 16 bytes, as two little-endian integers each."""
    padded = b"".join(piece.ljust(HEAD, b"\0") for piece in pieces)
    return np.frombuffer(padded, "<u8").astype(np.uint64).reshape(-1, 2)


def _buckets(phrases: Sequence[bytes]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The phrases in the order of their buckets (a short one stands in many), and the buckets."""
    places = sorted({(bucket_of(o), n) for n, p in enumerate(phrases) for o in _openings(p)})
    sizes = np.bincount([bucket for bucket, _ in places], minlength=2 * BUCKETS)
    buckets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return [n for _, n in places], np.packbits(sizes > 0, bitorder="little"), buckets


def _openings(phrase: bytes) -> Sequence[bytes]:
    """The folded bytes that may open a match of a phrase: eight, or three if it is short."""
    held = _places(phrase[:LONG], LONG if len(phrase) >= LONG else 3)
    return [bytes(opening) for opening in product(*({b | CASE for b in place} for place in held))]


def _places(phrase: bytes, count: int) -> list[set[int]]:
    """The bytes that each of the first places can hold, but for case; any byte beyond the next."""
    places = [{byte} for byte in phrase[:count]]
    if len(places) < count:
        closed = phrase[-1] in WORD_BYTES
        places.append({b for b in range(256) if not (closed and b in WORD_BYTES)})
    return places + [set(range(256))] * (count - len(places))


def _shuffles(phrases: Sequence[bytes]) -> np.ndarray:
    """Neighbours in the alphabet share a group, so that a group's bytes are few."""
    classes = np.zeros((2, 16), np.uint8)
    _classes(classes)
    groups = np.zeros((FINGERPRINT, SETS, 2, 16), np.uint8)
    distinct = sorted({phrase[:FINGERPRINT] for phrase in phrases})
    for number, head in enumerate(distinct):
        chosen, bit = divmod(number * 8 * SETS // len(distinct), 8)
        for place, held in enumerate(_places(head, FINGERPRINT)):
            for byte in {b | CASE for b in held}:
                groups[place, chosen, 0, byte & 15] |= 1 << bit
                groups[place, chosen, 1, byte >> 4] |= 1 << bit
    return np.concatenate([classes.ravel(), groups.ravel()])


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
