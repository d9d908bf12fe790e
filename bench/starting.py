"""
`python -m bench start`: what a run costs before its first row.

Help should cost what importing click costs; ten rows show the libraries and the cached kernels;
without a cache, the kernels are compiled first; a dry run opens every shard's footer.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import corpora, runs
from bench.report import Result, Target, row
from bench.runs import BenchError, Ran
from bench.scanning import scan
from bench.settings import QUICK_GB, Settings

SHARDS, QUICK_SHARDS = 20_000, 200
CLICK, HELP, TEN, COLD, DRY = (
    "import click",
    "curate --help",
    "ten rows",
    "ten rows, nothing compiled",
    "dry run",
)
SHOWS = {
    CLICK: "the least that a command line on click can take",
    HELP: "that help loads no library beside click",
    TEN: "what every run costs, whatever its size",
    COLD: "what the first run after an installation costs",
    DRY: "what many shards cost before the first is read: all footers are read and checked",
}


def run(settings: Settings) -> Result:
    """Every start, one after the other; the first two in pairs."""
    corpus = corpora.Corpus(kind="repeated", gb=QUICK_GB, shards=1)
    folder = corpora.ready(corpus, settings.cache)
    count = QUICK_SHARDS if settings.quick else SHARDS
    many = _many(settings, folder, count)
    ten = partial(_ten_rows, folder, settings)
    ran = runs.rounds(
        {CLICK: _import_click, HELP: partial(runs.curate, "--help")}, _times(settings, 9)
    )
    if not settings.quick:
        ten()  # compiles what is not yet
    ran |= runs.rounds({TEN: ten}, _times(settings, 5))
    ran |= runs.rounds({COLD: partial(_cold, ten)}, _times(settings, 3))
    ran |= runs.rounds({DRY: partial(_dry_run, many, settings, count)}, _times(settings, 3))
    rows = [row(what, SHOWS[what], ran[what]) for what in SHOWS]
    facts = {"shards of the dry run": count}
    return Result(bench="start", title="start", facts=facts, rows=rows, targets=_targets(ran))


def _times(settings: Settings, times: int) -> int:
    return 1 if settings.quick else times


def _import_click() -> Ran:
    return runs.command([sys.executable, "-c", "import click"])


def _ten_rows(folder: Path, settings: Settings, **environment: str) -> Ran:
    out = settings.out("start")
    ran = scan(folder, out, settings.threads, "--limit", 10, **environment)
    if ran.answer["rows"] != 10:
        raise BenchError(f"{out}: expected 10 rows, found {ran.answer['rows']}")
    return ran


def _cold(ten: Callable[..., Ran]) -> Ran:
    with TemporaryDirectory() as fresh:
        return ten(NUMBA_CACHE_DIR=fresh)


def _dry_run(many: Path, settings: Settings, count: int) -> Ran:
    ran = scan(many, settings.out("start-dry"), settings.threads, "--dry-run")
    if ran.answer["shards"] != count:
        raise BenchError(f"{many}: expected {count} shards, found {ran.answer['shards']}")
    return ran


def _many(settings: Settings, folder: Path, count: int) -> Path:
    """Many small shards: ten rows under as many names."""
    small = settings.cache / "small" / "ten.parquet"
    small.parent.mkdir(parents=True, exist_ok=True)
    (shard,) = corpora.shards_of(folder)
    runs.job("bench.starting:first_rows", shard=shard, out=str(small), rows=10)
    return corpora.linked(str(small), settings.cache / "many", count)


def first_rows(shard: str, out: str, rows: int, threads: int) -> dict[str, int]:
    """A job: a shard's first rows as a shard."""
    import polars as pl

    del threads
    pl.scan_parquet(shard).head(rows).collect().write_parquet(out)
    return {"rows": rows}


def _targets(ran: dict[str, list[Ran]]) -> list[Target]:
    def middle(what: str) -> float:
        return sorted(r.seconds for r in ran[what])[len(ran[what]) // 2]

    return [
        Target(name=f"{HELP} - {CLICK}, s", value=middle(HELP) - middle(CLICK), limit=0.2),
        Target(name=f"{TEN}, s", value=middle(TEN), limit=2),
        Target(name=f"{COLD}, s", value=middle(COLD), limit=12),
    ]
