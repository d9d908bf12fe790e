"""
What a shard says of itself before any of its pages is read.

Of Parquet only a file's tail is read; JSON Lines, which has none, is read whole. What is kept is
small, so that a corpus of tens of thousands of shards fits in memory. Every shard is checked here,
before a run writes anything.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Event

import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus import Shard
from curate.errors import SchemaError, ShardError
from curate.fitting import fault
from curate.jsonlines import LINE_COPIES, MAX_LINE_BYTES, read_index, unify
from curate.jsonreading import JsonIndex, described, parsed_schema
from curate.layout import Layout
from curate.memory import DEFAULT_SHARE, free_bytes, resident_bytes
from curate.nesting import is_list
from curate.parallel import run_jobs
from curate.rawfooter import UNREADABLE, RawFooter, first_line, is_of_any, read_footer
from curate.skipping import Skipped, Skips

READERS = 8
"""Footers read at once: opening a file is waiting, for a disk or a network."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group's rows, and its bytes uncompressed: of what the traces are in, and of all."""

    rows: int
    trace_bytes: int
    all_bytes: int


@dataclass(frozen=True, slots=True)
class Footer:
    """
    What is kept of a shard's footer; `digest` is the SHA-256 of its bytes.

    Of JSON Lines it is that of the whole file, `index` is what else was learnt of it, and `schema`
    what its lines are read as: that of the corpus.
    """

    rows: int
    row_groups: tuple[RowGroup, ...]
    digest: str
    index: JsonIndex | None = None
    schema: pa.Schema | None = None


@dataclass(frozen=True, slots=True)
class Footers:
    """The footers of a corpus, in the order of its shards, and the schema that they share."""

    schema: pa.Schema
    each: tuple[Footer, ...]


@dataclass(frozen=True, slots=True)
class Indexes:
    """
    What is in the shards of JSON Lines, by their number in the corpus, or what is wrong.

    `text` is the column that they were told of, as for `read_index`.
    """

    text: str | None
    each: Mapping[int, JsonIndex]
    wrong: Mapping[int, ShardError | SchemaError]

    def unify(
        self, shards: Sequence[Shard]
    ) -> tuple[pa.Schema, dict[int, ShardError | SchemaError]]:
        """The schema that they share, and all that is wrong."""
        schema, wrong = unify(dict(enumerate(shards)), self.each, self.text)
        return schema, {**self.wrong, **wrong}


def text_column(layout: Layout) -> str:
    """The column of JSON Lines that is read as text whatever it holds; empty if there is none."""
    return "" if layout.turn or layout.elements or layout.fields else layout.column


def read_indexes(
    shards: Sequence[Shard], text: str | None, skips: Skips, memory: int | None = None
) -> Indexes:
    """
    Read the shards of JSON Lines, all of them and whole.

    `text` is as for `read_index`; `memory` bounds the bytes that this process holds, None for most
    of what is free. What cannot be read is kept where the run goes on without it,
    else the first of it is raised: ShardError, SchemaError.
    """
    each: dict[int, JsonIndex] = {}
    wrong: dict[int, ShardError | SchemaError] = {}
    stop = Event()
    numbers = [number for number, shard in enumerate(shards) if shard.is_json]
    threads = max(1, min(READERS, os.cpu_count() or 1, len(numbers)))
    room = int(DEFAULT_SHARE * free_bytes()) if memory is None else memory - resident_bytes()
    most = min(MAX_LINE_BYTES, max(1, room) // (LINE_COPIES * threads))

    def read(number: int) -> None:
        try:
            each[number] = read_index(shards[number], most, text=text, stop=stop)
        except (ShardError, SchemaError) as error:
            if not skips.goes_on:
                raise
            wrong[number] = error.with_traceback(None)

    run_jobs([partial(read, number) for number in numbers], threads, stop.set)
    pa.default_memory_pool().release_unused()  # a long line leaves much
    return Indexes(text, dict(sorted(each.items())), wrong)


def json_footer(index: JsonIndex, schema: pa.Schema, column: str | None = None) -> Footer:
    """The footer of JSON Lines that are read as of a schema; the traces are in a column."""
    groups = tuple(
        RowGroup(
            group.rows,
            group.column_bytes.get(column, 0) if column is not None else 0,
            sum(group.column_bytes.values()),
        )
        for group in index.groups
    )
    return Footer(index.rows, groups, index.digest, index, schema)


def read_alone(shard: Shard, layout: Layout | None = None) -> Footer:
    """
    The footer of a shard by itself, with its schema.

    Raises ShardError where it cannot be read, SchemaError where its lines disagree.
    """
    if shard.is_json:
        index = read_index(shard, text=None if layout is None else text_column(layout))
        schema, _ = unify({0: shard}, {0: index}, index.text)
        return json_footer(index, schema, None if layout is None else layout.column)
    raw = read_footer(shard)
    try:
        schema = raw.metadata.schema.to_arrow_schema()
    except UNREADABLE as error:
        raise ShardError(f"{shard.path}: no readable schema: {first_line(error)}") from error
    groups = tuple(RowGroup(group.rows, 0, group.all_bytes) for group in raw.groups)
    return Footer(sum(group.rows for group in groups), groups, raw.digest, schema=schema)


def read_footers(
    shards: Sequence[Shard],
    layout: Layout,
    columns: Sequence[str],
    *,
    whole_rows: bool,
    skips: Skips,
    indexes: Indexes | None = None,
    memory: int | None = None,
) -> Footers:
    """
    Read and check the footers of all shards.

    `columns` are the other columns that a run needs; with `whole_rows` it copies all of them, and
    the schemas of Parquet must agree with that of the first one that can be read. JSON Lines may
    lack columns, which are null then; where there is no Parquet all of them together set the
    schema. What cannot be read, or disagrees, is added to `skips` where the run goes on; else the
    first of them is raised: ShardError where a file is not what its name says, SchemaError where a
    column is missing or not of the layout, or schemas differ. `indexes` are those of JSON Lines if
    they were read already.
    """
    expected = _Expected(layout, tuple(columns), whole_rows)
    if indexes is None:
        indexes = read_indexes(shards, text_column(layout), skips, memory)
    read = partial(_read, expected, skips)
    numbers = [number for number, shard in enumerate(shards) if not shard.is_json]
    each: dict[int, Footer] = {}
    # One by one until there is a schema to hold the others against.
    while expected.schema is None and len(each) < len(numbers):
        number = numbers[len(each)]
        each[number] = read(number, shards[number])
    rest = numbers[len(each) :]
    with ThreadPoolExecutor(READERS) as pool:
        each |= zip(rest, pool.map(read, rest, [shards[n] for n in rest]), strict=True)
    each |= _read_json(expected, skips, shards, indexes)
    if expected.schema is None:
        raise ShardError(f"no shard can be read, the first: {skips.all()[0].detail}")
    return Footers(expected.schema, tuple(each[number] for number in range(len(shards))))


def _read_json(
    expected: "_Expected", skips: Skips, shards: Sequence[Shard], indexes: Indexes
) -> dict[int, Footer]:
    """The footers of JSON Lines; they set the schema where there is no Parquet."""
    wrong = dict(indexes.wrong)
    if expected.schema is None and indexes.each:
        schema, wrong = indexes.unify(shards)
        _check_lines(expected, shards[min(indexes.each)], schema)
        expected.schema = schema
    footers: dict[int, Footer] = {}
    for number in sorted({*indexes.each, *wrong}):
        shard, index = shards[number], indexes.each.get(number)
        try:
            if number in wrong:
                raise wrong[number]
            assert index is not None and expected.schema is not None
            _check_as_parquet(expected, shard, index)
            footers[number] = json_footer(index, expected.schema, expected.layout.column)
        except (ShardError, SchemaError) as error:
            if not skips.goes_on:
                raise
            footers[number] = (
                Footer(0, (), "") if index is None else json_footer(index, pa.schema([]))
            )
            rows = None if index is None else index.rows
            skips.know([Skipped("scan", number, None, 0, rows, error.reason, str(error))])
    return footers


def _check_lines(expected: "_Expected", shard: Shard, schema: pa.Schema) -> None:
    """Raise SchemaError where the schema of all lines is not as it is needed."""
    _check_columns(shard, schema, expected.layout, expected.columns)
    for field in schema if expected.whole_rows else ():
        if _is_keyless(field.type):
            raise SchemaError(
                f"{shard.path}: column `{field.name}` has objects that are empty in all rows, "
                f"which Parquet has no type for"
            )


def _is_keyless(kind: pa.DataType) -> bool:
    children = [kind.field(number).type for number in range(kind.num_fields)]
    return any(map(_is_keyless, children)) or (pa.types.is_struct(kind) and not children)


def _check_as_parquet(expected: "_Expected", shard: Shard, index: JsonIndex) -> None:
    """Raise SchemaError where lines have a column otherwise than the Parquet beside them."""
    if expected.shard is None or expected.schema is None:
        return
    for name in index.schema.names if expected.whole_rows else ():
        if name not in expected.schema.names:
            raise SchemaError(
                f"{shard.path}: column `{name}`, which {expected.shard.path} has not; "
                f"found there {', '.join(expected.schema.names)}"
            )
    needed = {expected.layout.column, *expected.columns}
    wanted = [f for f in expected.schema if expected.whole_rows or f.name in needed]
    parsed_schema(shard, index, pa.schema(wanted), f" as in {expected.shard.path}")


@dataclass(slots=True)
class _Expected:
    """What footers are held against; the first sound one sets what follows `whole_rows`."""

    layout: Layout
    columns: tuple[str, ...]
    whole_rows: bool
    shard: Shard | None = None
    metadata: pq.FileMetaData | None = None
    schema: pa.Schema | None = None


def _read(expected: _Expected, skips: Skips, number: int, shard: Shard) -> Footer:
    """The footer of a shard; of one that is left out what is known of its rows."""
    raw: RawFooter | None = None
    try:
        raw = read_footer(shard)
        _check_schema(expected, shard, raw)
        return _kept(raw, expected.layout)
    except (ShardError, SchemaError) as error:
        if not skips.goes_on:
            raise
        # Rows are believed only of a footer that is sound, and merely not what was expected.
        sound = raw is not None and isinstance(error, SchemaError)
        footer = _kept(raw, expected.layout) if raw and sound else Footer(0, (), "")
        rows = footer.rows if sound else None
        skips.know([Skipped("scan", number, None, 0, rows, error.reason, str(error))])
        return footer


def _kept(raw: RawFooter, layout: Layout) -> Footer:
    """What is kept of a footer."""
    groups = tuple(
        RowGroup(
            group.rows,
            sum(c.decoded for c in group.chunks if is_of_any(c.name, [layout.trace])),
            group.all_bytes,
        )
        for group in raw.groups
    )
    return Footer(sum(group.rows for group in groups), groups, raw.digest)


def _check_schema(expected: _Expected, shard: Shard, raw: RawFooter) -> None:
    """Raise SchemaError where a footer is not as it is needed, or as that of the first shard."""
    first, metadata = expected.metadata, raw.metadata
    if (
        first is None
        or not metadata.schema.equals(first.schema)
        or metadata.metadata != first.metadata
    ):
        try:
            found = metadata.schema.to_arrow_schema()
        except UNREADABLE as error:
            raise ShardError(f"{shard.path}: no readable schema: {first_line(error)}") from error
        _check_columns(shard, found, expected.layout, expected.columns)
        if expected.shard is not None and expected.schema is not None:
            needed = None if expected.whole_rows else expected.columns
            _check_agree(shard, found, expected.shard, expected.schema, needed)
        if first is None:
            expected.shard, expected.metadata, expected.schema = shard, metadata, found
    for number, group in enumerate(raw.groups):
        for chunk in group.chunks:
            if chunk.path == expected.layout.trace and chunk.values != group.rows:
                raise ShardError(
                    f"{shard.path}: row group {number} says {group.rows:,} rows, its column "
                    f"`{chunk.path}` {chunk.values:,}"
                )


def _check_columns(shard: Shard, schema: pa.Schema, layout: Layout, columns: Sequence[str]) -> None:
    for name in (layout.column, *columns):
        count = len(schema.get_all_field_indices(name))
        if count == 0:
            listed = ", ".join(f"`{known}`" for known in schema.names)
            raise SchemaError(f"{shard.path}: no column `{name}`, found {listed or 'no columns'}")
        if count > 1:
            raise SchemaError(f"{shard.path}: {count} columns are called `{name}`, expected one")
    wrong = fault(layout, schema)
    if wrong is not None:
        raise SchemaError(f"{shard.path}: {wrong}")
    for name in columns:
        found = schema.field(name).type
        if layout.elements and is_list(found):
            found = found.value_type
        if pa.types.is_nested(found):
            raise SchemaError(f"{shard.path}: column `{name}` is not a scalar, found {found}")


def _check_agree(
    shard: Shard,
    found: pa.Schema,
    first: Shard,
    expected: pa.Schema,
    columns: Sequence[str] | None,
) -> None:
    """Types must agree in `columns`; if None in all of them, which must be the same ones."""
    for name in expected.names if columns is None else columns:
        if name not in found.names:
            raise SchemaError(
                f"{shard.path}: no column `{name}`, which {first.path} has; "
                f"found {', '.join(found.names)}"
            )
        if not found.field(name).equals(expected.field(name)):
            raise SchemaError(
                f"{shard.path}: column `{name}` is {described(found.field(name))}, "
                f"expected {described(expected.field(name))} as in {first.path}"
            )
    if columns is None and found.names != expected.names:
        raise SchemaError(
            f"{shard.path}: columns {', '.join(found.names)}, "
            f"expected {', '.join(expected.names)} as in {first.path}"
        )
