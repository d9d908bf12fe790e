"""
A lexicon in the dialects of other engines, so that they give the very numbers that `curate` gives.

In all of them: case ignored in ASCII only, boundaries of ASCII words only where a phrase ends in a
word byte, both spellings of apostrophe and hyphen, the longest phrase of a category first. The same
text then serves Rust's regex (polars) and Python's `re` under `re.ASCII`.
"""

import re

from curate.lexicon import SPELLINGS, Category, Lexicon

BLANK = r"[\t-\r ]"
NOT_BLANK = r"[^\t-\r ]"
BLANK_LINE = rf"\n{BLANK}*\n"
STEP_START = rf"(?:\A|{BLANK_LINE}){BLANK}*"
"""All that stands before the first byte of a step that is not blank."""

WORD = re.compile(r"[A-Za-z0-9_]")


def category_regexes(lexicon: Lexicon) -> dict[str, str]:
    """One alternation for each category; its matches, without overlaps, are the markers."""
    return {category.name: _alternation(category) for category in lexicon.categories}


def rust(regex: str) -> str:
    """A category's regex as polars takes it; Python's `re` has flags for the same."""
    return f"(?i-u:{regex})"


def _alternation(category: Category) -> str:
    phrases = sorted(category.phrases, key=lambda phrase: -len(phrase.text))
    start = [_whole_word(phrase.text) for phrase in phrases if phrase.at_start]
    anywhere = [_whole_word(phrase.text) for phrase in phrases if not phrase.at_start]
    return "|".join(([f"{STEP_START}(?:{'|'.join(start)})"] if start else []) + anywhere)


def _whole_word(phrase: str) -> str:
    either = {letter: f"(?:{'|'.join(letters)})" for letter, letters in SPELLINGS.items()}
    body = "".join(either.get(letter, _escaped(letter)) for letter in phrase)
    return _boundary(phrase[0]) + body + _boundary(phrase[-1])


def _escaped(letter: str) -> str:
    return letter if letter == " " else re.escape(letter)


def _boundary(letter: str) -> str:
    return r"\b" if WORD.match(letter) else ""


def hyperscan_expressions(lexicon: Lexicon) -> tuple[list[bytes], list[tuple[int, int, bool]]]:
    """
    One expression for each spelling, and of each its category, its bytes, and whether at the start.

    Hyperscan reports where a match ends; as a spelling has one length, that tells where it began.
    """
    expressions, facts = [], []
    for category, spelling, at_start in lexicon.patterns():
        literal = b"".join(rb"\x%02x" % byte for byte in spelling)
        first, last = (_boundary(chr(byte)).encode() for byte in (spelling[0], spelling[-1]))
        expressions.append(first + literal + last)
        facts.append((category, len(spelling), at_start))
    return expressions, facts
