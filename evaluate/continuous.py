"""
Generation by transformers' continuous batching, for GPUs.

Its samples are drawn by its own generator: they depend on what they are batched with, and are not
those of `curate.evaluate.decoding`. What it gives back is not believed: it returns what it has when
its thread dies, and marks single requests as failed.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from itertools import islice
from typing import Any

from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig

from curate.errors import CurateError
from curate.evaluate.decoding import Request, Written
from curate.evaluate.sampling import Sampling

AT_ONCE = 1024
"""Requests that are handed over at once; what they gave is then kept, should the run be stopped."""


def write_continuously(
    model: Any,
    requests: Iterable[Request],
    sampling: Sampling,
    stop_ids: Sequence[int],
    tell: Callable[[int], None] = lambda tokens: None,
    **batching: Any,
) -> Iterator[Written]:
    """
    The completions of requests, some hundred at a time.

    `batching` are options of ContinuousBatchingConfig; by default it takes what memory is free.
    Raises CurateError where any of them is missing, failed, or is longer than asked.
    """
    waiting = iter(requests)
    while part := list(islice(waiting, AT_ONCE)):
        told = _generated(model, part, sampling, stop_ids, batching)
        for request, ids in zip(part, told, strict=True):
            tell(len(ids))
            yield Written(request, ids, ids[-1] in stop_ids)


def _generated(
    model: Any,
    part: Sequence[Request],
    sampling: Sampling,
    stop_ids: Sequence[int],
    batching: Mapping[str, Any],
) -> list[list[int]]:
    """The new tokens of each request, in their order."""
    drawn = sampling.temperature > 0
    options = {"temperature": sampling.temperature, "top_p": sampling.top_p} if drawn else {}
    config = GenerationConfig(
        do_sample=drawn,
        top_k=sampling.top_k if drawn else None,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=list(stop_ids),
        pad_token_id=stop_ids[0],
        **options,
    )
    # A processor that it cannot apply is an error, not a warning. The generator starts anew with
    # each call: from another state for other requests, or they would get the same draws.
    settings = ContinuousBatchingConfig(
        drop_unsupported_processors=False, seed=_seed_of(part), **batching
    )
    inputs = [list(map(int, request.prompt_ids)) for request in part]
    with tempfile.TemporaryFile("w+") as said, redirect_stdout(said):  # stdout is for data
        found = model.generate_batch(
            inputs, generation_config=config, continuous_batching_config=settings
        )
    ids = [list(map(int, one.generated_tokens)) for one in found.values()]
    failed = [one.error for one in found.values() if one.error is not None]
    if failed or len(ids) != len(part):
        raise CurateError(
            f"continuous batching: expected {len(part):,} completions, found {len(ids):,}, "
            f"{len(failed):,} of which failed{f': {failed[0]}' if failed else ''}"
        )
    return [_checked(one, sampling, stop_ids) for one in ids]


def _seed_of(part: Sequence[Request]) -> int:
    """What a call's draws hang on: the noise of its requests, which hangs on the seed."""
    digest = hashlib.sha256(repr([request.noise for request in part]).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def _checked(ids: list[int], sampling: Sampling, stop_ids: Sequence[int]) -> list[int]:
    stopped = bool(ids) and ids[-1] in stop_ids
    inside = any(one in stop_ids for one in ids[:-1])
    if inside or not ids or (not stopped and len(ids) != sampling.max_new_tokens):
        raise CurateError(
            "continuous batching: expected completions that end with the first stop token or at "
            f"{sampling.max_new_tokens:,} tokens, found one of {len(ids):,} that does not"
        )
    return ids
