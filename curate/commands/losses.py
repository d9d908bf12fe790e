"""`curate losses`: the NLL, entropy and rank of every token of a dataset under a model."""

import json
from collections.abc import Sequence
from itertools import zip_longest
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
    "--beside",
    multiple=True,
    metavar="OUT",
    help="What this command wrote of other data or another model, to be pooled in the report: one "
    "cut for all. May be given several times.",
)
@click.option(
    "--beside-base",
    multiple=True,
    metavar="OUT",
    help="The base scores of each --beside, in their order: as many, where --base is given.",
)
@click.option(
    "--probe",
    metavar="DIR",
    help="A dataset of problems that no model has seen; scored too, into OUT/probe. With --base "
    "that must have scored it as well.",
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
    help="Tokens of a sample at most, prompt included [default: what the model's configuration "
    "says it takes; more is taken and noted].",
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
    beside: tuple[str, ...],
    beside_base: tuple[str, ...],
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

    Two arms, each a model and the data it was tuned on, are told under one cut so: score arm A with
    --out A --base A0, then arm B with --out B --base B0 --beside A --beside-base A0.
    """
    from curate.evaluate import forecheck, tokenview
    from curate.evaluate.losses import Asked, score_dataset
    from curate.evaluate.lossfiles import PROBE
    from curate.progress import watched

    places = _places(out, base, beside, beside_base)
    asked = Asked(id=id_, chat_template=chat_template(chat_template_path), **options)
    unseen = None if probe is None else Path(probe)
    if unseen is not None:
        forecheck.check_probe(Path(data), unseen, asked)
    if base is not None:
        forecheck.check_base(model, Path(data), Path(base), unseen, asked)
    records = {"data": score_dataset(model, Path(data), Path(out), asked, watch=watched)}
    if unseen is not None:
        place = Path(out) / PROBE
        records["probe"] = score_dataset(model, unseen, place, asked, watch=watched)
    view = tokenview.report(*places[0], beside=places[1:])
    held = {str(place): _records(place) for place, _ in places[1:]}
    if as_json:
        more = {"beside": held} if held else {}
        told = {"out": out, "scored": records, **more, "report": view.as_dict()}
        click.echo(json.dumps(told))
    else:
        named = [*records.items()]
        named += [(f"{at}: {name}", each) for at in held for name, each in held[at].items()]
        lines = [line for name, record in named for line in _told(name, record)]
        click.echo("\n".join([*map(printable, lines), *view.lines()]))
    return 0


def _places(
    out: str, base: str | None, beside: Sequence[str], beside_base: Sequence[str]
) -> list[tuple[Path, Path | None]]:
    """The folders that are told as one, each with its base; held before an hour of scoring."""
    from curate.evaluate.tokenarms import check_places

    if beside_base and len(beside_base) != len(beside):
        raise CurateError(
            f"--beside-base: expected one for each --beside ({len(beside)}) or none, "
            f"found {len(beside_base)}"
        )
    _check_base(out, base)
    pairs = [(out, base), *zip_longest(beside, beside_base)]
    for option, folders in (("--beside", beside), ("--beside-base", beside_base)):
        for folder in folders:
            _check_scored(option, folder)
    places = [(Path(own), None if of is None else Path(of)) for own, of in pairs]
    check_places(places)
    return places


def _check_base(out: str, base: str | None) -> None:
    if base is None:
        return
    _check_scored("--base", base)
    if Path(base).resolve() == Path(out).resolve():
        raise CurateError(f"--base {base}: expected another folder than --out")


def _check_scored(option: str, folder: str) -> None:
    if not (Path(folder) / "losses.json").is_file():
        raise CurateError(f"{option} {folder}: expected a folder of `curate losses`, found none")


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """What was scored there, as for the folder that is written."""
    from curate.evaluate.lossfiles import PROBE, read_record, record_of

    records = {"data": read_record(folder)}
    if record_of(folder / PROBE).exists():
        records["probe"] = read_record(folder / PROBE)
    return records


def chat_template(path: str | None) -> str | None:
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
