"""`curate evaluate replay`: completions that another harness has had written."""

import json
from pathlib import Path
from typing import Any

import click

from curate.terminal import printable


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--task",
    "which",
    required=True,
    metavar="NAME|FILE",
    help="The task whose problems they are of (`curate evaluate tasks` lists them).",
)
@click.option(
    "--out", required=True, metavar="OUT", help="Folder to write; new, empty, or of the same model."
)
@click.option("--model", metavar="NAME", help="What to call the model that wrote them.")
@click.option(
    "--benchmarks",
    metavar="DIR",
    help="Folder of the problems' files [default: beside a task's own file, else the Hub].",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="K",
    help="The first K completions of each problem [default: all, as many of each].",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N problems.")
@click.option("--id-column", "id_", metavar="COL", help="Column of the problem's id.")
@click.option("--problem-column", "problem", metavar="COL", help="Column of the problem's text.")
@click.option(
    "--completion-column", "completion", metavar="COL", help="Column of completions, or lists."
)
@click.option(
    "--finish-column", "finish", metavar="COL", help="Column of how they ended: stop, length, ..."
)
@click.option("--overwrite", is_flag=True, help="Start anew; replace what this tool wrote to OUT.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def replay(
    files: tuple[str, ...],
    which: str,
    out: str,
    benchmarks: str | None,
    id_: str | None,
    as_json: bool,
    **options: Any,
) -> int:
    """
    Import completions of a task from JSON Lines or Parquet, to be graded as if generated here.

    Rows of lm-evaluation-harness's samples are known; others have the problem's id or text, and a
    completion or a list of them, in columns of the usual names or in those given. A problem with
    fewer completions than asked for is an error.
    """
    from curate.evaluate.loggedrows import Asked
    from curate.evaluate.replaying import replay as run
    from curate.evaluate.task import load

    folder = None if benchmarks is None else Path(benchmarks)
    asked = Asked(benchmarks=folder, id=id_, **options)
    task = load(which)
    record, notes = run([Path(file) for file in files], task, Path(out), asked)
    for note in notes:
        click.echo(f"note: {printable(note)}", err=True)
    told = record["tasks"][task.name]
    if as_json:
        click.echo(json.dumps({"out": out, "tasks": {task.name: told}}))
    else:
        click.echo(
            printable(
                f"{out}: {task.name}: {told['problems']:,} problems x {told['samples']} samples"
            )
        )
    return 0
