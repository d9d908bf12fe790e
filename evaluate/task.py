"""
Tasks: what problems are asked, how, and how answers are scored. Each is a TOML file.

    name = "aime25"
    title = "AIME 2025"
    licence = "..."                      # of the problems
    scorer = "mathematics"               # or choice, countdown, instructions
    prompt = "{problem}\\nPlease ..."     # each {name} is filled from a column, see `fields`

    [hub]                                # where the problems are: on the Hub
    path = "..."
    split = "test"
    problems = 30                        # as many there have to be
    id = "id"                            # column; without it `name-0`, `name-1`, ...
    fields = { problem = "problem" }
    gold = { column = "answer" }

    [file]                               # or a file in the folder that --benchmarks names
    name = "aime25.jsonl"
    ...                                  # the same keys; `prompt` too, where it is asked otherwise

A gold may have a `pattern` (a regular expression; the gold is its first group), a `form` (`index`
of a choice, `list` of answers, `json` of several `columns`, `countdown`), a `map` from what the
column holds; a countdown's numbers need not all be used where it has `all = false`. `reference` is
a column with an answer that is right. `choices` is a column with a list, or several columns with a
choice each, which a hash of the id shuffles and among which the gold's is the right one; the prompt
has them as {choices}. `where` keeps rows whose columns match regular expressions. `cluster` is a
column: problems that share its value are not independent. With `distinct`, later rows of the same
id are left out.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from curate.errors import CurateError
from curate.rawfooter import first_line

SCORERS = ("mathematics", "choice", "countdown", "instructions")
FORMS = ("text", "index", "list", "json", "countdown")
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
CHOICES = "choices"


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


def _table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _anything(value: Any) -> bool:
    return True


KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "*": (lambda value: isinstance(value, str), "text"),
    "all": (lambda value: isinstance(value, bool), "true or false"),
    "distinct": (lambda value: isinstance(value, bool), "true or false"),
    "problems": (lambda value: type(value) is int and value > 0, "a number of problems"),
    "columns": (_texts, "a list of texts"),
    "choices": (
        lambda value: isinstance(value, str) or _texts(value),
        "a column or a list of them",
    ),
    **dict.fromkeys(("map", "fields", "where"), (_table, "a table of texts")),
    **dict.fromkeys(("gold", "hub", "file", "place"), (_anything, "")),  # looked at elsewhere
}
"""What the values of keys may be."""

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """How a row says what is right; see the module."""

    column: str | None = None
    columns: tuple[str, ...] = ()
    pattern: str | None = None
    form: str = "text"
    map: Mapping[str, str] = field(default_factory=dict)
    all: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the problems of a task are, on the Hub (`path`) or in a file (`name`)."""

    gold: Gold
    path: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    name: str | None = None
    problems: int | None = None
    id: str | None = None
    cluster: str | None = None
    reference: str | None = None
    prompt: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    choices: str | tuple[str, ...] | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    distinct: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is asked and how it is scored. `text` is the file that says so, `place` its folder."""

    name: str
    title: str
    licence: str
    scorer: str
    prompt: str
    text: str
    place: Path | None = None
    about: str = ""
    hub: Source | None = None
    file: Source | None = None


def task_names() -> list[str]:
    """The tasks that come with the tool."""
    files = resources.files("curate.evaluate").joinpath("tasks").iterdir()
    return sorted(Path(each.name).stem for each in files if each.name.endswith(".toml"))


def load(which: str) -> Task:
    """The task of a name, or of a TOML file. Raises CurateError for one that there is not."""
    if which in task_names():
        inside = resources.files("curate.evaluate").joinpath("tasks", f"{which}.toml")
        return _parsed(which, inside.read_text(encoding="utf-8"), None)
    path = Path(which)
    if path.suffix != ".toml":
        raise CurateError(
            f"--task {which}: expected a task or a TOML file, found neither: `curate evaluate "
            "tasks` lists them"
        )
    try:
        return _parsed(which, path.read_text(encoding="utf-8"), path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise CurateError(f"--task {which}: cannot be read: {first_line(error)}") from None


def _parsed(which: str, text: str, place: Path | None) -> Task:
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CurateError(f"{which}: expected TOML: {first_line(error)}") from None
    for name in ("hub", "file"):
        if name in told:
            told[name] = _source(f"{which}: [{name}]", told[name])
    task = Task(**_known(which, Task, {**told, "text": text, "place": place}))
    _check(which, task)
    return task


def _source(where: str, told: Any) -> Source:
    gold = told.get("gold") if isinstance(told, dict) else None
    if not isinstance(gold, dict):
        raise CurateError(f"{where}: expected a table with a table `gold`")
    gold = _known(f"{where}: gold", Gold, _tuples(gold))
    source = _known(where, Source, {**_tuples(told), "gold": Gold(**gold)})
    return Source(**source)


def _tuples(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(one) if isinstance(one, list) else one for name, one in told.items()}


def _known(where: str, kind: type, told: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a table, which must be those of a dataclass, with values of their kinds."""
    names = {each.name: each for each in fields(kind)}
    strange = sorted({*told} - {*names})
    missing = [
        name
        for name, each in names.items()
        if name not in told and each.default is each.default_factory  # neither is there
    ]
    if strange or missing:
        found = f"unknown {strange[0]}" if strange else f"no {missing[0]}"
        raise CurateError(f"{where}: expected keys of {', '.join(names)}; found {found}")
    for name, value in told.items():
        kind_of, what = KINDS.get(name, KINDS["*"])
        if not kind_of(value):
            raise CurateError(f"{where}: {name}: expected {what}, found {value!r}")
    return dict(told)


def _check(which: str, task: Task) -> None:
    """Raise CurateError where a task contradicts itself."""
    if not NAME.fullmatch(task.name):
        raise CurateError(f"{which}: name: expected small letters, digits, - and _")
    if task.scorer not in SCORERS:
        raise CurateError(f"{which}: scorer: expected one of {', '.join(SCORERS)}")
    if task.hub is None and task.file is None:
        raise CurateError(f"{which}: expected a table [hub] or [file], found neither")
    for name, source in (("hub", task.hub), ("file", task.file)):
        if source is not None:
            _check_source(f"{which}: [{name}]", source, task, name)


def _check_source(where: str, source: Source, task: Task, kind: str) -> None:
    if (source.path if kind == "hub" else source.name) is None:
        raise CurateError(f"{where}: expected `{'path' if kind == 'hub' else 'name'}`")
    if source.gold.form not in FORMS:
        raise CurateError(f"{where}: gold.form: expected one of {', '.join(FORMS)}")
    if (source.gold.column is None) != (source.gold.form == "json"):
        raise CurateError(f"{where}: gold: expected `column`, or `columns` with form json")
    named = {*PLACEHOLDER.findall(source.prompt or task.prompt)}
    given = {*source.fields} | ({CHOICES} if source.choices else set())
    if named != given:
        raise CurateError(
            f"{where}: expected the fields of the prompt ({', '.join(sorted(named))}), found "
            f"{', '.join(sorted(given))}"
        )
    for pattern in (*source.where.values(), source.gold.pattern):
        try:
            re.compile(pattern or "")
        except (re.error, TypeError) as error:
            raise CurateError(f"{where}: expected a regular expression: {error}") from None
