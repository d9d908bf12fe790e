"""What is wrong with a probe or with base scores, told before an hour of scoring, not after."""

from itertools import islice
from pathlib import Path

from curate.errors import CurateError
from curate.evaluate import checkpoint
from curate.evaluate.losses import Asked, template_digest
from curate.evaluate.lossfiles import PROBE, file_of, read, read_record, record_of
from curate.evaluate.scorefiles import Scores
from curate.rendering import Renderer
from curate.samples import Sample, Samples, open_samples

ROWS = 64
"""Of the base scores, the rows whose tokens are compared at once; the rest are held later."""


def check_probe(data: Path, probe: Path, asked: Asked) -> None:
    """Raise CurateError where the probe cannot be opened or is the data."""
    samples, own = (
        open_samples(place, teacher=asked.teacher, id=asked.id) for place in (probe, data)
    )
    if samples.digest == own.digest:
        raise CurateError(
            "--probe: expected problems that no model has seen, found the data itself"
        )


def check_base(model: str, data: Path, base: Path, probe: Path | None, asked: Asked) -> None:
    """
    Raise CurateError for base scores that cannot stand beside those asked for.

    They must be whole, of the same data, and of the same tokens in their first rows where the
    tokenizer or the template is not the same; of the probe too where there is one.
    """
    _check(model, data, base, asked)
    if probe is not None:
        if not record_of(base / PROBE).exists():
            raise CurateError(f"--base {base}: expected scores of the probe too, found none")
        _check(model, probe, base / PROBE, asked)


def _check(model: str, data: Path, base: Path, asked: Asked) -> None:
    Scores(base, None)
    told = read_record(base)
    samples = open_samples(data, teacher=asked.teacher, id=asked.id)
    if told["settings"]["data"] != samples.digest:
        raise CurateError(
            f"--base {base}: expected scores of {data}, found scores of other data ({told['data']})"
        )
    tokenizer = checkpoint.load_tokenizer(model)
    now = {
        "tokenizer": checkpoint.tokenizer_digest(tokenizer),
        "chat template": template_digest(tokenizer, asked.chat_template),
    }
    was = {name: told["settings"][name.replace(" ", "_")] for name in now}
    if others := [name for name in now if now[name] != was[name]]:
        renderer = Renderer(tokenizer, chat_template=asked.chat_template)
        if (odd := _first_other(samples, renderer, base)) is not None:
            raise CurateError(
                f"--base {base}: expected scores of the same tokens, found others in row "
                f"{odd.index:,}, as another {' and '.join(others)} made them"
            )


def _first_other(samples: Samples, renderer: Renderer, base: Path) -> Sample | None:
    """The first of some samples that the base scores have as other tokens."""
    table = read(file_of(base, 0), ["index", "first", "token"]).slice(0, ROWS)
    scored = {row["index"]: (row["first"], row["token"]) for row in table.to_pylist()}
    for sample in islice(samples, max(scored) + 1):
        if sample.index in scored:
            (rendered,) = renderer.render([sample])
            first = max(1, rendered.prompt_tokens)
            if scored[sample.index] != (first, rendered.input_ids[first:].tolist()):
                return sample
    return None
