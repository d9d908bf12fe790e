"""A corpus opened for a run: its shards, what their footers say, and how many rows to take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.fs as pafs

from curate import manifest
from curate.buffers import is_text
from curate.corpus import Shard, find_corpus, reopen
from curate.errors import ShardError
from curate.fitting import detect, fault, usual
from curate.footers import (
    Footer,
    Indexes,
    RowGroup,
    json_footer,
    read_footers,
    read_indexes,
    text_column,
)
from curate.layout import Layout, Where, from_dict, plain, with_answer
from curate.reading import read_sample, read_schema
from curate.skipping import Skipped, Skips
from curate.units import Columns, limited


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """
    A corpus opened and checked: the shards that hold rows to take, and how many of each.

    `detected` says which layout was detected, and why.
    """

    shards: tuple[Shard, ...]
    footers: tuple[Footer, ...]
    rows: tuple[int, ...]
    schema: pa.Schema
    layout: Layout
    columns: Columns
    other_files: int
    detected: str | None = None

    @property
    def trace_bytes(self) -> int:
        """Uncompressed bytes of what the traces are in, of the rows to take."""
        return self.bytes_of(range(len(self.shards)), "trace_bytes")

    @property
    def all_bytes(self) -> int:
        """Uncompressed bytes of all columns, of the rows to take."""
        return self.bytes_of(range(len(self.shards)), "all_bytes")

    def bytes_of(self, shards: Iterable[int], size: str) -> int:
        """The same of some shards; `size` is the name of a row group's."""
        total = 0
        for shard in shards:
            footer = self.footers[shard]
            held = sum(getattr(group, size) for group in footer.row_groups)
            total += held * self.rows[shard] // max(1, footer.rows)
        return total


def open_source(
    corpora: Sequence[str],
    where: Where,
    columns: Columns,
    *,
    beside: Sequence[str] = (),
    split: str | None,
    limit: int | None,
    whole_rows: bool,
    skips: Skips,
    memory: int | None = None,
) -> Source:
    """
    Find and check a corpus; with `whole_rows` all its columns must agree between shards.

    `beside` are columns that it must have beside those that are measured; `memory` bounds what
    looking at lines of JSON takes, None for most of what is free.

    Shards that cannot be read are added to `skips`, or raised.
    """
    corpus = find_corpus(corpora, split=split)
    given = where.given()
    text = None if given is None else text_column(given)
    indexes = read_indexes(corpus.shards, text, skips, memory)
    layout, detected = _layout(where, given, corpus.shards, indexes, memory)
    if where.answer is not None:
        layout = with_answer(layout, where.answer)
    if columns.correct is None:
        columns = replace(columns, correct=layout.correct)
    footers = read_footers(
        corpus.shards,
        layout,
        [*columns.each(), *beside],
        whole_rows=whole_rows,
        skips=skips,
        indexes=indexes,
    )
    prompt = layout.prompt
    if columns.problem is None and prompt is not None:
        if is_text(footers.schema.field(prompt).type):
            columns = replace(columns, problem=prompt)
    rows = limited(footers.each, limit)
    # Behind the limit no shard is looked at; an empty one before it still is one of the corpus.
    last = max((n for n, taken in enumerate(rows) if taken), default=-1) + 1
    count = len(rows) if limit is None else max(1, last)
    skips.limit(rows[:count])
    skips.check()
    return Source(
        shards=corpus.shards[:count],
        footers=footers.each[:count],
        rows=tuple(rows[:count]),
        schema=footers.schema,
        layout=layout,
        columns=columns,
        other_files=corpus.other_files,
        detected=detected,
    )


def _layout(
    where: Where,
    given: Layout | None,
    shards: Sequence[Shard],
    indexes: Indexes,
    memory: int | None,
) -> tuple[Layout, str | None]:
    """The layout asked for or detected, and the line that tells of what was detected."""
    if given is not None and where.preset is None:
        return given, None
    for shard in shards:
        if shard.is_json:
            continue
        try:
            schema = read_schema(shard)
            if (layout := _by_names(given, schema)) is not None:
                return layout, None
            sample = read_sample(shard, memory=memory)
            if sample.num_rows:  # or the next one may tell more
                return detect(schema, sample, shard.path)
        except ShardError:  # said where all footers are read
            continue
    return _layout_of_lines(given, shards, indexes)


def _by_names(given: Layout | None, schema: pa.Schema) -> Layout | None:
    """The layout, where names of columns tell it and no text has to be looked at."""
    if given is not None:
        return usual(given, schema)
    return plain("trace") if fault(plain("trace"), schema) is None else None


def _layout_of_lines(
    given: Layout | None, shards: Sequence[Shard], indexes: Indexes
) -> tuple[Layout, str | None]:
    """The same where all that can be read is JSON Lines: a file may lack what others have."""
    schema, wrong = indexes.unify(shards)
    for number, index in indexes.each.items():
        if number not in wrong and index.rows:
            if (layout := _by_names(given, schema)) is not None:
                return layout, None
            sample = read_sample(shards[number], json_footer(index, schema))
            return detect(schema, sample, shards[number].path)
    return given or plain("trace"), None


def reopen_source(
    record: manifest.Manifest,
    skips: Skips,
    beside: Sequence[str] = (),
    memory: int | None = None,
) -> Source:
    """
    The corpus of a scan, unless it changed since: that is always an error.

    What the scan left out is added to `skips`, and its shards are not looked at. Nor are those that
    cannot be read any more, if the run goes on without them.
    """
    columns = Columns(**record["config"]["columns"])
    layout = from_dict(record["config"]["layout"], "the scan's manifest")
    skips.know(Skipped(**skipped) for skipped in record["skipped"])
    stand_ins = dict(enumerate(map(_stand_in, record["shards"])))
    shards: dict[int, Shard] = {}
    for number, old in enumerate(record["shards"]):
        if None not in skips.in_shard(number):
            try:
                shards[number] = reopen(old["name"], old["path"])
            except ShardError as error:
                _lose(skips, number, old["rows"], error)
    lost = Skips(skips.on_error)
    found = read_footers(
        list(shards.values()),
        layout,
        [*columns.each(), *beside],
        whole_rows=True,
        skips=lost,
        memory=memory,
    )
    for (number, shard), footer in zip(shards.items(), found.each, strict=True):
        old = record["shards"][number]
        if footer.digest and (old["size"], old["footer_sha256"]) != (shard.size, footer.digest):
            raise ShardError(f"{shard.path}: changed since the scan; scan it again")
        stand_ins[number] = shard, footer
    for one in lost.all():
        number = list(shards)[one.shard]
        stand_ins[number] = _stand_in(record["shards"][number])
        skips.know(
            [replace(one, stage="emit", shard=number, rows=record["shards"][number]["rows"])]
        )
    each = [stand_ins[number][1] for number in range(len(stand_ins))]
    return Source(
        shards=tuple(stand_ins[number][0] for number in range(len(stand_ins))),
        footers=tuple(each),
        rows=tuple(limited(each, record["config"]["limit"])),
        schema=found.schema,
        layout=layout,
        columns=columns,
        other_files=0,
    )


def _lose(skips: Skips, number: int, rows: int, error: ShardError) -> None:
    """Do without a shard that is gone, or raise why."""
    if not skips.on_error.quarantine:
        raise error
    skips.know([Skipped("emit", number, None, 0, rows, error.reason, str(error))])


def _stand_in(record: manifest.Manifest) -> tuple[Shard, Footer]:
    """A shard that is not looked at, as it was."""
    rows = record["rows"]
    groups = (RowGroup(rows, 0, 0),) if rows else ()
    shard = Shard(
        record["name"], record["path"], record["path"], record["size"], pafs.LocalFileSystem()
    )
    return shard, Footer(rows, groups, record["footer_sha256"])
