"""What a generation is asked for: settings, prompts, and the keys of the completions wanted."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curate.errors import CurateError
from curate.evaluate import checkpoint
from curate.evaluate.problems import Problems
from curate.evaluate.prompting import Prompter, warnings
from curate.evaluate.sampling import Sampling
from curate.evaluate.stopping import stop_ids_of
from curate.evaluate.store import key_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    How completions are to be written.

    `samples` is the number for each problem, by the task's name, or for all; by default 16 up to
    100 problems, 4 up to 500, else 1. `benchmarks` is a folder of problem files, without which the
    Hub is asked. `lengths_from` is another evaluation, whose lengths say what to begin with.
    Defaults of `dtype` and `device` are what the machine has. The others are as `Sampling`,
    `Prompter` and `Decoder` have them.
    """

    sampling: Sampling = field(default_factory=Sampling)
    samples: int | dict[str, int] | None = None
    benchmarks: Path | None = None
    limit: int | None = None
    prompts: str | None = None
    system: str | None = None
    chat_template: str | None = None
    backend: str = "loop"
    batch: int = 64
    dtype: str | None = None
    device: str | None = None
    lengths_from: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    A task's problems as prompts, and the keys of the completions that are wanted of each.

    `notes` are what a user should know of them.
    """

    problems: Problems
    texts: list[str]
    prompt_ids: list[np.ndarray]
    keys: list[list[str]]
    notes: list[str]

    @property
    def name(self) -> str:
        """The task's."""
        return self.problems.task.name


def default_samples(count: int) -> int:
    """Samples for each of so many problems: as many as make their noise small beside theirs."""
    return 16 if count <= 100 else 4 if count <= 500 else 1


def settings_of(model: str, tokenizer: Any, asked: Asked, form: str) -> dict[str, Any]:
    """What tells these completions from others of the same prompts."""
    template = asked.chat_template or tokenizer.chat_template if form == "chat" else None
    return {
        "model": checkpoint.fingerprint(model),
        "tokenizer": checkpoint.tokenizer_digest(tokenizer),
        "prompts": form,
        "chat_template": template and hashlib.sha256(str(template).encode()).hexdigest(),
        "system": asked.system,
        "sampling": asdict(asked.sampling) | {"stop_ids": stop_ids_of(model, tokenizer)},
        "backend": asked.backend,
        "dtype": asked.dtype,
    }


def wanted_of(
    model: str, found: Problems, prompter: Prompter, settings: dict[str, Any], asked: Asked
) -> Wanted:
    """
    The prompts of a task, and the keys of the completions that are wanted of each.

    Raises CurateError for a prompt without a token, and as `beyond_positions`.
    """
    samples = _samples(found, asked)
    rendered = [prompter.render(problem.content) for problem in found.rows]
    empty = next((n for n, (_, ids) in enumerate(rendered) if not len(ids)), None)
    if empty is not None:
        raise CurateError(
            f"task {found.task.name}: expected prompts with a token at least, found none in "
            f"{found.rows[empty].id}"
        )
    known = checkpoint.configuration(model).vocab_size
    if (most := max(int(ids.max()) for _, ids in rendered)) >= known:
        raise CurateError(
            f"{model}: expected a tokenizer of the model's {known:,} tokens, found one that gives "
            f"token {most:,}"
        )
    of = {name: settings[name] for name in ("model", "sampling", "backend", "dtype")}
    keys = [[key_of(of, ids, sample) for sample in range(samples)] for _, ids in rendered]
    notes = [
        *found.notes,
        *warnings(prompter, model, found.task, [problem.content for problem in found.rows]),
        *beyond_positions(model, max(len(ids) for _, ids in rendered), asked.sampling),
    ]
    return Wanted(found, [text for text, _ in rendered], [ids for _, ids in rendered], keys, notes)


def _samples(found: Problems, asked: Asked) -> int:
    given = asked.samples
    if isinstance(given, dict):
        given = given.get(found.task.name)
    return default_samples(len(found.rows)) if given is None else given


def beyond_positions(model: str, longest: int, sampling: Sampling) -> Iterator[str]:
    """
    Say where prompt and completion may be longer than the model is made for.

    Raises CurateError where its positions are looked up in a table that ends there.
    """
    config = checkpoint.configuration(model)
    takes = getattr(config, "max_position_embeddings", None)
    if takes is None or longest + sampling.max_new_tokens <= takes:
        return
    room = (
        f"prompts of up to {longest:,} tokens and {sampling.max_new_tokens:,} new ones, but the "
        f"model's configuration says it takes {takes:,} in all"
    )
    if getattr(config, "rope_parameters", None) is None:  # positions are looked up in a table
        raise CurateError(f"--max-new-tokens: {room}")
    yield room
