"""
A `--keep` expression: SQL over the features of one trace, parsed by polars.

Features are read in pieces, so an expression may look at one row only: an average or a rank would
be that of a piece, without a word. polars tells what an expression is made of; whatever is not
known here to work row by row is refused.
"""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from curate.errors import SelectionError

ROW_WISE = {
    "Abs", "Ceil", "Coalesce", "Exp", "FillNull", "Floor", "Log", "MaxHorizontal", "MinHorizontal",
    "Pow", "Round", "Sign", "Sql", "StringExpr",
    "IsBetween", "IsFinite", "IsIn", "IsInfinite", "IsNan", "IsNotNan", "IsNotNull", "IsNull",
    "Not",
}  # fmt: skip
"""polars' names of functions that look at one row."""


PLAIN_NAMES = {
    "Agg": "an aggregate, which looks at all of them",
    "Explode": "an expansion, which makes several",
    "Len": "a count, which looks at all of them",
    "Over": "a window, which looks at others",
    "SubPlan": "a subquery",
}


def parse_keep(text: str, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """
    The expression as polars has it, true for the rows to keep.

    Raises SelectionError for one that cannot be parsed, names no feature, is not true or false, or
    looks at more than one row.
    """
    try:
        expression = pl.sql_expr(text)
    except (pl.exceptions.PolarsError, UnicodeEncodeError) as error:
        raise SelectionError(f"--keep {text!r}: cannot be parsed: {_line(error)}") from None
    refused = _not_row_wise(json.loads(expression.meta.serialize(format="json")))
    if refused:
        other = PLAIN_NAMES.get(refused, f"`{refused}`, which may look at others")
        raise SelectionError(f"--keep {text!r}: expected an expression over one row, found {other}")
    check_known("--keep", expression.meta.root_names(), schema)
    frame = pl.LazyFrame(schema=dict(schema)).select(kept=expression)
    try:
        found = frame.collect_schema()["kept"]
        frame.collect()
    except pl.exceptions.PolarsError as error:
        raise SelectionError(f"--keep {text!r}: {_line(error)}") from None
    if found != pl.Boolean:
        raise SelectionError(f"--keep {text!r}: expected true or false, found {found}")
    return expression


def roots(text: str) -> list[str]:
    """The features that a valid expression looks at."""
    return pl.sql_expr(text).meta.root_names()


def check_known(option: str, names: list[str], schema: Mapping[str, object]) -> None:
    """Raise SelectionError, listing the known features, for a name that is none."""
    for name in names:
        if name not in schema:
            known = ", ".join(sorted(schema))
            raise SelectionError(f"{option}: unknown feature `{name}`, known: {known}")


def _not_row_wise(node: Any) -> str:
    """The name of the first part that may look at other rows, or an empty string."""
    if not isinstance(node, dict):
        return str(node)
    ((kind, body),) = node.items()
    if kind in ("Column", "Literal"):
        return ""
    if kind == "Cast":
        children = [body["expr"]]
    elif kind == "BinaryExpr":
        children = [body["left"], body["right"]]
    elif kind == "Ternary":
        children = [body["predicate"], body["truthy"], body["falsy"]]
    elif kind == "Function" and (name := _function_name(body["function"])) in ROW_WISE:
        children = body["input"]
    else:
        return name if kind == "Function" else kind
    return next(filter(None, map(_not_row_wise, children)), "")


def _function_name(function: Any) -> str:
    """`Abs` of `Abs`, `Sql` of `{"Sql": ...}`, and what `{"Boolean": ...}` holds."""
    if isinstance(function, str):
        return function
    ((name, body),) = function.items()
    return _function_name(body) if name == "Boolean" else str(name)


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
