"""`curate check`: whether trainers load a dataset, and what they would leave of it."""

import json
from typing import TYPE_CHECKING

import click

from curate.terminal import printable

if TYPE_CHECKING:
    from curate.checking import Checked, Overlong


@click.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--tokenizer",
    metavar="T",
    help="Count tokens with it: a name of the Hub, a folder or a file. Without, lengths are "
    "estimated from bytes.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also say what each trainer would do at this limit, in tokens.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads [default: the cores this process may use].",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check(
    folder: str, tokenizer: str | None, max_length: int | None, threads: int | None, as_json: bool
) -> int:
    """
    Check the dataset in DIR: would trainers load it, and would they cut or drop rows?

    DIR is a dataset of `curate`, or a folder or file of Parquet in the format prompt-completion,
    messages or sharegpt. What would break loading is listed, a line each, and the exit code is 1.
    Rows that are too long for a trainer's default limit are reported and change nothing.
    """
    from curate.api import default_threads
    from curate.checking import check as look
    from curate.trainers import TRAINERS

    limits = {} if max_length is None else {each.name: max_length for each in TRAINERS}
    found = look(folder, tokenizer, limits, threads or default_threads())
    click.echo(json.dumps(found.as_dict()) if as_json else _told(folder, found))
    return 1 if found.problems else 0


def _told(folder: str, found: "Checked") -> str:
    wrong = [f"{one.place}: {one.what} (breaks {one.breaks})" for one in found.problems]
    lines = [*wrong, *(f"note: {note}" for note in found.notes), *_lengths(found)]
    if found.tagged:
        lines.append(f"{found.tagged:,} rows have <think> or </think> twice: templates split there")
    things = "no problem" if not wrong else f"{len(wrong):,} wrong"
    lines.append(
        f"{folder}: {things}; format {found.format}, files: {found.files:,}, rows: {found.rows:,}"
    )
    return "\n".join(map(printable, lines))


def _lengths(found: "Checked") -> list[str]:
    told = found.lengths
    if told is None:
        return []
    how = (
        "estimated from bytes, the median row is a quarter off"
        if told.estimated
        else "the chat template's own not counted"
    )
    return [
        f"tokens of a row: {told.min:,} to {told.max:,}, median {told.median:,}, "
        f"95% up to {told.p95:,} ({how})",
        *map(_overlong, found.overlong),
    ]


def _overlong(one: "Overlong") -> str:
    does = {
        "cut": f"cuts {one.rows:,} rows",
        "drop": f"drops {one.rows:,} rows",
        "refuse": f"refuses {one.rows:,} rows, and ends" if one.rows else "refuses 0 rows",
    }[one.beyond]
    return f"{one.trainer} with {one.option} {one.limit:,} {does}: {one.lost:.1%} of the tokens"
