"""The face in Python: what the commands do, as functions."""

import os
from collections.abc import Sequence
from pathlib import Path

from curate.errors import CurateError, SelectionError
from curate.facts import Facts, load_facts
from curate.formats import Form
from curate.layout import Where
from curate.pipeline import run_plan
from curate.planning import SHARD_BYTES, plan_scan, plan_select
from curate.run import Report, Running
from curate.selection import Selection
from curate.skipping import OnError
from curate.trainers import FORMATS
from curate.units import Columns
from curate.verdicts import ACCEPTED


def default_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def selection_of(
    *,
    keep: str | None = None,
    drop_top: str | float | None = None,
    best_of: int | None = None,
    rank_by: str | None = None,
    within: Sequence[str] = (),
    accept: Sequence[str] = (),
    dedup: bool = False,
    decontaminate: Sequence[str] = (),
    seed: int = 0,
) -> Selection | None:
    """The rule that these options ask for, None for none. Raises SelectionError."""
    rule = Selection(
        keep=keep,
        drop_top=None if drop_top is None else str(drop_top),
        best_of=best_of,
        rank_by=rank_by,
        within=_names(within),
        accept=_names(accept) or ACCEPTED,
        dedup=dedup,
        decontaminate=bool(decontaminate),
        seed=seed,
    )
    rule.check()
    if not rule and accept:
        raise SelectionError("--accept: expected together with a selection, as --keep true")
    return rule if rule else None


def form_of(format: str, thinking: str) -> Form:
    """The format of a dataset's rows, as the options ask."""
    if format not in FORMATS:
        raise CurateError(f"format: expected one of {', '.join(FORMATS)}, found {format!r}")
    if thinking not in ("keep", "strip"):
        raise CurateError(f"thinking: expected `keep` or `strip`, found {thinking!r}")
    return Form(format=format, thinking=thinking == "keep")


def facts_of(
    tokenizer: str | Path | None,
    verify: str | None,
    lenient: bool,
    benchmarks: Sequence[str],
    dedup: bool,
) -> Facts:
    """What is to be computed beside the features, with what that needs. Raises CurateError."""
    return load_facts(
        tokenizer=None if tokenizer is None else str(tokenizer),
        verify=verify,
        lenient=lenient,
        decontaminate=tuple(benchmarks),
        hashes=dedup,
    )


def _paths(given: str | Path | Sequence[str | Path]) -> list[str]:
    """Paths; a single one may stand alone."""
    return [str(given)] if isinstance(given, str | Path) else [str(path) for path in given]


def _names(given: Sequence[str]) -> tuple[str, ...]:
    """Names; a single one may stand alone."""
    return (given,) if isinstance(given, str) else tuple(given)


def _check_count(name: str, count: int | None) -> None:
    if count is not None and count < 1:
        raise CurateError(f"{name}: expected at least 1, found {count}")


def running_of(threads: int | None, memory: int | None) -> Running:
    """How a run goes about it, as Python asks for it."""
    _check_count("threads", threads)
    _check_count("memory", memory)
    return Running(threads=threads or default_threads(), memory=memory)


def on_error_of(on_error: str, max_bad_shards: int | None, max_bad_rows: int | None) -> OnError:
    """What a run does about what it cannot read. Raises CurateError."""
    if on_error not in ("stop", "quarantine"):
        raise CurateError(f"on_error: expected `stop` or `quarantine`, found {on_error!r}")
    quarantine = on_error == "quarantine"
    if not quarantine and (max_bad_shards, max_bad_rows) != (None, None):
        raise CurateError("--max-bad-shards, --max-bad-rows: expected with --on-error quarantine")
    return OnError(quarantine=quarantine, max_bad_shards=max_bad_shards, max_bad_rows=max_bad_rows)


def scan(
    corpus: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    column: str | None = None,
    preset: str | None = None,
    layout: str | Path | None = None,
    answer: str | None = None,
    id: str | None = None,
    problem: str | None = None,
    teacher: str | None = None,
    correct: str | None = None,
    carry: Sequence[str] = (),
    lexicon: str = "default",
    delimiter: str = "blank-line",
    steps: bool = False,
    repeats: bool = False,
    keep: str | None = None,
    drop_top: str | float | None = None,
    best_of: int | None = None,
    rank_by: str | None = None,
    within: Sequence[str] = (),
    accept: Sequence[str] = (),
    dedup: bool = False,
    decontaminate: str | Path | Sequence[str | Path] = (),
    seed: int = 0,
    verify: str | None = None,
    lenient: bool = False,
    tokenizer: str | Path | None = None,
    format: str = "original",
    thinking: str = "keep",
    annotate: Sequence[str] = (),
    shard_bytes: int = SHARD_BYTES,
    split: str | None = None,
    limit: int | None = None,
    on_error: str = "stop",
    max_bad_shards: int | None = None,
    max_bad_rows: int | None = None,
    threads: int | None = None,
    memory: int | None = None,
    overwrite: bool = False,
) -> Report:
    """
    Measure every trace of a corpus and, given a selection, emit the kept rows: `curate scan`.

    Raises a CurateError that says what is wrong; options, footers and schemas are checked before
    anything is written. The same call goes on where the last one was stopped. `on_error` is `stop`
    or `quarantine`: go on without what cannot be read, and tell of it in `Report.skipped`. `memory`
    bounds the bytes that the process holds, None for four fifths of what is free.
    """
    running = running_of(threads, memory)
    _check_count("limit", limit)
    _check_count("shard_bytes", shard_bytes)
    columns = Columns(id=id, problem=problem, teacher=teacher, correct=correct, carry=_names(carry))
    told = None if layout is None else str(layout)
    benchmarks = _paths(decontaminate)
    rule = selection_of(
        keep=keep,
        drop_top=drop_top,
        best_of=best_of,
        rank_by=rank_by,
        within=within,
        accept=accept,
        dedup=dedup,
        decontaminate=benchmarks,
        seed=seed,
    )
    plan = plan_scan(
        _paths(corpus),
        out=out,
        where=Where(column=column, preset=preset, layout=told, answer=answer),
        columns=columns,
        lexicon=lexicon,
        delimiter=delimiter,
        steps=steps,
        repeats=repeats,
        selection=rule,
        form=form_of(format, thinking),
        facts=facts_of(tokenizer, verify, lenient, benchmarks, dedup),
        annotate=_names(annotate),
        shard_bytes=shard_bytes,
        split=split,
        limit=limit,
        memory=memory,
        on_error=on_error_of(on_error, max_bad_shards, max_bad_rows),
        overwrite=overwrite,
    )
    return run_plan(plan, running)


def select(
    scanned: str | Path,
    *,
    out: str | Path,
    keep: str | None = None,
    drop_top: str | float | None = None,
    best_of: int | None = None,
    rank_by: str | None = None,
    within: Sequence[str] = (),
    accept: Sequence[str] = (),
    dedup: bool = False,
    decontaminate: str | Path | Sequence[str | Path] = (),
    seed: int = 0,
    verify: str | None = None,
    lenient: bool = False,
    tokenizer: str | Path | None = None,
    format: str = "original",
    thinking: str = "keep",
    annotate: Sequence[str] = (),
    shard_bytes: int = SHARD_BYTES,
    on_error: str = "stop",
    max_bad_shards: int | None = None,
    max_bad_rows: int | None = None,
    threads: int | None = None,
    memory: int | None = None,
    overwrite: bool = False,
) -> Report:
    """Select from the features that a scan left, without scanning again: `curate select`."""
    _check_count("shard_bytes", shard_bytes)
    benchmarks = _paths(decontaminate)
    everything = not (dedup or benchmarks) and keep is drop_top is best_of is None
    rule = selection_of(
        keep="true" if everything else keep,
        drop_top=drop_top,
        best_of=best_of,
        rank_by=rank_by,
        within=within,
        accept=accept,
        dedup=dedup,
        decontaminate=benchmarks,
        seed=seed,
    )
    assert rule is not None
    running = running_of(threads, memory)
    plan = plan_select(
        scanned,
        out=out,
        selection=rule,
        form=form_of(format, thinking),
        facts=facts_of(tokenizer, verify, lenient, benchmarks, dedup),
        annotate=_names(annotate),
        shard_bytes=shard_bytes,
        on_error=on_error_of(on_error, max_bad_shards, max_bad_rows),
        memory=memory,
        overwrite=overwrite,
    )
    return run_plan(plan, running)
