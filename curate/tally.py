"""Sums by key over any number of chunks, in memory that follows the distinct keys."""

from collections.abc import Mapping, Sequence

import polars as pl

COMPACT_ROWS = 1 << 20
COMPACT_FRAMES = 1 << 10
"""What is gathered before it is summed up: rows, or frames where they are tiny."""


class Tally:
    """Sums of some columns for each distinct value of the keys; a null is a value of its own."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = list(keys)
        self._summed: pl.DataFrame | None = None
        self._gathered: list[pl.DataFrame] = []
        self._rows = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Add a chunk: the key columns, and the columns to sum."""
        self._gathered.append(frame)
        self._rows += frame.height
        # As many again as are summed already, so that many distinct keys stay linear in time.
        enough = max(COMPACT_ROWS, self._summed.height if self._summed is not None else 0)
        if self._rows >= enough or len(self._gathered) >= COMPACT_FRAMES:
            self._compact()

    def _compact(self) -> None:
        frames = [*([] if self._summed is None else [self._summed]), *self._gathered]
        self._summed = pl.concat(frames).group_by(self._keys).agg(pl.all().sum())
        self._gathered, self._rows = [], 0

    def sums(self, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """The keys and their sums, in no order; `schema` is that of the result if nothing came."""
        if self._gathered:
            self._compact()
        return self._summed if self._summed is not None else pl.DataFrame(schema=dict(schema))

    @property
    def distinct(self) -> int:
        """Distinct keys of what has been summed so far; at most a chunk too few."""
        return self._summed.height if self._summed is not None else 0
