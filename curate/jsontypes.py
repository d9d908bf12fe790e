"""
The types of the columns of JSON Lines: the one that holds two, and what can be read as another.

A column has one type in all lines: null or missing goes with any, integers become doubles beside
numbers with a fraction, the fields of objects and the elements of lists follow the same rule. In
the path of a column, `.key` stands for a key of objects and `[]` for the elements of lists. `wide`
are the paths of integers that are not the same as doubles.
"""

import pyarrow as pa

from curate.errors import CurateError, SchemaError

MAX_KEYS = 4096
"""In the objects of one column, counted over all lines: a row takes room for each of them."""

EXACT = 1 << 53
"""Integers up to it are the same as doubles."""

WIDENED = {(pa.int64(), pa.float64()), (pa.string(), pa.large_string())}
"""What a column may be in a file, and in the corpus, with nothing lost."""


class LineError(Exception):
    """
    What is wrong with a line, and the `kind` of error that it is raised as.

    `mixed` is the path of the column where it is that this is text on some lines only.
    """

    def __init__(self, kind: type[CurateError], what: str, mixed: str = "") -> None:
        super().__init__(what)
        self.kind, self.mixed = kind, mixed


def key_path(path: str, name: str) -> str:
    """The path of a key of the objects at a path, which is empty for the rows themselves."""
    return f"{path}.{name}" if path else name


def unified(path: str, known: pa.DataType, found: pa.DataType, wide: set[str]) -> pa.DataType:
    """The type that holds what two hold. Raises LineError where there is none."""
    if known == found or pa.types.is_null(found):
        return known
    if pa.types.is_null(known):
        return found
    if pa.types.is_list(known) and pa.types.is_list(found):
        return pa.list_(unified(f"{path}[]", known.value_type, found.value_type, wide))
    if pa.types.is_struct(known) and pa.types.is_struct(found):
        kinds = {each.name: each.type for each in known}
        for each in found:
            old = kinds.get(each.name, pa.null())
            kinds[each.name] = unified(key_path(path, each.name), old, each.type, wide)
        if len(kinds) > MAX_KEYS:
            where = f"column `{path}`" if path else "rows"
            what = f"{where}: expected at most {MAX_KEYS:,} different keys, found more"
            raise LineError(SchemaError, what)
        return pa.struct(list(kinds.items()))
    if {known, found} != {pa.int64(), pa.float64()}:
        raise LineError(
            SchemaError,
            f"column `{path}` is {_name(found)}, expected {_name(known)} as before",
            path if pa.string() in (known, found) else "",
        )
    if path in wide:
        raise LineError(
            SchemaError,
            f"column `{path}` holds numbers with a fraction and integers beyond 2**53, expected "
            f"such as either int64 or double can hold",
        )
    return pa.float64()


def _name(kind: pa.DataType) -> str:
    """A type in JSON's words."""
    if pa.types.is_list(kind):
        return "an array"
    if pa.types.is_struct(kind):
        return "an object"
    names = {pa.string(): "a string", pa.bool_(): "true or false", pa.null(): "null"}
    return names.get(kind, "a number")


def is_readable(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether all that is of one type can be read as the other, with nothing lost."""
    if found == wanted or pa.types.is_null(found):
        return True
    if pa.types.is_list(found) and pa.types.is_list(wanted):
        nullable = wanted.value_field.nullable
        return nullable and is_readable(found.value_type, wanted.value_type)
    if pa.types.is_struct(found) and pa.types.is_struct(wanted):
        known = {field.name: field.type for field in wanted if field.nullable}
        inside = all(f.name in known and is_readable(f.type, known[f.name]) for f in found)
        return inside and len(known) == wanted.num_fields
    return (found, wanted) in WIDENED


def parsed_type(found: pa.DataType, wanted: pa.DataType) -> pa.DataType:
    """The wanted type, but integers as such: a parser would round them, which a cast refuses."""
    if pa.types.is_int64(found):
        return found
    if pa.types.is_list(found):
        return pa.list_(parsed_type(found.value_type, wanted.value_type))
    if pa.types.is_struct(found):
        known = {field.name: field.type for field in found}
        return pa.struct([(f.name, parsed_type(known.get(f.name, f.type), f.type)) for f in wanted])
    return wanted


def without_null(kind: pa.DataType) -> pa.DataType:
    """A type for the parser, which (26.0) counts nulls wrongly where it is told of nothing else."""
    if pa.types.is_list(kind):
        return pa.list_(without_null(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, without_null(field.type)) for field in kind])
    return pa.string() if pa.types.is_null(kind) else kind
