"""
The rows of a training set as samples: what is asked, what is answered, the thought, its steps.

Opened are datasets that `curate scan` and `curate select` emit, and any Parquet files with columns
`prompt` and `completion` (texts, or lists of messages) or `messages`. Where sidecars tell how long
each trace was when it was scanned, the thought is taken letter by letter; elsewhere it is what
stands between the tags, without one line break at each end if both are there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate import manifest
from curate.errors import CurateError, ShardError
from curate.layout import THINK
from curate.manifest import Manifest
from curate.nesting import RowError
from curate.rawfooter import UNREADABLE, first_line
from curate.samplecolumns import Columns, check_types, columns_of, files_of
from curate.samplerows import BLANKS, Messages, fitting_steps, said, spans_of, thought, turns
from curate.stepsbeside import Beside, Sidecars, StepSpans, find_sidecars

__all__ = ["Sample", "Samples", "StepSpans", "open_samples"]

BATCH_BYTES, BATCH_ROWS = 4 << 20, 1024
"""What is read at once: uncompressed bytes by the footer's average, and rows at the most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """
    A row of a training set.

    `index` is its place. `key` is the same in every selection from one scan: SHARD:ROW:ITEM;
    without a selection beside the data its id, and without that #INDEX. `completion` is one message
    of the assistant, or a text as `prompt` then is. `trace` is the thought as it was scanned, None
    where there is none; `answer` what stands behind it, or all there is without one, blanks at its
    ends left out. `steps`, and `spans` [start, end) of a column, are in bytes of the trace's UTF-8;
    None where not asked for, or without a trace.
    """

    index: int
    key: str
    id: str | None
    teacher: str | None
    prompt: Messages | str
    completion: Messages | str
    trace: str | None
    answer: str
    steps: StepSpans | None
    spans: list[tuple[int, int]] | None


@dataclass(frozen=True, slots=True)
class Samples:
    """
    A training set, read anew from its files each time that it is iterated over.

    `columns` are all of the data, `digest` the SHA-256 of the manifest (without one, of the files'
    names, sizes and footers), `teachers` says whether a column of them is known, `notes` what a
    user should know of how rows are read. Iterating holds a few MB, and raises a CurateError that
    names file and row where a row is no conversation or is not as it was scanned.
    """

    path: Path
    rows: int
    columns: list[str]
    manifest: Manifest | None
    digest: str
    teachers: bool
    notes: tuple[str, ...]
    _files: tuple[Path, ...]
    _read: Columns
    _sidecars: Sidecars | None

    @property
    def has_steps(self) -> bool:
        """Whether the steps of traces are read."""
        return self._sidecars is not None and self._sidecars.steps is not None

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[Sample]:
        besides = None if self._sidecars is None else iter(self._sidecars)
        index = 0
        for file in self._files:
            for number, row in enumerate(_rows(file, self._read.names())):
                beside = None if besides is None else next(besides)
                try:
                    yield self._sample(index, row, beside)
                except RowError as error:
                    raise error.of(str(file), number) from None
                index += 1

    def _sample(self, index: int, row: dict[str, Any], beside: Beside | None) -> Sample:
        id, teacher = (_word(row, name) for name in (self._read.id, self._read.teacher))
        prompt, completion = turns(row, self._read)
        trace, answer = self._thought(completion, beside)
        steps = spans = None
        if not self._strips:
            steps = None if beside is None else fitting_steps(beside.steps, trace)
            spans = None if self._read.spans is None else spans_of(row, self._read.spans, trace)
        return Sample(
            index=index,
            key=(f"#{index}" if id is None else id) if beside is None else beside.key,
            id=id,
            teacher=teacher,
            prompt=prompt,
            completion=completion,
            trace=trace,
            answer=answer.strip(BLANKS),
            steps=steps,
            spans=spans,
        )

    def _thought(self, completion: Messages | str, beside: Beside | None) -> tuple[str | None, str]:
        if self._strips:
            return None, said(completion)[0]
        return thought(completion, None if beside is None else beside.measured, self._joins)

    @property
    def _strips(self) -> bool:
        """Whether thoughts were left out of the rows."""
        return self.manifest is not None and not self.manifest["config"]["thinking"]

    @property
    def _joins(self) -> bool:
        """Whether thoughts and answers were put together from parts."""
        if self.manifest is None:
            return False
        config = self.manifest["config"]
        return config["format"] != "original" and tuple(config["layout"]["tags"]) != THINK


def open_samples(
    path: str | Path,
    *,
    teacher: str | None = None,
    id: str | None = None,
    steps: bool = False,
    steps_from: str | Path | None = None,
    spans: str | None = None,
) -> Samples:
    """
    Open a training set: a folder that curate emitted, or a folder or file of Parquet.

    `teacher` and `id` name columns; without, those that the scan was told of, or `teacher` and `id`
    where there are such. `steps` asks for the steps of each trace: from the folder itself, from the
    scan it was selected from, or from `steps_from`. `spans` names a column with lists of byte spans
    of the trace: pairs, or structs with `start` and `end`; if these have a field `abandoned`, only
    those where it is true are taken. Reads footers and the selection. Raises CurateError where this
    is no training set.
    """
    place = Path(path)
    if steps_from is not None and not steps:
        raise CurateError("steps_from: expected together with steps")
    record = manifest.read_complete(place) if manifest.path_of(place).exists() else None
    files = files_of(place, record)
    footers = [_footer(file) for file in files]
    schemas = [footer.schema.to_arrow_schema() for footer in footers]
    columns = columns_of(files[0], schemas[0], record, teacher, id, spans)
    for file, schema in zip(files, schemas, strict=True):
        check_types(file, schema, schemas[0], columns)
    rows = sum(footer.num_rows for footer in footers)
    sidecars = _sidecars(
        place, record, rows, steps, None if steps_from is None else Path(steps_from)
    )
    if not rows:
        raise CurateError(f"{place}: expected rows to train on, found none")
    return Samples(
        path=place,
        rows=rows,
        columns=list(schemas[0].names),
        manifest=record,
        digest=_digest(place, files, record),
        teachers=columns.teacher is not None,
        notes=tuple(_notes(sidecars)),
        _files=tuple(files),
        _read=columns,
        _sidecars=sidecars,
    )


def _sidecars(
    place: Path, record: Manifest | None, rows: int, steps: bool, steps_from: Path | None
) -> Sidecars | None:
    """What stands beside the rows, None for files that curate did not emit."""
    if record is None:
        if steps:
            raise CurateError(
                f"{place}: expected steps, found no .curate/selection, which says whose they are; "
                "`curate scan --steps` with a selection writes both"
            )
        return None
    sidecars = find_sidecars(place, record, steps, steps_from)
    if (kept := sidecars.kept()) != rows:
        raise CurateError(
            f"{place}: expected {kept:,} rows in data/, as many as .curate/selection keeps, found "
            f"{rows:,}"
        )
    return sidecars


def _notes(sidecars: Sidecars | None) -> Iterator[str]:
    if sidecars is not None and sidecars.features is None:
        where = sidecars.record["scan"] or sidecars.folder
        yield (
            f"{where}: no features found: a thought is what stands between the tags, without one "
            "line break at each end if both are there"
        )


def _digest(place: Path, files: Sequence[Path], record: Manifest | None) -> str:
    """What a dataset is, in hex."""
    if record is not None:
        return sha256(manifest.path_of(place).read_bytes()).hexdigest()
    digest = sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
        digest.update(_footer_bytes(file))
    return digest.hexdigest()


def _footer(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except UNREADABLE as error:
        raise ShardError(f"{file}: not a readable Parquet file: {first_line(error)}") from error


def _footer_bytes(file: Path) -> bytes:
    with file.open("rb") as source:
        source.seek(-8, 2)
        size = int.from_bytes(source.read(4), "little")
        source.seek(-8 - size, 2)
        return source.read(size)


def _rows(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Some columns of each row of a file. Raises ShardError where it cannot be read."""
    try:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as source:
            rows, first = _batch_rows(source.metadata), 0
            for batch in source.iter_batches(rows, columns=list(columns), use_threads=False):
                yield from _listed(file, first, batch)
                first += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{file}: cannot be read: {first_line(error)}") from error


def _batch_rows(metadata: pq.FileMetaData) -> int:
    groups = range(metadata.num_row_groups)
    size = sum(metadata.row_group(number).total_byte_size for number in groups)
    return int(max(1, min(BATCH_ROWS, BATCH_BYTES * metadata.num_rows // max(1, size))))


def _listed(file: Path, first: int, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch, which begins at row `first`."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            raise ShardError(f"{file}: row {first:,}: holds text that is not UTF-8") from None
    each = (_listed(file, first + row, batch.slice(row, 1)) for row in range(batch.num_rows))
    return [row for rows in each for row in rows]


def _word(row: dict[str, Any], column: str | None) -> str | None:
    """A value as text, None for null."""
    value = None if column is None else row[column]
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return None if value is None else str(value)
