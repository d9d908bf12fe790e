"""The traces of a dataset, found again in its rows whatever their format."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curate.buffers import text_buffers
from curate.formats import CLOSING, OPENING
from curate.layout import THINK, Layout, from_dict
from curate.nesting import below, list_rows, stand_at
from curate.traces import TraceReader
from curate.trainers import COLUMNS, FIELDS, ROLES


class Reread:
    """Reads a dataset of a run that was configured so; `names` are the dataset's columns."""

    def __init__(self, config: dict[str, Any], names: Sequence[str]) -> None:
        self._layout = from_dict(config["layout"], "the scan's manifest")
        self._format, self._thinking = config["format"], config["thinking"]
        self._joined = False
        if self._format != "original":
            who, what = FIELDS[self._format]
            self._joined = self._layout.tags != THINK
            self._layout = Layout(
                name=self._format,
                trace=f"{COLUMNS[self._format][-1]}.{what}",
                turn={who: ROLES[self._format][-1:]},
                tags=THINK,
            )
        self._reader = TraceReader(self._layout)
        found = config["columns"]["id"]
        self.id: str | None = found if found in {*names} - {*COLUMNS[self._format]} else None
        """The column of the ids, None where the dataset has none."""

    @property
    def columns(self) -> list[str]:
        """What has to be read."""
        needed = (self._layout.column, self._layout.complete, self.id)
        return list(dict.fromkeys(name for name in needed if name is not None))

    def holds(self, batch: pa.RecordBatch, sizes: np.ndarray) -> bool:
        """Whether the traces of a batch of rows are of these sizes: int64[n]."""
        if not self._thinking:
            return True
        if len(sizes) != batch.num_rows:
            return False
        if self._joined:
            return self._holds_joined(batch, sizes)
        found = self._reader.read(batch)
        # Where the prompt held the opening tag, that and a line break come before the trace.
        more = found.sizes - sizes if len(found) == len(sizes) else np.array([-1])
        return bool(((more == 0) | ((more == 1) & (self._format != "original"))).all())

    def _holds_joined(self, batch: pa.RecordBatch, sizes: np.ndarray) -> bool:
        """Whether each trace stands between what joins it to its answer, or ends the text."""
        lists = batch.column(self._layout.column)
        of_row = list_rows(lists)
        data, offsets = text_buffers(below(lists.flatten(), self._layout.fields))
        starts, stops = offsets[:-1], offsets[1:]
        opening, closing = (np.frombuffer(text, np.uint8) for text in (OPENING, CLOSING))
        ends = starts + len(OPENING) + sizes[of_row]
        closed = (ends == stops) | stand_at(data, ends, stops, closing)
        holds = stand_at(data, starts, stops, opening) & closed
        # A row without a thought may have been accepted: it has nothing to look for.
        found = np.bincount(of_row[holds], minlength=len(sizes)) > 0
        return bool((found | (sizes == 0)).all())
