"""
The options there are, by name and type: TRL's own (the fields of `trl.SFTConfig` and
`trl.ModelConfig`, as installed) and the few that `curate train` adds.

A flag is text and YAML has types of its own (`5e-5` is text to it, too), so what is asked is turned
into an option's type here, the same for both.
"""

import argparse
import dataclasses
import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from trl import ModelConfig, SFTConfig

MANY = 16  # choices to name all of
PATHS = {"accelerator_config", "deepspeed", "fsdp_config"}  # objects that may lie in a JSON file
NONE, TRUE, FALSE = {"none", "null"}, {"true", "yes", "1"}, {"false", "no", "0"}


@dataclass(frozen=True, slots=True)
class Additions:
    """What `curate train` takes beside TRL's options; in YAML and recipes, too."""

    overlength: Literal["error", "drop", "truncate"] = "error"  # rows above max_length
    reduction: Literal["token", "sample"] = "token"  # whose mean the loss is
    order: Literal["dataset", "shuffled"] = "dataset"
    checkpoints: list[int] | None = None  # steps; None for 10, 20, 40, ... and the last
    mask: Literal["branch-steps", "random"] | None = None
    mask_spans: str | None = None  # a column
    from_config: bool = False  # a random start


@dataclass(frozen=True, slots=True)
class Known:
    """An option: what it may be, and the class it is for."""

    name: str
    kinds: tuple[Any, ...]  # of its type hint; None's left out
    optional: bool
    choices: tuple[str, ...]
    of: type

    @property
    def item(self) -> type | None:
        """The type of items, where it may be a list."""
        lists = [kind for kind in self.kinds if typing.get_origin(kind) is list]
        items = [typing.get_args(kind)[0] for kind in lists]
        return next((item for item in items if item in (str, int)), None)


@functools.cache
def known() -> dict[str, Known]:
    """Every option there is by its name."""
    of = {f.name: (f, cls) for cls in (Additions, ModelConfig, SFTConfig) for f in _fields(cls)}
    return {name: _known(field, cls) for name, (field, cls) in of.items()}


def _fields(cls: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.init]


def _known(field: dataclasses.Field[Any], cls: type) -> Known:
    hint = typing.get_type_hints(cls)[field.name]
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = typing.get_args(hint) if union else (hint,)
    kinds = tuple(kind for kind in members if kind is not types.NoneType)
    if field.metadata.get("const") is True:  # `fsdp` is text by its hint, and a flag by its use
        kinds = (bool, *kinds)
    optional = types.NoneType in members
    return Known(field.name, kinds, optional, _choices(field, kinds), cls)


def _choices(field: dataclasses.Field[Any], kinds: tuple[Any, ...]) -> tuple[str, ...]:
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Enum):
            return tuple(member.value for member in kind)
        if typing.get_origin(kind) is Literal and False not in typing.get_args(kind):
            return typing.get_args(kind)
    return tuple(field.metadata.get("choices", ()))


def canonical(name: str) -> str:
    """The name that an option goes by here: transformers renamed two, and warns of the old ones."""
    new = name.replace("gradient_checkpointing", "activation_checkpointing")
    return new if new in known() else name


def nearest(name: str) -> str:
    """`, did you mean ...?` for a name that is close to one there is, else nothing."""
    close = difflib.get_close_matches(name, known(), n=1)
    return f", did you mean {close[0]}?" if close else ""


def flags() -> argparse.ArgumentParser:
    """A parser that gives what was asked and nothing else, as text, lists of text, or True."""
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS
    )
    for name, option in known().items():
        boolean = bool in option.kinds
        takes: dict[str, Any] = {"nargs": "?", "const": True} if boolean else {}
        takes |= {"nargs": "+"} if option.item else {}
        parser.add_argument(*_spellings(name), dest=canonical(name), **takes)
        if boolean:
            no = _spellings(f"no_{name}")
            parser.add_argument(*no, dest=canonical(name), action="store_false")
    return parser


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]))


def as_type(option: Known, asked: Any) -> Any:
    """
    What was asked, in the option's own type; JSON can hold it.

    Raises:
        ValueError: what was asked is of another type; the message says what would have been right.
    """
    if option.optional and (asked is None or _is_none(option, asked)):
        return None
    if option.item and not isinstance(asked, dict):
        return _list(option, asked if isinstance(asked, list) else [asked])
    if option.choices:
        if asked in option.choices:
            return asked
        raise ValueError(f"expected one of {_some(option.choices, asked)}")
    for kind in sorted(option.kinds, key=_rank):
        value = MAKERS.get(typing.get_origin(kind) or kind, _nothing)(asked)
        if value is not None and (kind is not str or _may_be_text(option, asked)):
            return value
    raise ValueError(_expected(option))


def _is_none(option: Known, asked: Any) -> bool:
    """A flag can only spell it, which would be text where text is wanted."""
    return _is(asked, NONE) and str not in option.kinds


def _rank(kind: Any) -> int:
    """Text last: whatever comes from a flag is text."""
    return int(kind is str)


def _may_be_text(option: Known, asked: Any) -> bool:
    """Text where an object may stand is a path, or it is an object that is broken."""
    objects = any((typing.get_origin(kind) or kind) is dict for kind in option.kinds)
    return not objects or (option.name in PATHS and not asked.lstrip().startswith("{"))


def _list(option: Known, asked: list[Any]) -> list[Any]:
    make = MAKERS[option.item]
    if option.item is int:  # a list of numbers may be one word
        asked = [part for each in asked for part in str(each).split(",")]
    made = [make(each) for each in asked]
    if None in made:
        raise ValueError(_expected(option))
    return made


def _is(asked: Any, words: set[str]) -> bool:
    return isinstance(asked, str) and asked.lower() in words


def _boolean(asked: Any) -> bool | None:
    if isinstance(asked, bool):
        return asked
    return True if _is(asked, TRUE) else False if _is(asked, FALSE) else None


def _integer(asked: Any) -> int | None:
    if isinstance(asked, str):
        try:
            return int(asked)
        except ValueError:
            return None
    return asked if isinstance(asked, int) and not isinstance(asked, bool) else None


def _number(asked: Any) -> float | None:
    if isinstance(asked, bool) or not isinstance(asked, str | int | float):
        return None
    try:
        number = float(asked)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _text(asked: Any) -> str | None:
    """Numbers are text as well where text is wanted (a run's name), yes and no are not."""
    if isinstance(asked, str):
        return asked
    return str(asked) if isinstance(asked, int | float) and not isinstance(asked, bool) else None


def _object(asked: Any) -> dict[str, Any] | None:
    if isinstance(asked, str):
        try:
            asked = json.loads(asked)
        except ValueError:
            return None
    return asked if isinstance(asked, dict) else None


def _nothing(asked: Any) -> None:
    return None


MAKERS: dict[Any, Callable[[Any], Any]] = {
    bool: _boolean,
    int: _integer,
    float: _number,
    str: _text,
    dict: _object,
}
SPOKEN = {bool: "true or false", int: "an integer", float: "a number", dict: "a JSON object"}


def _some(choices: tuple[str, ...], asked: Any) -> str:
    """The choices there are; of very many the nearest."""
    if len(choices) <= MANY:
        return ", ".join(choices)
    close = difflib.get_close_matches(str(asked), choices) or choices[:3]
    return f"{len(choices)} names, such as {', '.join(close)}"


def _expected(option: Known) -> str:
    if option.item:
        return "expected a list of integers" if option.item is int else "expected a list of words"
    kinds = [typing.get_origin(kind) or kind for kind in sorted(option.kinds, key=_rank)]
    spoken = [SPOKEN[kind] for kind in kinds if kind in SPOKEN]
    if str in kinds and not (dict in kinds and option.name not in PATHS):
        spoken.append("the path of one" if dict in kinds else "text")
    return f"expected {' or '.join(spoken)}"
