"""
What generation means, slow and obvious: one row at a time, one token at a time, all from the start.

The specification of `curate.evaluate.sampling` and `curate.evaluate.decoding`, which tests hold
against it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from curate.evaluate.decoding import Request, Written, last_logits_only
from curate.evaluate.sampling import Sampling

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


@torch.inference_mode()
def write(model: Any, request: Request, sampling: Sampling, stop_ids: Sequence[int]) -> Written:
    """A completion: of each token the whole sequence is read anew, by itself, without a cache."""
    new: list[int] = []
    while len(new) < sampling.max_new_tokens:
        ids = torch.tensor([[*request.prompt_ids, *new]], device=model.device)
        out = model(input_ids=ids, use_cache=False, **last_logits_only(model))
        logits = out.logits[0, -1].float().tolist()
        new.append(choose(logits, request.noise, len(new), sampling))
        if new[-1] in stop_ids:
            return Written(request, new, True)
    return Written(request, new, False)


def choose(logits: Sequence[float], key: int, position: int, sampling: Sampling) -> int:
    """The next token: the greatest sum of logit over temperature and noise of those allowed."""
    if sampling.temperature == 0:
        return max(range(len(logits)), key=logits.__getitem__)
    scaled = [logit / sampling.temperature for logit in logits]
    sums = {
        token: scaled[token] + noise(key, position, token) for token in allowed(scaled, sampling)
    }
    return max(sums, key=sums.__getitem__)


def allowed(scaled: Sequence[float], sampling: Sampling) -> list[int]:
    """The `top_k` likeliest tokens, as far as less than `top_p` of their probability is before."""
    ranked = sorted(range(len(scaled)), key=scaled.__getitem__, reverse=True)
    ranked = ranked[: sampling.top_k or len(ranked)]
    weights = [math.exp(scaled[token] - scaled[ranked[0]]) for token in ranked]
    found, before = [], 0.0
    for token, weight in zip(ranked, weights, strict=True):
        if before / sum(weights) < sampling.top_p:
            found.append(token)
        before += weight
    return found


def noise(key: int, position: int, token: int) -> float:
    """Gumbel noise: a number in (0, 1) drawn for row, position and token, twice through -log."""
    stream = _mixed(key + position * GOLDEN)
    uniform = ((_mixed(stream + token * GOLDEN) >> 11) + 0.5) / (1 << 53)
    return -math.log(-math.log(uniform))


def _mixed(state: int) -> int:
    """SplitMix64's output for a state (Steele, Lea, Flood 2014)."""
    state = (state + GOLDEN) & WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
    return state ^ (state >> 31)
