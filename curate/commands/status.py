"""`curate status`: how far a run is or got."""

import json

import click


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def status(folder: str, as_json: bool) -> None:
    """
    Say how far the run in DIR is, what is left, and what went wrong.

    Works beside a run, and after one that was stopped or killed; the command that began it goes on
    with it.
    """
    from curate.commands import report
    from curate.status import status as look

    found = look(folder)
    click.echo(json.dumps(found.as_dict()) if as_json else report.status(found))
