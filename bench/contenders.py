"""
Other ways to the same numbers, each as a function that gets ready and returns what is timed.

`seconds` are those of the returned function alone: imports, regexes and databases are compiled
before. All read the same shards, decode them and count, on as many threads as they are given;
where Python's lock would have them wait for each other, in as many processes. `kernel` and those
`in_memory` decode before they are timed.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import patterns, runs
from bench.answers import add, names_of
from curate.lexicon import load

if TYPE_CHECKING:
    from curate.features import Measured

BATCH_ROWS = 128
Answers = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The text to count in: of each shard all rows, or its first `rows`."""

    shards: tuple[str, ...]
    rows: int | None
    threads: int


def timed(
    contender: str, shards: list[str], rows: int | None = None, *, threads: int
) -> dict[str, Any]:
    """A job: the answers of a contender, and its seconds."""
    run = globals()[contender](Work(shards=tuple(shards), rows=rows, threads=threads))
    told: dict[str, Any] = {}
    with runs.clock(told):
        told["answers"] = run()
    return told


def batches(shard: str, rows: int | None = None) -> Iterator[pa.Array]:
    """The traces of a shard, a few at a time, as `curate.reading` reads them."""
    with pq.ParquetFile(shard, pre_buffer=False, buffer_size=1 << 20) as file:
        found = (
            batch.column(0)
            for batch in file.iter_batches(BATCH_ROWS, columns=["trace"], use_threads=False)
        )
        if rows is None:
            yield from found
            return
        for first, batch in zip(range(0, rows, BATCH_ROWS), found, strict=False):
            yield batch.slice(0, rows - first)


def decode_pyarrow(work: Work) -> Callable[[], Answers]:
    """Decoding and nothing else: the floor."""
    return partial(over_shards, work, _bytes_of, ThreadPoolExecutor(work.threads))


def _bytes_of(shard: str, rows: int | None) -> Answers:
    return {"bytes": sum(pc.sum(pc.binary_length(b)).as_py() for b in batches(shard, rows))}


def decode_polars(work: Work) -> Callable[[], Answers]:
    """The same by polars' own reader, streaming."""
    import polars as pl

    total = pl.scan_parquet(list(work.shards)).select(pl.col("trace").str.len_bytes().sum())
    return lambda: {"bytes": total.collect(engine="streaming").item()}


def decode_duckdb(work: Work) -> Callable[[], Answers]:
    """The same by DuckDB."""
    import duckdb

    connection = duckdb.connect(config={"threads": work.threads})
    query = "SELECT sum(strlen(trace)) FROM read_parquet(?)"
    shards = list(work.shards)
    return lambda: {"bytes": int(connection.execute(query, [shards]).fetchall()[0][0])}


def kernel(work: Work) -> Callable[[], Answers]:
    """`curate`'s own finding and counting of traces in text that is decoded already."""
    from curate.features import Measurer, warm_up
    from curate.layout import plain
    from curate.traces import TraceReader

    measurer, reader = Measurer(load("default")), TraceReader(plain("trace"))
    decoded = [batch for shard in work.shards for batch in batches(shard, work.rows)]
    held = [pa.record_batch([batch], ["trace"]) for batch in decoded]
    names = [field.name for field in measurer.fields]
    wanted = [names.index(name) for name in names_of(measurer.categories)]
    warm_up(measurer)
    pool = ThreadPoolExecutor(work.threads)

    def count(batch: pa.RecordBatch) -> "Measured":
        return measurer.measure(reader.read(batch))

    def run() -> Answers:
        columns = measurer.features(list(pool.map(count, held)))
        return {names[n]: pc.sum(columns[n]).as_py() for n in wanted}

    return run


def counts_polars(work: Work) -> Callable[[], Answers]:
    """Expressions as a user of polars would write them, given these definitions."""
    import polars as pl

    trace, step = pl.col("trace"), pl.element().str
    regexes = patterns.category_regexes(load("default"))
    split = trace.str.split(patterns.BLANK_LINE, literal=False)
    branch = patterns.rust(regexes["branch"])
    counts = {
        "bytes": trace.str.len_bytes(),
        "steps": split.list.eval(step.contains(patterns.NOT_BLANK)).list.sum(),
        "branch_steps": split.list.eval(step.contains(branch)).list.sum(),
        **{f"{c}_markers": trace.str.count_matches(patterns.rust(r)) for c, r in regexes.items()},
    }
    measured = pl.scan_parquet(list(work.shards)).select(**counts).sum()
    return lambda: measured.collect(engine="streaming").row(0, named=True)


def counts_re(work: Work) -> Callable[[], Answers]:
    """The standard library."""
    return partial(over_shards, work, _re_of, _processes(work, _compiled))


def _re_of(shard: str, rows: int | None) -> Answers:
    texts = [text for batch in batches(shard, rows) for text in batch.to_pylist()]
    return add(map(_re_counts, texts))


def _re_counts(text: str) -> Answers:
    regexes = _compiled()
    steps = [s for s in re.split(patterns.BLANK_LINE, text) if re.search(patterns.NOT_BLANK, s)]
    return {
        "steps": len(steps),
        "branch_steps": sum(bool(regexes["branch"].search(step)) for step in steps),
        **{f"{c}_markers": sum(1 for _ in r.finditer(text)) for c, r in regexes.items()},
    }


@cache
def _compiled() -> dict[str, re.Pattern[str]]:
    found = patterns.category_regexes(load("default"))
    return {c: re.compile(regex, re.ASCII | re.IGNORECASE) for c, regex in found.items()}


def re_in_memory(work: Work) -> Callable[[], Answers]:
    """The standard library on text that is decoded already, on one thread."""
    texts = [t for shard in work.shards for b in batches(shard, work.rows) for t in b.to_pylist()]
    _re_counts("wait")
    return lambda: add(map(_re_counts, texts))


def markers_hyperscan(work: Work) -> Callable[[], Answers]:
    """All categories in one pass; steps are not asked of it, as a regex cannot tell them apart."""
    ready = partial(_hyperscan_counts, joined(pa.array(["wait"])))
    return partial(over_shards, work, _hyperscan_of, _processes(work, ready))


def _hyperscan_of(shard: str, rows: int | None) -> Answers:
    return add(map(_hyperscan_counts, map(joined, batches(shard, rows))))


def hyperscan_in_memory(work: Work) -> Callable[[], Answers]:
    """The same on text that is decoded and joined already, on one thread."""
    texts = [joined(batch) for shard in work.shards for batch in batches(shard, work.rows)]
    _hyperscan_counts(joined(pa.array(["wait"])))
    return lambda: add(map(_hyperscan_counts, texts))


@cache
def _database() -> tuple[Any, list[tuple[int, int, bool]], list[str]]:
    import hyperscan

    lexicon = load("default")
    expressions, facts = patterns.hyperscan_expressions(lexicon)
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(expressions=expressions, flags=hyperscan.HS_FLAG_CASELESS)
    return database, facts, [f"{name}_markers" for name in lexicon.category_names]


def joined(batch: pa.Array) -> pa.Buffer:
    """A batch's traces with blank lines between, to be one call: one for each would cost more."""
    return pc.binary_join(pa.ListArray.from_arrays([0, len(batch)], batch), "\n\n")[0].as_buffer()


def _hyperscan_counts(text: pa.Buffer) -> Answers:
    database, facts, names = _database()
    spans: list[list[tuple[int, int]]] = [[] for _ in names]

    def note(number: int, _start: int, end: int, _flags: int, _context: object) -> None:
        category, size, at_start = facts[number]
        if not at_start or _opens_step(text, end - size):
            spans[category].append((end - size, -end))

    database.scan(text, match_event_handler=note)
    return {name: _without_overlaps(found) for name, found in zip(names, spans, strict=True)}


def _opens_step(text: pa.Buffer, start: int) -> bool:
    """Whether a place stands behind a blank line, or only blanks."""
    before = text[max(0, start - 256) : start].to_pybytes()
    blanks = before[len(before.rstrip(b"\t\n\v\f\r ")) :]
    return blanks.count(b"\n") > 1 or len(blanks) == start


def _without_overlaps(spans: list[tuple[int, int]]) -> int:
    """How many are left if the leftmost is taken, then the longest; ends are negated to sort so."""
    spans.sort()
    count = free = 0
    for start, negated_end in spans:
        if start >= free:
            count, free = count + 1, -negated_end
    return count


def over_shards(work: Work, count: Callable[[str, int | None], Answers], pool: Executor) -> Answers:
    """The sum of what `count` says of each shard."""
    with pool:
        return add(pool.map(count, work.shards, [work.rows] * len(work.shards)))


def _processes(work: Work, get_ready: Callable[[], object]) -> ProcessPoolExecutor:
    """Forked once all is compiled, which they inherit, and started: neither is timed."""
    get_ready()
    pool = ProcessPoolExecutor(work.threads, mp_context=get_context("fork"))
    list(pool.map(abs, range(work.threads)))
    return pool
