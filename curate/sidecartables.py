"""What was measured of some rows, as tables for the sidecars of their shard."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curate.corpus import Shard
from curate.errors import SchemaError
from curate.features import LOCATOR, Measured, Measurer, quarantine_schema, step_schema
from curate.nesting import beside
from curate.skipping import Skipped
from curate.traces import Traces
from curate.units import Columns
from curate.verdicts import NOT_READ, VERDICTS

NOT_READ_CODES = [VERDICTS.index(name) for name in NOT_READ]


class SidecarTables:
    """Makes the tables of one run's sidecars; `schema` is that of the features."""

    def __init__(self, columns: Columns, schema: pa.Schema, measurer: Measurer) -> None:
        self._columns, self._measurer = columns, measurer
        self.schema = schema
        self.step_schema = step_schema(measurer.categories)

    def beside(self, batch: pa.RecordBatch, found: Traces) -> pa.Table:
        """The columns beside the traces of a batch, one row for each. Raises RowError."""
        columns = {name: beside(batch.column(name), found, name) for name in self._columns.each()}
        return pa.table(columns) if columns else pa.table({"": pa.nulls(len(found))})

    def features(self, shard: Shard, besides: pa.Table, measured: Sequence[Measured]) -> pa.Table:
        """The features of some batches; `besides` are the columns beside their traces."""
        rows, items = _places(measured)
        columns = [pa.repeat(pa.scalar(shard.name), len(rows)), pa.array(rows), pa.array(items)]
        for name, column in self._columns.named().items():
            kind = self.schema.field(name).type
            columns.append(
                pa.nulls(len(rows), kind) if column is None else _value(shard, besides, column)
            )
        columns += [_value(shard, besides, column) for column in self._columns.carry]
        return pa.Table.from_arrays(
            [*columns, *self._measurer.features(measured)], schema=self.schema
        )

    def steps(self, shard: Shard, measured: Sequence[Measured]) -> pa.Table:
        """The steps of some batches."""
        per_trace = np.concatenate([each.counts.steps for each in measured])
        total = int(per_trace.sum())
        first = np.repeat((np.cumsum(per_trace) - per_trace).astype(np.int32), per_trace)
        rows, items = _places(measured)
        columns = [
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(total, np.int32)), [shard.name]),
            pa.array(np.repeat(rows, per_trace)),
            pa.array(np.repeat(items, per_trace)),
            pa.array(np.arange(total, dtype=np.int32) - first),
        ]
        return pa.Table.from_arrays(
            [*columns, *self._measurer.steps(measured)], schema=self.step_schema
        )

    def not_read(self, shard: Shard, measured: Sequence[Measured]) -> pa.Table | None:
        """Quarantine of the rows that were looked at and could not be read, None without any."""
        verdicts = np.concatenate([each.verdicts for each in measured])
        which = np.flatnonzero(np.isin(verdicts, NOT_READ_CODES))
        if not len(which):
            return None
        rows, items = (each[which] for each in _places(measured))
        reasons = [VERDICTS[code] for code in verdicts[which]]
        told = [pa.array(reasons), pa.array([NOT_READ[reason] for reason in reasons])]
        places = [pa.repeat(pa.scalar(shard.name), len(which)), pa.array(rows), pa.array(items)]
        return pa.table([*places, *told], schema=quarantine_schema())

    def unread(
        self, shard: Shard, row: int, rows: int, skipped: Skipped
    ) -> tuple[pa.Table, pa.Table]:
        """Features and quarantine of rows that could not be read."""
        locator = [
            pa.repeat(pa.scalar(shard.name), rows),
            pa.array(np.arange(row, row + rows)),
            pa.repeat(pa.scalar(0, pa.int32()), rows),
        ]
        known = {name: column for (name, _), column in zip(LOCATOR, locator, strict=True)}
        known |= self._measurer.unread(rows, skipped.reason)
        features = [known.get(field.name, pa.nulls(rows, field.type)) for field in self.schema]
        told = [pa.repeat(text, rows) for text in (skipped.reason, skipped.detail)]
        return (
            pa.table(features, schema=self.schema),
            pa.table([*locator, *told], schema=quarantine_schema()),
        )


def _places(measured: Sequence[Measured]) -> tuple[np.ndarray, np.ndarray]:
    """Row and item of each trace: int64[n], int32[n]."""
    rows = np.concatenate([each.first + each.rows for each in measured])
    return rows, np.concatenate([each.items for each in measured])


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
