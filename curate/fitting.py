"""Whether a layout fits a schema, and which layout a corpus has."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from curate.buffers import is_text
from curate.errors import LayoutError
from curate.layout import THINK, Layout, preset, preset_names
from curate.nesting import is_list
from curate.traces import TraceReader
from curate.verdicts import EMPTY, MISSING

OPEN_COLUMN = {"think", "harmony"}
"""Presets of a text column of any name."""


def fault(layout: Layout, schema: pa.Schema) -> str | None:
    """Why a schema is not of a layout, None if it is."""
    wrong = _unknown(schema, layout.column) or _wrong_trace(layout, schema)
    for name in (layout.complete, layout.correct, layout.prompt, layout.system, *layout.parallel):
        wrong = wrong or (None if name is None else _unknown(schema, name))
    for name in layout.parallel:
        if wrong is None and not is_list(schema.field(name).type):
            wrong = f"column `{name}` is not a list, found {schema.field(name).type}"
    return wrong or _wrong_complete(layout, schema) or _wrong_answer(layout, schema)


def _wrong_complete(layout: Layout, schema: pa.Schema) -> str | None:
    if layout.complete is None:
        return None
    kind = schema.field(layout.complete).type
    of_each = kind.value_type if layout.elements and is_list(kind) else kind
    if pa.types.is_boolean(of_each) or pa.types.is_null(of_each):
        return None
    return f"column `{layout.complete}` is not true or false, found {kind}"


def _wrong_answer(layout: Layout, schema: pa.Schema) -> str | None:
    if layout.answer is None:
        return None
    column, *names = layout.answer.split(".") if layout.is_nested else [layout.answer]
    if wrong := _unknown(schema, column):
        return wrong
    kind = schema.field(column).type
    if is_list(kind) and (layout.turn or (layout.elements and not names)):
        kind = kind.value_type
    found = _leaf(kind, tuple(names))
    if found is None:
        return f"column `{column}` has no field `{'.'.join(names)}`, found {kind}"
    if is_text(found) or pa.types.is_null(found):
        return None
    return f"column `{layout.answer}` is not text, found {found}"


def usual(layout: Layout, schema: pa.Schema) -> Layout:
    """A preset without the columns beside the trace that a corpus of its kind may lack."""

    def known(name: str | None) -> str | None:
        return name if name in schema.names else None

    return replace(
        layout,
        complete=known(layout.complete),
        correct=known(layout.correct),
        prompt=known(layout.prompt),
        system=known(layout.system),
        parallel=tuple(filter(known, layout.parallel)),
    )


def _unknown(schema: pa.Schema, name: str) -> str | None:
    count = len(schema.get_all_field_indices(name))
    if count == 0:
        listed = ", ".join(f"`{known}`" for known in schema.names) or "no columns"
        return f"no column `{name}`, found {listed}"
    return f"{count} columns are called `{name}`, expected one" if count > 1 else None


def _wrong_trace(layout: Layout, schema: pa.Schema) -> str | None:
    kind = schema.field(layout.column).type
    if layout.elements or layout.turn:
        if not is_list(kind):
            return f"column `{layout.column}` is not a list, found {kind}"
        kind = kind.value_type
    for name in (*layout.turn, *layout.answer_turn):
        if not _holds_text(kind, (name,)):
            return f"column `{layout.column}` has messages without a text `{name}`, found {kind}"
    found = _leaf(kind, layout.fields)
    if found is None:
        return f"column `{layout.column}` has no field `{'.'.join(layout.fields)}`, found {kind}"
    if not (is_text(found) or (layout.is_nested and pa.types.is_null(found))):
        return f"column `{layout.trace}` is not text, found {found}"
    return None


def _leaf(kind: pa.DataType, names: tuple[str, ...]) -> pa.DataType | None:
    for name in names:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return None
        kind = kind.field(name).type
    return kind


def _holds_text(kind: pa.DataType, names: tuple[str, ...]) -> bool:
    found = _leaf(kind, names)
    return found is not None and is_text(found)


def detect(schema: pa.Schema, sample: pa.RecordBatch, where: str) -> tuple[Layout, str]:
    """
    The layout of a corpus without a column of plain traces, and a line that says why it is that.

    `sample` are rows of it, for what only the texts tell. Raises LayoutError where no layout or
    more than one fits.
    """
    readings = list(_readings(schema, sample))
    covered = {leaf for layout, _ in readings for leaf in layout.covers}
    chosen = [(layout, seen) for layout, seen in readings if layout.trace not in covered]
    if len(chosen) == 1:
        layout, seen = chosen[0]
        others = [each for each, _ in readings if each != layout]
        return layout, _why(layout, seen, sample.num_rows, others)
    if not chosen:
        listed = ", ".join(f"`{name}`" for name in schema.names) or "no columns"
        raise LayoutError(
            f"{where}: no column `trace` of text, and no layout fits, found {listed}; --column "
            "names a text column, --preset or --layout say where else the traces are"
        )
    listed = ", ".join(f"{layout.name} (column `{layout.trace}`)" for layout, _ in chosen)
    raise LayoutError(
        f"{where}: {len(chosen)} readings fit: {listed}; choose one with --preset, or --column"
    )


def _readings(schema: pa.Schema, sample: pa.RecordBatch) -> Iterator[tuple[Layout, int]]:
    """The layouts that fit, each with the traces that were seen."""
    taken = set()
    for name in preset_names():
        layout = usual(preset(name), schema)
        if name == "plain" or name in OPEN_COLUMN or fault(layout, schema) is not None:
            continue
        if seen := _seen(layout, sample):
            taken.add(layout.trace)
            yield layout, seen
    for name in sorted(OPEN_COLUMN):
        for column in schema.names:
            layout = replace(usual(preset(name), schema), trace=column)
            fits = "." not in column and column not in taken and fault(layout, schema) is None
            if fits and (seen := _seen(layout, sample)):
                yield layout, seen


def _seen(layout: Layout, sample: pa.RecordBatch) -> int:
    """How many traces there are in some rows."""
    # Whether lists beside them fit is for the scan to say.
    verdicts = TraceReader(replace(layout, complete=None)).read(sample).verdicts
    return int(np.count_nonzero((verdicts != MISSING) & (verdicts != EMPTY)))


def _why(layout: Layout, seen: int, rows: int, others: list[Layout]) -> str:
    between = f" between {' and '.join(layout.tags)}" if layout.tags else ""
    thoughts = "1 thought" if seen == 1 else f"{seen:,} thoughts"
    in_rows = "the first row" if rows == 1 else f"the first {rows:,} rows"
    line = f"layout {layout.name}: `{layout.trace}` has {thoughts}{between} in {in_rows}"
    if layout.tags == THINK and layout.name == "think":
        line += f"; --preset think --column {layout.trace} says the same"
    for other in others:
        line += f"; `{other.trace}` ({other.name}) repeats them"
    return line
