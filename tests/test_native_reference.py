"""
The definitions by hand-checked cases: steps, matches, counts, distinct steps.

What is expected is written into the trace: `[` and `]` stand around each step, or around each
marker of category 0; `<` and `>` around each marker of category 1. They are taken out before the
trace is read. The kernels are held to the same tables in `test_native_conformance.py`.
"""

import string

import pytest

from curate.native import reference

Span = tuple[int, int]
Pattern = tuple[int, bytes, bool]


def unmarked(text: bytes | str) -> tuple[bytes, list[Span], list[Span]]:
    """A case's trace, the spans that stood in `[]`, and those that stood in `<>`."""
    trace = bytearray()
    places: dict[int, list[int]] = {mark: [] for mark in b"[]<>"}
    for byte in text.encode() if isinstance(text, str) else text:
        if byte in places:
            places[byte].append(len(trace))
        else:
            trace.append(byte)
    first, second = (list(zip(places[a], places[b], strict=True)) for a, b in (b"[]", b"<>"))
    return bytes(trace), first, second


STEPS = [
    # runs of lines that are not blank
    ("blank-line", b""),
    ("blank-line", b"[one]"),
    ("blank-line", b"[one]\n"),
    ("blank-line", b"[one\ntwo]"),
    ("blank-line", b"[one\ntwo]\n\n[three\nfour\nfive]\n"),
    ("blank-line", b"[one]\n\n\n\n\n[two]"),
    ("blank-line", b"\n[one]"),
    ("blank-line", b"\n\n\n[one]\n\n\n"),
    # lines of blanks are blank; blanks of a line that is not belong to it
    ("blank-line", b"[one]\n \t\v\f\r\n[two]"),
    ("blank-line", b" \n\t\n[one]\n\v\n\f\n"),
    ("blank-line", b"[one]\n  "),
    ("blank-line", b"  \n[  one  \n\ttwo\t]\n"),
    ("blank-line", b" "),
    ("blank-line", b"\n"),
    ("blank-line", b" \t\n\v\n\f\r\n\r "),
    ("blank-line", b"[a]\n\n[b]\n \n[c]"),
    # a CR ends no line, and belongs to the one that it stands on
    ("blank-line", b"[one\r]\n\r\n[two\r]\n"),
    ("blank-line", b"[one\r\ntwo\r]\n\r\n\r\n[three]"),
    ("blank-line", b"[one\r\rtwo]"),
    ("blank-line", b"\r\n\r\n"),
    ("blank-line", b"[one\n\r\r\rtwo]"),
    # only 0x09 to 0x0D and 0x20 are blanks
    ("blank-line", b"[\0]"),
    ("blank-line", b"[one\n\0\ntwo]\n\n[\0\0]"),
    ("blank-line", b"[one\n\x08\ntwo\n\x0e\nthree]"),
    ("blank-line", b"[one\n\x1c\ntwo\n\x1f\nthree\n\x7f\nfour]"),
    ("blank-line", b"[one\n\x85\ntwo\n\xa0\nthree\n\xff\nfour]"),
    ("blank-line", "[one\n\u00a0\ntwo\n\u2028\nthree\n\u3000\nfour]\n\n[五\n六]"),
    # single lines
    ("line", b""),
    ("line", b"\n\n \n"),
    ("line", b"[one]\n[two]\n\n[three]\n"),
    ("line", b"[  one ]\n\t\n[two\r]\n\r\n[\0]"),
    # between literals, untrimmed; pieces of blanks are none
    (b"\n\n", b""),
    (b"\n\n", b"\n\n\n\n"),
    (b"\n\n", b"[one\ntwo]\n\n[three]"),
    (b"\n\n", b"[one]\n\n[\ntwo]\n\n\n\n[three\n]"),
    (b"\n\n", b"[one\n \ntwo]"),
    (b"\n\n", b"[one\r\n\r\ntwo]"),
    (b"\n\n", b"\n\n \t \n\n[ one ]\n\n\r"),
    (b"abc", b"[one]abc[two]abc"),
    (b"abc", b"abcabc[ab]abc[c]"),
    (b"abc", b"[oneABCtwo aabbcc]"),
    (b"abc", b"[abab]abc[c]"),
    (b"abc", b"[ab]"),
    (b"aa", b"aaaa"),
    (b"aa", b"aaaa[a]"),
    (b"aa", b"[x]aa[ax]aa[b]"),
    (b"aab", b"[a]aab[aa]"),
    (b" ", b"[one] [two]  [\tthree]"),
    (b"\0", b"[one]\0\0[two]"),
    ("。".encode(), "[一]。[二]。"),
]


@pytest.mark.parametrize(("delimiter", "text"), STEPS)
def test_steps_are_as_marked(delimiter, text):
    trace, spans, _ = unmarked(text)
    assert reference.steps(trace, delimiter) == spans


WAIT = (0, b"wait", False)
START = (0, b"wait", True)

# patterns, delimiter, trace
MATCHES: list[tuple[list[Pattern], str | bytes, bytes | str]] = [
    ([], "blank-line", b"wait"),
    ([WAIT], "blank-line", b""),
    ([WAIT], "blank-line", b"[wait]"),
    ([WAIT], "blank-line", b"wai"),
    ([WAIT], "blank-line", b"one\n[wait]\ntwo\n\n[wait] three"),
    # letter case
    ([WAIT], "blank-line", b"[Wait], [WAIT] and [wAiT]"),
    ([(0, "é".encode(), False)], "blank-line", "[é] É"),
    ([(0, b"@me", False)], "blank-line", b"[@me] `me [@ME]"),
    ([(0, b"1st", False)], "blank-line", b"[1st] \x11st [1ST]"),
    ([(0, b"a\0b", False)], "blank-line", b"[a\0b] a b [A\0B] a b"),
    # a whole word at either end
    ([WAIT], "blank-line", b"await waits awaits [wait]"),
    ([WAIT], "blank-line", b"wait_ _wait wait1 1wait waitX Xwait"),
    ([WAIT], "blank-line", b"waitwait waitawait [wait] waits"),
    ([WAIT], "blank-line", b"'[wait]' \"[wait]\" ([wait]) *[wait]* [wait]. [wait]-[wait]/[wait]"),
    ([WAIT], "blank-line", "“[wait]” ‘[wait]’ [wait]—[wait]–[wait]‑[wait]…"),
    ([WAIT], "blank-line", "我[wait]等，é[wait]é，ß[wait]"),
    ([WAIT], "blank-line", b"\0[wait]\0 \xff[wait]\xfe \x80[wait]\x80 \xe2\x80[wait]\xe2"),
    ([WAIT], "blank-line", b"@[wait]` {[wait]} \x7f[wait]\x1f /[wait]:"),
    ([(0, b"a_1", False)], "blank-line", b"[a_1] a_12 ba_1 a_1_ [A_1]"),
    ([(0, b"_a", False)], "blank-line", b"[_a] b_a __a -[_a]-"),
    # an end of the phrase that is no word byte needs no boundary
    ([(0, b"'s right", False)], "blank-line", b"that['s right], it's righty,['s right]"),
    ([(0, b"answer:", False)], "blank-line", b"[answer:]12 [Answer:] answers: my_answer:"),
    ([(0, b"\\boxed", False)], "blank-line", b"[\\boxed]{3} x[\\boxed] \\boxed1 \\[\\boxed]"),
    ([(0, b"--", False)], "blank-line", b"[--]- a[--]b [--][--]"),
    ([(0, "等".encode(), False)], "blank-line", "[等][等]我a[等]a"),
    # a space is one 0x20
    (
        [(0, b"hold on", False)],
        "blank-line",
        b"[hold on] hold  on hold\ton hold-on hold\non hold\0on",
    ),
    ([(0, b" so ", False)], "blank-line", b"so it[ so ]and[ so ]so or_so so"),
    ([(0, b"so ", False)], "blank-line", b"[so ][so ]also so"),
    # typographic bytes are bytes like others
    ([(0, "let’s".encode(), False)], "blank-line", "[let’s] let's let‘s [LET’S]"),
    # short phrases
    ([(0, b"a", False)], "blank-line", b"[a] an [A]. ba a_ a1 [a]"),
    ([(0, b"so", False)], "blank-line", b"[so] also sos [SO]\n[so]"),
    ([(0, b"?", False)], "blank-line", b"why[?][?] \x1f"),
    # phrases that begin alike
    (
        [(0, b"let me", False), (0, b"let us", False), (1, b"letter", False)],
        "blank-line",
        b"let it, [let me] [let us] <letter> let letters",
    ),
    # leftmost-longest
    (
        [WAIT, (0, b"wait a", False), (0, b"wait a minute", False)],
        "blank-line",
        b"[wait a] moment, [wait a minute], [wait] an hour, [wait a] minutes",
    ),
    (
        [(0, b"alternative", False), (0, b"alternatively", False)],
        "blank-line",
        b"[alternatively] [alternative] alternativel alternatives",
    ),
    ([(0, b"a b", False), (0, b"b c d", False)], "blank-line", b"[a b] c d, [b c d]"),
    ([(0, b"(wait", False), WAIT], "blank-line", b"[(wait] [wait]"),
    ([WAIT, (0, b"wait,", False)], "blank-line", b"[wait,][wait]."),
    # no overlaps within a category
    ([(0, b"no no", False)], "blank-line", b"[no no] no, [no no] [no no]"),
    ([(0, b"a-a", False)], "blank-line", b"[a-a]-[a-a]-a"),
    ([(0, b"**", False)], "blank-line", b"[**]*"),
    # but across categories
    (
        [(0, b"let me check", False), (1, b"check again", False)],
        "blank-line",
        b"[let me <check] again>",
    ),
    ([WAIT, (1, b"wait", False)], "blank-line", b"[<wait>] [<Wait>]"),
    ([(0, b"on", False), (1, b"hold on", False)], "blank-line", b"<hold [on]> [on]"),
    ([(0, b"a b", False), (1, b"b a", False)], "blank-line", b"[a <b] [a> b]"),
    ([(0, b"a b c", False), (1, b"b", False)], "blank-line", b"[a <b> c] <b>"),
    # never across steps
    ([(0, b"hold on", False)], "blank-line", b"hold\n\non"),
    ([(0, b"hold\non", False)], "blank-line", b"[hold\non] hold\n\non"),
    ([(0, b"hold\non", False)], "line", b"hold\non"),
    ([(0, b"hold on", False)], b" ", b"hold on"),
    ([(0, b"a\n\nb", False)], "blank-line", b"a\n\nb"),
    # the edge of a step is a boundary, also where the delimiter is a letter
    ([WAIT], b"abc", b"[wait]abc[wait]abcawaitabcwaits"),
    ([WAIT], b"x", b"x[wait]xx[wait]xwaitsxawaitx"),
    ([WAIT], b"7", b"[wait]7[wait]"),
    ([(0, b"a", False)], b"b", b"[a]bb[a]baab"),
    # only at the start of a step, after its blanks
    ([START], "blank-line", b"[wait], wait"),
    ([START], "blank-line", b" \t\v\f\r [wait] wait"),
    ([START], "blank-line", b"\n\n  [Wait]\nwait\n\nwell, wait\n\n[wait]"),
    ([START], "blank-line", b"  waiting"),
    ([START], "blank-line", b"- wait\n\n\0wait\n\n_wait"),
    ([START], "blank-line", "“wait"),
    ([START], "line", b"[wait]\n [wait]\n\nwell wait\n[wait]"),
    ([START], b"abc", b"[wait]abc \n[wait] waitabc"),
    ([(0, b" wait", True)], "blank-line", b" wait"),
    ([(0, b"wait ", True)], "blank-line", b"  [wait ]wait \n\nwait"),
    ([START, (0, b"well", False)], "blank-line", b"[well] wait [well]\n\n[wait] wait"),
    ([(0, b"wait a", True), WAIT], "blank-line", b"[wait a] bit, [wait] a bit"),
    ([START, (0, b"wait a", False)], "blank-line", b"[wait a] bit, [wait a] bit, wait"),
    ([START, (1, b"wait", False)], "blank-line", b"[<wait>] <wait>"),
]


@pytest.mark.parametrize(("patterns", "delimiter", "text"), MATCHES)
def test_markers_are_as_marked(patterns, delimiter, text):
    trace, first, second = unmarked(text)
    found = [
        (start + a, start + b, category)
        for start, end in reference.steps(trace, delimiter)
        for a, b, category in reference.find_markers(trace[start:end], patterns)
    ]
    assert [(a, b) for a, b, category in found if category == 0] == first
    assert [(a, b) for a, b, category in found if category == 1] == second


def test_markers_come_in_order_of_category_then_of_place():
    patterns = [(1, b"a", False), (0, b"b", False)]
    assert reference.find_markers(b"a b a", patterns) == [(2, 3, 0), (0, 1, 1), (4, 5, 1)]


# every byte on a line of its own, in front of a phrase, behind it
BLANK = b"\t\n\v\f\r "
WORD = (string.ascii_letters + string.digits + "_").encode()
ON_A_LINE = [b"one\n" + bytes([byte]) + b"\ntwo" for byte in range(256)]
IN_FRONT = [b"." + bytes([byte]) + b"wait" for byte in range(256)]
BEHIND = [b"wait" + bytes([byte]) + b"." for byte in range(256)]


def test_every_byte_is_a_blank_or_not():
    cut = [byte for byte in range(256) if len(reference.steps(ON_A_LINE[byte])) == 2]
    assert cut == sorted(BLANK)


@pytest.mark.parametrize("texts", [IN_FRONT, BEHIND], ids=["in front", "behind"])
def test_every_byte_is_of_a_word_or_not(texts):
    touched = [byte for byte in range(256) if not reference.find_markers(texts[byte], [WAIT])]
    assert touched == sorted(WORD)


COUNTED = [(0, b"other", False), (1, b"wait", False), (2, b"so", True)]

# trace, steps, branch steps, branch pairs, first branch, markers, steps of each category
COUNTS = [
    (b"", 0, 0, 0, -1, [0, 0, 0], [0, 0, 0]),
    (b" \n\n ", 0, 0, 0, -1, [0, 0, 0], [0, 0, 0]),
    (b"one", 1, 0, 0, -1, [0, 0, 0], [0, 0, 0]),
    (b"other", 1, 1, 0, 0, [1, 0, 0], [1, 0, 0]),
    (b"other wait wait", 1, 1, 0, 0, [1, 2, 0], [1, 1, 0]),
    (b"So, other other\n\nso so", 2, 1, 0, 0, [2, 0, 2], [1, 0, 2]),
    (b"one\n\nother\n\nother\n\nwait\n\nother", 5, 3, 1, 1, [3, 1, 0], [3, 1, 0]),
    (b"other\n\nother\n\nother", 3, 3, 2, 0, [3, 0, 0], [3, 0, 0]),
    (b"other\n\none\n\nother", 3, 2, 0, 0, [2, 0, 0], [2, 0, 0]),
    (b"one\n\nwait wait\n\nwait\n\nother", 4, 1, 0, 3, [1, 3, 0], [1, 2, 0]),
    (b"other\nother\n \nwait other", 2, 2, 1, 0, [3, 1, 0], [2, 1, 0]),
]
COUNT_NAMES = "steps branch_steps branch_pairs first_branch markers category_steps".split()


@pytest.mark.parametrize(("trace", "counts"), [(row[0], row[1:]) for row in COUNTS])
def test_counts_are_those_of_the_table(trace, counts):
    found = reference.measure(trace, COUNTED, 3)
    assert tuple(found[name] for name in COUNT_NAMES) == counts


UNIQUE = [
    ("blank-line", b"", 0),
    ("blank-line", b" \n\n", 0),
    ("blank-line", b"a", 1),
    ("blank-line", b"a\n\na\n\na", 1),
    ("blank-line", b"a\n\nb\n\na\n\nc\n\nb", 3),
    # blanks are trimmed from both ends, not from within
    ("blank-line", b"a\n\n  a\n\na \t\v\f\r\n\n\ra\r", 1),
    ("blank-line", b"a b\n\na  b\n\na\nb", 3),
    # nothing else is
    ("blank-line", b"a\n\nA\n\na.\n\na\0\n\n\0a\n\na\xa0", 6),
    ("blank-line", b"a\n\naa\n\naaa\n\naa", 3),
    ("line", b"a\n a\nb\n\na", 2),
    (b"|", b"a|a | a|b|\na\n||", 2),
]


@pytest.mark.parametrize(("delimiter", "trace", "count"), UNIQUE)
def test_distinct_steps_are_counted_after_trimming(delimiter, trace, count):
    assert reference.unique_steps(trace, delimiter) == count
