"""
Cut traces into steps and count their markers, 64 bytes at a time.

The obvious loop asks of each byte whether it is blank and whether a phrase begins there. Here both
are asked of 64 bytes at once, and what is left is arithmetic on masks of 64 bits, one for a byte:

1. Byte shuffles look up the halves of every byte in tables of sixteen entries. That gives the
   newlines, the blanks, the word bytes, and the places where the next bytes may be those of
   some phrase (`simd.block_masks`).
2. A step begins at the first byte that is not blank after a blank line. A line is blank if a
   newline follows a newline with nothing but blanks between: adding the mask of "after a newline"
   to the mask of blanks makes a carry run through the blanks, and it comes out at the first byte
   that is none; if that is a newline, the line was blank. A second addition runs from there to the
   first byte of the next step. No step is visited to be counted.
3. The places are noted for a chunk of blocks, then thinned out by a hash of what begins there, then
   looked at one by one (`matching.matches_at`). All but the last is free of branches that a
   processor could guess wrong, and the last is mostly asked of phrases that are there.
4. A marker's step is the number of steps that begin at or before it, so a step's categories need no
   memory but the last step that each was seen in.

Carries go from block to block. Literal delimiters are left to the scalar kernel. Specification:
`reference.py`.
"""

from typing import NamedTuple

import numpy as np

from ._jit import kernel, part
from .matching import head_at, likely, match_end, next_bucket, rows_of
from .scalar import BRANCH_PAIRS, BRANCH_STEPS, FIRST_BRANCH, NEWLINE, STEPS
from .simd import BLOCK, block_masks, count_ones, highest_one, load64, lowest_one, prefetch
from .tables import BLANK, CATEGORY, HEAD

READ = BLOCK + HEAD - 1
"""Bytes from a block's first on that may be read."""

CHUNK = 256
"""Blocks that are noted before they are looked at, and a few more where the batch ends."""

AHEAD = 4096
"""Bytes between what is read and what is asked for ahead."""

TAIL = 3
"""Blocks, at most, in the bytes that are left when the next block's READ bytes are too many."""

ZERO, ONE, TWO = np.uint64(0), np.uint64(1), np.uint64(2)
ALL, LAST = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(63)
SPACE = np.uint8(0x20)

AFTER_NEWLINE, AFTER_STEP, AFTER_WORD = range(3)
"""Carries, each 0 or 1: is all since the last newline blank, all since the end of a step, and is
the last byte one of a word?"""

FREE, LAST_STEP = range(2)
"""Rows of `state`: where the last marker of a category ends, and its step."""


class Chunk(NamedTuple):
    """
    What is noted of a chunk's blocks; scratch, one for a thread.

    edges : uint64[CHUNK + TAIL + 1]
        A mask of each block, and of the next: bytes right behind a trace.
    ends : uint64[CHUNK + TAIL]
        Bytes that have fewer than HEAD left in their trace.
    begins, opened, newlines, lines : uint64[CHUNK + TAIL]
        Places that may begin a phrase; first bytes of steps that are not blank; newlines; those
        newlines that end lines that are not blank.
    before : int64[CHUNK + TAIL]
        Steps of the batch that open before each block.
    places : int64[(CHUNK + TAIL) * BLOCK + 2]
        Places of `begins`. Two are written even where there are none.
    keys : uint64[(CHUNK + TAIL) * BLOCK + 2]
        What `likely` says of each.
    padded : uint8[TAIL * BLOCK + READ]
        A copy of the end of the batch, and blanks behind it.
    carries : uint64[3]
        From block to block.
    """

    edges: np.ndarray
    ends: np.ndarray
    begins: np.ndarray
    opened: np.ndarray
    newlines: np.ndarray
    lines: np.ndarray
    before: np.ndarray
    places: np.ndarray
    keys: np.ndarray
    padded: np.ndarray
    carries: np.ndarray


def new_chunk() -> Chunk:
    """Room for a chunk."""
    blocks = CHUNK + TAIL
    return Chunk(
        np.empty(blocks + 1, np.uint64),
        *(np.empty(blocks, np.uint64) for _ in range(5)),
        before=np.empty(blocks, np.int64),
        places=np.empty(blocks * BLOCK + 2, np.int64),
        keys=np.empty(blocks * BLOCK + 2, np.uint64),
        padded=np.empty(TAIL * BLOCK + READ, np.uint8),
        carries=np.empty(3, np.uint64),
    )


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


@kernel
def mark_edges(offsets, trace, begin, edges, ends):
    """
    Fill in the edges and ends of traces of the blocks from byte `begin` on.

    `trace` is the first that ends at `begin` or behind it.
    """
    edges[:] = ZERO
    ends[:] = ZERO
    stop = begin + BLOCK * ends.size
    while trace < offsets.size - 1:
        end = offsets[trace + 1]
        first = max(end - HEAD + 1, offsets[trace])
        if first >= stop:
            break
        if end >= begin:
            edges[(end - begin) >> 6] |= ONE << np.uint64((end - begin) & 63)
        bits = (ONE << np.uint64(end - first)) - ONE
        block, bit = (first - begin) >> 6, np.uint64((first - begin) & 63)
        if 0 <= block:
            ends[block] |= bits << bit
        if block + 1 < ends.size:
            ends[block + 1] |= bits >> (LAST - bit) >> ONE
        trace += 1


@kernel
def mask_blocks(
    data, place, shuffles, single, carries, edges, ends, begins, opened, newlines, lines
):
    """Fill in the masks of blocks, the first of them at `data[place]`."""
    after_newline, after_step = carries[AFTER_NEWLINE], carries[AFTER_STEP]
    after_word = carries[AFTER_WORD]
    for block in range(np.uint64(begins.size)):
        prefetch(data, place + AHEAD)
        newline, blank, word, begin = block_masks(data, place, shuffles)
        place += BLOCK
        edge = edges[block]
        begins[block] = (begin | ends[block] & ~blank) & ~(word & (word << ONE | after_word) & ~edge)
        after_word = word >> LAST
        ended, carry = run_through(newline << ONE | after_newline | edge, blank & ~newline)
        after_newline = newline >> LAST | carry
        ended &= newline
        newlines[block] = newline
        lines[block] = newline & ~ended
        ended = newline if single else ended
        starts, carry = run_through(ended << ONE | after_step | edge, blank)
        after_step = ended >> LAST | carry
        opened[block] = starts
    carries[AFTER_NEWLINE], carries[AFTER_STEP] = after_newline, after_step
    carries[AFTER_WORD] = after_word


@kernel
def note_places(begins, opened, before, place, steps, places):
    """
    Write the places of the set bits of `begins`, and `before`; returns how many, and all steps.

    Most blocks have two places at most, so two are always written.
    """
    count = ZERO
    for block in range(np.uint64(begins.size)):
        before[block] = steps
        steps += count_ones(opened[block])
        left = begins[block]
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
def bytes_left(offset, edges):
    """Bytes of its trace from a place of a chunk on, HEAD at most."""
    block, bit = offset >> np.uint64(6), offset & LAST
    behind = edges[block] >> bit >> ONE | edges[block + ONE] << (LAST - bit)
    return lowest_one(behind | ONE << np.uint64(HEAD - 1)) + 1


@kernel
def thin_out(data, begin, stop, edges, passes, places, keys):
    """
    Keep the places that have keys in common with some phrase, and these keys; returns how many.

    `begin` is where the chunk begins, `stop` where the batch ends.
    """
    kept = ZERO
    for n in range(places.size):
        place = places[n]
        left = bytes_left(np.uint64(place - begin), edges)
        if place + HEAD <= stop:
            low, high = load64(data, place), load64(data, place + 8)
            low &= ALL >> np.uint64(64 - 8 * min(left, 8))
            half = np.uint64(32 - 4 * (max(left, 8) - 8))
            high &= ALL >> half >> half
        else:
            low, high = head_at(data, place, place + left)
        found = likely(low, high, passes)
        places[kept] = place
        keys[kept] = found
        kept += np.uint64(found != ZERO)
    return np.int64(kept)


@part
def steps_until(place, begin, opened, before):
    """Steps of the batch that open at or before a place of the chunk that begins at `begin`."""
    offset = np.uint64(place - begin)
    block, bit = offset >> np.uint64(6), offset & LAST
    return before[block] + count_ones(opened[block] & (ALL >> (LAST - bit)))


@kernel
def count_markers(
    data, offsets, trace, begin, tables, opened, before, places, keys, first_steps, state,
    trace_counts, markers, category_steps, step_markers,
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
        step = steps_until(at, begin, opened, before) - 1
        offset = np.uint64(at - begin)
        first = at if opened[offset >> np.uint64(6)] >> (offset & LAST) & ONE else -1
        low, high = head_at(data, at, stop)
        left = keys[n]
        while left:
            bucket = left >> np.uint64(8)
            for row in rows_of(tables, bucket):
                end = match_end(data, at, stop, first, low, high, tables, row)
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
            left = next_bucket(low, high, left)
    return trace


@kernel
def note_spans(data, offsets, trace, begin, opened, newlines, lines, number, line, line_end, spans):
    """
    Write where the steps begin that open in a chunk, and where those before them end.

    `begin` is where the chunk begins, `number` the step of the batch that opens next, `line` and
    `line_end` where the last line before the chunk begins, and where the last one ends that is not
    blank; these and the trace of the last step are returned for the next chunk. The last step of a
    trace gets no end.
    """
    place = begin
    for block in range(opened.size):
        left, newline, closed = opened[block], newlines[block], lines[block]
        while left:
            bit = lowest_one(left)
            below = (ONE << np.uint64(bit)) - ONE
            left &= left - ONE
            while place + bit >= offsets[trace + 1]:
                trace += 1
            if number < spans.shape[0]:
                start = place + highest_one(newline & below) + 1 if newline & below else line
                spans[number, 0] = max(start - offsets[trace], 0)
            if 0 < number <= spans.shape[0]:
                end = place + highest_one(closed & below) if closed & below else line_end
                spans[number - 1, 1] = end - offsets[trace]
            number += 1
        if newline:
            line = place + highest_one(newline) + 1
        if closed:
            line_end = place + highest_one(closed)
        place += BLOCK
    return trace, line, line_end


@kernel
def end_last_steps(data, offsets, first_steps, kind, spans):
    """
    Write where the last step of each trace ends.

    That is the end of the line of its last byte that is not blank.
    """
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
    chunk,
):
    """
    Measure every trace of a batch; inputs and outputs as of `scalar.measure_traces`.

    Steps are runs of lines, or lines if `single`. Scratch: `first_steps` int64[num_traces + 1],
    `state` int64[2, num_categories], and a `Chunk`.
    """
    wanted = spans.shape[0] > 0
    stop = offsets[-1]
    trace_counts[:, BRANCH_PAIRS] = 0
    trace_counts[:, FIRST_BRANCH] = -1
    markers[:] = 0
    category_steps[:] = 0
    state[FREE] = 0
    state[LAST_STEP] = -2
    carries = chunk.carries
    carries[AFTER_NEWLINE], carries[AFTER_STEP], carries[AFTER_WORD] = ONE, ONE, ZERO
    ending = marked = spanned = 0  # traces
    steps, begin = 0, offsets[0]
    line = line_end = begin
    first_steps[0] = 0
    while begin < stop:
        full = min(CHUNK, max(0, (stop - begin - READ) // BLOCK + 1))
        rest = begin + BLOCK * full
        size = full if full == CHUNK else full + (stop - rest + BLOCK - 1) // BLOCK
        edges, ends, begins = chunk.edges[: size + 1], chunk.ends[:size], chunk.begins[:size]
        opened, before = chunk.opened[:size], chunk.before[:size]
        newlines, lines = chunk.newlines[:size], chunk.lines[:size]
        mark_edges(offsets, ending, begin, edges, ends)
        mask_blocks(
            data, begin, tables.shuffles, single, carries, edges[:full], ends[:full],
            begins[:full], opened[:full], newlines[:full], lines[:full],
        )
        if full < CHUNK:
            for n in range(stop - rest):
                chunk.padded[n] = data[rest + n]
            for n in range(stop - rest, chunk.padded.size):
                chunk.padded[n] = SPACE
            mask_blocks(
                chunk.padded, 0, tables.shuffles, single, carries, edges[full:size], ends[full:],
                begins[full:], opened[full:], newlines[full:], lines[full:],
            )
            begins[size - 1] &= ALL >> np.uint64((rest - stop) & 63)
        number = steps
        count, steps = note_places(begins, opened, before, begin, steps, chunk.places)
        count = thin_out(
            data, begin, stop, edges, tables.filter, chunk.places[:count], chunk.keys[:count]
        )
        next_begin = begin + BLOCK * size
        while ending < offsets.size - 1 and offsets[ending + 1] < next_begin:
            ending += 1
            first_steps[ending] = steps_until(offsets[ending] - 1, begin, opened, before) if offsets[ending] > begin else number
        if wanted:
            step_markers[number:steps] = 0
            spanned, line, line_end = note_spans(
                data, offsets, spanned, begin, opened, newlines, lines, number, line, line_end, spans
            )
        marked = count_markers(
            data, offsets, marked, begin, tables, opened, before, chunk.places[:count],
            chunk.keys[:count], first_steps, state, trace_counts, markers, category_steps,
            step_markers,
        )
        begin = next_begin
    while ending < offsets.size - 1:
        ending += 1
        first_steps[ending] = steps
    for trace in range(offsets.size - 1):
        trace_counts[trace, STEPS] = first_steps[trace + 1] - first_steps[trace]
        trace_counts[trace, BRANCH_STEPS] = category_steps[trace, 0]
    if wanted:
        end_last_steps(data, offsets, first_steps, tables.kind, spans)
    return steps
