"""`curate show`: one trace in the terminal."""

import click


@click.command()
@click.argument("folder", metavar="DIR")
@click.argument("row", metavar="ROW")
def show(folder: str, row: str) -> None:
    """
    Show one trace of the scan or selection in DIR, its steps numbered, its markers coloured.

    ROW is an id (where the scan had --id) or SHARD:ROW, the shard's name and the row's position;
    SHARD:ROW:ITEM where rows hold lists of traces.
    A B beside a number says that the step is a branch step.
    """
    from curate.viewing import find_trace, render

    render(find_trace(folder, row))
