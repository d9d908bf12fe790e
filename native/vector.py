"""
Cut traces into steps and count their markers, 64 bytes at a time.

The obvious loop asks of each byte whether it is blank and whether a phrase begins there. Here both
are asked of 64 bytes at once, and what is left is arithmetic on masks of 64 bits, one for a byte:

1. Byte shuffles look up the two halves of every byte in tables of sixteen entries. That gives the
   newlines, the blanks, the word bytes, and the places where the first bytes are those of some
   phrase or look like it (`simd.block_masks`).
2. A step begins at the first byte that is not blank after a blank line. A line is blank if a
   newline follows a newline with nothing but blanks between: adding the mask of "after a newline"
   to the mask of blanks makes a carry run through the blanks, and it comes out at the first byte
   that is none; if that is a newline, the line was blank. A second addition runs from there to the
   first byte of the next step. No step is visited to be counted.
3. A place that may begin a phrase is looked at one by one (`matching.match_at`). Its step is the
   number of steps that begin at or before it, so a step's categories need no memory but the last
   step that each was seen in.

Carries go from block to block. Literal delimiters are left to the scalar kernel. Specification:
`reference.py`.
"""

import numpy as np

from ._jit import kernel, part
from .matching import match_at
from .scalar import BRANCH_PAIRS, BRANCH_STEPS, FIRST_BRANCH, NEWLINE, STEPS
from .simd import BLOCK, block_masks, count_ones, lowest_one
from .tables import BLANK, FINGERPRINT

READ = BLOCK + FINGERPRINT - 1
"""Bytes that `block_masks` reads."""

ONE, ALL, LAST = np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(63)


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


@part
def span_of_last_step(data, begin, stop, start, before, kind):
    """
    The byte where the step ends whose last byte that is not blank is at or before `before`.

    From there the rest of the line belongs to it, but for the newline.
    """
    end = before
    while end > start and kind[data[end]] & BLANK:
        end -= 1
    while end < stop and data[end] != NEWLINE:
        end += 1
    return end


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
    scratch,
    padded,
):
    """
    Measure every trace of a batch; inputs and outputs as of `scalar.measure_traces`.

    Steps are runs of lines, or lines if `single`. `padded` is scratch, uint8[READ].
    """
    num_categories = tables.num_categories
    free, ends, last_step = scratch[0], scratch[1], scratch[2]
    kind, shuffles = tables.kind, tables.shuffles
    scratch[:] = 0
    total = 0
    for trace in range(offsets.size - 1):
        begin, stop = offsets[trace], offsets[trace + 1]
        steps, branch_steps, branch_pairs, first_branch, last_branch = 0, 0, 0, -1, -2
        for category in range(num_categories):
            markers[trace, category] = 0
            category_steps[trace, category] = 0
            last_step[category] = -1
        after_newline, after_blank, word_before = np.uint64(1), np.uint64(1), np.uint64(0)
        for place in range(begin, stop, BLOCK):
            if place + READ <= stop:
                newlines, blanks, words, begins = block_masks(data, place, shuffles)
                valid = ALL
            else:
                for n in range(READ):
                    padded[n] = data[place + n] if place + n < stop else np.uint8(NEWLINE)
                newlines, blanks, words, begins = block_masks(padded, 0, shuffles)
                valid = ALL if stop - place >= BLOCK else (ONE << np.uint64(stop - place)) - ONE
                newlines &= valid
            # The ends of blank lines; if lines are steps, the ends of all lines will do.
            starts = newlines << ONE | after_newline
            ended, carry = run_through(starts, blanks & ~newlines)
            after_newline = newlines >> LAST | carry
            ended = newlines if single else ended & newlines
            starts = ended << ONE | after_blank
            opened, carry = run_through(starts, blanks)
            after_blank = ended >> LAST | carry
            opened &= valid
            begins &= valid & ~(words & (words << ONE | word_before))
            word_before = words >> LAST
            if spans.shape[0] > 0:
                left, number = opened, total + steps
                while left:
                    at = place + lowest_one(left)
                    left &= left - ONE
                    if number < spans.shape[0]:
                        start = at
                        while start > begin and data[start - 1] != NEWLINE:
                            start -= 1
                        spans[number, 0] = start - begin
                        for category in range(num_categories):
                            step_markers[number, category] = 0
                    if number > total and number <= spans.shape[0]:
                        start = begin + spans[number - 1, 0]
                        end = span_of_last_step(data, begin, stop, start, at - 1, kind)
                        spans[number - 1, 1] = end - begin
                    number += 1
            while begins:
                bit = lowest_one(begins)
                begins &= begins - ONE
                so_far = opened & (ALL >> (LAST - np.uint64(bit)))
                step = steps + count_ones(so_far) - 1
                at = place + bit
                first = at if opened >> np.uint64(bit) & ONE else -1
                matched = match_at(data, at, stop, first, tables, free, ends)
                if not matched:
                    continue
                for category in range(num_categories):
                    if matched >> category & 1:
                        markers[trace, category] += 1
                        if last_step[category] != step:
                            last_step[category] = step
                            category_steps[trace, category] += 1
                        if total + step < spans.shape[0]:
                            step_markers[total + step, category] += 1
                if matched & 1 and step != last_branch:
                    branch_steps += 1
                    branch_pairs += step == last_branch + 1
                    if first_branch < 0:
                        first_branch = step
                    last_branch = step
            steps += count_ones(opened)
        if steps > 0 and total + steps <= spans.shape[0]:
            number = total + steps - 1
            start = begin + spans[number, 0]
            end = span_of_last_step(data, begin, stop, start, stop - 1, kind)
            spans[number, 1] = end - begin
        total += steps
        trace_counts[trace, STEPS] = steps
        trace_counts[trace, BRANCH_STEPS] = branch_steps
        trace_counts[trace, BRANCH_PAIRS] = branch_pairs
        trace_counts[trace, FIRST_BRANCH] = first_branch
    return total
