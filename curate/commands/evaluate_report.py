"""`curate evaluate report`: one offline page of evaluations and their completions."""

import json
from pathlib import Path

import click

from curate.terminal import printable


@click.command()
@click.argument("outs", nargs=-1, required=True, metavar="OUT...", type=click.Path(path_type=Path))
@click.option(
    "--page",
    required=True,
    metavar="FILE.html",
    type=click.Path(path_type=Path),
    help="The page to write; new, or one that this command wrote.",
)
@click.option(
    "--completions",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Completions to read, at most so many of each status and lenient status of each task of "
    "each model; what is left out is counted.",
)
@click.option(
    "--characters",
    type=click.IntRange(min=100),
    default=40_000,
    show_default=True,
    metavar="N",
    help="Of a longer thought or answer the middle is left out, which is said there.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document, results included.")
def report(
    outs: tuple[Path, ...], page: Path, completions: int, characters: int, as_json: bool
) -> int:
    """
    Write one HTML page of graded evaluations, each OUT a model or a checkpoint.

    It shows the results of all tasks with their intervals, and completions to read. It needs no
    network and no other file. The same folders give the same bytes.
    """
    from curate.evaluate.report import write_report

    told = write_report(outs, page, completions=completions, characters=characters)
    for line in told.notes():
        click.echo(printable(line), err=True)
    click.echo(json.dumps(told.as_dict()) if as_json else printable(told.line()))
    return 0
