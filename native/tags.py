"""The tags that a thought stands between in a text, and what may be said of one."""

from typing import NamedTuple

VERDICTS = (
    "ok",
    "prefilled",
    "unclosed",
    "empty",
    "several",
    "missing",
    "not_text",
    "invalid_utf8",
)
"""
What a row is as a trace: one thought; one without its opening tag; one that is cut off; nothing but
blanks; more tags than those of one thought; no thought; no text, as it holds a NUL byte (binary
data, a value of another type); not UTF-8.
"""

OK, PREFILLED, UNCLOSED, EMPTY, SEVERAL, MISSING, NOT_TEXT, INVALID_UTF8 = range(len(VERDICTS))


class Tags(NamedTuple):
    """
    An opening and a closing tag, which share no byte where both stand.

    `special` ones are reserved by a model's format, so that a text cannot merely mention them.
    """

    open: bytes
    close: bytes
    special: bool = False
