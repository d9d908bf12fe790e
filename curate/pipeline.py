"""
The main path: corpus -> features -> selection -> dataset. Read this first.

A scan measures every trace into `.curate/features/` and, given a selection, goes on as `select`
does: decide on the features alone, then copy the kept rows out of the corpus. Each step leaves on
record what is whole, and skips what is on record already.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import astuple, replace
from typing import Any

import polars as pl
import pyarrow as pa

from curate import card, journal, manifest, output
from curate.deciding import KeptRows, decide_all
from curate.deriving import Deriving
from curate.emit import Emission, Extra
from curate.errors import CurateError
from curate.facts import with_facts
from curate.featurefiles import FeatureFiles, file_chunks
from curate.features import Measurer, parse_delimiter
from curate.formats import converter
from curate.measuring import Measuring
from curate.memory import check_bound
from curate.planning import Asked, Plan
from curate.run import Report, Run, Running, report_again, report_of
from curate.selection import Decider
from curate.shardplan import Stretch, plan_shards
from curate.sidecars import ParquetSink
from curate.status import forget
from curate.summary import Cut, new_cut
from curate.thresholds import with_thresholds
from curate.trainerfiles import write_configuration
from curate.trainers import COLUMNS
from curate.verdicts import QUARANTINED
from curate.wholefile import sync_all


def run_plan(plan: Plan, running: Running) -> Report:
    """Do what was planned; goes on where the same run was stopped before."""
    began = time.monotonic()
    with ExitStack() as held:
        if plan.scanned != plan.folder:
            held.enter_context(output.reading(plan.scanned))
        held.enter_context(output.writing(plan.folder))
        if done := output.finished(plan.folder, plan.record, overwrite=plan.overwrite):
            return report_again(plan, done)
        if running.memory is not None:
            check_bound(running.memory)
        history = output.begin(plan.folder, plan.record, overwrite=plan.overwrite)
        run = Run(plan, history, running)
        with run.journaled():
            if plan.asked is not None:
                _measure(plan.asked, run)
            _derive(run)
            if plan.decider is None:
                return _finish(run, began, None, None)
            return _select(plan.decider, run, began)


def _measure(asked: Asked, run: Run) -> None:
    source = run.source
    todo = [shard for shard in range(len(source.shards)) if shard not in run.measured]
    if todo:
        measurer = Measurer(
            asked.lexicon,
            parse_delimiter(asked.delimiter),
            steps=asked.steps,
            repeats=asked.repeats,
        )
        with run.progress("scan", source.bytes_of(todo, "trace_bytes")) as progress:
            Measuring(
                run.folder / ".curate",
                source.shards,
                source.footers,
                source.rows,
                source.layout,
                source.columns,
                run.schema,
                measurer,
                progress,
                run.skips,
                run.memory,
                run.note_measured,
                steps=asked.steps,
            ).run(run.threads, todo)
    for shard, rows in enumerate(source.rows):
        found = run.measured[shard][f"features/{shard:05d}.parquet"].rows
        if found < rows or (found > rows and not source.layout.elements):
            path = source.shards[shard].path
            raise CurateError(f"{path}: {rows:,} rows to measure but {found:,} measured")


def _derive(run: Run) -> None:
    """Compute what was asked for beside the features."""
    source, facts = run.source, run.facts
    with facts.ready(source.layout, source.columns, run.threads) as asked:
        todo = [fact for fact in asked if fact.name not in run.derived]
        if todo:
            with run.progress("derive", source.trace_bytes) as progress:
                folder = run.folder / ".curate" / "derived"
                measured = run.features().files
                deriving = Deriving(folder, source, todo, progress, run.skips, run.memory, measured)
                files = deriving.run(run.threads)
            for name, file in files.items():
                run.note_derived(name, file)
    for name, file in run.derived.items():
        if file.rows != run.rows:
            what = f"{run.rows:,} rows measured but {file.rows:,} of {name}"
            raise CurateError(f"{run.folder}: {what}")


def _select(decider: Decider, run: Run, began: float) -> Report:
    """From features to a dataset: decide, then copy the kept rows."""
    while True:  # again, with other rows, where some that were kept turn out not to be readable
        left_out = {
            shard: list(skipped.values())
            for shard in range(len(run.source.shards))
            if (skipped := run.skips.in_shard(shard, ["derive", "emit"]))
        }
        features = replace(run.features(), left_out=left_out)
        bound = with_thresholds(decider, features)
        cut = _decide(bound, features, run)
        run.record["data"] = _emit(run, cut)
        if run.record["data"] is not None:
            return _finish(run, began, cut, bound.strata)
        shutil.rmtree(output.staging(run.folder))


def _decide(decider: Decider, features: FeatureFiles, run: Run) -> Cut:
    """Write down which rows are kept, and check the account of it."""
    cut = _new_cut(decider, run.record)
    if run.facts.benchmarks is not None:
        cut.items = len(run.facts.benchmarks.items)
    files = decide_all(decider, features, run.selected, cut)
    selected = {f"selection/{name}": file.as_dict() for name, file in files.items()}
    if decider.strata is not None:
        table = decider.strata.to_arrow()
        sink = ParquetSink(run.folder / ".curate" / "strata.parquet", table.schema)
        sink.write(table)
        selected["strata.parquet"] = sink.close().as_dict()
    run.record["selected"] = selected
    if cut.rows != run.rows:
        raise CurateError(f"{run.folder}: {run.rows:,} rows read but {cut.rows:,} decided")
    if decider.strata is not None:
        dropped = int(decider.strata["dropped"].sum())
        if dropped != cut.rejected.get(decider.cut, 0):
            raise CurateError(
                f"{run.folder}: {dropped:,} rows are above their thresholds, not dropped"
            )
    return cut


def _emit(run: Run, cut: Cut) -> dict[str, Any] | None:
    """Copy the kept rows; the records of the files by name, None where some cannot be read."""
    source, folder = run.source, run.folder
    layout = source.layout
    kept_rows = KeptRows(run.features(), run.selected, elements=layout.elements)
    known = with_facts(run.schema, [*run.known, *run.derived])
    extra = _extra(run.record["config"]["annotate"], kept_rows, known)
    plan = plan_shards(source.footers, kept_rows, run.record["config"]["shard_bytes"])
    run.record["decisions"] = _decisions(run, plan)
    done = run.emitting_of(run.record["decisions"])
    left = cut.kept - sum(file.rows for file in done.values())
    with run.progress("emit", int(source.all_bytes * left / max(1, cut.rows))) as progress:
        files = Emission(
            output.staging(folder),
            source.shards,
            source.footers,
            source.schema,
            [layout.column] if run.form.format == "original" else COLUMNS[run.form.format],
            converter(run.form, layout, source.schema, source.columns.problem),
            kept_rows,
            extra,
            progress,
            run.skips,
            run.memory,
        ).run(plan, run.threads, done, run.note_emitted)
    if files is None:
        return None
    written = sum(file.rows for file in files.values())
    if written != cut.kept:
        raise CurateError(f"{folder}: {cut.kept:,} rows kept but {written:,} written")
    output.publish(folder, files)
    return {name: file.as_dict() for name, file in files.items()}


def _decisions(run: Run, plan: Sequence[Sequence[Stretch]]) -> str:
    """A digest of which rows go where: files written for another one are not of this dataset."""
    told = [run.record["selected"], [[astuple(stretch) for stretch in file] for file in plan]]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _finish(run: Run, began: float, cut: Cut | None, strata: pl.DataFrame | None) -> Report:
    """Write down what was done; the card of a dataset comes last."""
    record, skipped = run.record, run.skips.all()
    verdicts = _verdicts(run) if cut is None else Counter(cut.verdicts)
    rows = verdicts.total()
    quarantined = verdicts if cut is None else cut.quarantined
    quarantined = {why: n for why, n in sorted(quarantined.items()) if why in QUARANTINED and n}
    rejected = {} if cut is None else dict(sorted(cut.rejected.items()))
    kept = rows - sum(quarantined.values()) if cut is None else cut.kept
    for shard, files in run.measured.items():
        told = {place: file.as_dict() for place, file in files.items()}
        record["shards"][shard]["files"] = told
    record["derived"] = {fact: file.as_dict() for fact, file in run.derived.items()}
    record["skipped"] = [one.as_dict() for one in skipped]
    record["counts"] = {
        "rows": rows,
        "kept": kept,
        "rejected": rejected,
        "quarantined": quarantined,
        "units_skipped": len(skipped),
        "verdicts": dict(sorted(verdicts.items())),
        "grades": _grades(run),
    }
    sync_all(manifest.files_of(run.folder, record))
    record["seconds"] = round(time.monotonic() - began, 3)
    record["state"] = "complete"
    manifest.write(run.folder, record)
    if cut is not None:
        write_configuration(run.folder, run.form.format, thinking=run.form.thinking)
        source, problem = run.source, run.source.columns.problem
        convert = converter(run.form, source.layout, source.schema, problem)
        card.write(run.folder, record, cut, convert)
    journal.path_of(run.folder).unlink()
    forget(run.folder)
    return report_of(run.folder, record, cut=cut, strata=strata)


def _verdicts(run: Run) -> Counter[str]:
    """How many rows of a scan have each verdict."""
    counts = Counter[str]()
    for chunk in run.features().all_chunks([]):
        counts.update(dict(chunk["verdict"].value_counts().iter_rows()))
    return counts


def _grades(run: Run) -> dict[str, int]:
    """How many rows have each grade, none if the run graded none."""
    if "grades" not in run.derived:
        return {}
    file = run.folder / ".curate" / "derived" / "grades.parquet"
    counts = Counter[str]()
    for chunk in file_chunks(file, ["grade"]):
        counts.update(dict(chunk["grade"].drop_nulls().value_counts().iter_rows()))
    return dict(sorted(counts.items()))


def _new_cut(decider: Decider, record: manifest.Manifest) -> Cut:
    columns = record["config"]["columns"]
    by = ["teacher"] if columns["teacher"] is not None else []
    feature = decider.selection.rank_by or "branch_frac"
    return new_cut([*by, *columns["carry"]], feature, with_problem=columns["problem"] is not None)


def _extra(annotate: Sequence[str], kept_rows: KeptRows, schema: pa.Schema) -> Extra:
    fields = tuple(pa.field(f"curate_{name}", schema.field(name).type) for name in annotate)
    plain = [schema.field(name) for name in annotate]
    return Extra(fields, lambda shard: kept_rows.features(shard, plain))
