"""
Cut traces into steps and count their markers, a byte at a time.

The obvious loop tries every phrase at every byte of every step. Three facts make it one pass:

1. Few places can begin a phrase. A place inside a word cannot begin one that opens with a letter,
   and a hash of the next bytes rules out nearly all of the rest (`tables.py`, the second question).
2. Where a phrase can begin, the few phrases that open with the same bytes are compared, and give
   every category that matches there and its longest phrase (`matching.py`).
3. Matches of a category never overlap and are found from left to right, so remembering where the
   last one ended (`free`) is enough to take the leftmost-longest.

A step is found first (its newlines are searched) and then read for markers, so each byte is
touched twice, the second time in the cache. Specification: `reference.py`.
"""

from ._jit import kernel, part
from .matching import matches_at
from .simd import lowest_one
from .tables import BLANK, STARTS, WORD

BLANK_LINE, LINE, LITERAL = 0, 1, 2
"""How steps are cut: by blank lines, single lines, or a literal string."""

STEPS, BRANCH_STEPS, BRANCH_PAIRS, FIRST_BRANCH = range(4)
"""Columns of `trace_counts`."""

NEWLINE = 0x0A


@part
def step_of_lines(data, pos, stop, kind, single):
    """
    The next step at or after `pos`, a line's first byte: `(start, end, where to go on)`.

    A run of lines that are not blank, or one such line if `single`. `start` is -1 if none is left.
    """
    start, end = -1, -1
    while pos < stop:
        i = pos
        while i < stop and data[i] != NEWLINE and kind[data[i]] & BLANK:
            i += 1
        if i == stop or data[i] == NEWLINE:  # a blank line
            pos = i + 1
            if start >= 0:
                break
            continue
        if start < 0:
            start = pos
        while i < stop and data[i] != NEWLINE:
            i += 1
        end = i
        pos = i + 1
        if single:
            break
    return start, end, pos


@part
def step_of_pieces(data, pos, stop, kind, literal):
    """The next piece between occurrences of `literal` that is not blank, as `step_of_lines`."""
    size = literal.size
    while pos < stop:
        start, blank = pos, True
        while pos < stop:
            matched = 0
            while (
                matched < size and pos + matched < stop and data[pos + matched] == literal[matched]
            ):
                matched += 1
            if matched == size:
                break
            blank = blank and kind[data[pos]] & BLANK != 0
            pos += 1
        if not blank:
            return start, pos, pos + size
        pos += size
    return -1, -1, pos


@part
def first_not_blank(data, start, kind):
    """The first byte of a step that is not blank; a step is never blank, so it has one."""
    while kind[data[start]] & BLANK:
        start += 1
    return start


@part
def mark_step(data, start, stop, tables, free, counts):
    """
    Count the markers of one step into `counts` (int32[num_categories], added to).

    Returns the categories that the step holds, as bits.
    """
    kind = tables.kind
    first = first_not_blank(data, start, kind)
    held = 0
    before = 0
    for place in range(start, stop):
        now = kind[data[place]]
        begins = now & STARTS and not now & before & WORD
        before = now
        if not begins:
            continue
        matched = matches_at(data, place, stop, first, tables, free)
        held |= matched
        while matched:
            counts[lowest_one(matched)] += 1
            matched &= matched - 1
    return held


@kernel
def measure_traces(
    data,
    offsets,
    tables,
    delimiter,
    literal,
    trace_counts,
    markers,
    category_steps,
    spans,
    step_markers,
    scratch,
):
    """
    Measure every trace of a batch in one pass.

    Parameters
    ----------
    data : uint8[num_bytes]
        The traces, end to end. Read only.
    offsets : int64[num_traces + 1]
        Trace `i` is `data[offsets[i]:offsets[i + 1]]`. Read only.
    tables : Tables
        The lexicon.
    delimiter : int
        BLANK_LINE, LINE or LITERAL.
    literal : uint8[any]
        The literal delimiter, not empty under LITERAL, not looked at otherwise.
    trace_counts : int32[num_traces, 4]
        Steps, branch steps, branch steps right after a branch step, and the 0-based index of the
        first branch step or -1. Overwritten.
    markers, category_steps : int32[num_traces, num_categories]
        Markers of each category, and steps that hold one. Overwritten.
    spans : int64[capacity, 2]
        Byte offsets of each step into its trace, half-open, traces end to end. Overwritten as far
        as it reaches; capacity 0 where steps are not asked for.
    step_markers : int32[capacity, num_categories]
        Markers of each category in each step, beside `spans`.
    scratch : int64[2, num_categories]
        Overwritten.

    Returns
    -------
    int
        Steps of the batch. Larger than the capacity: the rest of the spans was not written.

    Requires
    --------
    `offsets` does not decrease and lies within `data`; `measure.measure` is the only caller.

    Notes
    -----
    Never raises; any bytes. O(num_bytes); allocates nothing.
    Specification: `reference.measure`.
    """
    num_categories = tables.num_categories
    free, counts = scratch[0], scratch[1]
    scratch[:] = 0
    total = 0
    for trace in range(offsets.size - 1):
        begin, stop = offsets[trace], offsets[trace + 1]
        steps, branch_steps, branch_pairs, first_branch = 0, 0, 0, -1
        after_branch = False
        markers[trace, :] = 0
        category_steps[trace, :] = 0
        pos = begin
        while True:
            if delimiter == LITERAL:
                start, end, pos = step_of_pieces(data, pos, stop, tables.kind, literal)
            else:
                start, end, pos = step_of_lines(data, pos, stop, tables.kind, delimiter == LINE)
            if start < 0:
                break
            held = mark_step(data, start, end, tables, free, counts)
            if total < spans.shape[0]:
                spans[total, 0] = start - begin
                spans[total, 1] = end - begin
                for category in range(num_categories):
                    step_markers[total, category] = counts[category]
            if held:
                for category in range(num_categories):
                    markers[trace, category] += counts[category]
                    category_steps[trace, category] += held >> category & 1
                    counts[category] = 0
            is_branch = held & 1 != 0
            if is_branch:
                branch_steps += 1
                branch_pairs += after_branch
                if first_branch < 0:
                    first_branch = steps
            after_branch = is_branch
            steps += 1
            total += 1
        trace_counts[trace, STEPS] = steps
        trace_counts[trace, BRANCH_STEPS] = branch_steps
        trace_counts[trace, BRANCH_PAIRS] = branch_pairs
        trace_counts[trace, FIRST_BRANCH] = first_branch
    return total


@kernel
def locate_markers(data, start, stop, tables, places, scratch):
    """
    Find the markers of one step: rows (start, end, category) of `places`, int64[capacity, 3].

    Returns how many there are, in order of place; those beyond the capacity are not written.
    `scratch` is int64[1, num_categories], overwritten.
    """
    free = scratch[0]
    scratch[:] = 0
    first = first_not_blank(data, start, tables.kind)
    total = 0
    for i in range(start, stop):
        if i > start and tables.kind[data[i]] & tables.kind[data[i - 1]] & WORD:
            continue
        matched = matches_at(data, i, stop, first, tables, free)
        while matched:
            category = lowest_one(matched)
            matched &= matched - 1
            if total < places.shape[0]:
                places[total, 0] = i
                places[total, 1] = free[category]
                places[total, 2] = category
            total += 1
    return total
