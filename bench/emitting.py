"""
`python -m bench emit`: what a dataset costs on top of a scan.

A scan with a selection, less the same scan without one, is what deciding, copying and compressing
the kept rows takes. Beside it, polars writes the very same rows, told which they are.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench import corpora, runs
from bench.report import Result, Target, row
from bench.runs import BenchError, Ran
from bench.scanning import scan
from bench.settings import Settings

BATCH_ROWS = 1024
SHARE = 0.9
LIMIT = 1.2
MEASURE, EMIT, MORE, POLARS = "scan", "scan --keep", "the difference", "polars sinks the kept rows"


def run(settings: Settings) -> Result:
    """Check that both wrote the same rows, then time them."""
    folder = settings.corpus or corpora.ready(settings.text("distinct"), settings.cache)
    plain, emitted = settings.out("emit-scan"), settings.out("emit-keep")
    threads = settings.threads
    scan(folder, plain, threads)
    keep = rule_keeping(plain, SHARE)
    emit = partial(scan, folder, emitted, threads, "--id", "id", "--keep", keep)
    sunk = settings.out("emit-polars")
    sink = partial(_sink, corpora.shards_of(folder), emitted, sunk, threads)
    cases = {MEASURE: partial(scan, folder, plain, threads), EMIT: emit, POLARS: sink}
    ran = runs.rounds(cases, 1)
    report = ran[EMIT][0].answer
    _check_same(emitted, sunk, report["kept"])
    if not settings.quick:
        ran = runs.rounds(cases, settings.pairs)
    ran[MORE] = list(map(runs.difference, ran[EMIT], ran[MEASURE]))
    facts = {"rule": keep, "rows": report["rows"], "kept": report["kept"], "threads": threads}
    return _result(settings, ran, facts)


def _result(settings: Settings, ran: dict[str, list[Ran]], facts: dict[str, Any]) -> Result:
    shows = {
        MEASURE: "the scan alone",
        EMIT: "the scan, and the kept rows as a dataset",
        MORE: "what emission costs: the second less the first of the same round",
        POLARS: "the same rows from the same shards by polars, at the same level of compression",
    }
    more, sunk = ([r.seconds for r in ran[name]] for name in (MORE, POLARS))
    ratio = runs.paired_ratio(more, sunk)
    return Result(
        bench="emit",
        title=settings.title("emit"),
        facts=facts,
        rows=[row(what, shows[what], ran[what]) for what in shows],
        targets=[Target(name="emission / polars", value=ratio, limit=LIMIT)],
    )


def rule_keeping(scanned: Path, share: float) -> str:
    """A rule by which about this share of a scan's rows is kept."""
    ran = runs.job("bench.emitting:quantile", scanned=str(scanned), share=share)
    return f"branch_frac <= {ran.answer['value']!r}"


def quantile(scanned: str, share: float, threads: int) -> dict[str, Any]:
    """A job: the branch fraction that this share of the rows does not exceed."""
    import polars as pl

    del threads
    features = pl.read_parquet(f"{scanned}/.curate/features/*.parquet")
    fraction = (features["branch_steps"] / features["steps"]).quantile(share, "lower")
    return {"value": fraction}


def _sink(shards: list[str], emitted: Path, out: Path, threads: int) -> Ran:
    return runs.job(
        "bench.emitting:sink", threads=threads, shards=shards, emitted=str(emitted), out=str(out)
    )


def sink(shards: list[str], emitted: str, out: str, threads: int) -> dict[str, Any]:
    """A job: the rows that a scan kept, by polars."""
    import polars as pl

    from curate.emit import COMPRESSION_LEVEL

    del threads
    selection = pl.scan_parquet(f"{emitted}/.curate/selection/*.parquet")
    kept = selection.filter("kept").select("id").collect().lazy()
    rows = pl.scan_parquet(shards).join(kept, on="id", how="semi", maintain_order="left")
    Path(out).mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {}
    with runs.clock(told):
        rows.sink_parquet(
            f"{out}/kept.parquet", compression="zstd", compression_level=COMPRESSION_LEVEL
        )
    return told


def _check_same(emitted: Path, sunk: Path, kept: int) -> None:
    ran = runs.job("bench.emitting:same_rows", emitted=str(emitted / "data"), sunk=str(sunk))
    if ran.answer["rows"] != kept:
        raise BenchError(f"{emitted}: {kept:,} rows kept, {ran.answer['rows']:,} found")


def same_rows(emitted: str, sunk: str, threads: int) -> dict[str, Any]:
    """A job: compare two datasets row by row, every byte; returns how many rows they hold."""
    del threads
    rows = 0
    for ours, theirs in zip(_rows(emitted), _rows(sunk), strict=True):
        if ours != theirs:
            raise BenchError(f"row {rows}: {ours['id']} here, {theirs['id']} by polars, or altered")
        rows += 1
    return {"rows": rows}


def _rows(folder: str) -> Iterator[dict[str, Any]]:
    for shard in corpora.shards_of(Path(folder)):
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                yield from batch.to_pylist()
