"""
Lexicons: named, versioned sets of phrases that signal a reasoning move.

A lexicon is a TOML file, packaged here under `lexicons/` or a user's own:

    name = "mine"                       # name and version are required
    version = 1
    description = "What it is for."
    source = "Where the phrases come from."

    [category.branch]                   # every lexicon has `branch`; it is put first
    phrases = ["another way", "let's try another"]      # anywhere in a step
    start = ["alternatively"]           # only at the start of a step, after leading blanks
    match = ["Is there another way?"]   # cases: must hold a marker of this category
    no_match = ["Another factor of 2."] # must hold none

A phrase is matched as `curate.native.reference` says: whole words, letter case ignored in ASCII. It
may begin or end in a space, which the text must then have too; a start phrase may only end in one.
`'` and `-` also stand for U+2019 and U+2011, all combinations; these two themselves, written in a
phrase, match only themselves. No two phrases of a category may share a spelling.

Every error is a `LexiconError` that names the file and the line.
"""

import hashlib
import importlib.resources
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from curate import toml_lines
from curate.errors import LexiconError
from curate.terminal import quoted
from curate.toml_lines import Document

MAX_CATEGORIES = 16
MAX_VERSION = 1 << 63
MAX_PHRASES = 500  # as written, over all categories
MAX_PHRASE_BYTES = 128  # of the longest spelling
MAX_TYPOGRAPHIC = 6  # in one phrase, so 64 spellings at most

SPELLINGS = {"'": "'\u2019", "-": "-\u2011"}
# `unique_steps` counts something else, so no category may have that name with `_steps`.
RESERVED = {"unique"}
LEXICON_KEYS = ("name", "version", "description", "source", "category")
CATEGORY_KEYS = ("phrases", "start", "match", "no_match")
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase as written, the line it stands on, and whether only a step's start may match it."""

    text: str
    line: int
    at_start: bool


@dataclass(frozen=True, slots=True)
class Case:
    """A text, taken as one step, that a category must or must not match."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Category:
    """The phrases of one reasoning move, with its cases."""

    name: str
    phrases: tuple[Phrase, ...]
    match: tuple[Case, ...]
    no_match: tuple[Case, ...]

    def spellings(self) -> Iterator[tuple[bytes, bool]]:
        """Every spelling of every phrase, and whether it asks for the start of a step."""
        for phrase in self.phrases:
            for spelling in spellings_of(phrase.text):
                yield spelling, phrase.at_start


@dataclass(frozen=True, slots=True)
class Lexicon:
    """A set of categories; `branch` is the first."""

    name: str
    version: int
    description: str
    source: str
    categories: tuple[Category, ...]

    @property
    def category_names(self) -> tuple[str, ...]:
        """The names of the categories, in order."""
        return tuple(category.name for category in self.categories)

    def patterns(self) -> list[tuple[int, bytes, bool]]:
        """What the kernels match: category index, UTF-8 in ASCII lower case, start of step only."""
        return [
            (index, spelling, at_start)
            for index, category in enumerate(self.categories)
            for spelling, at_start in category.spellings()
        ]

    @property
    def hash(self) -> str:
        """SHA-256 of what decides a match: categories in order, spellings in any order."""
        decisive = [
            [category.name, sorted([s.decode(), at_start] for s, at_start in category.spellings())]
            for category in self.categories
        ]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that its category decides otherwise; `found` is the marker that should not be."""

    category: str
    line: int
    text: str
    kind: str  # match or no_match
    found: str | None


def names() -> list[str]:
    """The names of the packaged lexicons."""
    files = packaged().iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def packaged() -> Traversable:
    """The folder of the packaged lexicons."""
    return importlib.resources.files("curate") / "lexicons"


def find(name_or_path: str | Path) -> Traversable:
    """The file of a lexicon; a string with a path separator or that ends in .toml is a path."""
    name = str(name_or_path)
    separators = {os.sep, os.altsep} - {None}
    if isinstance(name_or_path, Path) or name.endswith(".toml") or separators & set(name):
        return Path(name_or_path)
    if name not in names():
        known = ", ".join(names())
        raise LexiconError(f"no lexicon {quoted(name)}: known are {known}; a file ends in .toml")
    return packaged() / f"{name}.toml"


def load(name_or_path: str | Path) -> Lexicon:
    """Read a packaged lexicon by its name, or any by its file."""
    file = find(name_or_path)
    try:
        text = file.read_bytes().decode()
    except OSError as error:
        what = str(error.strerror).lower()
        raise LexiconError(f"{file}: expected a readable file, found: {what}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise LexiconError(f"{file}:{line}: expected UTF-8, found byte 0x{byte:02X}") from None
    return parse(text, str(file))


def parse(text: str, where: str) -> Lexicon:
    """Check and build a lexicon from its text; errors name `where` and the line."""
    document = toml_lines.read(text, where)
    document.check_keys((), LEXICON_KEYS)
    found = list(document.value(("category",), dict, {}))
    categories = [read_category(document, name) for name in found]
    check_limits(document, categories)
    if not 0 <= document.value(("version",), int) < MAX_VERSION:
        raise document.error(("version",), f"version: expected 0 to {MAX_VERSION - 1:,}")
    return Lexicon(
        name=document.value(("name",), str),
        version=document.value(("version",), int),
        description=document.value(("description",), str, ""),
        source=document.value(("source",), str, ""),
        categories=tuple(sorted(categories, key=lambda category: category.name != "branch")),
    )


def read_category(document: Document, name: str) -> Category:
    """One category, its phrases checked."""
    path = ("category", name)
    if not NAME.fullmatch(name) or name in RESERVED:
        what = f"category {quoted(name)}: expected a name of a-z, 0-9 and _ that is not `unique`"
        raise document.error(path, what)
    document.value(path, dict)
    document.check_keys(path, CATEGORY_KEYS)
    phrases = [Phrase(*item, False) for item in document.strings((*path, "phrases"))]
    phrases += [Phrase(*item, True) for item in document.strings((*path, "start"))]
    check_phrases(document.where, phrases)
    if not phrases:
        raise document.error(path, f"category {name}: expected a phrase, found none")
    match = tuple(Case(*item) for item in document.strings((*path, "match")))
    no_match = tuple(Case(*item) for item in document.strings((*path, "no_match")))
    return Category(name, tuple(phrases), match, no_match)


def check_limits(document: Document, categories: list[Category]) -> None:
    """Refuse a lexicon without branch, or with too many categories or phrases."""
    found = ", ".join(category.name for category in categories) or "no category"
    if "branch" not in [category.name for category in categories]:
        raise document.error(("category",), f"expected a category branch, found {found}")
    if len(categories) > MAX_CATEGORIES:
        path = ("category", categories[MAX_CATEGORIES].name)
        what = f"expected at most {MAX_CATEGORIES} categories, found {len(categories)}"
        raise document.error(path, what)
    phrases = [phrase for category in categories for phrase in category.phrases]
    if len(phrases) > MAX_PHRASES:
        line, count = phrases[MAX_PHRASES].line, len(phrases)
        what = f"expected at most {MAX_PHRASES} phrases, found {count}"
        raise LexiconError(f"{document.where}:{line}: {what}")


def check_phrases(where: str, phrases: list[Phrase]) -> None:
    """Refuse a phrase that cannot match, or that shares a spelling with an earlier one."""
    seen: dict[bytes, int] = {}
    for phrase in phrases:
        fault = fault_of(phrase)
        if fault:
            raise LexiconError(f"{where}:{phrase.line}: phrase {quoted(phrase.text)} {fault}")
        for spelling in spellings_of(phrase.text):
            if spelling in seen:
                what = f"phrase {quoted(phrase.text)} repeats that of line {seen[spelling]}"
                raise LexiconError(f"{where}:{phrase.line}: {what}")
        seen.update(dict.fromkeys(spellings_of(phrase.text), phrase.line))


def fault_of(phrase: Phrase) -> str:
    """Why a phrase can match nothing, or costs too much; empty if nothing is wrong."""
    text = phrase.text
    controls = [c for c in text if unicodedata.category(c) == "Cc"]
    if controls:
        return f"holds U+{ord(controls[0]):04X}: expected no line break, no control character"
    if not text.strip(" "):
        return "is blank: expected something to match"
    if phrase.at_start and text[0] == " ":
        return "begins with a blank: expected a start phrase to begin where a step can"
    typographic = sum(letter in SPELLINGS for letter in text)
    if typographic > MAX_TYPOGRAPHIC:
        return f"holds {typographic} apostrophes and hyphens: expected at most {MAX_TYPOGRAPHIC}"
    size = max(map(len, spellings_of(text)))
    if size > MAX_PHRASE_BYTES:
        return f"is up to {size} bytes long: expected at most {MAX_PHRASE_BYTES}"
    return ""


def failures(lexicon: Lexicon) -> list[Failure]:
    """Run the cases of every category by the reference; those that fail."""
    failed = []
    for category in lexicon.categories:
        for kind, cases in (("match", category.match), ("no_match", category.no_match)):
            for case in cases:
                found = first_marker(category, case.text)
                if (found is None) == (kind == "match"):
                    failed.append(Failure(category.name, case.line, case.text, kind, found))
    return failed


def first_marker(category: Category, text: str) -> str | None:
    """The first marker of a category in a text taken as one step, as it stands there."""
    from curate.native.reference import find_markers

    step = text.encode()
    markers = find_markers(step, [(0, *spelling) for spelling in category.spellings()])
    return step[slice(*markers[0][:2])].decode() if markers else None


def spellings_of(text: str) -> list[bytes]:
    """The typographic spellings of a phrase, as UTF-8 in ASCII lower case."""
    letters = itertools.product(*(SPELLINGS.get(letter, letter) for letter in text))
    return ["".join(spelling).encode().lower() for spelling in letters]
