"""`curate evaluate tasks`: what can be asked, and whether its golds verify."""

import json
from typing import Any

import click

from curate.terminal import printable

SHOWN = 5
"""Golds of a kind that are printed; the rest is counted, and in `--json`."""


@click.group("tasks", invoke_without_command=True)
@click.pass_context
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def tasks(ctx: click.Context, as_json: bool) -> None:
    """
    List the tasks and how many problems they have (of the Hub, or in a file where that differs).

    One's own are TOML files, for which `tasks show` prints a start.
    """
    if ctx.invoked_subcommand is not None:
        return
    from curate.evaluate.task import load, task_names

    found = [load(name) for name in task_names()]
    if as_json:
        keys = ("name", "title", "scorer", "licence", "about")
        click.echo(json.dumps([{key: getattr(one, key) for key in keys} for one in found]))
        return
    width = max(len(one.name) for one in found)
    for one in found:
        counts = dict.fromkeys(each.problems for each in (one.hub, one.file) if each is not None)
        told = " or ".join(f"{count:,}" for count in counts)
        click.echo(f"{one.name.ljust(width)}  {told:>10}  {one.title}: {one.about}")


@tasks.command("show")
@click.argument("which", metavar="NAME|FILE")
def show(which: str) -> None:
    """One task as TOML."""
    from curate.evaluate.task import load

    click.echo(load(which).text, nl=False)


@tasks.command("check")
@click.argument("which", metavar="[NAME|FILE]...", nargs=-1)
@click.option(
    "--benchmarks",
    metavar="DIR",
    help="Folder of the problems' files [default: beside a task's own file, else the Hub].",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, metavar="N")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check(which: tuple[str, ...], benchmarks: str | None, workers: int, as_json: bool) -> int:
    """
    Prove that every gold parses and verifies against itself; by default of all tasks.

    With --benchmarks and no names, of those that have a file. The exit code is 1 if one does not.
    """
    from pathlib import Path

    from curate.evaluate import problems, task, taskcheck

    loaded = [task.load(name) for name in which or task.task_names()]
    if benchmarks is not None and not which:
        loaded = [one for one in loaded if one.file is not None]
    folder = None if benchmarks is None else Path(benchmarks)
    found = []
    for one in loaded:
        found.append(taskcheck.check(problems.read(one, folder), workers))
        if not as_json:
            click.echo("\n".join(map(printable, _lines(found[-1]))))
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in found]))
    return 1 if any(each.failed for each in found) else 0


def _lines(found: Any) -> list[str]:
    counts = f"{found.task}: {found.problems:,} problems, {found.verified:,} golds verify"
    if found.as_text:
        counts += f", {len(found.as_text):,} of them as text alone"
    lines = [counts]
    for what, each in (("as text alone", found.as_text), ("fails", found.failed)):
        lines += [f"  {what}: {one}" for one in each[:SHOWN]]
        if len(each) > SHOWN:
            lines.append(f"  {what}: and {len(each) - SHOWN:,} more (--json has all)")
    return lines
