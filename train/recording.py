"""
Token losses while training: per row and kind of token, at no forward pass beyond the step's own.

TRL's forward returns, of each next token, its log-probability, the entropy of the prediction and
whether the token was the likeliest one. A hook on the model sums them by row and kind where they
are, so that a step sends a few numbers from the device. They are of the weights before the step's
update, and add up to the logged loss where that is the plain NLL: not under `--loss_type dft`, nor
with a loss of mixtures of experts beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from curate.tokenkinds import KINDS
from curate.wholefile import whole_file

NEEDED = ("log_probs", "entropy", "is_top1", "label_mask")
"""The fields of TRL's output that are relied on."""

SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("row", pa.int64()),
        ("teacher", pa.string()),
        ("kind", pa.string()),
        ("tokens", pa.int32()),
        ("nll", pa.float64()),
        ("entropy", pa.float64()),
        ("top1", pa.int32()),
    ]
)

FLUSH_ROWS = 100_000
"""Rows that are held before a file is written at the end of a step."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What is known of each next token: float[batch, seq - 1] each, zero where none is trained."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    is_top1: torch.Tensor
    label_mask: torch.Tensor

    @classmethod
    def of(cls, output: Any) -> "TokenScores | None":
        """Those that a forward of TRL's returned, None where it returns something else."""
        found = [each for name in NEEDED if (each := getattr(output, name, None)) is not None]
        return cls(*(each.detach() for each in found)) if len(found) == len(NEEDED) else None

    def sums(self, slots: torch.Tensor, count: int) -> torch.Tensor:
        """Tokens, nll, entropy and top-1 hits by slot: float64[count, 4]."""
        wide = torch.float64 if slots.device.type != "mps" else torch.float32
        each = (self.label_mask, -self.log_probs, self.entropy, self.is_top1)
        columns = torch.stack([one.reshape(-1).to(wide) for one in each], dim=1)
        sums = torch.zeros(count, len(each), dtype=wide, device=slots.device)
        return sums.index_add_(0, slots[:, 1:].reshape(-1), columns)


def output_fields() -> set[str]:
    """The fields that the installed TRL's forward returns; none where it has no such forward."""
    try:
        from trl.trainer.utils import FusedCausalLMOutput
    except ImportError:
        return set()
    return {each.name for each in fields(FusedCausalLMOutput)}


@dataclass(slots=True)
class Recorder:
    """Gathers sums by step, row and kind, and writes them to files of a folder."""

    folder: Path
    teachers: Sequence[str | None]  # of each row of the dataset
    rank: int = 0
    _held: list[tuple[int, list[int], torch.Tensor]] = field(default_factory=list)
    _rows: int = 0

    def add(self, step: int, rows: list[int], slots: torch.Tensor, scores: TokenScores) -> None:
        """Record one batch of an optimizer step, from 1."""
        if self._rows >= FLUSH_ROWS and self._held[-1][0] != step:
            self.flush()  # never inside a step, so that no two files have a step in common
        sums = scores.sums(slots, len(rows) * len(KINDS))
        self._held.append((step, rows, sums))
        self._rows += len(rows)

    def flush(self) -> None:
        """Write what is held to a file of its own, named by its first and last step."""
        if not self._held:
            return
        table = self._table()
        first, last = self._held[0][0], self._held[-1][0]
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.folder / f"{first:08d}-{last:08d}-{self.rank}.parquet") as part:
            pq.write_table(table, part, compression="zstd")
        self._held, self._rows = [], 0

    def _table(self) -> pa.Table:
        steps = np.concatenate([np.full(len(rows), step) for step, rows, _ in self._held])
        rows = np.concatenate([np.array(rows, np.int64) for _, rows, _ in self._held])
        sums = torch.cat([each.cpu().double() for _, _, each in self._held]).numpy()
        there = sums[:, 0] > 0
        columns = {
            "step": np.repeat(steps, len(KINDS))[there],
            "row": np.repeat(rows, len(KINDS))[there],
            "tokens": sums[there, 0].astype(np.int32),
            "nll": sums[there, 1],
            "entropy": sums[there, 2],
            "top1": sums[there, 3].astype(np.int32),
        }
        kinds = np.tile(np.arange(len(KINDS)), len(rows))[there]
        arrays = {name: pa.array(values) for name, values in columns.items()}
        arrays["kind"] = pa.array(KINDS).take(pa.array(kinds))
        arrays["teacher"] = pa.array([self.teachers[row] for row in columns["row"]], pa.string())
        return pa.table([arrays[each.name].cast(each.type) for each in SCHEMA], schema=SCHEMA)


def forget_after(folder: Path, step: int) -> None:
    """Remove the files of steps behind one that a run goes on from."""
    for path in folder.glob("*.parquet") if folder.is_dir() else ():
        if int(path.name.split("-")[0]) > step:
            path.unlink()
