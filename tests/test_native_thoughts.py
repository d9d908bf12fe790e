"""`cut_thoughts` and `find_first` give the answers of `native.reference` on any bytes."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate import verdicts
from curate.native import reference, tags
from curate.native.simd import BLOCK
from curate.native.tags import EMPTY, INVALID_UTF8, NOT_TEXT, OK, VERDICTS, Tags
from curate.native.thoughts import cut_thoughts, find_first
from tests.test_native_conformance import guarded  # noqa: F401  (a fixture)

THINK = Tags(b"<think>", b"</think>")
PAIRS = (
    THINK,
    Tags(b"<|begin_of_thought|>", b"<|end_of_thought|>"),
    Tags(b"[THINK]", b"[/THINK]"),
    Tags(b"<|channel|>analysis<|message|>", b"<|end|>", special=True),
    Tags(b"<think>", b"</think>", special=True),
    Tags(b"[", b"]"),  # a byte each
    Tags(b"aab", b"ba"),  # which share bytes where they meet
    Tags("思".encode(), "答".encode(), special=True),
    Tags(b"\xff<", b"\0>"),  # which no text may hold
)
NONE = Tags(b"", b"")

Found = list[tuple[int, int, str]]

FILLING = (
    *(
        b"\n",
        b"\n\n",
        b" ",
        b"\t",
        b"\r\n",
        b"\v",
        b"a",
        b"So it is 4.",
        b"`",
        b"```\n",
        b"\n```\n",
    ),
    *("你好，世界。".encode(), "é".encode(), "😀".encode(), "—".encode()),
    *(b"\0", b"\xff", b"\x80", b"\xe4\xbd", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\x7f"),
)
LONG = tuple(b"x" * n for n in (BLOCK - 9, BLOCK - 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 3))


@st.composite
def pieces(draw: st.DrawFn, pair: Tags) -> bytes:
    """A tag, plain, alone on its line, quoted, doubled, nested or cut; or what stands between."""
    tag = draw(st.sampled_from((pair.open, pair.close)))
    shape = draw(st.integers(0, 9))
    if shape > 6:
        return draw(st.sampled_from(FILLING) | st.sampled_from(LONG) | st.binary(max_size=4))
    shapes = (
        tag,
        b"\n" + tag + b" \n",
        b"`" + tag + b"`",
        b"\n```\n" + pair.open + b"\ncode\n" + pair.close + b"\n```\n",
        tag + tag,
        pair.open + b" " + pair.open + b"x" + pair.close + pair.close,
        tag[: draw(st.integers(0, len(tag)))],
    )
    return shapes[shape]


@st.composite
def texts(draw: st.DrawFn, pair: Tags) -> bytes:
    """A text of such pieces, often of one thought, sometimes cut anywhere."""
    text = b"".join(draw(st.lists(pieces(pair), max_size=10)))
    begin = draw(
        st.sampled_from((b"", pair.open, b" \n" + pair.open, b"A question?\n" + pair.open))
    )
    text = begin + text + draw(st.sampled_from((b"", pair.close, pair.close + b"\n\n4")))
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


@st.composite
def buffers(draw: st.DrawFn) -> tuple[Tags, list[bytes], list[bytes]]:
    """A pair of tags, texts, and what stands in front of each text and behind the last."""
    pair = draw(st.sampled_from((*PAIRS, NONE)))
    some = draw(st.lists(texts(pair if pair.open else THINK), max_size=4))
    gap = st.sampled_from((b"", b"", *pair[:2], b"\x80", b"\n", b"y" * BLOCK)) | st.binary(
        max_size=9
    )
    return pair, some, draw(st.lists(gap, min_size=len(some) + 1, max_size=len(some) + 1))


def laid_out(some: Sequence[bytes], gaps: Sequence[bytes]) -> tuple[np.ndarray, ...]:
    """The texts in one buffer: data, starts and ends as the kernels ask for them, read only."""
    data, starts = gaps[0], []
    for text, gap in zip(some, gaps[1:], strict=True):
        starts.append(len(data))
        data += text + gap
    begins = np.array(starts, np.int64)
    stops = begins + np.array([len(text) for text in some], np.int64)
    begins.flags.writeable = stops.flags.writeable = False
    return np.frombuffer(data, np.uint8), begins, stops


def cut(pair: Tags, data: np.ndarray, begins: np.ndarray, stops: np.ndarray) -> Found:
    """What the kernel says of each text, from its begin on."""
    starts, ends = np.empty_like(begins), np.empty_like(begins)
    codes = np.empty(len(begins), np.uint8)
    opening, closing = (np.frombuffer(tag, np.uint8) for tag in pair[:2])
    cut_thoughts(data, begins, stops, opening, closing, pair.special, starts, ends, codes)
    spans = zip((starts - begins).tolist(), (ends - begins).tolist(), codes, strict=True)
    return [(start, end, VERDICTS[code]) for start, end, code in spans]


def expected(pair: Tags, text: bytes) -> tuple[int, int, str]:
    """What the definitions say: without tags all of a text is the thought."""
    if pair.open:
        start, end, code = reference.thought(text, pair)
    else:
        blank = reference.is_blank(text)
        start, end, code = (0, 0, EMPTY) if blank else (0, len(text), OK)
    wrong = reference.fault(text)
    return start, end, VERDICTS[code if wrong is None else wrong]


def cut_one(text: bytes, pair: Tags = THINK) -> tuple[str, bytes]:
    """Verdict and thought of a single text."""
    ((start, end, verdict),) = cut(pair, *laid_out([text], [b"", b""]))
    return verdict, text[start:end]


@settings(max_examples=1000)
@given(buffers())
@example((THINK, [], [b""]))
@example((THINK, [b""], [b"<think>", b"</think>"]))
@example((THINK, [b"<think>a", b"b</think>"], [b"", b"", b""]))
@example((THINK, [b"x" * (BLOCK - 3) + "\n<think>\n你</think>".encode()], [b"", b""]))
def test_thoughts_are_as_defined(drawn):
    pair, some, gaps = drawn
    assert cut(pair, *laid_out(some, gaps)) == [expected(pair, text) for text in some]


@settings(max_examples=300)
@given(drawn=buffers(), by=st.integers(1, 2 * BLOCK))
def test_where_a_text_lies_changes_nothing(drawn, by):
    pair, some, gaps = drawn
    moved = [b"<" * by + gaps[0], *gaps[1:]]
    moved[-1] += b"\xe4" * by
    assert cut(pair, *laid_out(some, moved)) == cut(pair, *laid_out(some, gaps))


@pytest.mark.parametrize("pair", PAIRS)
def test_tags_may_lie_across_the_edges_of_blocks(pair):
    """A tag, and a second one beside it or further on, at every place of three blocks."""
    some = []
    for ahead in range(3 * BLOCK):
        for between in (b"", b"y", b"y" * (BLOCK - ahead % 7)):
            some.append(b"\n" * ahead + pair.open + between + pair.close)
            some.append(b"x" * ahead + pair.close + between + pair.close)
    found = cut(pair, *laid_out(some, [b""] * (len(some) + 1)))
    assert found == [expected(pair, text) for text in some]


@settings(max_examples=150)
@given(drawn=buffers())
def test_nothing_outside_the_data_is_read(guarded, drawn):  # noqa: F811
    """A read outside ends in a segmentation fault here, whose traceback names this test."""
    pair, some, gaps = drawn
    joined, begins, stops = laid_out(some, gaps)
    for place in (slice(0, joined.size), slice(guarded.size - joined.size, guarded.size)):
        guarded[place] = joined
        data = guarded[place]
        data.flags.writeable = False
        assert cut(pair, data, begins, stops) == [expected(pair, text) for text in some]


@settings(max_examples=300)
@given(drawn=buffers(), tag=st.sampled_from((b"<", b"<think>", b"aab", b"\n\n", b"\xff")))
def test_the_first_tag_is_found_or_the_end(drawn, tag):
    _, some, gaps = drawn
    data, begins, stops = laid_out(some, gaps)
    out = np.empty_like(begins)
    find_first(data, begins, stops, np.frombuffer(tag, np.uint8), out)
    places = [text.find(tag) for text in some]
    lengths = [len(text) for text in some]
    assert (out - begins).tolist() == [
        length if at < 0 else at for at, length in zip(places, lengths, strict=True)
    ]


CUTS = (
    ("<think>\na\n</think>\n\nb", "ok", "\na\n"),
    (" \n<think>a</think>", "ok", "a"),
    ("What is 2 + 2?\n<think>\na</think>b", "ok", "\na"),
    ("What is 2 + 2?\r\n <think> \r\na</think>b", "ok", " \r\na"),
    ("a</think>b", "prefilled", "a"),
    ("Use <think>a</think>b", "several", "Use <think>a"),
    ("<think>a", "unclosed", "a"),
    ("<think>", "unclosed", ""),
    ("<think></think>b", "empty", ""),
    ("<think> \n\n</think>b", "empty", " \n\n"),
    ("</think>b", "empty", ""),
    ("", "empty", ""),
    (" \n\t", "empty", ""),
    ("<think>a</think>b<think>c</think>", "several", "a</think>b<think>c"),
    ("<think><think>a</think>", "several", "<think>a"),
    ("<think>a</think></think>", "several", "a</think>"),
    ("a</think>b\n<think>\nc", "several", "a"),
    ("<think>write `</think>` at the end</think>b", "several", "write `</think>` at the end"),
    ("<think>a\n```\n<think>\nb\n</think>\n```\n</think>", "several", None),
    ("Say `<think>` first", "missing", ""),
    ("in the middle of a line <think>", "missing", ""),
    ("<THINK>a</THINK>", "missing", ""),
    ("<think", "missing", ""),
    ("<think>你好</think>世界", "ok", "你好"),
    ("<think>a\0</think>b", "not_text", "a\0"),
    ("a\0b", "not_text", ""),
)


@pytest.mark.parametrize(("text", "verdict", "thought"), CUTS)
def test_each_verdict(text, verdict, thought):
    found = cut_one(text.encode())
    assert found[0] == verdict
    assert thought is None or found[1] == thought.encode()


HARMONY = (
    ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final", "ok", "a"),
    ("said <|channel|>analysis<|message|>a<|end|>b<|end|>", "ok", "a"),
    ("<|end|><|channel|>analysis<|message|>a<|end|>", "ok", "a"),
    ("<|channel|>analysis<|message|>a", "unclosed", "a"),
    ("<|channel|>analysis<|message|> <|end|>", "empty", " "),
    ("<|channel|>final<|message|>b<|end|>", "missing", ""),
    (2 * "<|channel|>analysis<|message|>a<|end|>", "several", "a"),
)


@pytest.mark.parametrize(("text", "verdict", "thought"), HARMONY)
def test_reserved_tags_may_stand_anywhere(text, verdict, thought):
    pair = Tags(b"<|channel|>analysis<|message|>", b"<|end|>", special=True)
    assert cut_one(text.encode(), pair) == (verdict, thought.encode())


# Unicode 16, table 3-7: the bytes of well-formed UTF-8, and what lies just beyond.
WELL_FORMED = (
    *("7f", "c280", "dfbf", "e0a080", "e0bfbf", "e18080", "ecbfbf", "ed8080", "ed9fbf", "ee8080"),
    *("efbfbf", "efbbbf", "f0908080", "f0bfbfbf", "f1808080", "f3bfbfbf", "f4808080", "f48fbfbf"),
)
ILL_FORMED = (
    *("80", "bf", "c080", "c0af", "c1bf", "c27f", "c2c0", "c2", "df", "e0", "e080", "e08080"),
    *("e09fbf", "e0a0", "e0a07f", "e0a0c0", "e180", "e17f80", "eda080", "edafbf", "edbfbf"),
    *("eda080edb080", "ef80", "f0", "f090", "f09080", "f0808080", "f08fbfbf", "f1807f80"),
    *("f4908080", "f48fbf", "f4bfbfbf", "f5808080", "f7bfbfbf", "f8888080", "fe", "ff", "c2c280"),
)


@pytest.mark.parametrize("ahead", [0, 1, *range(BLOCK - 5, BLOCK + 2), 2 * BLOCK - 2])
@pytest.mark.parametrize("pair", [NONE, THINK], ids=["plain", "tagged"])
def test_utf8_is_that_of_the_table(pair, ahead):
    """Every sequence at every place in a block, at the end of a text and inside of one."""
    sequences = [bytes.fromhex(digits) for digits in (*WELL_FORMED, *ILL_FORMED)]
    sound = [True] * len(WELL_FORMED) + [False] * len(ILL_FORMED)
    for behind in (b"", b"z"):
        some = [b"x" * ahead + sequence + behind for sequence in sequences]
        gaps = [b"\x80\xbf"] * (len(some) + 1)  # what would end a sequence that is cut off
        found = cut(pair, *laid_out(some, gaps))
        assert [verdict != "invalid_utf8" for _, _, verdict in found] == sound
        assert [reference.fault(text) is None for text in some] == sound


def test_a_sequence_does_not_go_on_in_the_next_text():
    halves = ["你".encode()[:1], "你".encode()[1:]]
    found = cut(NONE, *laid_out(halves, [b"", b"", b""]))
    assert [verdict for _, _, verdict in found] == ["invalid_utf8", "invalid_utf8"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"\0\xff", NOT_TEXT),
        (b"\xff\0", INVALID_UTF8),
        (b"\xe4\0\xbd", INVALID_UTF8),
        (b"x" * BLOCK + b"\0" + b"x" * BLOCK + b"\xff", NOT_TEXT),
        (b"x" * BLOCK + b"\xff" + b"x" * BLOCK + b"\0", INVALID_UTF8),
        ("é".encode() * BLOCK + b"\0", NOT_TEXT),
    ],
)
def test_the_first_fault_counts(text, code):
    assert reference.fault(text) == code
    assert cut_one(text)[0] == VERDICTS[code]


def test_verdicts_are_the_same_on_both_sides():
    assert verdicts.VERDICTS == tags.VERDICTS
    codes = [name for name in vars(verdicts) if name.lower() in VERDICTS]
    assert len(codes) == len(VERDICTS)
    for name in codes:
        assert getattr(verdicts, name) == getattr(tags, name) == VERDICTS.index(name.lower())
