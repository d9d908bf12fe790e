"""`curate evaluate grade`: how the completions of an evaluation fared."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from curate.terminal import printable


@click.command()
@click.argument("out", metavar="OUT")
@click.option(
    "--task", "tasks", multiple=True, metavar="T", help="Only this one; may be given several times."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that grade what takes a library [default: the cores this process may use].",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Processor time that one answer may take; what takes longer is timed_out.",
)
@click.option("--overwrite", is_flag=True, help="Grade anew, also what has been graded so.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def grade(
    out: str,
    tasks: tuple[str, ...],
    workers: int | None,
    seconds: float,
    overwrite: bool,
    as_json: bool,
) -> int:
    """
    Grade the completions of an evaluation in OUT; no model and no benchmark file is needed.

    Writes OUT/TASK/grades.parquet, a row for each completion, and grades.json. Grading that was
    killed goes on where it was; a task that has been graded so is only told of. Accuracy is
    correct / samples asked: what was cut off or has no answer counts as not right.
    """
    from curate.api import default_threads
    from curate.evaluate.grading import Asked, grade_tasks
    from curate.progress import watched

    asked = Asked(
        tasks=tuple(dict.fromkeys(tasks)),
        workers=workers or default_threads(),
        seconds=seconds,
        overwrite=overwrite,
    )
    found, running = grade_tasks(Path(out), asked, watch=watched)
    for line in _said(found, running):
        click.echo(printable(line), err=True)
    if as_json:
        told = {each.task: {**each.record, "mean_tokens": each.mean_tokens} for each in found}
        click.echo(json.dumps({"out": out, "tasks": told, "running": running}))
    else:
        click.echo("\n".join(map(printable, _table(Path(out), found))))
    return 0


def _said(found: Sequence[Any], running: Sequence[str]) -> list[str]:
    """Notes and warnings."""
    lines = [f"note: {task}: under way, not graded" for task in running]
    for each in found:
        lines += [f"note: {note}" for note in each.notes]
        lines += [f"note: {each.task}: has been graded so"] if each.done_before else []
        lines += [f"warning: {each.task}: {warning}" for warning in each.record["warnings"]]
    return lines


def _table(out: Path, found: Sequence[Any]) -> list[str]:
    """A line for each task: how many fared how, of those asked."""
    from curate.evaluate.columns import columns
    from curate.evaluate.evaluation import read_record
    from curate.evaluate.gradereading import read_grades
    from curate.evaluate.results import result_of

    record = read_record(out)
    names = ("wrong", "no_answer", "truncated", "parse_error", "timed_out")
    header = ["task", "asked", "accuracy", "95% interval", "lenient", *names, "mean tokens"]
    rows = []
    for each in found:
        strict, lenient = each.record["counts"]["strict"], each.record["counts"]["lenient"]
        rates = [strict["correct"], lenient["correct"], *(strict[name] for name in names)]
        tokens = "" if each.mean_tokens is None else f"{each.mean_tokens:,.0f}"
        right, *told = [f"{n / each.rows:.1%}" for n in rates]
        low, high = result_of(read_grades(out, record, each.task)).interval
        interval = f"{low:.1%} to {high:.1%}"
        rows.append([each.task, f"{each.rows:,}", right, interval, *told, tokens or "unknown"])
    return columns(header, rows)
