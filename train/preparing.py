"""
From a dataset's rows to the tokens that a trainer takes: nothing is cut or left out unsaid.

Each row is rendered by the chat template, audited, masked if asked, held against the limit, and
written as one record of an Arrow file, which training maps into memory. With packing, rows are
joined in their order as long as they fit, so that arms keep the same order of shared rows; a record
is then a block of several rows.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate.progress import LINE_SECONDS
from curate.rendering import Rendered, Renderer
from curate.samples import Sample, Samples
from curate.tokenkinds import token_kinds
from curate.train.audit import Audit
from curate.train.faults import IGNORED, labels_of
from curate.train.masks import Mask
from curate.train.ordering import shuffled
from curate.wholefile import whole_file

if TYPE_CHECKING:
    from datasets import Dataset

AT_ONCE = 256
"""Rows that are rendered together."""

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("kinds", pa.list_(pa.uint8())),
        ("rows", pa.list_(pa.int64())),
        ("seq_lengths", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How rows become records: the limit in tokens, and what happens to what is above it."""

    limit: int | None = None
    overlength: str = "error"  # or drop, truncate
    packing: bool = False
    order: str = "dataset"  # or shuffled
    seed: int = 0
    mask: Mask | None = None


@dataclass(slots=True)
class Prepared:
    """What training takes, and the account of it."""

    path: Path
    keys: list[str] = field(default_factory=list)  # of each record; of a block its first row's
    teachers: list[str | None] = field(default_factory=list)  # of each row of the dataset
    rows: int = 0  # that are trained on
    tokens: int = 0
    trained_tokens: int = 0
    masked_tokens: int = 0
    overlength: Counter[str] = field(default_factory=Counter)  # rows above the limit, by teacher
    lost_tokens: int = 0  # of rows that were dropped or cut
    positional: bool = False  # a key is the row's place, which arms do not share
    earlier_turns: int = 0  # rows with earlier messages of the assistant, which are not in the loss
    thoughtless: int = 0  # rows without a thought

    def dataset(self) -> "Dataset":
        """The records, mapped into memory."""
        from datasets import Dataset

        return Dataset.from_file(str(self.path))


@dataclass(frozen=True, slots=True)
class _Record:
    """One row's tokens: int32[n], int32[n], uint8[n]."""

    index: int
    key: str
    input_ids: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray


def prepare(
    samples: Samples,
    renderer: Renderer,
    audit: Audit,
    plan: Plan,
    path: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """Write the records of a dataset to an Arrow file, auditing every row on the way."""
    made = Prepared(path)
    records = _records(_watched(samples, say), renderer, audit, plan, made)
    if plan.packing and plan.order == "shuffled":
        held = list(records)
        records = iter([held[n] for n in shuffled([each.key for each in held], plan.seed, 0)])
    blocks = _packed(records, plan.limit) if plan.packing else ([each] for each in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part, pa.OSFile(str(part), "wb") as sink:
        with pa.ipc.new_stream(sink, SCHEMA) as writer:
            while batch := list(islice(blocks, AT_ONCE)):
                made.keys += [block[0].key for block in batch]
                writer.write_batch(_batch(batch))
    return made


def _watched(samples: Samples, say: Callable[[str], None]) -> Iterator[Sample]:
    """The rows; a line now and then tells how many have been seen."""
    said = time.monotonic()
    for sample in samples:
        yield sample
        if time.monotonic() - said >= LINE_SECONDS:
            said = time.monotonic()
            say(f"audit: {sample.index + 1:,} of {samples.rows:,} rows")


def _records(
    rows: Iterator[Sample], renderer: Renderer, audit: Audit, plan: Plan, made: Prepared
) -> Iterator[_Record]:
    while some := list(islice(rows, AT_ONCE)):
        for sample, rendered in zip(some, renderer.render(some), strict=True):
            made.teachers.append(sample.teacher)
            made.earlier_turns += _answers_before(sample)
            made.thoughtless += sample.trace is None
            made.positional |= sample.id is None and sample.key == f"#{sample.index}"
            record = _record(sample, rendered, audit, plan, made)
            if record is not None:
                made.rows += 1
                made.tokens += len(record.input_ids)
                made.trained_tokens += int((record.labels[1:] != IGNORED).sum())
                yield record


def _answers_before(sample: Sample) -> bool:
    """Whether the assistant has spoken before the completion."""
    return any(isinstance(m, dict) and m.get("role") == "assistant" for m in sample.prompt)


def _record(
    sample: Sample, rendered: Rendered, audit: Audit, plan: Plan, made: Prepared
) -> _Record | None:
    """The record of a row, None where it is left out for its length."""
    labels = labels_of(rendered)
    kept = _kept(len(labels), plan)
    hidden = None if plan.mask is None else plan.mask.of(sample, rendered, kept)
    audit.see(sample, rendered, labels, hidden)
    if plan.limit is not None and len(labels) > plan.limit:
        made.overlength[sample.teacher or ""] += 1
    made.lost_tokens += len(labels) - kept
    if not kept:
        return None
    if hidden is not None:
        made.masked_tokens += int((hidden & (labels != IGNORED)).sum())
        labels[hidden] = IGNORED
    kinds = token_kinds(rendered, sample)[:kept]
    return _Record(sample.index, sample.key, rendered.input_ids[:kept], labels[:kept], kinds)


def _kept(size: int, plan: Plan) -> int:
    """How many of a row's tokens are trained on or read."""
    if plan.limit is None or size <= plan.limit or plan.overlength == "error":
        return size
    return 0 if plan.overlength == "drop" else plan.limit


def _packed(records: Iterator[_Record], limit: int | None) -> Iterator[list[_Record]]:
    """Rows joined in their order while a block has room."""
    block: list[_Record] = []
    size = 0
    for record in records:
        if block and size + len(record.input_ids) > (limit or 0):
            yield block
            block, size = [], 0
        block.append(record)
        size += len(record.input_ids)
    if block:
        yield block


def _batch(blocks: list[list[_Record]]) -> pa.RecordBatch:
    """Blocks of rows as records; the first token of a row is nobody's next token."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for block in blocks:
        columns["input_ids"].append(np.concatenate([each.input_ids for each in block]))
        columns["labels"].append(np.concatenate([_shielded(each.labels) for each in block]))
        columns["kinds"].append(np.concatenate([each.kinds for each in block]))
        columns["rows"].append([each.index for each in block])
        columns["seq_lengths"].append([len(each.input_ids) for each in block])
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


def _shielded(labels: np.ndarray) -> np.ndarray:
    labels = labels.copy()
    labels[0] = IGNORED
    return labels
