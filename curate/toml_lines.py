"""
TOML documents that know the line of everything in them, so that an error can name it.

tomllib tells what a document holds, never where. `lines_of` reads a text that tomllib has accepted,
so it looks for no mistakes: it cuts the text into tokens and follows keys, arrays and inline
tables. A path is the keys from the root to a value, with the index of an array's item:

    1  [category.branch]            ("category", "branch")
    2  phrases = ["another way",    ("category", "branch", "phrases", 0)
    3             "alternatively"]  ("category", "branch", "phrases", 1)
"""

import re
import tomllib
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeVar

from curate.errors import LexiconError
from curate.terminal import quoted

Path = tuple[str | int, ...]
Tokens = deque[tuple[str, int]]  # the token, the line it begins on
Value = TypeVar("Value")

# A string may end in up to five quotes: two of its own, then the three that close it.
TOKEN = re.compile(
    r"""
    \#[^\n]*
    | \"{3} (?: \\. | [^\\] )*? \"{3,5} | '{3} .*? '{3,5}
    | " (?: \\. | [^"\\] )* " | '[^']*'
    | [][{},=.]
    | [^][{},=.\s\#"']+
    """,
    re.VERBOSE | re.DOTALL,
)
LONG_KEY = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){64}""")
"""A key of so many parts takes the square of that, here and in tomllib."""

POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
TYPES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a float",
    bool: "a boolean",
    list: "an array",
    dict: "a table",
    type(None): "nothing",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document, the file it is from, and the line of each path."""

    where: str
    data: dict[str, Any]
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """The line of a path or, if it is not written, of what should hold it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def error(self, path: Path, what: str) -> LexiconError:
        """An error that names the file and the line of a path."""
        return LexiconError(f"{self.where}:{self.line(path)}: {what}")

    def at(self, path: Path) -> Any:
        """What stands at a path; None where nothing is written, as TOML has no null."""
        found: Any = self.data
        for key in path:
            found = found[key] if isinstance(key, int) else found.get(key)
        return found

    def value(self, path: Path, kind: type[Value], default: Value | None = None) -> Value:
        """The value at a path, which must be of one type; `default`, if any, where none is."""
        found = self.at(path)
        if found is None and default is not None:
            return default
        if isinstance(found, kind) and not isinstance(found, bool):  # a boolean is no integer
            return found
        what = TYPES.get(type(found), "a date or time")
        raise self.error(path, f"{dotted(path)}: expected {TYPES[kind]}, found {what}")

    def strings(self, path: Path) -> list[tuple[str, int]]:
        """The strings of an array, each with its line; none if there is no array."""
        count = len(self.value(path, list, []))
        items = [(*path, index) for index in range(count)]
        return [(self.value(item, str), self.line(item)) for item in items]

    def check_keys(self, path: Path, known: tuple[str, ...]) -> None:
        """Refuse a table with a key that is not known."""
        for key in self.at(path):
            if key not in known:
                what = f"unknown key {quoted(key)}: expected one of {', '.join(known)}"
                raise self.error((*path, key), what)


def read(text: str, where: str) -> Document:
    """Parse a document; what is no TOML is an error with its line."""
    if long_key := LONG_KEY.search(text):
        line = text.count("\n", 0, long_key.start()) + 1
        raise LexiconError(f"{where}:{line}: expected keys of a few parts, found one of over 64")
    try:
        text.encode()
        return Document(where, tomllib.loads(text), lines_of(text))
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        what = f"expected text that UTF-8 can hold, found U+{ord(text[error.start]):04X}"
    except (ValueError, RecursionError) as error:
        # Besides syntax: integers of thousands of digits, arrays in arrays without end.
        line, what = syntax_error(text, str(error))
    raise LexiconError(f"{where}:{line}: {what}")


def syntax_error(text: str, message: str) -> tuple[int, str]:
    """The line that a message of tomllib speaks of, and what it says."""
    position = POSITION.search(message)
    if position is None:
        return 1, f"not TOML: {message[:1].lower()}{message[1:]}"
    line = int(position[1] or text.rstrip().count("\n") + 1)
    message = message[: position.start()]
    return line, f"not TOML: {message[:1].lower()}{message[1:]}"


def dotted(path: Path) -> str:
    """A path as one would write it: `category.branch.phrases[0]`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, on which each path is first written; the root is on line 1."""
    tokens = tokenize(text)
    lines: dict[Path, int] = {(): 1}
    table: Path = ()
    while tokens:
        if tokens[0][0] == "[":
            table = read_header(tokens, lines)
        else:
            read_pair(tokens, table, lines)
    return lines


def tokenize(text: str) -> Tokens:
    """The tokens of a document, without comments and blanks."""
    tokens, line, end = Tokens(), 1, 0
    for match in TOKEN.finditer(text):
        line += text.count("\n", end, match.start())
        end = match.start()
        if match[0][0] != "#":
            tokens.append((match[0], line))
    return tokens


def read_header(tokens: Tokens, lines: dict[Path, int]) -> Path:
    """Read `[a.b]` or `[[a.b]]`; the path of the table."""
    while tokens[0][0] == "[":
        tokens.popleft()
    table = read_key(tokens, (), lines)
    while tokens and tokens[0][0] == "]":
        tokens.popleft()
    return table


def read_pair(tokens: Tokens, table: Path, lines: dict[Path, int]) -> None:
    """Read `a.b = value`."""
    path = read_key(tokens, table, lines)
    tokens.popleft()
    read_value(tokens, path, lines)


def read_key(tokens: Tokens, table: Path, lines: dict[Path, int]) -> Path:
    """Read a dotted key; each part of it is a path of its own."""
    path = table
    while True:
        token, line = tokens.popleft()
        path = (*path, name_of(token))
        lines.setdefault(path, line)
        if not tokens or tokens[0][0] != ".":
            return path
        tokens.popleft()


def name_of(token: str) -> str:
    """A part of a key as tomllib gives it, quotes and escapes undone."""
    return str(tomllib.loads(f"key = {token}")["key"]) if token[0] in "\"'" else token


def read_value(tokens: Tokens, path: Path, lines: dict[Path, int]) -> None:
    """Read one value, and the paths inside it."""
    token, line = tokens.popleft()
    if token == "[":
        read_array(tokens, path, lines)
    elif token == "{":
        read_inline_table(tokens, path, lines)
    else:
        # A number or a date may be several tokens, all on one line.
        while tokens and tokens[0][1] == line and tokens[0][0] not in ",]}":
            tokens.popleft()


def read_array(tokens: Tokens, path: Path, lines: dict[Path, int]) -> None:
    """Read the items of an array, its bracket being open."""
    index = 0
    while tokens[0][0] != "]":
        lines.setdefault((*path, index), tokens[0][1])
        read_value(tokens, (*path, index), lines)
        index += 1
        if tokens[0][0] == ",":
            tokens.popleft()
    tokens.popleft()


def read_inline_table(tokens: Tokens, path: Path, lines: dict[Path, int]) -> None:
    """Read the pairs of an inline table, its brace being open."""
    while tokens[0][0] != "}":
        read_pair(tokens, path, lines)
        if tokens[0][0] == ",":
            tokens.popleft()
    tokens.popleft()
