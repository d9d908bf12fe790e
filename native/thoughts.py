"""
Where the thought of each text lies, and whether the text is UTF-8: one pass, 64 bytes at a time.

A byte shuffle is not needed: two comparisons of a block tell where a tag may begin, and one whether
any byte is 0 or above 0x7F. Only these places are looked at. Specification: `reference.thought` and
`reference.fault`.
"""

import numpy as np

from ._jit import kernel, part
from .blocks import AHEAD
from .simd import BLOCK, lowest_one, prefetch
from .tags import EMPTY, MISSING, OK, PREFILLED, SEVERAL, UNCLOSED
from .utf8 import ONE, behind, fault_of, masks_at, sequence_end

NEWLINE = 0x0A


@part
def is_blank(byte):
    """Whether a byte is blank."""
    return byte == 0x20 or (0x09 <= byte and byte <= 0x0D)


@part
def is_at(data, place, stop, tag):
    """Whether a tag stands at a place."""
    if place + tag.size > stop:
        return False
    for i in range(tag.size):
        if data[place + i] != tag[i]:
            return False
    return True


@part
def is_opening(data, begin, stop, place, size):
    """Whether an opening tag is the first in the text but for blanks, or alone on its line."""
    before = place
    while before > begin and is_blank(data[before - 1]) and data[before - 1] != NEWLINE:
        before -= 1
    on_line = before == begin or data[before - 1] == NEWLINE
    while before > begin and is_blank(data[before - 1]):
        before -= 1
    behind = place + size
    while behind < stop and is_blank(data[behind]) and data[behind] != NEWLINE:
        behind += 1
    return before == begin or (on_line and (behind == stop or data[behind] == NEWLINE))


@part
def all_blank(data, start, end):
    """Whether a span holds nothing but blanks."""
    while start < end and is_blank(data[start]):
        start += 1
    return start == end


@kernel
def cut_thoughts(data, starts, ends, opening, closing, special, out_starts, out_ends, verdicts):
    """
    Cut the thought out of each text, or take all of it where the tags are empty.

    data : uint8[num_bytes], starts, ends : int64[num_texts]
        Text `i` is `data[starts[i]:ends[i]]`. Read only.
    opening, closing : uint8[size]
        The tags, read only; both empty for none.
    out_starts, out_ends : int64[num_texts]
        Written: where each thought lies in `data`.
    verdicts : uint8[num_texts]
        Written: indices into `tags.VERDICTS`; `invalid_utf8` and `not_text` as of the first byte
        of the text that is not UTF-8, or is NUL.

    Costs a load and three comparisons for 64 bytes, and some 3 ns for each character beyond ASCII.
    """
    tagged = opening.size > 0
    first = opening[0] if tagged else np.uint8(0)
    second = closing[0] if tagged else np.uint8(0)
    for text in range(starts.size):
        begin, stop = starts[text], ends[text]
        opened, closed = np.int64(-1), np.int64(-1)
        opens = closes = 0
        free = sound = begin  # of tags, and of sequences
        place = begin
        while place < stop:
            prefetch(data, place + AHEAD)
            same, odd = masks_at(data, place, stop, first, second)
            while tagged and same:
                at = place + lowest_one(same)
                same &= same - ONE
                if at < free:
                    continue
                if is_at(data, at, stop, opening):
                    free = at + opening.size
                    opens += 1
                    if opened < 0 and (
                        special or (closes == 0 and is_opening(data, begin, stop, at, opening.size))
                    ):
                        opened = at
                elif is_at(data, at, stop, closing):
                    free = at + closing.size
                    closes += 1
                    if not special or (opened >= 0 and closed < 0):
                        closed = at
            if sound > place:
                odd = behind(odd, sound - place)
            while odd and sound >= 0:
                sound = sequence_end(data, place + lowest_one(odd), stop)
                odd = behind(odd, sound - place)
            place += BLOCK
        start, end = begin, stop
        if opened >= 0:
            start = opened + opening.size
        if closed >= 0:
            end = closed
        more = opens > 1
        if not special:
            more = opens + closes > (opened >= 0) + (closed >= 0)
        if all_blank(data, begin, stop):
            start, end, verdict = begin, begin, EMPTY
        elif not tagged:
            verdict = OK
        elif opened < 0 and closed < 0:
            start, end, verdict = begin, begin, MISSING
        elif more:
            verdict = SEVERAL
        elif closed < 0:
            verdict = UNCLOSED
        elif all_blank(data, start, end):
            verdict = EMPTY
        elif opened < 0:
            verdict = PREFILLED
        else:
            verdict = OK
        out_starts[text], out_ends[text] = start, end
        if sound < 0:
            verdict = fault_of(sound)
        verdicts[text] = verdict


@kernel
def find_first(data, starts, ends, tag, out):
    """
    Where a tag first stands in each text, `ends[i]` if it does not: int64[num_texts] into `out`.

    `data`, `starts` and `ends` as of `cut_thoughts`; `tag` uint8[size], not empty.
    """
    for text in range(starts.size):
        place, stop = starts[text], ends[text]
        while place < stop and not is_at(data, place, stop, tag):
            place += 1
        out[text] = place


@kernel
def sizes_but_blanks(data, begins, stops, out):
    """
    The bytes of each span, 0 where it is nothing but blanks: int64[num_spans] into `out`.

    `data`, `begins` and `stops` as of `cut_thoughts`.
    """
    for span in range(begins.size):
        blank = all_blank(data, begins[span], stops[span])
        out[span] = 0 if blank else stops[span] - begins[span]
