"""
`python -m bench scan`: what a scan costs above decoding, and beside other ways to its counts.

The floor is decoding the trace column and nothing else. A contender that is much slower runs on the
first shards, or on their first rows, only; it is the rate that is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import answers, corpora, runs
from bench.report import Result, Row, Target, row
from bench.runs import Ran
from bench.settings import Settings

FLOOR, WHOLE, SCAN = "pyarrow decodes", "curate scan", "curate scan, less ten rows"
STEPS, POLARS = "curate scan --steps", "polars counts"
SAMPLE = 2  # shards
REFERENCE = "bench.answers:against_reference"
REFERENCE_BYTES, QUICK_REFERENCE_BYTES = 100_000, 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A contender, its function, and the part of the corpus that it reads (None for all)."""

    what: str
    contender: str
    shows: str
    shards: int | None = None
    rows: int | None = None


CASES = (
    Case(
        what=FLOOR,
        contender="decode_pyarrow",
        shows="the floor: the trace column decoded the way a scan decodes it, and its bytes added",
    ),
    Case(
        what="polars decodes",
        contender="decode_polars",
        shows="whether another reader would lower the floor",
    ),
    Case(
        what="DuckDB decodes",
        contender="decode_duckdb",
        shows="the same of a third reader",
    ),
    Case(
        what="curate counts in memory",
        contender="kernel",
        shards=SAMPLE,
        shows="the counting alone, of text that is decoded already: what a faster kernel can win",
    ),
    Case(
        what=POLARS,
        contender="counts_polars",
        shards=SAMPLE,
        shows="the same steps, branch steps and markers by expressions, which is the obvious way",
    ),
    Case(
        what="Hyperscan counts markers",
        contender="markers_hyperscan",
        shards=SAMPLE,
        shows="the fastest library of regexes, called from Python: markers only, no steps",
    ),
    Case(
        what="Python re counts",
        contender="counts_re",
        shards=SAMPLE,
        rows=300,
        shows="the same counts by the standard library",
    ),
)


def run(settings: Settings) -> Result:
    """Check the scan's answer, then every contender's by the scan's, then time them in rounds."""
    folder = settings.corpus or corpora.ready(settings.text("repeated"), settings.cache)
    shards = corpora.shards_of(folder)
    out = settings.out("scan")
    checked = _checked_scan(settings, folder, shards[0], out)
    ran = _timed(settings, folder, shards, out)
    total = answers.totals(out)
    facts = {
        "corpus": str(folder.name if settings.corpus else corpora.source_name()),
        "text bytes": total["bytes"],
        "steps": total["steps"],
        "shards": len(shards),
        "threads": settings.threads,
        "rows checked against the reference": checked,
        "answers": "every contender's, on all that it reads",
    }
    title = settings.title("scan")
    pace = _pace(ran, out)
    rows = _rows(ran, pace, out)
    return Result(bench="scan", title=title, facts=facts, rows=rows, targets=_targets(pace))


def scan(folder: Path, out: Path, threads: int, *options: object, **environment: str) -> Ran:
    """The whole command."""
    arguments = (folder, "--out", out, "--threads", threads, "--overwrite", "--json", *options)
    return runs.curate("scan", *arguments, threads=threads, **environment)


def _checked_scan(settings: Settings, folder: Path, shard: str, out: Path) -> int:
    """Scan once, compile and fill caches by that, and compare with the reference."""
    scan(folder, out, settings.threads)
    size = QUICK_REFERENCE_BYTES if settings.quick else REFERENCE_BYTES
    ran = runs.job(REFERENCE, scanned=str(out), shard=shard, text_bytes=size)
    return int(ran.answer["rows"])


def _contend(case: Case, shards: Sequence[str], out: Path, threads: int) -> Ran:
    """One run of a contender, its answer checked."""
    ran = runs.job(
        "bench.contenders:timed",
        contender=case.contender,
        shards=shards[: case.shards],
        rows=case.rows,
        threads=threads,
    )
    answers.check(case.what, ran.answer["answers"], answers.totals(out, case.shards, case.rows))
    return ran


def _timed(
    settings: Settings, folder: Path, shards: Sequence[str], out: Path
) -> dict[str, list[Ran]]:
    threads, again = settings.threads, settings.out("scan-timed")
    cases = {
        WHOLE: partial(scan, folder, again, threads),
        "ten rows": partial(scan, folder, again, threads, "--limit", 10),
        STEPS: partial(scan, folder, settings.out("scan-steps"), threads, "--steps"),
    }
    for case in CASES:
        cases[case.what] = partial(_contend, case, shards, out, threads)
    ran = runs.rounds(cases, 1)
    if not settings.quick:  # the first round checked the answers and filled the caches
        ran = runs.rounds(cases, settings.pairs)
    ran[SCAN] = list(map(runs.difference, ran[WHOLE], ran.pop("ten rows")))
    return ran


def _read(out: Path) -> dict[str, int]:
    """Bytes of text that each contender reads."""
    read = {case.what: answers.totals(out, case.shards, case.rows)["bytes"] for case in CASES}
    return read | dict.fromkeys((WHOLE, SCAN, STEPS), answers.totals(out)["bytes"])


def _pace(ran: dict[str, list[Ran]], out: Path) -> dict[str, list[float]]:
    """Seconds for a byte, of each run."""
    read = _read(out)
    return {what: [r.seconds / read[what] for r in each] for what, each in ran.items()}


def _targets(pace: dict[str, list[float]]) -> list[Target]:
    def ratio(above: str, below: str, limit: float) -> Target:
        value = runs.paired_ratio(pace[above], pace[below])
        return Target(name=f"{above} / {below}", value=value, limit=limit)

    return [ratio(SCAN, FLOOR, 1.25), ratio(SCAN, POLARS, 0.2), ratio(STEPS, WHOLE, 1.3)]


def _rows(ran: dict[str, list[Ran]], pace: dict[str, list[float]], out: Path) -> list[Row]:
    read = _read(out)
    shows = {case.what: case.shows for case in CASES}
    shows[WHOLE] = "what a user waits for, from the shell: start, scan, features written"
    shows[SCAN] = "the same without what a scan of ten rows takes: the cost of the text"
    shows[STEPS] = "the same with the steps sidecar, a row for each step"
    cpu = {what: [r.cpu_seconds / read[what] for r in each] for what, each in ran.items()}
    ordered = [FLOOR, WHOLE, SCAN, STEPS, *(case.what for case in CASES[1:])]
    return [
        row(
            what,
            shows[what],
            ran[what],
            text_bytes=read[what],
            ratios={
                "/ decoding": runs.paired_ratio(pace[what], pace[FLOOR]),
                "CPU / decoding": runs.paired_ratio(cpu[what], cpu[FLOOR]),
                "/ scan": runs.paired_ratio(pace[what], pace[SCAN]),
            },
        )
        for what in ordered
    ]
