"""
A line of JSON Lines as the interpreter's own parser reads it, and the types of what it holds.

Stricter than that parser: refused are a key that stands twice in one object, half of a surrogate
pair, what is nested too deep, and numbers beyond int64 and double.
"""

import json
import re
from collections import Counter
from functools import reduce
from math import isinf
from typing import Any

import pyarrow as pa

from curate.errors import SchemaError, ShardError
from curate.jsontypes import EXACT, LineError, key_path, unified

MAX_DEPTH = 100
"""Of lists and objects in one another: far above what is of use, far below what ends a process."""

BEYOND = 1 << 64
"""Stands for a number that is beyond int64 or double: it is refused."""

SURROGATE = re.compile("[\ud800-\udfff]")


def read_line(line: bytes) -> dict[str, Any]:
    """A line's object. Raises LineError where it is none."""
    if line.startswith(b"["):
        raise LineError(
            ShardError,
            "expected a JSON object, found an array; a file that is one array has to be written "
            "one element to a line",
        )
    try:
        value = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise LineError(ShardError, f"not UTF-8 at byte {error.start + 1:,} of it") from None
    except json.JSONDecodeError as error:
        what = f"not a JSON object: {error.msg} at character {error.pos + 1:,}"
        raise LineError(ShardError, what) from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(value, dict):
        raise LineError(ShardError, "expected a JSON object, found a single value")
    return value


def _too_deep() -> LineError:
    return LineError(ShardError, f"expected at most {MAX_DEPTH} levels of arrays and objects")


def kind_of(value: Any, path: str, wide: set[str], depth: int = 0) -> pa.DataType:
    """The type of a value of JSON. Raises LineError where it has none; adds to `wide`."""
    if depth > MAX_DEPTH:
        raise _too_deep()
    if isinstance(value, dict):
        kinds = []
        for name, below in value.items():
            _check_text(name, path)
            kinds.append((name, kind_of(below, key_path(path, name), wide, depth + 1)))
        return pa.struct(kinds)
    if isinstance(value, list):
        path = f"{path}[]"
        each = [kind_of(below, path, wide, depth + 1) for below in value]
        return pa.list_(reduce(lambda one, other: unified(path, one, other, wide), each, pa.null()))
    if isinstance(value, str):
        _check_text(value, path)
        return pa.string()
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise LineError(
            SchemaError, f"column `{path}` holds a number beyond what int64 or double can hold"
        )
    if isinstance(value, int) and abs(value) > EXACT:
        wide.add(path)
    return _SCALARS[type(value)]


def rough_kind(value: Any, depth: int = 0) -> pa.DataType:
    """About the type of a value that is read as text; it must not be too deep, or too large."""
    if depth > MAX_DEPTH:
        raise _too_deep()
    if isinstance(value, int) and value == BEYOND:
        raise LineError(SchemaError, "expected numbers that int64 or double can hold")
    if isinstance(value, dict | list):
        for below in value.values() if isinstance(value, dict) else value:
            rough_kind(below, depth + 1)
        return pa.struct([]) if isinstance(value, dict) else pa.list_(pa.null())
    return pa.string() if isinstance(value, str) else _SCALARS[type(value)]


_SCALARS = {type(None): pa.null(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


def _check_text(text: str, path: str) -> None:
    if SURROGATE.search(text):
        raise LineError(
            ShardError,
            f"column `{path}` is no text: it holds half of a surrogate pair (\\ud800 to \\udfff)",
        )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = next(name for name, times in Counter(n for n, _ in pairs).items() if times > 1)
        raise LineError(ShardError, f"`{twice}` stands twice in one object")
    return value


def _integer(token: str) -> int:
    return int(token) if len(token) <= 20 else BEYOND


def _double(token: str) -> float:
    value = float(token)
    return BEYOND if isinf(value) else value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_double)
