"""
`python -m bench memory`: the peak of a scan whose row groups are larger than it may hold.

Each shard is a single row group of 1.35 GB of text; readers that take a row group whole need twice
that. Ten such shards show that the peak does not grow with the corpus.
"""

from pathlib import Path

from bench import answers, corpora, runs
from bench.corpora import Corpus
from bench.emitting import rule_keeping
from bench.report import Result, Row, Target, row
from bench.scanning import QUICK_REFERENCE_BYTES, REFERENCE, scan
from bench.settings import QUICK_GB, Settings

GB = 1.35

CASES = ((1, None), (10, None), (1, "512MiB"), (10, "1GiB"))
"""Shards, and what `--memory` is told."""

LIMIT_MB = {None: 600, "512MiB": 537, "1GiB": 1074}


def run(settings: Settings) -> Result:
    """Check the counts of one shard and of ten, then report the peaks, with bounds and without."""
    gb = QUICK_GB if settings.quick else GB
    corpus = Corpus(kind="long", gb=gb, shards=1, codec=settings.codec)
    (shard,) = corpora.shards_of(corpora.ready(corpus, settings.cache))
    rows: list[Row] = []
    targets: list[Target] = []
    for count, memory in CASES:
        for each in _rows_of(settings, shard, count, memory):
            rows.append(each)
            name, limit = f"peak MB of {each.what}", LIMIT_MB[memory]
            targets.append(Target(name=name, value=each.peak_rss / 1e6, limit=limit))
    facts = {
        "text bytes of a shard": answers.totals(settings.out("memory-1"))["bytes"],
        "row groups of a shard": 1,
        "threads": settings.threads,
    }
    title = settings.title("memory")
    return Result(bench="memory", title=title, facts=facts, rows=rows, targets=targets)


def _rows_of(settings: Settings, shard: str, count: int, memory: str | None) -> list[Row]:
    """One corpus, measured and selected from; each runs once, as peaks hardly vary."""
    folder = corpora.linked(shard, settings.cache / "long-linked" / f"{count}", count)
    one, out, selected = (settings.out(f"memory-{n}") for n in (1, count, "keep"))
    bound = [] if memory is None else ["--memory", memory]
    measured = scan(folder, out, settings.threads, *bound)
    _check(out, one, shard, count)
    emitted = scan(folder, selected, settings.threads, *bound, "--keep", rule_keeping(one, 0.9))
    found = answers.totals(out)
    answers.check("scan --keep", answers.totals(selected), found)
    named = f"{count} shard" + "s" * (count > 1) + (f", --memory {memory}" if memory else "")
    shows = "whether a scan holds more than the batches at hand"
    return [
        row(f"scan of {named}", shows, [measured], text_bytes=found["bytes"]),
        row(f"scan --keep of {named}", f"{shows}, and emission more than a row group", [emitted]),
    ]


def _check(out: Path, one: Path, shard: str, count: int) -> None:
    """One shard's first rows are as the reference says; ten hold ten times what one holds."""
    if out == one:
        runs.job(REFERENCE, scanned=str(out), shard=shard, text_bytes=QUICK_REFERENCE_BYTES)
    expected = {name: value * count for name, value in answers.totals(one).items()}
    answers.check(f"scan of {count}", answers.totals(out), expected)
