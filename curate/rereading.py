"""The traces of a dataset, found again in its rows whatever their format."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curate.buffers import text_buffers
from curate.formats import CLOSING, OPENING
from curate.layout import THINK, Layout, from_dict
from curate.traces import TraceReader, below
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
        self.id: str | None = found if found in names else None
        """The column of the ids, None where the dataset has none."""

    @property
    def columns(self) -> list[str]:
        """What has to be read."""
        lists = sorted(self._layout.lists_beside)
        named = [] if self.id is None else [self.id]
        return list(dict.fromkeys([self._layout.column, *lists, *named]))

    def holds(self, batch: pa.RecordBatch, sizes: np.ndarray) -> bool:
        """Whether the traces of a batch of rows are of these sizes: int64[n]."""
        if not self._thinking:
            return True
        if self._joined:
            return self._holds_joined(batch, sizes)
        found = self._reader.read(batch)
        # Where the prompt held the opening tag, that and a line break come before the trace.
        more = found.sizes - sizes if len(found) == len(sizes) else np.array([-1])
        return bool(((more == 0) | ((more == 1) & (self._format != "original"))).all())

    def _holds_joined(self, batch: pa.RecordBatch, sizes: np.ndarray) -> bool:
        """Whether each trace stands between what joins it to its answer, or ends the text."""
        lists = batch.column(self._layout.column)
        last = np.asarray(lists.offsets)[1:] - 1 - int(lists.offsets[0].as_py())
        data, offsets = text_buffers(below(lists.flatten(), self._layout.fields))
        starts, stops = offsets[last], offsets[last + 1]
        opened = _stand_at(data, starts, stops, OPENING)
        ends = starts + len(OPENING) + sizes
        closed = (ends == stops) | _stand_at(data, ends, stops, CLOSING)
        return bool(((opened & closed) | (~opened & (sizes == 0))).all())


def _stand_at(data: np.ndarray, places: np.ndarray, stops: np.ndarray, text: bytes) -> np.ndarray:
    """Whether a text stands at each place, before the stop: bool[n]."""
    fits = places + len(text) <= stops
    if not len(data):
        return np.zeros(len(places), np.bool_)
    at = np.where(fits, places, 0)[:, None] + np.arange(len(text))
    same = data[at.clip(max=len(data) - 1)] == np.frombuffer(text, np.uint8)
    found: np.ndarray = fits & same.all(axis=1)
    return found
