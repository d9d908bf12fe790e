"""A rule applied to all features: the selection sidecars, and the account of what was cut."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curate.featurefiles import FeatureFiles, read_columns
from curate.features import LOCATOR
from curate.selection import Decider, exact
from curate.sidecars import ParquetSink
from curate.summary import Cut
from curate.wholefile import FileRecord


def decide_all(
    decider: Decider, features: FeatureFiles, out: Path, cut: Cut
) -> dict[str, FileRecord]:
    """
    Write locator, id, kept and reason of every trace under `out`; account for it in `cut`.

    Returns the records of the files by their names.
    """
    os.makedirs(out, exist_ok=True)
    files = {}
    locator = [*(name for name, _ in LOCATOR), "id"]
    counted = [group.column for group in cut.groups]
    if cut.between is not None:
        counted += ["problem", cut.between.feature, *decider.exact_needs(cut.between.feature)]
    columns = list(dict.fromkeys([*locator, *decider.columns, *counted, *cut.looked_at(features)]))
    walk = decider.new_pass()
    for shard, file in enumerate(features.files):
        schema = _selection_schema(pq.read_schema(file))
        sink = ParquetSink(out / file.name, schema)
        try:
            for chunk in features.chunks(shard, columns):
                decided = walk.decide(chunk)
                rows = pl.concat([chunk.select(locator), decided], how="horizontal")
                sink.write(rows.to_arrow().cast(schema))
                cut.add(chunk, exact(chunk), decided)
            files[file.name] = sink.close()
        except BaseException:
            sink.abandon()
            raise
    return files


def _selection_schema(features: pa.Schema) -> pa.Schema:
    named = [*(name for name, _ in LOCATOR), "id"]
    decided = [pa.field("kept", pa.bool_()), pa.field("reason", pa.string())]
    return pa.schema([*(features.field(name) for name in named), *decided])


class KeptRows:
    """What the sidecars say of each shard, for `curate.emit`."""

    def __init__(self, features: FeatureFiles, selection: Path, *, elements: bool) -> None:
        self._files, self._selection, self._elements = features, selection, elements
        self._features = features.files[0].parent

    def mask(self, shard: int) -> np.ndarray:
        """Which rows of a shard are kept: bool[rows]."""
        return self._column(self._selection, shard, "kept")

    def trace_bytes(self, shard: int) -> np.ndarray:
        """Bytes of each trace of a shard: int64[rows]."""
        return self._column(self._features, shard, "bytes")

    def places(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """Row of the corpus and item of each trace: int64[rows], int32[rows]."""
        if self._elements:
            return self._column(self._features, shard, "row"), self._column(
                self._features, shard, "item"
            )
        count = pq.read_metadata(self._features / f"{shard:05d}.parquet").num_rows
        return np.arange(count), np.zeros(count, np.int32)

    def features(self, shard: int, fields: Sequence[pa.Field]) -> pa.Table:
        """Features of a shard's rows, as of these fields."""
        names = [field.name for field in fields]
        chunks = [chunk.select(names) for chunk in self._files.chunks(shard, names)]
        return pl.concat(chunks).to_arrow().cast(pa.schema(fields))

    def _column(self, folder: Path, shard: int, name: str) -> np.ndarray:
        table = read_columns(folder / f"{shard:05d}.parquet", [name])
        values: np.ndarray = table.column(0).to_numpy()
        return values
