"""Whether JSON of ours is as it should be, said once as a shape and not at every use."""

import os
from collections.abc import Iterator
from types import UnionType
from typing import Any


def misfit(value: Any, shape: Any, place: str = "") -> str | None:
    """
    The first place at which a value is not of a shape, None if there is none.

    A shape is a type (`object` for anything), a dict of what each key holds (`...` stands for any
    key), a list of what each element is, or a tuple of what a list of that length holds. Numbers
    are counts: whole, from 0 to 2^63 - 1. Text can be written as UTF-8, or as a path.
    """
    return next(_misfits(value, shape, place), None)


def _misfits(value: Any, shape: Any, place: str) -> Iterator[str]:
    if isinstance(shape, dict):
        if not isinstance(value, dict) or (... not in shape and {*shape} != {*value}):
            yield place or "all of it"
            return
        for key, inner in value.items():
            yield from _misfits(inner, shape.get(key, shape.get(...)), f"{place}.{key}".lstrip("."))
    elif isinstance(shape, list | tuple):
        if not isinstance(value, list) or (isinstance(shape, tuple) and len(value) != len(shape)):
            yield place
            return
        for number, inner in enumerate(value):
            of = shape[number] if isinstance(shape, tuple) else shape[0]
            yield from _misfits(inner, of, f"{place}[{number}]")
    elif not _is(value, shape):
        yield place


def _is(value: Any, kind: type | UnionType) -> bool:
    if isinstance(value, bool):
        return kind in (bool, object)
    if isinstance(value, int) and kind in (int, int | None):
        return 0 <= value < 2**63
    if isinstance(value, str):
        try:
            os.fsencode(value)
        except UnicodeEncodeError:
            return False
    return isinstance(value, kind)
