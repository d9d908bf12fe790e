"""`curate select`: another selection from the same scan."""

from typing import Any

import click

from curate.commands.options import RULE, asked, run_options, selection_options


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
    from curate.api import selection_of
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
        selection=rule,
        **asked(options),
    )
    report.notes(plan)
    done = run_plan(plan, report.running(options))
    return report.show(done, as_json=options["as_json"])
