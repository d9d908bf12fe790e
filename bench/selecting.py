"""
`python -m bench select`: deciding on features alone, for a million rows and for fifty million.

The features are drawn, not measured: as many distinct fractions, problems and teachers as a corpus
would have. Fifty files are one under fifty names.
"""

import shutil
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from bench import answers, corpora, runs
from bench.report import Result, Row, Target, row
from bench.runs import Ran
from bench.settings import Settings

FILE_ROWS, QUICK_FILE_ROWS = 1_000_000, 10_000
FILES = (1, 50)
LIMIT = 1.0
EXACT = ("rows", "kept")
RULE: dict[str, Any] = {
    "keep": "correct AND steps >= 3",
    "drop_top": "0.1",
    "rank_by": "branch_frac",
}


def run(settings: Settings) -> Result:
    """Check the cut against a plain one, and time both sizes."""
    rows = QUICK_FILE_ROWS if settings.quick else FILE_ROWS
    place = settings.cache / f"features-{rows}"
    shutil.rmtree(place, ignore_errors=True)
    expected = runs.job("bench.selecting:draw", folder=str(place), rows=rows).answer
    drawn = place / "drawn.parquet"
    found = [_row(settings, rows, files, drawn, expected[str(files)]) for files in FILES]
    facts = {**RULE, "within": "teacher", "variance between": "problems"}
    target = Target(name=f"s for {found[0].what}", value=median(found[0].seconds), limit=LIMIT)
    return Result(bench="select", title="select", facts=facts, rows=found, targets=[target])


def _row(settings: Settings, rows: int, files: int, drawn: Path, kept: int) -> Row:
    """One size; the larger one runs once."""
    folder = corpora.linked(str(drawn), drawn.parent / str(files), files)
    times = 5 if files == 1 and not settings.quick else 1
    ran = [_decided(settings, folder, rows * files, kept) for _ in range(times)]
    what = f"{rows * files:,} rows in {files} file" + "s" * (files > 1)
    return row(what, "whether trying another rule is a matter of seconds", ran)


def _decided(settings: Settings, folder: Path, rows: int, kept: int) -> Ran:
    out = settings.out("select")
    shutil.rmtree(out, ignore_errors=True)
    ran = runs.job(
        "bench.selecting:decide", folder=str(folder), out=str(out), threads=settings.threads
    )
    answers.check(str(folder), {n: ran.answer[n] for n in EXACT}, {"rows": rows, "kept": kept})
    return ran


def decide(folder: str, out: str, threads: int) -> dict[str, Any]:
    """A job: what `curate select` does between opening the features and writing the dataset."""
    import pyarrow.parquet as pq

    from curate.deciding import decide_all
    from curate.featurefiles import FeatureFiles
    from curate.selection import Selection, bind
    from curate.summary import new_cut
    from curate.thresholds import with_thresholds

    del threads
    told: dict[str, Any] = {}
    with runs.clock(told):
        files = sorted(Path(folder).glob("*.parquet"))
        schema = pl.DataFrame(pq.read_schema(files[0]).empty_table()).schema
        features = FeatureFiles(files)
        decider = with_thresholds(bind(Selection(within=("teacher",), **RULE), schema), features)
        cut = new_cut(["teacher"], "branch_frac", with_problem=True)
        decide_all(decider, features, Path(out), cut)
    return told | {"rows": cut.rows, "kept": cut.kept}


def draw(folder: str, rows: int, threads: int) -> dict[str, Any]:
    """A job: write a features sidecar of drawn values; returns what the rule keeps, by FILES."""
    from curate.features import measured_fields
    from curate.lexicon import load
    from curate.sidecars import ParquetSink
    from curate.units import Columns, features_schema

    del threads
    columns = Columns(id="id", problem="problem", teacher="teacher", correct="correct")
    texts = pa.schema([(name, pa.string()) for name in ("id", "problem", "teacher")])
    corpus = texts.append(pa.field("correct", pa.bool_()))
    schema = features_schema(corpus, columns, measured_fields(load("default").category_names))
    drawn = _drawn(rows)
    missing = {f.name: np.zeros(rows, np.int32) for f in schema if f.name not in drawn}
    missing["verdict"] = pa.array(["ok"] * rows)
    table = pa.table({name: (drawn | missing)[name] for name in schema.names}).cast(schema)
    Path(folder).mkdir(parents=True)
    sink = ParquetSink(Path(folder) / "drawn.parquet", schema)
    sink.write(table)
    sink.close()
    return {str(files): _kept(pl.DataFrame(table), files) for files in FILES}


def _drawn(rows: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    steps = draw.geometric(1 / 45, rows)
    branch_steps = draw.binomial(steps, draw.beta(1, 12, rows))
    teachers = pa.array(["R1", "QwQ", "gpt-oss", "Claude"])
    return {
        "shard": pa.array(["train-00000.parquet"] * rows),
        "row": np.arange(rows),
        "id": pa.array([f"trace-{n:09d}" for n in range(rows)]),
        "problem": pa.array([f"problem-{n}" for n in draw.integers(0, max(1, rows // 8), rows)]),
        "teacher": teachers.take(pa.array(draw.integers(0, 4, rows))),
        "correct": draw.random(rows) < 0.7,
        "verdict": pa.array(["ok"] * rows),
        "bytes": steps * 130,
        "answer_bytes": pa.nulls(rows, pa.int64()),
        "steps": steps,
        "unique_steps": pa.nulls(rows, pa.int32()),
        "branch_steps": branch_steps,
        "branch_frac": (branch_steps / steps).astype(np.float32),
        "first_branch": pa.nulls(rows, pa.float32()),
    }


def _kept(features: pl.DataFrame, files: int) -> int:
    """The rows that RULE keeps of so many such files: those not above the first that cannot go."""
    left = features.filter(pl.col("correct") & (pl.col("steps") >= 3))
    kept = 0
    for _, stratum in left.group_by("teacher"):
        values = np.sort((stratum["branch_steps"] / stratum["steps"]).to_numpy())[::-1]
        threshold = values[len(values) * files // 10 // files]
        kept += files * int((values <= threshold).sum())
    return kept
