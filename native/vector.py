"""
Cut traces into steps and count their markers, 64 bytes at a time.

The obvious loop asks of each byte whether it is blank and whether a phrase begins there. Here both
are asked of 64 bytes at once, and what is left is arithmetic on masks of 64 bits, one for a byte.
A batch is one stream: where a trace ends is a bit in a mask like any other, and costs as little.

1. Byte shuffles look up the halves of every byte in tables of sixteen entries. That gives the
   newlines, the blanks, the word bytes, and the places where the next eight bytes may be those of
   some phrase (`simd.block_masks`), whatever the size of the lexicon.
2. Steps are found by additions whose carries run through blanks (`blocks.mask`), and counted
   by counting bits. No step is visited.
3. Places are noted for a chunk, 9 of 1,024 in the real traces with the default lexicon, thinned out
   to 3 by hashes of what begins there (`thin_out`), then compared with the phrases of their bucket
   (`count_markers`); 2.5 are markers.
4. A marker's step is the number of steps that begin at or before it, so a step's categories need no
   memory but the last step that each was seen in.

Reached as each step was made, best of several passes over the real traces, default lexicon, one
core with AVX-512 at 4.1 GHz, text in memory (`python -m bench kernel` has today's medians):

    0.24 GB/s  a byte at a time (`scalar.py`)
    2.0        masks of 64 bytes; each place is looked at as it comes, by a hash of eight bytes
    3.2        places are noted for a chunk and thinned out; tables of low halves alone, which are
               nearly as choosy as both and cost half the shuffles
    3.4        hashes of up to sixteen bytes
    3.9        blocks are masked by a loop of its own, whose tables stay in registers
    4.1        phrases are compared without branches
    4.8        the text 4 KB on is asked for while a block is masked
    4.6 to 4.9 a batch is one stream, so that short traces cost little more than long ones

By callgrind, with AVX2: 5,200 instructions for 1,024 bytes; 14,600 at the second line above.

A large lexicon (`tables.FEW_OPENINGS`) has more sets and keys; of its 500 phrases, common ones, 7
are found in 1,024 bytes, at 0.9 GB/s. What did not help is in `bench/RESULTS.md`.

Literal delimiters are left to the scalar kernel. Specification: `reference.py`.
"""

import numpy as np

from ._jit import kernel
from .blocks import (
    AFTER_NEWLINE,
    AFTER_STEP,
    AFTER_WORD,
    ALL,
    CHUNK,
    LAST,
    ONE,
    READ,
    ZERO,
    mark_edges,
    mask,
    note_places,
    some_of,
    steps_until,
)
from .matching import bucket_at, head_at, likely, match_end, rows_of
from .scalar import BRANCH_PAIRS, BRANCH_STEPS, FIRST_BRANCH, NEWLINE, STEPS
from .simd import BLOCK, highest_one, lowest_one
from .tables import BLANK, CATEGORY
from .utf8 import check_texts

SPACE = np.uint8(0x20)

START = np.int64(0)
"""0 as int64: a literal would have Numba compile whatever it is handed to once more."""

FREE, LAST_STEP = range(2)
"""Rows of `state`: where the last marker of a category ends, and its step."""


@kernel
def thin_out(data, offsets, trace, tables, places, keys):
    """
    Keep the places that have keys in common with some phrase, and these keys; returns how many.

    `trace` is any that begins at or before the first place.
    """
    kept, stop = ZERO, offsets[trace + 1]
    for n in range(places.size):
        place = places[n]
        while place >= stop:
            trace += 1
            stop = offsets[trace + 1]
        low, high = head_at(data, place, stop)
        found = likely(low, high, tables)
        places[kept] = place
        keys[kept] = found
        kept += np.uint64(found != ZERO)
    return np.int64(kept)


@kernel
def count_markers(
    data,
    offsets,
    trace,
    begin,
    tables,
    blocks,
    places,
    keys,
    first_steps,
    state,
    trace_counts,
    markers,
    category_steps,
    step_markers,
):
    """
    Look at each place of a chunk and add to the counts; returns the trace of the last place.

    `trace` is that of the last place before, `begin` where the chunk begins, and `first_steps` are
    those of the traces, in the batch, as far as they begin in this chunk or before.
    """
    free, last_step = state[FREE], state[LAST_STEP]
    stop, first_step = offsets[trace + 1], first_steps[trace]
    of_trace, steps_of_trace = markers[trace], category_steps[trace]
    for n in range(places.size):
        at = places[n]
        while at >= stop:
            trace += 1
            stop, first_step = offsets[trace + 1], first_steps[trace]
            of_trace, steps_of_trace = markers[trace], category_steps[trace]
        step = steps_until(at, begin, blocks) - 1
        offset = np.uint64(at - begin)
        opens = blocks.opened[offset >> np.uint64(6)] >> (offset & LAST) & ONE
        low, high = head_at(data, at, stop)
        left = keys[n]
        while left:
            number = np.uint64(highest_one(left))  # the longest phrases first, as `matches_at`
            left ^= ONE << number
            for row in rows_of(tables, bucket_at(low, high, number)):
                end = match_end(data, at, stop, at if opens else -1, low, high, tables, row)
                category = tables.patterns[row, CATEGORY]
                is_new = (end > 0) & (at >= free[category])
                last = last_step[category]
                of_trace[category] += is_new
                steps_of_trace[category] += is_new & (last != step)
                free[category] = end if is_new else free[category]
                last_step[category] = step if is_new else last
                if is_new and category == ZERO:
                    trace_counts[trace, BRANCH_PAIRS] += (last == step - 1) & (last >= first_step)
                    if last < first_step:
                        trace_counts[trace, FIRST_BRANCH] = step - first_step
                if is_new and step < step_markers.shape[0]:
                    step_markers[step, category] += 1
    return trace


@kernel
def note_spans(offsets, trace, begin, blocks, number, line, line_end, spans):
    """
    Write where the steps begin that open in a chunk, and where those before them end.

    `begin` is where the chunk begins, `number` the step of the batch that opens next, `line` and
    `line_end` where the last line before the chunk begins, and where the last one ends that is not
    blank; these and the trace of the last step are returned for the next chunk. The last step of a
    trace gets no end.
    """
    place = begin
    for block in range(blocks.opened.size):
        newlines, lines = blocks.newlines[block], blocks.lines[block]
        left = blocks.opened[block]
        while left:
            bit = lowest_one(left)
            left &= left - ONE
            below = (ONE << np.uint64(bit)) - ONE
            while place + bit >= offsets[trace + 1]:
                trace += 1
            if number < spans.shape[0]:
                start = place + highest_one(newlines & below) + 1 if newlines & below else line
                spans[number, 0] = max(start - offsets[trace], 0)
            if 0 < number <= spans.shape[0]:
                end = place + highest_one(lines & below) if lines & below else line_end
                spans[number - 1, 1] = end - offsets[trace]
            number += 1
        if newlines:
            line = place + highest_one(newlines) + 1
        if lines:
            line_end = place + highest_one(lines)
        place += BLOCK
    return trace, line, line_end


@kernel
def end_last_steps(data, offsets, first_steps, kind, spans):
    """Write where the last step of each trace ends: its last line that is not blank does."""
    for trace in range(offsets.size - 1):
        number, stop = first_steps[trace + 1], offsets[trace + 1]
        if first_steps[trace] < number <= spans.shape[0]:
            end = stop
            while kind[data[end - 1]] & BLANK:
                end -= 1
            while end < stop and data[end] != NEWLINE:
                end += 1
            spans[number - 1, 1] = end - offsets[trace]


@kernel
def measure_traces(
    data,
    offsets,
    tables,
    single,
    trace_counts,
    markers,
    category_steps,
    spans,
    step_markers,
    first_steps,
    state,
    scratch,
    faults,
):
    """
    Measure every trace of a batch; inputs and outputs as of `scalar.measure_traces`.

    Where asked, by a size that is not 0, `faults` is written as by `utf8.check_texts`, while what
    is looked at is in the cache.

    Steps are runs of lines, or lines if `single`. Overwritten: `first_steps` int64[num_traces + 1]
    with the steps of the batch before each trace; `state` int64[2, num_categories]; a `Scratch`.
    """
    stop = offsets[-1]
    trace_counts[:, BRANCH_PAIRS] = 0
    trace_counts[:, FIRST_BRANCH] = -1
    markers[:] = 0
    category_steps[:] = 0
    state[FREE] = 0
    state[LAST_STEP] = -2
    carries, padded = scratch.carries, scratch.padded
    carries[AFTER_NEWLINE], carries[AFTER_STEP], carries[AFTER_WORD] = ONE, ONE, ZERO
    begin = line = line_end = offsets[0]
    ended = marked = spanned = checked = START  # traces
    sound = begin
    steps = START
    first_steps[0] = 0
    while begin < stop:
        whole = min(CHUNK, max(0, (stop - begin - READ) // BLOCK + 1))
        rest = begin + BLOCK * whole
        size = whole if whole == CHUNK else whole + (stop - rest + BLOCK - 1) // BLOCK
        behind = begin + BLOCK * size
        blocks = some_of(scratch.blocks, START, size)
        mark_edges(offsets, ended, begin, blocks)
        mask(data, begin, tables, single, carries, some_of(blocks, START, whole))
        if whole < size:
            for n in range(stop - rest):
                padded[n] = data[rest + n]
            for n in range(stop - rest, padded.size):
                padded[n] = SPACE
            last = some_of(blocks, whole, size)
            mask(scratch.tail, START, tables, single, carries, last)
            blocks.begins[size - 1] &= ALL >> np.uint64(behind - stop)
        if faults.size > 0:
            checked, sound = check_texts(
                data, offsets, checked, begin, min(behind, stop), sound, faults
            )
        number = steps
        count, steps = note_places(blocks, begin, steps, scratch.places)
        places, keys = scratch.places[:count], scratch.keys[:count]
        count = thin_out(data, offsets, marked, tables, places, keys)
        while ended < offsets.size - 1 and offsets[ended + 1] < behind:
            ended += 1
            edge = offsets[ended]
            first_steps[ended] = steps_until(edge - 1, begin, blocks) if edge > begin else number
        if spans.shape[0] > 0:
            step_markers[number:steps] = 0
            spanned, line, line_end = note_spans(
                offsets, spanned, begin, blocks, number, line, line_end, spans
            )
        marked = count_markers(
            data,
            offsets,
            marked,
            begin,
            tables,
            blocks,
            places[:count],
            keys[:count],
            first_steps,
            state,
            trace_counts,
            markers,
            category_steps,
            step_markers,
        )
        begin = behind
    first_steps[ended + 1 :] = steps
    for trace in range(offsets.size - 1):
        trace_counts[trace, STEPS] = first_steps[trace + 1] - first_steps[trace]
        trace_counts[trace, BRANCH_STEPS] = category_steps[trace, 0]
    if spans.shape[0] > 0:
        end_last_steps(data, offsets, first_steps, tables.kind, spans)
    return steps
