"""What was measured of some rows, as tables for the sidecars of their shard."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curate.corpus import Shard
from curate.errors import SchemaError
from curate.features import LOCATOR, Measured, Measurer, quarantine_schema, step_schema
from curate.skipping import Skipped
from curate.units import Columns


class SidecarTables:
    """Makes the tables of one run's sidecars; `schema` is that of the features."""

    def __init__(self, columns: Columns, schema: pa.Schema, measurer: Measurer) -> None:
        self._columns, self._measurer = columns, measurer
        self.schema = schema
        self.step_schema = step_schema(measurer.categories)

    def features(
        self, shard: Shard, row: int, beside: pa.Table, measured: Sequence[Measured]
    ) -> pa.Table:
        """The features of rows from `row` on; `beside` are the columns read with the traces."""
        rows = sum(each.num_traces for each in measured)
        columns = _locator(shard, row, rows)
        for name, column in self._columns.named().items():
            kind = self.schema.field(name).type
            columns.append(
                pa.nulls(rows, kind) if column is None else _value(shard, beside, column)
            )
        columns += [_value(shard, beside, column) for column in self._columns.carry]
        return pa.Table.from_arrays(
            [*columns, *self._measurer.features(measured)], schema=self.schema
        )

    def steps(self, shard: Shard, row: int, measured: Sequence[Measured]) -> pa.Table:
        """The steps of rows from `row` on."""
        per_trace = np.concatenate([each.counts.steps for each in measured])
        total = int(per_trace.sum())
        first = np.repeat((np.cumsum(per_trace) - per_trace).astype(np.int32), per_trace)
        columns = [
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(total, np.int32)), [shard.name]),
            pa.array(np.repeat(np.arange(row, row + len(per_trace)), per_trace)),
            pa.array(np.zeros(total, np.int32)),
            pa.array(np.arange(total, dtype=np.int32) - first),
        ]
        return pa.Table.from_arrays(
            [*columns, *self._measurer.steps(measured)], schema=self.step_schema
        )

    def unread(
        self, shard: Shard, row: int, rows: int, skipped: Skipped
    ) -> tuple[pa.Table, pa.Table]:
        """Features and quarantine of rows that could not be read."""
        locator = _locator(shard, row, rows)
        known = {name: column for (name, _), column in zip(LOCATOR, locator, strict=True)}
        known |= self._measurer.unread(rows, skipped.reason)
        features = [known.get(field.name, pa.nulls(rows, field.type)) for field in self.schema]
        told = [pa.repeat(text, rows) for text in (skipped.reason, skipped.detail)]
        return (
            pa.table(features, schema=self.schema),
            pa.table([*locator, *told], schema=quarantine_schema()),
        )


def _locator(shard: Shard, row: int, rows: int) -> list[pa.Array]:
    return [
        pa.repeat(pa.scalar(shard.name), rows),
        pa.array(np.arange(row, row + rows)),
        pa.repeat(pa.scalar(0, pa.int32()), rows),
    ]


def _value(shard: Shard, beside: pa.Table, column: str) -> pa.Array:
    array = pa.chunked_array(
        [
            chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
            for chunk in beside.column(column).chunks
        ]
    )
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        what = f"column `{column}` holds text that is not UTF-8"
        raise SchemaError(f"{shard.path}: {what}") from None
    return array
