"""
Which kept rows make which shard of the dataset, planned before the first is written.

The number of output shards is part of their names. Each is a run of kept rows, in the order of the
corpus, all of about the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from curate.footers import Footer


@dataclass(frozen=True, slots=True)
class Stretch:
    """Traces `first` to `stop` of one input shard, half-open, of which so many are kept."""

    shard: int
    first: int
    stop: int
    kept: int


class Kept(Protocol):
    """What was decided of an input shard; read again where it is needed again."""

    def mask(self, shard: int) -> np.ndarray:
        """Which rows are kept: bool[rows]."""

    def trace_bytes(self, shard: int) -> np.ndarray:
        """The bytes of each trace: int64[rows]."""

    def places(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """The row of the corpus and the item that each stands for: int64[rows], int32[rows]."""


def plan_shards(footers: Sequence[Footer], kept: Kept, shard_bytes: int) -> list[list[Stretch]]:
    """
    The stretches of input rows that make each output shard, in order.

    Bytes are uncompressed: of the trace as measured, of all other columns the average of their row
    group. A row's weight does not depend on the shard it falls in, so the plan is the same whatever
    the threads. At least one shard, which is empty if nothing was kept.
    """
    sizes, counts = [], []
    for shard, footer in enumerate(footers):
        weights = _weights(footer, kept, shard)
        sizes.append(int(weights.sum()))
        counts.append((len(weights), int(np.count_nonzero(weights))))
    total = sum(sizes)
    count = max(1, -(-total // shard_bytes))
    plan: list[list[Stretch]] = [[] for _ in range(count)]
    before = 0
    for shard, size in enumerate(sizes):
        first, last = before * count // max(1, total), (before + size - 1) * count // max(1, total)
        if size and first == last:  # as nearly all of many small shards
            plan[first].append(Stretch(shard, 0, *counts[shard]))
        elif size:
            weights = _weights(footers[shard], kept, shard)
            # A row goes where its middle falls, had the bytes been cut evenly.
            target = (before + np.cumsum(weights) - weights // 2) * count // total
            target = target.clip(max=count - 1)  # for rows behind the last one that is kept
            edges = [0, *(np.flatnonzero(np.diff(target)) + 1).tolist(), len(weights)]
            for start, stop in pairwise(edges):
                inside = int(np.count_nonzero(weights[start:stop]))
                plan[int(target[start])].append(Stretch(shard, start, stop, inside))
        before += size
    return [stretches for stretches in plan if stretches] or [[]]


def _weights(footer: Footer, kept: Kept, shard: int) -> np.ndarray:
    """Bytes of each row of an input shard, 0 for those not kept: int64[rows]."""
    mask = kept.mask(shard)
    other = [max(0, g.all_bytes - g.trace_bytes) // max(1, g.rows) + 1 for g in footer.row_groups]
    beside = np.repeat(np.array(other, np.int64), [group.rows for group in footer.row_groups])
    return np.where(mask, kept.trace_bytes(shard) + beside[kept.places(shard)[0]], 0)
