"""Text from data or from a user, made safe for a terminal: no escape sequence of theirs acts."""


def printable(text: str) -> str:
    """A text on one line: what cannot be printed is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text: str) -> str:
    """The same in quotes, so that its ends show."""
    return f'"{printable(text)}"'


def printable_lines(text: bytes) -> str:
    """Bytes of a trace as text on several lines: all but newlines and tabs is as in `printable`."""
    decoded = text.decode("utf-8", "backslashreplace")
    return "".join(c if c in "\n\t" else printable(c) for c in decoded)
