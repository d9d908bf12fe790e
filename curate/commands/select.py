"""`curate select`: another selection from the same scan."""

import json
from typing import Any

import click

from curate.commands.options import run_options, selection_options


@click.command()
@click.argument("scanned", metavar="SCAN")
@selection_options
@run_options
def select(scanned: str, **options: Any) -> None:
    """
    Select from the features that the scan in folder SCAN left, without scanning again.

    The kept rows are copied out of the corpus to DIR/data; SCAN is never changed. To keep all rows,
    say --keep true.
    """
    from curate.api import default_threads, selection_of
    from curate.commands import report
    from curate.pipeline import Running, run_select
    from curate.progress import watched

    rule = selection_of(options["keep"], options["drop_top"], options["rank_by"], options["within"])
    if rule is None:
        raise click.UsageError("expected --keep or --drop-top")
    done = run_select(
        scanned,
        out=options["out"],
        selection=rule,
        overwrite=options["overwrite"],
        running=Running(
            threads=options["threads"] or default_threads(),
            shard_bytes=options["shard_size"],
            annotate=options["annotate"],
            watch=watched,
        ),
    )
    click.echo(json.dumps(done.as_dict()) if options["as_json"] else report.summary(done))
