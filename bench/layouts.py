"""
`python -m bench layouts`: what finding the traces costs, by where a corpus has them.

The same real traces in five shapes. Against a plain column stands a column of the same bytes that
is cut at tags; lists and structs stand against decoding the same leaf columns and no more.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import corpora, runs
from bench.report import Result, Row, Target, row
from bench.runs import Ran
from bench.settings import Settings

PLAIN, THINK = "plain", "think"
NESTED = ("openr1", "messages", "messages-reasoning-content")
STAGES = ("decode", "find", "measure")
LIMIT = 1.15
GROUP = 4
"""Generations of a problem in the shape of OpenR1."""

SHOWS = {
    "decode": "the leaf columns, decoded the way a scan decodes them",
    "find": "and the traces found in them",
    "measure": "and measured",
}


def run(settings: Settings) -> Result:
    """Make the shapes, then time every stage of each in rounds."""
    source = corpora.shards_of(corpora.ready(settings.text("repeated"), settings.cache))
    shapes = {shape: _ready(settings, source, shape) for shape in (THINK, *NESTED)}
    shapes[PLAIN] = shapes[THINK]
    cases = {
        f"{shape}: {stage}": partial(
            runs.job,
            "bench.layouts:timed",
            threads=settings.threads,
            shards=shards,
            shape=shape,
            stage=stage,
        )
        for shape, shards in shapes.items()
        for stage in STAGES
    }
    ran = runs.rounds(cases, 1 if settings.quick else settings.pairs + 1)
    ran = ran if settings.quick else {name: each[1:] for name, each in ran.items()}
    return Result(
        bench="layouts",
        title=settings.title("layouts"),
        facts={
            "corpus": corpora.source_name(),
            "text bytes": ran[f"{THINK}: decode"][0].answer["bytes"],
            "traces": ran[f"{THINK}: find"][0].answer["traces"],
            "threads": settings.threads,
        },
        rows=_rows(ran),
        targets=_targets(ran),
    )


def _targets(ran: dict[str, list[Ran]]) -> list[Target]:
    def target(above: str, below: str) -> Target:
        value = runs.paired_ratio(*([r.cpu_seconds for r in ran[name]] for name in (above, below)))
        return Target(name=f"{above} / {below}", value=value, limit=LIMIT)

    parsed = target(f"{THINK}: measure", f"{PLAIN}: measure")
    return [parsed, *(target(f"{shape}: find", f"{shape}: decode") for shape in NESTED)]


def _rows(ran: dict[str, list[Ran]]) -> list[Row]:
    rows = []
    for name, each in ran.items():
        shape, _, stage = name.partition(": ")
        decoding = [r.cpu_seconds for r in ran[f"{shape}: decode"]]
        ratio = runs.paired_ratio([r.cpu_seconds for r in each], decoding)
        size = each[0].answer["bytes"]
        rows.append(row(name, SHOWS[stage], each, text_bytes=size, ratios={"/ decode": ratio}))
    return rows


def _ready(settings: Settings, source: Sequence[str], shape: str) -> list[str]:
    """The shards of a shape, made once."""
    folder = Path(source[0]).parent.with_name(f"{Path(source[0]).parent.name}-{shape}")
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        for shard in source:
            _reshape(Path(shard), part / Path(shard).name, shape, settings.codec)
        part.rename(folder)
    return [str(path) for path in sorted(folder.glob("*.parquet"))]


def _reshape(source: Path, path: Path, shape: str, codec: str) -> None:
    writer = None
    with pq.ParquetFile(source) as file:
        for group in range(file.num_row_groups):
            table = _shaped(file.read_row_group(group, columns=["trace"]), shape)
            writer = writer or pq.ParquetWriter(
                path, table.schema, compression=codec, use_dictionary=False
            )
            writer.write_table(table, row_group_size=table.num_rows)
    assert writer is not None
    writer.close()


def _shaped(table: pa.Table, shape: str) -> pa.Table:
    """The traces as that shape has them, each with the same short answer."""
    traces = table["trace"].combine_chunks().fill_null("")
    tagged = pc.binary_join_element_wise("<think>\n", traces, "\n</think>\n\nThe answer is 42.", "")
    if shape == THINK:
        return pa.table({"response": tagged})
    count = len(traces)
    if shape == "openr1":
        whole = tagged.slice(0, count - count % GROUP)
        offsets = pa.array(range(0, len(whole) + 1, GROUP), pa.int32())
        facts = pa.ListArray.from_arrays(offsets, pa.repeat(True, len(whole)))
        lists = pa.ListArray.from_arrays(offsets, whole)
        return pa.table({"generations": lists, "is_reasoning_complete": facts})
    offsets = pa.array(range(0, 2 * count + 1, 2), pa.int32())
    turns = pa.array(["user", "assistant"] * count)
    order = pa.array([place for n in range(count) for place in (count, n)])
    asked = pa.array(["What is the answer?"])
    fields = {"role": turns}
    if shape == "messages":
        fields["content"] = pa.concat_arrays([tagged, asked]).take(order)
    else:
        fields["content"] = pa.array(["What is the answer?", "The answer is 42."] * count)
        none = pa.nulls(1, pa.string())
        fields["reasoning_content"] = pa.concat_arrays([traces, none]).take(order)
    messages = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    return pa.table({"messages": pa.ListArray.from_arrays(offsets, messages)})


def timed(shards: Sequence[str], shape: str, stage: str, threads: int) -> dict[str, Any]:
    """A job: decode, find or measure the traces of some shards; seconds, bytes, traces."""
    from curate.features import Measurer, warm_up
    from curate.layout import plain, preset
    from curate.lexicon import load
    from curate.traces import TraceReader

    layout = plain("response") if shape == PLAIN else preset(shape)
    reader, measurer = TraceReader(layout), Measurer(load("default"))
    warm_up(measurer)
    reader.read(next(_batches(shards[0], layout.leaves())), check=False)  # so that it is loaded

    def work(shard: str) -> tuple[int, int]:
        size = count = 0
        for batch in _batches(shard, layout.leaves()):
            size += batch.nbytes
            if stage != "decode":
                found = reader.read(batch, check=False)  # as a scan does
                count += len(found)
            if stage == "measure":
                measurer.measure(found)
        return size, count

    told: dict[str, Any] = {}
    with runs.clock(told), ThreadPoolExecutor(threads) as pool:
        each = list(pool.map(work, shards))
    return told | {"bytes": sum(one[0] for one in each), "traces": sum(one[1] for one in each)}


def _batches(shard: str, leaves: list[str]) -> Iterator[pa.RecordBatch]:
    """The batches of a shard, as a scan reads them."""
    from curate.corpus import find_corpus
    from curate.footers import Footer, RowGroup
    from curate.rawfooter import read_footer
    from curate.reading import open_shard

    (found,) = find_corpus([shard]).shards
    raw = read_footer(found)
    groups = tuple(RowGroup(group.rows, group.all_bytes, group.all_bytes) for group in raw.groups)
    footer = Footer(sum(group.rows for group in groups), groups, raw.digest)
    with open_shard(found, footer, leaves) as opened:
        for number in range(len(groups)):
            rows, _ = opened.plan([number], 1)
            yield from opened.batches([number], rows)
