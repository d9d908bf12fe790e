"""
NLL, entropy and rank of every completion token of a dataset under a model.

`OUT/losses.json` says what was scored with what, first as `running`, in the end as `complete`.
`OUT/tokens/00000.parquet` and on hold the samples in the dataset's order, one row each. A file has
its name once it is whole, so a run that was killed goes on behind the last one. Scores of a sample
depend on what it is batched with in the last digits only, those of the type of the weights: some
1e-6 nats in float32, some 1e-2 in bfloat16.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curate.errors import CurateError
from curate.evaluate import checkpoint, lossfiles
from curate.evaluate.checkpoint import Loaded
from curate.evaluate.lossfiles import Record, SampleScores
from curate.evaluate.survey import Rows, named, survey
from curate.output import writing
from curate.progress import Progress, unwatched
from curate.rawfooter import first_line
from curate.rendering import Rendered, Renderer
from curate.samples import Sample, Samples, open_samples
from curate.stepsbeside import has_steps
from curate.tokenscores import score

SETTINGS = ("dtype", "max_length", "overlength", "limit", "teacher", "id")
"""Of what is asked, what makes other files; the device and batches change last digits only."""

Watch = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    How a dataset is to be scored.

    `teacher` and `id` name columns. `batch_tokens` bounds samples times the longest of them in a
    forward pass; a longer sample has one of its own. Samples over `max_length` tokens, by default
    what the configuration says the model takes, are an error, or dropped and counted where
    `overlength` is `drop`; a greater `max_length` than that is taken, and noted. `limit` takes the
    first rows only. Defaults of `dtype` and `device` are what the machine has.
    """

    teacher: str | None = None
    id: str | None = None
    batch_tokens: int = 8192
    max_length: int | None = None
    overlength: str = "error"
    dtype: str | None = None
    device: str | None = None
    chat_template: str | None = None
    limit: int | None = None
    overwrite: bool = False


def score_dataset(
    model: str, data: Path, out: Path, asked: Asked | None = None, *, watch: Watch = unwatched
) -> Record:
    """
    Score every completion token of `data` under `model` into the folder `out`.

    Goes on with what a killed run left there, and returns at once where all is there. Returns the
    record as `losses.json` holds it. Raises CurateError where the model or the dataset cannot be
    read or do not fit each other, and OutputError where `out` holds something else.
    """
    asked = asked or Asked()
    device = checkpoint.device_of(asked.device)
    asked = replace(asked, dtype=checkpoint.dtype_of(asked.dtype, device), device=str(device))
    config = checkpoint.configuration(model)
    tokenizer = checkpoint.load_tokenizer(model)
    samples = _open(data, asked)
    renderer = Renderer(tokenizer, chat_template=asked.chat_template)
    takes = _positions(config)
    rows = Rows(samples, renderer, asked.limit, asked.max_length or takes)
    record = _record(model, samples, tokenizer, asked)
    if takes is not None and (asked.max_length or 0) > takes:
        record["notes"].append(
            f"--max-length {asked.max_length:,}: above the {takes:,} positions that the model's "
            "configuration says it takes"
        )
    with writing(out):
        record = lossfiles.begin(out, record, overwrite=asked.overwrite)
        if record["state"] == "complete":
            return record
        if record["survey"] is None:
            record["survey"] = survey(rows, config.vocab_size, asked.overlength, model)
            lossfiles.write_record(out, record)
        _score_rows(rows, out, record["survey"], model, asked, watch)
        return lossfiles.finish(out, record)


def _score_rows(
    rows: Rows, out: Path, found: dict[str, Any], model: str, asked: Asked, watch: Watch
) -> None:
    """Score what is not in files yet."""
    done, files = lossfiles.done(out)
    if done == found["rows"]:
        return
    left = found["bytes"] * (found["rows"] - done) // found["rows"]
    loaded = checkpoint.load(model, str(asked.dtype), torch.device(str(asked.device)))
    with watch("scoring", left) as progress:
        for number, part in enumerate(rows.parts(done), files):
            lossfiles.write(out, number, part, _score_part(loaded, part, asked.batch_tokens))
            progress.add(len(part), sum(len(each.text.encode()) for _, each in part))


# What is scored.


def _open(data: Path, asked: Asked) -> Samples:
    """The dataset, with the steps of its traces where they are known."""
    return open_samples(data, teacher=asked.teacher, id=asked.id, steps=has_steps(data))


def _record(model: str, samples: Samples, tokenizer: Any, asked: Asked) -> Record:
    """What is scored with what: the run is the same if all of `settings` is."""
    settings = {
        "model": checkpoint.fingerprint(model),
        "data": samples.digest,
        "tokenizer": checkpoint.tokenizer_digest(tokenizer),
        "chat_template": template_digest(tokenizer, asked.chat_template),
        "steps": has_steps(samples.path),
        **{name: getattr(asked, name) for name in SETTINGS},
    }
    return lossfiles.new_record(
        model=model,
        data=str(samples.path),
        settings=settings,
        device=str(asked.device),
        batch_tokens=asked.batch_tokens,
        notes=list(samples.notes),
    )


def template_digest(tokenizer: Any, asked: str | None) -> str:
    """SHA-256 of the chat template asked for, else of the tokenizer's own."""
    template = asked or getattr(tokenizer, "chat_template", None)
    return hashlib.sha256(str(template).encode()).hexdigest()


def _positions(config: Any) -> int | None:
    """The most tokens of a sample that a model says it takes, None for any number."""
    most = getattr(config, "max_position_embeddings", None)
    return most if most is not None and most > 0 else None


# Scoring.


def _score_part(
    loaded: Loaded, part: Sequence[tuple[Sample, Rendered]], batch_tokens: int
) -> list[SampleScores]:
    """The scores of a part's samples, in their order, whatever they were batched with."""
    rendered = [each for _, each in part]
    scored: dict[int, SampleScores] = {}
    for batch in _batches([len(each.input_ids) for each in rendered], batch_tokens):
        longest = len(rendered[batch[0]].input_ids)
        try:
            found = _score_batch(loaded, [rendered[n] for n in batch])
        except IndexError as error:  # positions that were learnt, and are no more than these
            raise CurateError(
                f"{loaded.name}: expected a model that takes {longest:,} tokens, found one that "
                f"does not: {first_line(error)} (--max-length)"
            ) from None
        except torch.OutOfMemoryError:
            raise CurateError(
                f"--batch-tokens {batch_tokens:,}: {loaded.device} has too little memory for a "
                f"batch of {len(batch):,} samples, the longest of {longest:,} tokens"
            ) from None
        scored.update(zip(batch, found, strict=True))
    for n, (sample, _) in enumerate(part):
        if not (np.isfinite(scored[n].nll).all() and np.isfinite(scored[n].entropy).all()):
            raise CurateError(
                f"{loaded.name}: expected losses that are numbers, found others in "
                f"{named(sample)} ({loaded.dtype})"
            )
    return [scored[n] for n in range(len(part))]


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places of samples, the longest first, so many that with padding they are at most `most`."""
    order = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    while order:
        fits = max(1, most // max(1, lengths[order[0]]))
        yield order[:fits]
        order = order[fits:]


@torch.inference_mode()
def _score_batch(loaded: Loaded, batch: Sequence[Rendered]) -> list[SampleScores]:
    """The scores of samples in one forward pass, padded on the right; the longest stands first."""
    lengths = [len(each.input_ids) for each in batch]
    # What stands at the very beginning follows nothing, so that nothing says how likely it is.
    firsts = [max(1, each.prompt_tokens) for each in batch]
    ids = torch.zeros(len(batch), max(lengths), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, each in enumerate(batch):
        ids[row, : lengths[row]] = torch.from_numpy(each.input_ids.astype(np.int64))
        mask[row, : lengths[row]] = 1
    spans = list(zip(range(len(batch)), firsts, lengths, strict=True))
    labels = torch.cat([ids[row, first:end] for row, first, end in spans])
    padded = min(lengths) < max(lengths)
    hidden = checkpoint.hidden_states(
        loaded, ids.to(loaded.device), mask.to(loaded.device) if padded else None
    )
    hidden = torch.cat([hidden[row, first - 1 : max(first, end) - 1] for row, first, end in spans])
    scores = [column.cpu().numpy() for column in _scores(loaded, hidden, labels)]
    ends = np.cumsum([max(0, end - first) for _, first, end in spans])[:-1]
    split = zip(*(np.split(column, ends) for column in scores), strict=True)
    return [SampleScores(first, *of_one) for first, of_one in zip(firsts, split, strict=True)]


def _scores(loaded: Loaded, hidden: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    head = loaded.head
    nll, entropy, rank, _ = score(
        hidden,
        head.weight,
        head.bias,
        labels.to(loaded.device),
        logit_scale=head.logit_scale,
        softcap=head.softcap,
    )
    return [nll, entropy, rank]
