"""Markdown in which a text of the user's or of the data never acts."""

from collections.abc import Iterable, Sequence

from curate.terminal import printable

LONGEST = 120
"""Characters of a value that a table shows; its length is told where it is longer."""


def code(text: str) -> str:
    """A text as code on one line: neither Markdown nor HTML in it acts."""
    shown = printable(text) or '""'
    ticks = "`"
    while ticks in shown:
        ticks += "`"
    space = " " if "`" in shown else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def cell(value: object) -> str:
    """A value of the data as code in a table, where a pipe would end the cell even in code."""
    if value is None:
        return "null"
    text = str(value)
    rest = f" ... ({len(text):,} characters)" if len(text) > LONGEST else ""
    return code(printable(text[:LONGEST]).replace("|", r"\x7c")) + rest


def codes(texts: Iterable[str]) -> str:
    """Several texts as code."""
    return ", ".join(map(code, texts))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers, to the right."""
    line = "|---|" + "---:|" * (len(header) - 1)
    return "\n".join([_row(header), line, *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def section(title: str, *blocks: str) -> str:
    """Blocks under a heading, those that are empty left out."""
    return "\n\n".join([f"## {title}", *filter(None, blocks)])


def items(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def percent(share: float) -> str:
    """A share in percent; rounded first, so that the order of a sum never shows."""
    return f"{round(100 * share, 6):.1f} %"
