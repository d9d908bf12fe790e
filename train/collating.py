"""
Batches of records: what TRL's collator makes of them, and whose each token is.

Beside TRL's tensors a batch has `slots`, int64[batch, seq]: for each token its row's number in the
batch times the number of kinds, plus its kind. So one scatter gives the sums by row and kind.
"""

from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from curate.tokenkinds import KINDS
from curate.train.faults import IGNORED


@dataclass(frozen=True, slots=True)
class Beside:
    """What a batch holds beside the model's inputs."""

    slots: torch.Tensor  # int64[batch, seq]
    rows: list[int]  # places in the dataset
    tokens: int
    trained_tokens: int


NAMES = ("slots", "rows", "tokens", "trained_tokens")


@dataclass(frozen=True, slots=True)
class Collator:
    """Collates records of `curate.train.preparing`, packed ones without padding."""

    pad_token_id: int
    packed: bool
    pad_to_multiple_of: Any = None  # None or a number of tokens

    def __call__(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of some records."""
        plain = [_without_kinds(record, self.packed) for record in records]
        collate = DataCollatorForLanguageModeling(
            pad_token_id=self.pad_token_id,
            padding_free=self.packed,
            pad_to_multiple_of=self.pad_to_multiple_of,
        )
        batch: dict[str, Any] = collate(plain)
        labels = batch["labels"]
        batch["slots"] = self._slots(records, labels.shape)
        batch["rows"] = [row for record in records for row in record["rows"]]
        batch["tokens"] = sum(len(record["input_ids"]) for record in records)
        batch["trained_tokens"] = int((labels[..., 1:] != IGNORED).sum())
        return batch

    def _slots(self, records: list[dict[str, Any]], shape: torch.Size) -> torch.Tensor:
        first, slots = 0, []
        for record in records:
            sizes = torch.tensor(record["seq_lengths"])
            whose = torch.repeat_interleave(torch.arange(first, first + len(sizes)), sizes)
            slots.append(whose * len(KINDS) + torch.tensor(record["kinds"]))
            first += len(sizes)
        padded = torch.zeros(shape, dtype=torch.int64)
        if self.packed:
            joined = torch.cat(slots)
            padded[0, : len(joined)] = joined
        for row, each in enumerate(() if self.packed else slots):
            padded[row, : len(each)] = each
        return padded


def _without_kinds(record: dict[str, Any], packed: bool) -> dict[str, Any]:
    names = ("input_ids", "labels", "seq_lengths") if packed else ("input_ids", "labels")
    return {name: record[name] for name in names}


def beside(inputs: dict[str, Any]) -> Beside:
    """Take out of a batch what is not the model's."""
    return Beside(**{name: inputs.pop(name) for name in NAMES})
