"""`curate select`: another selection from the same scan."""

from typing import Any

import click

from curate.commands.options import RULE, run_options, selection_options


@click.command()
@click.argument("scanned", metavar="SCAN")
@selection_options
@run_options
def select(scanned: str, **options: Any) -> int:
    """
    Select from the features that the scan in folder SCAN left, without scanning again.

    The kept rows are copied out of the corpus to DIR/data; SCAN is never changed. To keep all rows,
    say --keep true.
    """
    from curate.api import facts_of, form_of, on_error_of, selection_of
    from curate.commands import report
    from curate.pipeline import run_plan
    from curate.planning import plan_select

    rule = selection_of(**{name: options[name] for name in RULE})
    if rule is None:
        raise click.UsageError(
            "expected a selection: --keep, --drop-top, --best-of, --dedup or --decontaminate"
        )
    plan = plan_select(
        scanned,
        out=options["out"],
        selection=rule,
        form=form_of(options["format_"], options["thinking"]),
        facts=facts_of(
            options["tokenizer"],
            options["verify"],
            options["lenient"],
            options["decontaminate"],
            options["dedup"],
        ),
        annotate=options["annotate"],
        shard_bytes=options["shard_size"],
        on_error=on_error_of(
            options["on_error"], options["max_bad_shards"], options["max_bad_rows"]
        ),
        memory=options["memory"],
        overwrite=options["overwrite"],
    )
    done = run_plan(plan, report.running(options))
    return report.show(done, as_json=options["as_json"])
