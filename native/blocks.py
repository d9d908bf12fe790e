"""
What is known of 64 bytes at a time: the blocks of a chunk, and the places in them to look at.

A block's masks have one bit for a byte, bit 0 for the first. All here is arithmetic on them, free
of branches that a processor could guess wrong, but for the rare block with many places.
"""

from typing import NamedTuple

import numpy as np

from ._jit import kernel, part
from .simd import BLOCK, block_masks, count_ones, lowest_one, prefetch
from .tables import FEW_SETS, FINGERPRINT, MANY_SETS

CHUNK = 256
"""Blocks that are noted before they are looked at: 16 KB of text, which stays in the cache."""

READ = BLOCK + FINGERPRINT - 1
"""Bytes from a block's first on that are read."""

TAIL = 2
"""Blocks, at most, in the bytes that are left when a block's READ bytes would reach too far."""

AHEAD = 4096
"""Bytes from what is read to what is asked for meanwhile."""

ZERO, ONE, TWO = np.uint64(0), np.uint64(1), np.uint64(2)
ALL, LAST = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(63)

AFTER_NEWLINE, AFTER_STEP, AFTER_WORD = range(3)
"""Carries from block to block, each 0 or 1: is all blank since the last newline, is all blank since
the end of a step, and is the last byte one of a word?"""


class Blocks(NamedTuple):
    """
    Consecutive blocks.

    edges, ends : uint64[num_blocks]
        Bytes right behind a trace, and the last FINGERPRINT - 1 bytes of each.
    begins, opened, newlines, lines : uint64[num_blocks]
        Places that may begin a phrase; first bytes of steps that are not blank; newlines; those
        newlines that end lines that are not blank.
    before : int64[num_blocks]
        Steps of the batch that open before each block.
    """

    edges: np.ndarray
    ends: np.ndarray
    begins: np.ndarray
    opened: np.ndarray
    newlines: np.ndarray
    lines: np.ndarray
    before: np.ndarray


class Scratch(NamedTuple):
    """
    What a thread needs beside its inputs and outputs; overwritten.

    blocks : Blocks
        Of CHUNK + TAIL.
    places : int64[(CHUNK + TAIL) * BLOCK + 2]
        Places of a chunk that may begin a phrase; two are written even where there are none.
    keys : uint64[(CHUNK + TAIL) * BLOCK + 2]
        What `matching.likely` says of each.
    padded, tail : uint8[TAIL * BLOCK + READ]
        A copy of the end of the batch, and blanks behind it; and the same bytes, read only, as
        kernels take all text.
    carries : uint64[3]
    """

    blocks: Blocks
    places: np.ndarray
    keys: np.ndarray
    padded: np.ndarray
    tail: np.ndarray
    carries: np.ndarray


def new_scratch() -> Scratch:
    """Scratch for one thread."""
    num_blocks = CHUNK + TAIL
    edges, ends, begins, opened, newlines, lines = np.empty((6, num_blocks), np.uint64)
    before = np.empty(num_blocks, np.int64)
    padded = np.empty(TAIL * BLOCK + READ, np.uint8)
    tail = padded.view()
    tail.flags.writeable = False
    return Scratch(
        blocks=Blocks(edges, ends, begins, opened, newlines, lines, before),
        places=np.empty(num_blocks * BLOCK + 2, np.int64),
        keys=np.empty(num_blocks * BLOCK + 2, np.uint64),
        padded=padded,
        tail=tail,
        carries=np.empty(3, np.uint64),
    )


@part
def some_of(blocks, first, last):
    """The blocks from `first` to `last`."""
    return Blocks(
        blocks.edges[first:last],
        blocks.ends[first:last],
        blocks.begins[first:last],
        blocks.opened[first:last],
        blocks.newlines[first:last],
        blocks.lines[first:last],
        blocks.before[first:last],
    )


@kernel
def mark_edges(offsets, trace, begin, blocks):
    """Fill in edges and ends of blocks from byte `begin` on; `trace` is the first to end there."""
    edges, ends = blocks.edges, blocks.ends
    edges[:] = ZERO
    ends[:] = ZERO
    stop = begin + BLOCK * ends.size
    while trace < offsets.size - 1:
        end = offsets[trace + 1]
        first = max(end - FINGERPRINT + 1, offsets[trace])
        if first >= stop:
            break
        if begin <= end < stop:
            edges[(end - begin) >> 6] |= ONE << np.uint64((end - begin) & 63)
        bits = (ONE << np.uint64(end - first)) - ONE
        block, bit = (first - begin) >> 6, np.uint64((first - begin) & 63)
        if 0 <= block:
            ends[block] |= bits << bit
        if block + 1 < ends.size:
            ends[block + 1] |= bits >> (LAST - bit) >> ONE
        trace += 1


@part
def run_through(starts, through):
    """
    Where carries that begin at `starts` come out of the runs of `through`: a mask, and the carry.

    A start outside the runs comes out where it is; several in one run come out once.
    """
    inside = starts & through
    total = inside + through
    out = (total & ~through) | (starts & ~through)
    return out, np.uint64(total < inside)


def masker(sets):
    """
    `mask_blocks` for lexicons of so many sets.

    A blank line is found by a carry that runs from behind a newline through blanks and comes out
    at a newline; a step's first byte by one that runs on from there to the first byte that is not
    blank. If lines are steps (`single`), the second begins at every newline.
    """

    @kernel
    def mask_blocks(data, place, shuffles, single, carries, blocks):
        after_newline, after_step = carries[AFTER_NEWLINE], carries[AFTER_STEP]
        after_word = carries[AFTER_WORD]
        for block in range(np.uint64(blocks.begins.size)):
            prefetch(data, place + AHEAD)
            newlines, blanks, words, begins = block_masks(data, place, shuffles, sets)
            place += BLOCK
            edges = blocks.edges[block]
            inside = words & (words << ONE | after_word) & ~edges
            # What follows the last bytes of a trace is not part of it, but took part in `begins`.
            blocks.begins[block] = (begins | blocks.ends[block] & ~blanks) & ~inside
            after_word = words >> LAST
            blank_lines, carry = run_through(
                newlines << ONE | after_newline | edges, blanks & ~newlines
            )
            blank_lines &= newlines
            after_newline = newlines >> LAST | carry
            blocks.newlines[block] = newlines
            blocks.lines[block] = newlines & ~blank_lines
            parting = newlines if single else blank_lines
            opened, carry = run_through(parting << ONE | after_step | edges, blanks)
            after_step = parting >> LAST | carry
            blocks.opened[block] = opened
        carries[AFTER_NEWLINE], carries[AFTER_STEP] = after_newline, after_step
        carries[AFTER_WORD] = after_word

    return mask_blocks


mask_by_few, mask_by_many = masker(FEW_SETS), masker(MANY_SETS)


@part
def mask(data, place, tables, single, carries, blocks):
    """Fill in the other masks of blocks, the first of them at `data[place]`."""
    if tables.large:
        mask_by_many(data, place, tables.shuffles, single, carries, blocks)
    else:
        mask_by_few(data, place, tables.shuffles, single, carries, blocks)


@kernel
def note_places(blocks, place, steps, places):
    """
    Write the places of `begins`, and `before`; returns how many places, and the steps so far.

    Most blocks have two places at most, so two are always written.
    """
    count = ZERO
    for block in range(np.uint64(blocks.begins.size)):
        blocks.before[block] = steps
        steps += count_ones(blocks.opened[block])
        left = blocks.begins[block]
        behind = count + np.uint64(count_ones(left))
        places[count] = place + lowest_one(left)
        left &= left - ONE
        places[count + ONE] = place + lowest_one(left)
        left &= left - ONE
        while left:
            places[count + TWO] = place + lowest_one(left)
            left &= left - ONE
            count += ONE
        count = behind
        place += BLOCK
    return np.int64(count), steps


@part
def steps_until(place, begin, blocks):
    """Steps of the batch that open at or before a place of the blocks from byte `begin` on."""
    offset = np.uint64(place - begin)
    block, bit = offset >> np.uint64(6), offset & LAST
    return blocks.before[block] + count_ones(blocks.opened[block] & (ALL >> (LAST - bit)))
