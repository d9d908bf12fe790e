"""
Hypothesis strategies: traces as any bytes, lexicons as patterns, and the two drawn to meet.

Uniform bytes hardly ever hold a step or a marker, so traces are drawn from pieces that make them,
and from pieces that nearly do.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

Pattern = tuple[int, bytes, bool]


class Lexicon(NamedTuple):
    """Patterns as `curate.native.build_tables` takes them."""

    patterns: Sequence[Pattern]
    num_categories: int


BREAKS = (
    *(b"\n", b"\n\n", b"\n\n\n", b"\n \n", b"\n\t\v\f\r \n", b"\r\n", b"\r\n\r\n", b"\r"),
    *(b" ", b"  ", b"\t", b"\v", b"\f"),
)
"""What ends lines and steps, or looks like it."""

BLANKS = tuple(bytes([byte]) for byte in b"\t\n\v\f\r ")

EDGES = (
    *(b"_", b"0", b"x", b"X", b"-", b"'", b'"', b".", b",", b"(", b"\0", b"\x08", b"\x0e", b"\x1c"),
    *("’".encode(), "‑".encode(), "—".encode(), "等".encode(), "é".encode(), "\u3000".encode()),
    *(b"\xff", b"\x80", b"\xe2\x80", b"\xe2", b"\x85", b"\xa0"),
)
"""What stands beside a phrase: word bytes, boundaries, parts of characters, all but blanks."""

PHRASES = (
    # prefixes of each other, within eight bytes and beyond
    *(b"a", b"aa", b"ab", b"aba", b"wait", b"wait a", b"wait a minute", b"waits"),
    *(b"another", b"another way", b"another wait", b"alternative", b"alternatively"),
    # ends that are no word bytes
    *(b" so ", b"so ", b" so", b"so", b"'s right", b"answer:", b"\\boxed", b"*", b"**", b"(wait)"),
    *("let’s".encode(), "re‑do".encode(), b"let's", b"re-do", "等".encode(), "等等".encode()),
    # bytes that folding by 0x20 makes equal though they are not
    *(b"@me", b"`me", b"[", b"{", b"a_", b"a\x7f", b"1st", b"\x11st", b"a b", b"a\0b"),
    # what no lexicon file may hold, but a table of patterns may
    *(b"\n", b" ", b"\r\na", b"\xff", b"\xe2\x80", b"\0"),
)
"""Phrases that meet, nest and collide."""

PROSE = (*PHRASES, b"await", b"waiting", b"wai", b"anothe", b"Wait", b"WAIT", b"one", b"two")

LITERALS = (b"\n\n", b"\n", b" ", b"a", b"aa", b"aba", b"wait", b"\n---\n", b"\xe2", b"\xff\xff")


def phrases() -> st.SearchStrategy[bytes]:
    """A phrase, lower-cased in ASCII; seldom of one byte, as those make big tables."""
    anything = st.binary(min_size=2, max_size=12).map(bytes.lower)
    return st.sampled_from(PHRASES) | st.sampled_from(PHRASES) | anything


def is_plain(phrase: bytes) -> bool:
    """Whether a phrase holds no line break and begins with no blank, as `Tables.plain` asks."""
    return b"\n" not in phrase and phrase[:1] not in BLANKS


@st.composite
def lexicons(draw: st.DrawFn) -> Lexicon:
    """Up to 16 categories, which may be empty and may share phrases."""
    num_categories = draw(st.sampled_from((1, 2, 3, 16)))
    category = st.integers(0, num_categories - 1)
    pattern = st.tuples(category, phrases(), st.booleans())
    patterns = draw(st.lists(pattern, max_size=12))
    if draw(st.booleans()):  # what a vector kernel takes itself
        patterns = [found for found in patterns if is_plain(found[1])]
    return Lexicon(patterns, num_categories)


def delimiters() -> st.SearchStrategy[str | bytes]:
    """All three kinds."""
    literal = st.sampled_from(LITERALS) | st.binary(min_size=1, max_size=3)
    return st.sampled_from(("blank-line", "line")) | literal


@st.composite
def traces(draw: st.DrawFn, patterns: Sequence[Pattern] = ()) -> bytes:
    """Any bytes, with much of what makes steps and what (nearly) makes markers of the patterns."""
    near = [piece for _, phrase, _ in patterns for piece in nearly(phrase)]
    piece = st.sampled_from(BREAKS) | st.sampled_from(EDGES) | st.binary(max_size=3)
    piece |= st.sampled_from(near or PROSE) | st.sampled_from((*near, *PROSE))
    few, many = st.lists(piece, max_size=8), st.lists(piece, min_size=10, max_size=40)
    trace = b"".join(draw(few | many))
    loop = draw(st.sampled_from((b"", b"\n\n", b"\n \n", b" ")))
    return trace + loop + trace if loop else trace


def nearly(phrase: bytes) -> list[bytes]:
    """A phrase in other letter cases, cut short, doubled, and with bit 0x20 of each byte turned."""
    turned = bytes(byte ^ 0x20 for byte in phrase)
    return [
        phrase,
        phrase.upper(),
        turned,
        phrase[:-1],
        phrase[1:],
        phrase + phrase[-1:],
        2 * phrase,
    ]


@st.composite
def batches(draw: st.DrawFn) -> tuple[Lexicon, list[bytes]]:
    """A lexicon, and a batch of traces for it."""
    lexicon = draw(lexicons())
    return lexicon, draw(st.lists(traces(lexicon.patterns), max_size=4))
