"""
What a run left, read again and held against its manifest.

Two kinds of checks: that each file is byte for byte what was written, and that the account closes
when the rows are counted anew, down to the dataset's n-th row having the id of the n-th kept one
(if the scan was told of ids) and a trace as long.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curate import manifest, output
from curate.errors import OutputError
from curate.featurefiles import feature_files, file_chunks
from curate.rereading import Reread
from curate.verdicts import QUARANTINED
from curate.wholefile import FileRecord, read_back

KINDS = ("features", "steps", "quarantine", "derived", "selection")

READ_ROWS = 64
"""Traces read at once: a row may be huge."""


@dataclass(slots=True)
class Verified:
    """What was checked: files and their bytes, rows by what became of them, and what is wrong."""

    files: int = 0
    bytes: int = 0
    rows: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {name: getattr(self, name) for name in self.__slots__}


def verify(folder: str | Path, threads: int) -> Verified:
    """
    Read again what a run left. Raises OutputError where no run is whole.

    Costs a reading of every file, and a decoding of the dataset's traces.
    """
    place = Path(folder)
    manifest.read(place)
    with output.reading(place):
        return _verify(place, threads)


def _verify(place: Path, threads: int) -> Verified:
    record = manifest.read_complete(place)
    found = Verified()
    files = manifest.files_of(place, record)
    found.problems += _strangers(place, files)
    with ThreadPoolExecutor(threads) as pool:
        for path, told, now in zip(files, files.values(), pool.map(read_back, files), strict=True):
            found.files += 1
            found.bytes += told.bytes
            if now != told:
                found.problems.append(_difference(path, told, now))
    if record["rule"] is not None and not (place / "README.md").is_file():
        found.problems.append(f"{place / 'README.md'}: expected the dataset's card, found none")
    if not found.problems:  # or the rows could not be read
        found.problems += _recount(place, record, found)
    return found


def _strangers(folder: Path, files: Mapping[Path, FileRecord]) -> Iterator[str]:
    """Files where only those of a run should be."""
    places = [folder / ".curate" / kind for kind in KINDS]
    if folder / "data" in {path.parent for path in files}:  # else it may be a user's
        places.append(folder / "data")
    for place in places:
        for path in sorted(place.rglob("*")):
            if path not in files:
                yield f"{path}: not a file of this run"


def _difference(path: Path, told: FileRecord, now: FileRecord | None) -> str:
    if now is None:
        return f"{path}: expected {told.bytes:,} bytes, found no Parquet file"
    if now.bytes != told.bytes:
        return f"{path}: expected {told.bytes:,} bytes, found {now.bytes:,}"
    return f"{path}: its bytes are not those that were written"


def _recount(folder: Path, record: manifest.Manifest, found: Verified) -> Iterator[str]:
    """Count the rows anew, shard by shard; what does not add up."""
    kept: list[pl.DataFrame] = []
    scanned = Path(record["scan"] or folder)
    try:
        features = feature_files(scanned, len(record["shards"]))
    except OutputError:
        yield f"{scanned}: the scan that this was selected from is gone, so no row is counted"
        return
    for fact, told in record["derived"].items():
        if told["rows"] != record["counts"]["rows"]:
            yield f"{folder}: the file of {fact} does not have a row for each trace"
    if len(record["skipped"]) != record["counts"]["units_skipped"]:
        yield f"{folder}: the manifest does not list as much as it counts of what was not read"
    for shard, (told, file) in enumerate(zip(record["shards"], features, strict=True)):
        chunks = list(file_chunks(file, ["row", "item", "verdict", "bytes", "steps", "id"]))
        table = pl.concat(chunks) if chunks else None
        rows = table.height if table is not None else 0
        found.rows += rows
        if table is not None and not _in_order(table):
            yield f"{file}: rows are not in the order of the corpus"
        of_corpus = 0 if table is None else int((table["item"] == 0).sum())
        if record["config"]["limit"] is None and of_corpus != told["rows"]:
            expected = f"expected {told['rows']:,} rows as in {told['path']}"
            yield f"{file}: {expected}, found {of_corpus:,}"
        if table is not None:
            yield from _shard_account(folder, record, shard, table, found, kept)
    counts = {
        "rows": found.rows,
        "kept": found.kept,
        "rejected": dict(sorted(found.rejected.items())),
        "quarantined": dict(sorted(found.quarantined.items())),
    }
    for name, number in counts.items():
        if number != record["counts"][name]:
            yield f"{folder}: the manifest says {name} {record['counts'][name]}, found {number}"
    if found.rows != found.kept + found.rejected.total() + found.quarantined.total():
        yield f"{folder}: {found.rows:,} rows are not what was kept, rejected and quarantined"
    if record["rule"] is not None:
        rows_kept = pl.concat(kept) if kept else pl.DataFrame({"bytes": [], "id": []})
        yield from _same_rows(folder, record, rows_kept)


def _in_order(table: pl.DataFrame) -> bool:
    """Whether there is every row of the corpus, and every item of each, one after the other."""
    first = table["item"] == 0
    if not np.array_equal(table["row"].filter(first), np.arange(int(first.sum()))):
        return False
    rows, items = np.diff(table["row"]), np.diff(table["item"])
    return bool(first[0] and (np.where(rows == 0, items == 1, table["item"][1:] == 0)).all())


def _shard_account(
    folder: Path,
    record: manifest.Manifest,
    shard: int,
    table: pl.DataFrame,
    found: Verified,
    kept: list[pl.DataFrame],
) -> Iterator[str]:
    name = f"{shard:05d}.parquet"
    unread = table["verdict"].is_in(QUARANTINED)
    steps = folder / ".curate" / "steps" / name
    if record["scan"] is None and record["config"]["steps"]:
        rows = pq.read_metadata(steps).num_rows
        if rows != table["steps"].sum():
            yield f"{steps}: expected {table['steps'].sum():,} rows, found {rows:,}"
    told = folder / ".curate" / "quarantine" / name
    rows = pq.read_metadata(told).num_rows if told.exists() else 0
    if record["scan"] is None and rows != unread.sum():
        yield f"{told}: expected {unread.sum():,} rows, found {rows:,}"
    if record["rule"] is None:
        found.quarantined.update(table["verdict"].filter(unread).to_list())
        found.kept += int((~unread).sum())
        return
    selected = folder / ".curate" / "selection" / name
    decided = pl.concat(list(file_chunks(selected, ["row", "kept", "reason"])))
    if decided.height != table.height or (decided["row"] != table["row"]).any():
        yield f"{selected}: its rows are not those of the features"
        return
    reasons = decided["reason"].filter(~decided["kept"])
    for reason, count in reasons.value_counts().iter_rows():
        (found.quarantined if reason in QUARANTINED else found.rejected)[reason] += count
    found.kept += int(decided["kept"].sum())
    kept.append(table.select("bytes", "id").filter(decided["kept"]))


def _same_rows(folder: Path, record: manifest.Manifest, kept: pl.DataFrame) -> Iterator[str]:
    """Whether the rows of the dataset are those that were kept: their ids, and their lengths."""
    at = 0
    for file in record["data"]:
        path = folder / "data" / file
        reader = Reread(record["config"], pq.read_schema(path).names)
        for batch in _batches(path, reader.columns):
            rows = kept.slice(at, batch.num_rows)
            if not reader.holds(batch, rows["bytes"].to_numpy()):
                yield f"{path}: a trace is not as long as the one that was kept"
                return
            if (
                reader.id is not None
                and batch.column(reader.id).to_pylist() != rows["id"].to_list()
            ):
                yield f"{path}: an id is not that of the row that was kept"
                return
            at += batch.num_rows
    if at != kept.height:
        yield f"{folder / 'data'}: expected {kept.height:,} rows, found {at:,}"


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(
            path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
        ) as file:
            yield from file.iter_batches(READ_ROWS, columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
