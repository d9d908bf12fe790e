"""
NLL, entropy and rank of every completion token of a dataset under a model.

`OUT/losses.json` says what was scored with what, first as `running`, in the end as `complete`.
`OUT/tokens/00000.parquet` and on hold the samples in the dataset's order, one row each. A file has
its name once it is whole, so a run that was killed goes on behind the last one. Scores of a sample
depend on what it is batched with in the last digits of a float only.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curate.errors import CurateError
from curate.evaluate import checkpoint, lossfiles
from curate.evaluate.checkpoint import Loaded
from curate.evaluate.lossfiles import Record, Scored
from curate.output import writing
from curate.progress import Progress, unwatched
from curate.rendering import Rendered, Renderer
from curate.samples import Sample, Samples, open_samples
from curate.terminal import printable
from curate.tokenscores import score

PART_SAMPLES = 256
PART_TOKENS = 1 << 20
"""A file ends with whichever it reaches first; that is also what a kill costs at most."""

SETTINGS = ("dtype", "max_length", "overlength", "limit", "teacher", "id")
"""Of what is asked, what makes other files; the device and batches change last digits only."""

RENDERED_AT_ONCE = 64
NAMED = 3
"""Rows that are too long and named in the error; the rest is counted."""

Watch = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    How a dataset is to be scored.

    `teacher` and `id` name columns. `batch_tokens` bounds samples times the longest of them in a
    forward pass; a longer sample has one of its own. Samples over `max_length` tokens, or over what
    the model takes, are an error, or dropped and counted where `overlength` is `drop`. `limit`
    takes the first rows only. Defaults of `dtype` and `device` are what the machine has.
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
    rows = _Rows(samples, renderer, asked.limit, _positions(config, asked.max_length))
    record = _record(model, samples, tokenizer, asked)
    with writing(out):
        record = lossfiles.begin(out, record, overwrite=asked.overwrite)
        if record["state"] == "complete":
            return record
        if record["survey"] is None:
            record["survey"] = _survey(rows, config.vocab_size, asked, model)
            lossfiles.write_record(out, record)
        _score_rows(rows, out, record["survey"], model, asked, watch)
        return lossfiles.finish(out, record)


def _score_rows(
    rows: "_Rows", out: Path, survey: dict[str, Any], model: str, asked: Asked, watch: Watch
) -> None:
    """Score what is not in files yet."""
    done, files = lossfiles.done(out)
    if done == survey["rows"]:
        return
    left = survey["bytes"] * (survey["rows"] - done) // survey["rows"]
    loaded = checkpoint.load(model, str(asked.dtype), torch.device(str(asked.device)))
    with watch("scoring", left) as progress:
        for number, part in enumerate(rows.parts(done), files):
            lossfiles.write(out, number, part, _score_part(loaded, part, asked.batch_tokens))
            progress.add(len(part), sum(len(each.text.encode()) for _, each in part))


# What is scored.


def _open(data: Path, asked: Asked) -> Samples:
    """The dataset, with the steps of its traces where they are known."""
    samples = open_samples(data, teacher=asked.teacher, id=asked.id)
    if not _has_steps(samples):
        return samples
    return open_samples(data, teacher=asked.teacher, id=asked.id, steps=True)


def _has_steps(samples: Samples) -> bool:
    if samples.manifest is None:
        return False
    places = (samples.path, Path(samples.manifest["scan"] or samples.path))
    return any((place / ".curate" / "steps").is_dir() for place in places)


def _record(model: str, samples: Samples, tokenizer: Any, asked: Asked) -> Record:
    """What is scored with what: the run is the same if all of `settings` is."""
    template = asked.chat_template or getattr(tokenizer, "chat_template", None)
    settings = {
        "model": checkpoint.fingerprint(model),
        "data": samples.digest,
        "tokenizer": checkpoint.tokenizer_digest(tokenizer),
        "chat_template": hashlib.sha256(str(template).encode()).hexdigest(),
        "steps": _has_steps(samples),
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


def _positions(config: Any, asked: int | None) -> int | None:
    """The most tokens of a sample, None for any number."""
    most = getattr(config, "max_position_embeddings", None)
    bounds = [bound for bound in (most, asked) if bound is not None and bound > 0]
    return min(bounds, default=None)


class _Rows:
    """The samples of a dataset with their tokens, as often as they are asked for."""

    def __init__(
        self, samples: Samples, renderer: Renderer, rows: int | None, limit: int | None
    ) -> None:
        self.samples, self.limit = samples, limit
        self._renderer, self._rows = renderer, rows

    def rendered(self, begin: int = 0) -> Iterator[tuple[Sample, Rendered]]:
        """From sample `begin` on, those that are too long too."""
        each = islice(self.samples, begin, self._rows)
        while group := list(islice(each, RENDERED_AT_ONCE)):
            yield from zip(group, self._renderer.render(group), strict=True)

    def is_overlong(self, rendered: Rendered) -> bool:
        """Whether it has more tokens than the limit."""
        return self.limit is not None and len(rendered.input_ids) > self.limit

    def parts(self, begin: int) -> Iterator[list[tuple[Sample, Rendered]]]:
        """What stands in a file each, from sample `begin` on, without those that are too long."""
        part: list[tuple[Sample, Rendered]] = []
        tokens = 0
        for sample, rendered in self.rendered(begin):
            if self.is_overlong(rendered):
                continue
            part.append((sample, rendered))
            tokens += len(rendered.input_ids)
            if len(part) == PART_SAMPLES or tokens >= PART_TOKENS:
                yield part
                part, tokens = [], 0
        if part:
            yield part


def _survey(rows: _Rows, vocabulary: int, asked: Asked, model: str) -> dict[str, Any]:
    """
    Look at all rows before the first is scored: how many, how long, and which are too long.

    Raises CurateError where there are any that the run may not drop, or none is left.
    """
    samples = size = largest = 0
    long: list[str] = []
    dropped: Counter[str] = Counter()
    for sample, rendered in rows.rendered():
        samples += 1
        largest = max(largest, int(rendered.input_ids.max(initial=0)))
        if rows.is_overlong(rendered):
            dropped[sample.teacher or ""] += 1
            if len(long) < NAMED:
                long.append(f"{_named(sample)} has {len(rendered.input_ids):,}")
        else:
            size += len(rendered.text.encode())
    where = rows.samples.path
    if largest >= vocabulary:
        raise CurateError(
            f"{model}: expected tokens below {vocabulary:,}, its vocabulary, but its tokenizer "
            f"makes {largest:,}"
        )
    found = dropped.total()
    if found and asked.overlength == "error":
        raise CurateError(
            f"{where}: expected at most {rows.limit:,} tokens a row, found {found:,} rows with "
            f"more ({_by_teacher(dropped)}): {', '.join(long)}; --overlength drop leaves them out"
        )
    if found == samples:
        what = "only rows that are too long" if found else "none"
        raise CurateError(f"{where}: expected rows to score, found {what}")
    return {"rows": samples, "bytes": size, "overlength": dict(sorted(dropped.items()))}


def _named(sample: Sample) -> str:
    return f"row {sample.index:,}" + (f" ({printable(sample.id)})" if sample.id else "")


def _by_teacher(counts: Counter[str]) -> str:
    return ", ".join(
        f"{printable(teacher) or 'no teacher'}: {n:,}" for teacher, n in sorted(counts.items())
    )


# Scoring.


def _score_part(
    loaded: Loaded, part: Sequence[tuple[Sample, Rendered]], batch_tokens: int
) -> list[Scored]:
    """The scores of a part's samples, in their order, whatever they were batched with."""
    rendered = [each for _, each in part]
    scored: dict[int, Scored] = {}
    for batch in _batches([len(each.input_ids) for each in rendered], batch_tokens):
        try:
            found = _score_batch(loaded, [rendered[n] for n in batch])
        except torch.OutOfMemoryError:
            longest = len(rendered[batch[0]].input_ids)
            raise CurateError(
                f"--batch-tokens {batch_tokens:,}: {loaded.device} has too little memory for a "
                f"batch of {len(batch):,} samples, the longest of {longest:,} tokens"
            ) from None
        scored.update(zip(batch, found, strict=True))
    for n, (sample, _) in enumerate(part):
        if not (np.isfinite(scored[n].nll).all() and np.isfinite(scored[n].entropy).all()):
            raise CurateError(
                f"{loaded.name}: expected losses that are numbers, found others in "
                f"{_named(sample)} ({loaded.dtype})"
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
def _score_batch(loaded: Loaded, batch: Sequence[Rendered]) -> list[Scored]:
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
    return [Scored(first, *of_one) for first, of_one in zip(firsts, split, strict=True)]


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
