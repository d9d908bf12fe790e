"""`curate losses`: the NLL, entropy and rank of every token of a dataset under a model."""

import json
from pathlib import Path
from typing import Any

import click

from curate.errors import CurateError
from curate.terminal import printable


@click.command()
@click.option(
    "--model", required=True, metavar="M", help="A causal language model: a folder, or of the Hub."
)
@click.option("--data", required=True, metavar="DIR", help="The dataset to score.")
@click.option(
    "--out",
    required=True,
    metavar="OUT",
    help="Folder to write; new, empty, or of the same scoring, which then goes on.",
)
@click.option(
    "--base",
    metavar="OUT",
    help="What this command wrote of the same data under the base model: its entropy then says "
    "which tokens are hard.",
)
@click.option(
    "--probe",
    metavar="DIR",
    help="A dataset of problems that no model has seen; scored too, into OUT/probe.",
)
@click.option("--teacher", metavar="COL", help="Column of the teacher [default: as the run says].")
@click.option("--id", "id_", metavar="COL", help="Column of the id [default: as the run says].")
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    default=8192,
    show_default=True,
    metavar="N",
    help="Tokens in a forward pass, padding included; a longer sample has one of its own.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens of a sample at most, prompt included [default: what the model takes].",
)
@click.option(
    "--overlength",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="What to do about longer samples; those dropped are counted by teacher.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Type of the weights [default: bfloat16 on a GPU that has it, else float32].",
)
@click.option("--device", metavar="DEVICE", help="Such as cpu or cuda:1 [default: a GPU if any].")
@click.option(
    "--chat-template-path",
    metavar="PATH",
    help="File of a chat template (Jinja) in place of the tokenizer's own.",
)
@click.option("--overwrite", is_flag=True, help="Start anew; replace what this tool wrote to OUT.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N rows of each."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def losses(
    model: str,
    data: str,
    out: str,
    base: str | None,
    probe: str | None,
    as_json: bool,
    chat_template_path: str | None,
    id_: str | None,
    **options: Any,
) -> int:
    """
    Score every completion token of a dataset under a model, and report how hard they are.

    OUT/tokens has the NLL and entropy (nats) and the rank of each token, a row for each sample.
    A scoring that was killed goes on where it was; one that is whole is only reported.
    """
    from curate.evaluate import tokenview
    from curate.evaluate.losses import Asked, score_dataset
    from curate.progress import watched

    _check_places(out, base)
    asked = Asked(id=id_, chat_template=_template(chat_template_path), **options)
    records = {"data": score_dataset(model, Path(data), Path(out), asked, watch=watched)}
    if probe is not None:
        place = Path(out) / "probe"
        records["probe"] = score_dataset(model, Path(probe), place, asked, watch=watched)
    view = tokenview.report(Path(out), None if base is None else Path(base))
    if as_json:
        click.echo(json.dumps({"out": out, "scored": records, "report": view.as_dict()}))
    else:
        told = [line for name, record in records.items() for line in _told(name, record)]
        click.echo("\n".join([*map(printable, told), *view.lines()]))
    return 0


def _check_places(out: str, base: str | None) -> None:
    """Before an hour of scoring: the base's scores must be there, and elsewhere."""
    if base is None:
        return
    if not (Path(base) / "losses.json").is_file():
        raise CurateError(f"--base {base}: expected a folder of `curate losses`, found none")
    if Path(base).resolve() == Path(out).resolve():
        raise CurateError(f"--base {base}: expected another folder than --out")


def _template(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise CurateError(
            f"--chat-template-path {path}: expected a file of a chat template, found none"
        ) from None


def _told(name: str, record: dict[str, Any]) -> list[str]:
    counts, dropped = record["counts"], record["survey"]["overlength"]
    kinds = ", ".join(f"{kind} {n:,}" for kind, n in counts["kinds"].items() if n)
    lines = [
        f"{name}: {record['data']}, rows: {counts['rows']:,}, tokens scored: "
        f"{counts['tokens']:,} ({kinds})"
    ]
    lines += [f"{name}: note: {note}" for note in record["notes"]]
    if not record["settings"]["steps"]:
        lines.append(f"{name}: note: no steps are known (`curate scan --steps` writes them)")
    if dropped:
        each = ", ".join(f"{teacher or 'no teacher'}: {n:,}" for teacher, n in dropped.items())
        lines.append(f"{name}: too long and dropped: {counts['dropped']:,} ({each})")
    return lines
