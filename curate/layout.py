"""
Layouts: where the traces of a corpus are.

A layout is a TOML file, packaged here under `layouts/` as a preset or a user's own:

    description = "What it is."
    trace = "messages.content"          # a column, and below it fields of structs
    elements = true                     # `trace` is a list of texts, each a trace of its own
    turn = { role = ["assistant"] }     # or a list of messages: the last one with such fields
    tags = ["<think>", "</think>"]      # the trace stands between these; without: all of the text
    special = true                      # tags that the model's format reserves, as harmony's
    untagged = "unclosed"               # a text without tags is a thought cut off, not `missing`
    answer = "messages.answer"          # where the answer is, if not behind the closing tag
    answer_tags = ["<answer>", "</answer>"]
    answer_turn = { role = ["final"] }  # messages that hold it, if not the same one
    prompt = "problem"                  # a text, or messages; those before the turn without
    system = "system"                   # a text that comes before the prompt
    parallel = ["finish_reasons"]       # lists beside the elements, one value for each
    complete = "is_complete"            # among these or not: false where the text was cut off
    correct = "is_correct"              # the same: whether the answer is right
    covers = ["output"]                 # texts that repeat this one, so no reading of their own

Only `trace` is required. Errors are `LayoutError`s that name the file and the key.
"""

import importlib.resources
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from curate.errors import LayoutError
from curate.shapes import misfit

Turn = Mapping[str, tuple[str, ...]]
"""The values that fields of a message may have."""

THINK = ("<think>", "</think>")

SHAPE = {
    "name": str,
    "flat": bool,
    "description": str,
    "trace": str,
    "elements": bool,
    "turn": {...: [str]},
    "tags": [str],
    "special": bool,
    "untagged": str,
    "answer": str | None,
    "answer_tags": [str],
    "answer_turn": {...: [str]},
    "prompt": str | None,
    "system": str | None,
    "parallel": [str],
    "complete": str | None,
    "correct": str | None,
    "covers": [str],
}


TEXT, TEXTS, FLAG = "a text", "a list of texts", "true or false"
EXPECTED = dict.fromkeys(SHAPE, TEXT) | {
    "elements": FLAG,
    "special": FLAG,
    "turn": "fields, each with a list of texts",
    "answer_turn": "fields, each with a list of texts",
    "tags": TEXTS,
    "answer_tags": TEXTS,
    "parallel": TEXTS,
    "covers": TEXTS,
}
"""What each key holds, in words."""
KEYS = {*SHAPE} - {"name", "flat"}
"""Those of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """
    Where traces are; see the module. Names are columns, with fields of structs below them, or
    nothing but columns if it is `flat`, as the plain one is.
    """

    name: str
    trace: str
    flat: bool = False
    description: str = ""
    elements: bool = False
    turn: Turn = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    special: bool = False
    untagged: str = "missing"
    answer: str | None = None
    answer_tags: tuple[str, ...] = ()
    answer_turn: Turn = field(default_factory=dict)
    prompt: str | None = None
    system: str | None = None
    parallel: tuple[str, ...] = ()
    complete: str | None = None
    correct: str | None = None
    covers: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """The column that the traces are in."""
        return self.trace.split(".")[0] if self.is_nested else self.trace

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of structs below it."""
        return tuple(self.trace.split(".")[1:]) if self.is_nested else ()

    @property
    def lists_beside(self) -> set[str]:
        """Columns that have a list where the traces have one, a value for each."""
        named = (*self.parallel, self.complete, self.correct, self.answer)
        return {name for name in named if name is not None} if self.elements else set()

    @property
    def is_nested(self) -> bool:
        """Whether dots in `trace` lead into structs; in a plain column's name they are letters."""
        return not self.flat

    @property
    def tag_bytes(self) -> tuple[bytes, bytes]:
        """The tags as kernels take them, both empty for none."""
        opening, closing = self.tags or ("", "")
        return opening.encode(), closing.encode()

    def leaves(self) -> list[str]:
        """What has to be read to find the traces and their answers, each once."""
        turns = [f"{self.column}.{name}" for name in (*self.turn, *self.answer_turn)]
        beside = [name for name in (self.complete, self.answer) if name is not None]
        return list(dict.fromkeys([self.trace, *turns, *beside]))

    def as_dict(self) -> dict[str, Any]:
        """The layout as JSON would hold it."""
        told: dict[str, Any] = {}
        for name, value in asdict(self).items():
            told[name] = list(value) if isinstance(value, tuple) else value
            if isinstance(value, Mapping):
                told[name] = {key: list(values) for key, values in value.items()}
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What a user says of where the traces are: at most one of a preset and a layout's file."""

    column: str | None = None
    preset: str | None = None
    layout: str | None = None
    answer: str | None = None

    def given(self) -> Layout | None:
        """The layout that is asked for, None if it is to be detected. Raises LayoutError."""
        if self.layout is not None:
            if self.preset is not None or self.column is not None:
                other = "--preset" if self.preset is not None else "--column"
                raise LayoutError(f"--layout: expected without {other}, as the file says it all")
            return load(self.layout)
        if self.preset is not None:
            found = preset(self.preset)
            return found if self.column is None else _renamed(found, self.column)
        return None if self.column is None else plain(self.column)


def _renamed(layout: Layout, column: str) -> Layout:
    """The same layout in another column."""
    old = layout.column

    def moved(name: str | None) -> str | None:
        inside = name is not None and name.split(".")[0] == old and layout.turn
        return f"{column}{name[len(old) :]}" if name is not None and inside else name

    return replace(layout, trace=column + layout.trace[len(old) :], answer=moved(layout.answer))


def plain(column: str) -> Layout:
    """The layout of a text column that holds the trace and nothing else."""
    if not column:
        raise LayoutError("--column: expected the name of a column, found nothing")
    return replace(preset("plain"), trace=column)


def preset_names() -> list[str]:
    """The presets, in alphabetical order."""
    folder = importlib.resources.files("curate") / "layouts"
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir())


def preset(name: str) -> Layout:
    """A packaged layout. Raises LayoutError, listing the presets, where there is none."""
    if name not in preset_names():
        known = ", ".join(preset_names())
        raise LayoutError(f"--preset: expected one of {known}, found {name!r}")
    return replace(parse(source(name), name, f"preset {name}"), flat=name == "plain")


def source(name: str) -> str:
    """The TOML of a preset."""
    file = importlib.resources.files("curate") / "layouts" / f"{name}.toml"
    return file.read_text(encoding="utf-8")


def load(path: str | Path) -> Layout:
    """A user's layout. Raises LayoutError."""
    file = Path(path)
    try:
        return parse(file.read_text(encoding="utf-8"), file.name, str(path))
    except OSError as error:
        raise LayoutError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LayoutError(f"{path}: expected TOML in UTF-8") from None


def parse(text: str, name: str, where: str) -> Layout:
    """A layout from TOML; `where` is what errors call it. Raises LayoutError."""
    try:
        given = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise LayoutError(f"{where}: not TOML: {error}") from None
    for key in given:
        if key not in KEYS:
            raise LayoutError(f"{where}: unknown key `{key}`, known: {', '.join(sorted(KEYS))}")
    return from_dict({**given, "name": name}, where)


def from_dict(given: Mapping[str, Any], where: str) -> Layout:
    """A layout from what JSON or TOML holds. Raises LayoutError."""
    if not given.get("trace"):
        raise LayoutError(f"{where}: expected `trace`, the column or field that the traces are in")
    told = Layout(name="", trace="").as_dict() | dict(given)
    wrong = misfit(told, SHAPE)
    if wrong is not None:
        key = re.split(r"[.\[]", wrong)[0]
        raise LayoutError(f"{where}: `{wrong}`: expected {EXPECTED[key]}, found {told[key]!r:.60}")
    values: dict[str, Any] = {key: _frozen(value) for key, value in told.items()}
    layout = Layout(**values)
    _check(layout, where)
    return layout


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: tuple(values) for key, values in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _check(layout: Layout, where: str) -> None:
    """Raise LayoutError where keys contradict one another."""
    for name in ("tags", "answer_tags"):
        tags = getattr(layout, name)
        if tags and (len(tags) != 2 or not all(tags) or tags[0] in tags[1] or tags[1] in tags[0]):
            raise LayoutError(
                f"{where}: {name}: expected an opening and a closing tag, neither inside the "
                f"other, found {list(tags)}"
            )
    if layout.untagged not in ("missing", "unclosed"):
        raise LayoutError(
            f"{where}: untagged: expected `missing` or `unclosed`, found {layout.untagged!r}"
        )
    _check_names(layout, where)
    for key in ("turn", "answer_turn"):
        for name, values in getattr(layout, key).items():
            if not values:
                raise LayoutError(f"{where}: {key}: expected values of `{name}`, found none")
    _check_pairs(layout, where)
    for name in ("answer", "complete", "correct", "prompt", "system"):
        value = getattr(layout, name)
        inside = value is not None and value.split(".")[0] == layout.column
        if inside and (name != "answer" or layout.elements):
            raise LayoutError(f"{where}: {name}: expected another column than that of the traces")
    if layout.turn and layout.answer and layout.answer.split(".")[0] != layout.column:
        raise LayoutError(f"{where}: answer: expected a field of the messages in `{layout.column}`")


def _check_names(layout: Layout, where: str) -> None:
    """Raise LayoutError for the name of a column or field that is empty."""
    for key in ("trace", "answer", "prompt", "system", "complete", "correct"):
        name = getattr(layout, key)
        if name is not None and not all([name] if layout.flat else name.split(".")):
            raise LayoutError(f"{where}: {key}: expected a column or field, found {name!r}")


def with_answer(layout: Layout, column: str) -> Layout:
    """The same layout with the answers in a column. Raises LayoutError."""
    if layout.turn:
        what = f"expected without layout {layout.name}, whose answers are in messages"
        raise LayoutError(f"--answer: {what}")
    found = replace(layout, answer=column)
    _check(found, "--answer")
    return found


def _check_pairs(layout: Layout, where: str) -> None:
    """Raise LayoutError where one key asks for another, or keeps it from meaning anything."""
    given = {each.name for each in fields(Layout) if getattr(layout, each.name) != each.default}
    given -= {name for name in ("turn", "answer_turn") if not getattr(layout, name)}
    for name, other in (
        *(("elements", "turn"), ("complete", "turn"), ("answer_tags", "answer")),
        ("complete", "untagged"),
    ):
        if {name, other} <= given:
            raise LayoutError(f"{where}: expected `{name}` or `{other}`, found both")
    for name, other in (
        *(("answer_turn", "turn"), ("answer_turn", "answer"), ("answer_tags", "tags")),
        *(("special", "tags"), ("untagged", "tags"), ("complete", "tags")),
        ("parallel", "elements"),
    ):
        if name in given and other not in given:
            raise LayoutError(f"{where}: expected `{other}` with `{name}`")
