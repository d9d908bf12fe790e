"""`curate verify`: what a run left, held against its manifest."""

import json

import click


@click.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads [default: the cores this process may use].",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verify(folder: str, threads: int | None, as_json: bool) -> int:
    """
    Read again all files of the run in DIR: each must be what was written, and the rows must add up.

    What is wrong is listed, a line each, and the exit code is 1.
    """
    from curate.api import default_threads
    from curate.commands import report
    from curate.verifying import verify as check

    found = check(folder, threads or default_threads())
    click.echo(json.dumps(found.as_dict()) if as_json else report.verified(folder, found))
    return 1 if found.problems else 0
