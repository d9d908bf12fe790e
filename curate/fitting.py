"""Whether a layout fits a schema, and which layout a corpus has."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from curate.buffers import is_text
from curate.errors import LayoutError
from curate.layout import THINK, Layout, plain, preset, preset_names
from curate.traces import TraceReader, is_list
from curate.verdicts import EMPTY, MISSING

OPEN_COLUMN = {"think", "harmony"}
"""Presets of a text column of any name."""


def fault(layout: Layout, schema: pa.Schema) -> str | None:
    """Why a schema is not of a layout, None if it is."""
    missing = _unknown(schema, layout.column) or _wrong_trace(layout, schema)
    if missing is not None:
        return missing
    answer = None if layout.turn or layout.answer is None else layout.answer.split(".")[0]
    for name in (layout.complete, layout.correct, layout.prompt, layout.system, answer):
        if name is not None and name not in schema.names:
            return f"no column `{name}`"
    return None


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
        return f"no column `{name}`"
    return f"{count} columns are called `{name}`, expected one" if count > 1 else None


def _wrong_trace(layout: Layout, schema: pa.Schema) -> str | None:
    kind = schema.field(layout.column).type
    if layout.elements or layout.turn:
        if not is_list(kind):
            return f"column `{layout.column}` is not a list, found {kind}"
        kind = kind.value_type
    for name in layout.turn or layout.answer_turn:
        if not _holds_text(kind, (name,)):
            return f"column `{layout.column}` has messages without a text `{name}`"
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


def detect(schema: pa.Schema, sample: pa.RecordBatch, where: str) -> tuple[Layout, str | None]:
    """
    The layout of a corpus, and a line that says what was detected and why, None for a plain one.

    `sample` are rows of it, for what only the texts tell. Raises LayoutError where no layout or
    more than one fits.
    """
    if fault(plain("trace"), schema) is None:
        return plain("trace"), None
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
            f"{where}: no column `trace`, and no layout fits, found {listed}; --column names a "
            "text column, --preset or --layout say where else the traces are"
        )
    listed = ", ".join(f"{layout.name} (column `{layout.trace}`)" for layout, _ in chosen)
    raise LayoutError(f"{where}: {len(chosen)} readings fit: {listed}; choose one with --preset")


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
    verdicts = TraceReader(layout).read(sample).verdicts
    return int(np.count_nonzero((verdicts != MISSING) & (verdicts != EMPTY)))


def _why(layout: Layout, seen: int, rows: int, others: list[Layout]) -> str:
    between = f" between {' and '.join(layout.tags)}" if layout.tags else ""
    line = f"layout {layout.name}: `{layout.trace}` has {seen:,} thoughts{between}"
    line += f" in the first {rows:,} rows"
    if layout.tags == THINK and layout.name == "think":
        line += f"; --preset think --column {layout.trace} says the same"
    for other in others:
        line += f"; `{other.trace}` ({other.name}) repeats them"
    return line
