"""
A lexicon as the tables that every kernel reads.

Three questions are asked of a place in the text, each far rarer than the one before:

1. `filter`: may a phrase begin with these three bytes? One bit, found by hashing them.
2. `prefixes`: do the first eight bytes agree with those of a phrase in this bucket?
3. `edges`: the trie of all phrases, walked byte by byte, gives every phrase that begins here.

The first two fold case by setting bit 0x20 of every byte, in the text and in the tables, so that
they may pass too much but never too little; the trie is exact.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

MAX_CATEGORIES = 16
"""A category is one bit of a uint16."""

WORD, BLANK = 1, 2
"""Bits of `Tables.kind`."""

CASE = 0x20
HASH_MULTIPLIER = 0x9E3779B1
PREFIX = 8
"""Bytes compared at once in the second question."""

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
WORD_BYTES = LETTERS + LETTERS.upper() + b"0123456789_"
BLANK_BYTES = b"\t\n\v\f\r "

Pattern = tuple[int, bytes, bool]


class Tables(NamedTuple):
    """
    What a kernel needs to know of a lexicon. All arrays are C-contiguous and read only.

    kind : uint8[256]
        Bits of a byte: WORD (ASCII letter, digit, underscore), BLANK (0x09 to 0x0D, 0x20).
    filter : uint8[8192]
        Bit h is set if bucket h is not empty; h is the `bucket_of` three folded bytes.
    buckets : int32[65537]
        Bucket h holds the prefixes `buckets[h]` to `buckets[h + 1]`.
    prefixes, masks : uint64[num_prefixes]
        The first eight bytes of a phrase, folded, the first one highest, and the bytes that count.
    byte_class : uint8[256]
        Class of a byte in the trie (a letter's two cases share one), 0 for bytes of no phrase.
    edges : int32[num_nodes, num_classes]
        The node after one byte more, 0 for none. Node 0 is the root.
    anywhere, at_start : uint16[num_nodes]
        Categories (as bits) of which a phrase ends here; `at_start` for phrases that match only
        at the first byte of a step that is not blank.
    num_categories : int
        1 to 16. Category 0 is `branch`.
    """

    kind: np.ndarray
    filter: np.ndarray
    buckets: np.ndarray
    prefixes: np.ndarray
    masks: np.ndarray
    byte_class: np.ndarray
    edges: np.ndarray
    anywhere: np.ndarray
    at_start: np.ndarray
    num_categories: int


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
    phrases = [phrase for _, phrase, _ in patterns]
    byte_class = _byte_classes(phrases)
    filter_bits, buckets, prefixes, masks = _buckets(phrases)
    edges, anywhere, at_start = _trie(patterns, byte_class)
    tables = Tables(
        kind=_kinds(),
        filter=filter_bits,
        buckets=buckets,
        prefixes=prefixes,
        masks=masks,
        byte_class=byte_class,
        edges=edges,
        anywhere=anywhere,
        at_start=at_start,
        num_categories=num_categories,
    )
    for array in tables[:-1]:
        array.flags.writeable = False
    return tables


def bucket_of(first: int, second: int, third: int) -> int:
    """The bucket, 0 to 65535, of three folded bytes. The kernels compute the same."""
    key = first << 16 | second << 8 | third
    return key * HASH_MULTIPLIER >> 16 & 0xFFFF


def _kinds() -> np.ndarray:
    kind = np.zeros(256, np.uint8)
    kind[list(WORD_BYTES)] |= WORD
    kind[list(BLANK_BYTES)] |= BLANK
    return kind


def _buckets(phrases: Sequence[bytes]) -> tuple[np.ndarray, ...]:
    held: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for phrase in set(phrases):
        folded = bytes(byte | CASE for byte in phrase[:PREFIX])
        mask = (b"\xff" * len(folded)).ljust(PREFIX, b"\0")
        prefix = int.from_bytes(folded.ljust(PREFIX, b"\0")), int.from_bytes(mask)
        for three in product(*_first_three(phrase)):
            held[bucket_of(*three)].add(prefix)
    sizes = np.array([len(held[h]) if h in held else 0 for h in range(1 << 16)])
    buckets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    prefixes = [entry for h in sorted(held) for entry in sorted(held[h])]
    values = np.array(prefixes, np.uint64).reshape(-1, 2)
    filter_bits = np.packbits(sizes > 0, bitorder="little")
    return filter_bits, buckets, values[:, 0].copy(), values[:, 1].copy()


def _first_three(phrase: bytes) -> list[list[int]]:
    """The folded bytes that the first three places can hold where the phrase matches."""
    beyond = {b for b in range(256) if not (phrase[-1] in WORD_BYTES and b in WORD_BYTES)}
    after = [sorted({b | CASE for b in beyond}), sorted({b | CASE for b in range(256)})]
    known = [[byte | CASE] for byte in phrase[:3]]
    return known + after[: 3 - len(known)]


def _byte_classes(phrases: Sequence[bytes]) -> np.ndarray:
    classes = np.zeros(256, np.uint8)
    for number, byte in enumerate(sorted(set(b"".join(phrases))), start=1):
        classes[list(bytes([byte]).upper() + bytes([byte]))] = number
    return classes


def _trie(
    patterns: Sequence[Pattern], byte_class: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    children: list[dict[int, int]] = [{}]
    accepts: list[list[int]] = [[0, 0]]
    for category, phrase, at_start in patterns:
        node = 0
        for byte in phrase:
            following = children[node].setdefault(int(byte_class[byte]), len(children))
            if following == len(children):
                children.append({})
                accepts.append([0, 0])
            node = following
        accepts[node][at_start] |= 1 << category
    edges = np.zeros((len(children), int(byte_class.max(initial=0)) + 1), np.int32)
    for node, row in enumerate(children):
        edges[node, list(row)] = list(row.values())
    anywhere, at_start_bits = np.array(accepts, np.uint16).T.copy()
    return edges, anywhere, at_start_bits
