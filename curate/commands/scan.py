"""`curate scan`: the main job."""

from typing import Any

import click

from curate.commands.options import RULE, asked, names, run_options, selection_options


@click.command()
@click.argument("corpus", nargs=-1, required=True)
@click.option(
    "--column",
    metavar="COL",
    help="The text column of the traces [default: `trace`, or as detected]; with --preset the one "
    "that it is about.",
)
@click.option(
    "--preset", metavar="NAME", help="Where the traces are, by name: see `curate layout list`."
)
@click.option("--layout", metavar="FILE", help="The same, as a TOML file says.")
@click.option("--answer", metavar="COL", help="The column of the answers, where they are apart.")
@click.option("--id", "id_column", metavar="COL", help="The column that names a row.")
@click.option("--problem", metavar="COL", help="The column of what a trace answers.")
@click.option("--teacher", metavar="COL", help="The column of the model that wrote it.")
@click.option("--correct", metavar="COL", help="The column that says whether its answer is right.")
@click.option(
    "--carry",
    multiple=True,
    callback=names,
    metavar="COL,...",
    help="Further columns for selections.",
)
@click.option("--split", metavar="NAME", help="Read this split of folders that hold several.")
@click.option(
    "--lexicon",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="The phrases to look for: a packaged lexicon (see `curate lexicon list`) or a .toml file.",
)
@click.option(
    "--delimiter",
    default="blank-line",
    show_default=True,
    metavar="blank-line|line|LITERAL",
    help="What stands between steps; a literal may hold \\n, \\r, \\t, \\\\.",
)
@click.option("--steps", is_flag=True, help="Also write one row for each step.")
@click.option(
    "--repeats", is_flag=True, help="Also count distinct steps, a second look at all bytes."
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Take the first N rows only."
)
@click.option("--dry-run", is_flag=True, help="Say what would be read and written, and stop.")
@selection_options
@run_options
def scan(corpus: tuple[str, ...], **options: Any) -> int:
    """
    Measure every trace of CORPUS and, given a selection, emit the kept rows as a dataset.

    CORPUS is a file of Parquet or JSON Lines (also .gz, .zst), a folder, a glob, or a URL (s3://,
    gs://, hf://). Features go to DIR/.curate/features, one row for each trace. With a selection
    (--keep, --drop-top, --best-of, --dedup, --decontaminate) the kept rows go to DIR/data, in
    order; without one a scan only measures.
    """
    from curate.api import selection_of
    from curate.commands import report
    from curate.layout import Where
    from curate.pipeline import run_plan
    from curate.planning import plan_scan
    from curate.units import Columns

    where = Where(**{name: options[name] for name in ("column", "preset", "layout", "answer")})
    columns = Columns(
        id=options["id_column"],
        problem=options["problem"],
        teacher=options["teacher"],
        correct=options["correct"],
        carry=options["carry"],
    )
    rule = selection_of(**{name: options[name] for name in RULE})
    if rule is None and options["annotate"]:
        raise click.UsageError("--annotate: expected together with a selection, as --keep true")
    names = "lexicon delimiter steps repeats split limit".split()
    plan = plan_scan(
        corpus,
        where=where,
        columns=columns,
        selection=rule,
        **asked(options),
        **{name: options[name] for name in names},
    )
    report.notes(plan)
    if options["dry_run"]:
        click.echo(report.dry_run(plan, as_json=options["as_json"]))
        return 0
    return report.show(run_plan(plan, report.running(options)), as_json=options["as_json"])
