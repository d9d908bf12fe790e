"""
Corpora of real text at the size that a bench needs, kept until what they are made of changes.

The real traces (`$CURATE_DATA/traces/traces.parquet`) are few, so they are repeated, shuffled each
time. They are stored without dictionaries and in pages of 1 MB, in which a repetition is rare, so
that decoding costs what it costs of distinct text.

    repeated   the traces as they are
    distinct   each with its id in front: a writer's dictionary finds no two alike
    long       many joined to one, about 34 KB each, all in a single row group
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import runs

RECIPE = 1
"""Raised whenever the same options make other corpora."""

COLUMNS = ("problem", "trace", "answer", "correct")
COUNTDOWN_TRACES = 2000
LONG_BYTES = 34_000
ROW_GROUP_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What a corpus is made as; `gb` are 10^9 bytes of trace text."""

    kind: str
    gb: float
    codec: str = "zstd"
    shards: int = 8
    teacher: str | None = None  # whose traces alone it holds

    @property
    def name(self) -> str:
        """The name of its folder."""
        of = f"-{self.teacher}" if self.teacher else ""
        return f"{self.kind}-{self.codec}-{self.gb:g}gb-{self.shards}{of}"


def source_file() -> Path:
    """The real traces, whether they are there or not."""
    data = os.environ.get("CURATE_DATA") or runs.ROOT / ".." / "shared" / "data"
    return Path(data) / "traces" / "traces.parquet"


def source_name() -> str:
    """What corpora are made of here, for people."""
    return "real traces" if source_file().exists() else "Countdown traces, real ones are not here"


def ready(corpus: Corpus, cache: Path) -> Path:
    """The folder of a corpus, made first unless it is there."""
    folder = cache / corpus.name
    stamp = folder / ".stamp.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != _stamp(corpus):
        shutil.rmtree(folder, ignore_errors=True)
        runs.job("bench.corpora:make", folder=str(folder), corpus=asdict(corpus))
        stamp.write_text(json.dumps(_stamp(corpus)))
    return folder


def shards_of(folder: Path) -> list[str]:
    """The shards of a corpus, in the order of a scan."""
    return sorted(map(str, folder.rglob("*.parquet")), key=os.fsencode)


def linked(shard: str, folder: Path, count: int) -> Path:
    """A corpus of one shard under many names; reading is the same, and only that is measured."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number in range(count):
        os.link(shard, folder / f"{number:05d}.parquet")
    return folder


def _stamp(corpus: Corpus) -> dict[str, Any]:
    file = source_file()
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "countdown"
    return asdict(corpus) | {"recipe": RECIPE, "source": digest}


def make(folder: str, corpus: dict[str, Any], threads: int) -> dict[str, Any]:
    """A job: write a corpus."""
    del threads
    wanted, place = Corpus(**corpus), Path(folder)
    place.mkdir(parents=True)
    traces = _source()
    if wanted.teacher:
        traces = traces.filter(pc.equal(traces["teacher"], wanted.teacher))
    traces = traces.select(COLUMNS).combine_chunks()
    order = _order(traces, int(wanted.gb * 1e9))
    ids = 0
    for number, part in enumerate(np.array_split(order, wanted.shards)):
        path = place / f"train-{number:05d}-of-{wanted.shards:05d}.parquet"
        ids += _write(path, wanted, traces, part, ids)
    return {"rows": ids}


def teachers(threads: int) -> dict[str, int]:
    """A job: the bytes that there are of each teacher's traces, before any is repeated."""
    del threads
    traces = _source()
    sized = traces.append_column("bytes", pc.binary_length(traces["trace"]))
    summed = sized.group_by("teacher").aggregate([("bytes", "sum")]).sort_by("teacher")
    return dict(zip(*(summed[n].to_pylist() for n in ("teacher", "bytes_sum")), strict=True))


def _source() -> pa.Table:
    """COLUMNS, and the `teacher`."""
    if source_file().exists():
        traces = pq.read_table(source_file(), columns=[*COLUMNS, "source"])
        return traces.rename_columns({"source": "teacher"})
    from examples import countdown

    with TemporaryDirectory() as folder:
        countdown.write(folder, COUNTDOWN_TRACES, levels=(2, 3))
        return pq.read_table(folder, columns=[*COLUMNS, "teacher"])


def _order(traces: pa.Table, num_bytes: int) -> np.ndarray:
    """Rows to take, shuffled anew for each repetition, until there are enough bytes of text."""
    sizes = pc.binary_length(traces["trace"]).to_numpy()
    draw = np.random.default_rng(0)
    repeats = -(-num_bytes // int(sizes.sum()))
    order = np.concatenate([draw.permutation(len(sizes)) for _ in range(repeats)])
    return order[: np.searchsorted(np.cumsum(sizes[order]), num_bytes) + 1]


def _write(path: Path, corpus: Corpus, traces: pa.Table, order: np.ndarray, first_id: int) -> int:
    """One shard; returns its rows."""
    schema = pa.schema([pa.field("id", pa.string()), *traces.schema])
    rows = 0
    with pq.ParquetWriter(path, schema, compression=corpus.codec, use_dictionary=False) as writer:
        for table in _row_groups(corpus, traces, order, first_id):
            writer.write_table(table.cast(schema), row_group_size=table.num_rows)
            rows += table.num_rows
    return rows


def _row_groups(
    corpus: Corpus, traces: pa.Table, order: np.ndarray, first_id: int
) -> Iterator[pa.Table]:
    if corpus.kind == "long":
        yield _with_ids(_joined(traces, order), first_id, in_front=True)
        return
    sizes = pc.binary_length(traces["trace"]).to_numpy()
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes[order]) // ROW_GROUP_BYTES)) + 1
    for part in np.split(order, cuts):
        yield _with_ids(traces.take(part), first_id, in_front=corpus.kind == "distinct")
        first_id += len(part)


def _joined(traces: pa.Table, order: np.ndarray) -> pa.Table:
    """Rows of about LONG_BYTES: consecutive traces as one, beside the first one's other columns."""
    texts = traces["trace"].take(pa.array(order)).combine_chunks()
    row = np.cumsum(pc.binary_length(texts).to_numpy()) // LONG_BYTES
    firsts = np.flatnonzero(np.diff(row, prepend=-1))
    offsets = pa.array([*firsts, len(order)], pa.int32())
    long = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), "\n\n")
    table = traces.take(pa.array(order[firsts]))
    return table.set_column(table.schema.get_field_index("trace"), "trace", long)


def _with_ids(table: pa.Table, first: int, *, in_front: bool) -> pa.Table:
    ids = pa.array([f"t{number:08d}" for number in range(first, first + table.num_rows)])
    if in_front:
        texts = pc.binary_join_element_wise(ids, table["trace"].combine_chunks(), pa.scalar("\n\n"))
        table = table.set_column(table.schema.get_field_index("trace"), "trace", texts)
    return table.add_column(0, "id", ids)
