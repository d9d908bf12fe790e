"""Options that several commands share."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import click

Command = Callable[..., Any]

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class Size(click.ParamType):
    """Bytes, such as 512MB or 64MiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        if isinstance(value, int):
            return value
        digits = str(value).strip().rstrip("BbKkMmGgIi ")
        unit = str(value).strip()[len(digits) :].strip().upper()
        try:
            size = int(float(digits) * UNITS[unit])
        except (KeyError, ValueError, OverflowError):
            self.fail(f"{value!r} is no size: expected one such as 512MB or 64MiB", param, ctx)
        if size < 1:
            self.fail(f"{value!r} is no size: expected at least one byte", param, ctx)
        return size


def names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Names with commas between them, the option given once or several times."""
    found = tuple(part.strip() for value in values for part in value.split(","))
    if not all(found) or len(set(found)) < len(found):
        given = ",".join(values)
        raise click.BadParameter(f"{given!r}: expected distinct names with commas between them")
    return found


SELECTION = (
    click.option(
        "--keep",
        metavar="EXPR",
        help="Keep rows for which this is true: SQL over features and carried columns, such as "
        "'branch_frac <= 0.3 AND steps >= 3'.",
    ),
    click.option(
        "--drop-top",
        metavar="F",
        help="Then drop this share of rows (0 to 1), those highest by --rank-by; a group of equal "
        "values goes only if all of it fits.",
    ),
    click.option(
        "--best-of",
        type=click.IntRange(1, 2**31 - 1),
        metavar="N",
        help="Or keep, of the correct traces in each group of --within, the N lowest by --rank-by.",
    ),
    click.option("--rank-by", metavar="FEATURE", help="The feature that rows are ranked by."),
    click.option(
        "--within",
        multiple=True,
        callback=names,
        metavar="COL,...",
        help="Cut inside each group of equal values of these, not over all rows.",
    ),
    click.option(
        "--dedup", is_flag=True, help="Drop rows whose trace is, byte for byte, that of another."
    ),
    click.option(
        "--decontaminate",
        multiple=True,
        metavar="FILE",
        help="Drop rows whose problem is half or more that of a benchmark, by 8-grams of words: "
        "JSON Lines, JSON, CSV, Parquet or text, FILE:COLUMN where the column is not plain. May be "
        "repeated.",
    ),
    click.option(
        "--verify",
        metavar="COL",
        help="Grade the answers against this column of golds; that says what is correct.",
    ),
    click.option(
        "--lenient", is_flag=True, help="With --verify: also take answers that are not in a box."
    ),
    click.option(
        "--tokenizer",
        metavar="T",
        help="Count tokens: a folder, a tokenizer.json, or a name on the Hub; as feature `tokens`.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        help="Of draws that break ties.",
    ),
    click.option(
        "--annotate",
        multiple=True,
        callback=names,
        metavar="FEATURE,...",
        help="Add these features to the emitted rows, as columns curate_FEATURE.",
    ),
    click.option(
        "--accept",
        multiple=True,
        callback=names,
        metavar="VERDICT,...",
        help="Verdicts of rows that may be kept, of ok, prefilled, unclosed, empty, several, "
        "missing. [default: ok,prefilled]",
    ),
    click.option(
        "--format",
        "format_",
        type=click.Choice(["original", "messages", "prompt-completion", "sharegpt"]),
        default="original",
        show_default=True,
        help="Rows of the dataset: the corpus's own, or conversations; for training "
        "prompt-completion.",
    ),
    click.option(
        "--thinking",
        type=click.Choice(["keep", "strip"]),
        default="keep",
        show_default=True,
        help="Whether conversations have the thoughts, or the answers only.",
    ),
    click.option(
        "--shard-size",
        type=Size(),
        default="512MB",
        show_default=True,
        help="Uncompressed bytes of an output shard.",
    ),
)

RUN = (
    click.option(
        "--out",
        required=True,
        metavar="DIR",
        help="Folder to write; new, empty, or of the same run, which then goes on.",
    ),
    click.option(
        "--on-error",
        type=click.Choice(["stop", "quarantine"]),
        default="stop",
        show_default=True,
        help="What to do about shards and row groups that cannot be read: end the run, or go on "
        "without them, count and list them, and exit with 3.",
    ),
    click.option(
        "--max-bad-shards",
        type=click.IntRange(min=0),
        metavar="N",
        help="Stop once more than N shards have a row group or more that cannot be read.",
    ),
    click.option(
        "--max-bad-rows",
        type=click.IntRange(min=0),
        metavar="N",
        help="Stop once more than N rows cannot be read.",
    ),
    click.option(
        "--memory",
        type=Size(),
        metavar="SIZE",
        help="Bound on resident memory, such as 1GiB; what does not fit is not read, as "
        "--on-error says. At least some 350MiB. [default: four fifths of what is free]",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="Threads [default: the cores this process may use].",
    ),
    click.option(
        "--overwrite", is_flag=True, help="Start anew; replace what this tool wrote to --out."
    ),
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print one JSON document on stdout instead of the summary.",
    ),
)


RULE = (
    *("keep", "drop_top", "best_of", "rank_by", "within", "accept"),
    *("dedup", "decontaminate", "seed"),
)
"""Options of which `selection_of` makes a rule."""


def asked(options: Mapping[str, Any]) -> dict[str, Any]:
    """What scan and select are asked for alike, as `plan_scan` and `plan_select` take it."""
    from curate.api import facts_of, form_of, on_error_of

    facts = ("tokenizer", "verify", "lenient", "decontaminate", "dedup")
    bad = ("on_error", "max_bad_shards", "max_bad_rows")
    return {
        "form": form_of(options["format_"], options["thinking"]),
        "facts": facts_of(*(options[name] for name in facts)),
        "on_error": on_error_of(*(options[name] for name in bad)),
        "shard_bytes": options["shard_size"],
        **{name: options[name] for name in ("out", "annotate", "memory", "overwrite")},
    }


def selection_options(command: Command) -> Command:
    """How rows are selected and emitted."""
    return reduce(lambda decorated, option: option(decorated), reversed(SELECTION), command)


def run_options(command: Command) -> Command:
    """How a run goes about it."""
    return reduce(lambda decorated, option: option(decorated), reversed(RUN), command)
