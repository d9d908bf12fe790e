"""
The next token of each row: a function of its logits and its key, not of what it is batched with.

A token is drawn by the Gumbel-max trick: to each logit over the temperature is added noise that
depends on the row's key, the position and the token alone, and the greatest sum wins. So a sample
is the same in any batch, in any order, and after an interruption, as long as the logits are. They
are, but for rounding: a batch of another shape changes the last digits. Where those could change
the token (two sums nearly tie, or a token is at the edge of the nucleus) the choice is *unsure*,
and whoever decodes makes it again from logits that are computed for that row alone.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from curate.errors import CurateError

FEWEST, MORE = 64, 16
"""Likeliest tokens that are looked at first, and how many times more where they are too few."""

ROUNDING = 2e-5
"""How far a float32 logit moves with the shape of its batch, as a share of the greatest one."""

EDGE = 1e-4
"""How far the probability before a token moves with the order in which it is summed."""

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
FACTORS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """
    How tokens are drawn. Temperature 0 takes the likeliest token; `top_k` 0 and `top_p` 1 bound
    nothing. Of the `top_k` likeliest tokens those are kept, likeliest first, before which less than
    `top_p` of their probability lies.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    max_new_tokens: int = 32_768
    seed: int = 0

    def __post_init__(self) -> None:
        drawn = 0 <= self.temperature < math.inf and 0 < self.top_p <= 1 and self.top_k >= 0
        if not drawn or self.max_new_tokens < 1:
            raise CurateError(
                "sampling: expected a temperature from 0, top_p above 0 to 1, top_k from 0 and a "
                f"new token at least, found {self.temperature}, {self.top_p}, {self.top_k} and "
                f"{self.max_new_tokens}"
            )


class Choice(NamedTuple):
    """The token int64[n] of each row; bool[n], whether no rounding could have made it another."""

    tokens: torch.Tensor
    sure: torch.Tensor


class Candidates(NamedTuple):
    """
    Tokens that may be drawn, [n, c] each: float32 logits and int64 ids; bool, those that are within
    the bounds, those that may be for all that rounding does, and those that are whatever it does.
    """

    values: torch.Tensor
    ids: torch.Tensor
    inside: torch.Tensor
    maybe: torch.Tensor
    surely: torch.Tensor


def noise_key(seed: int, prompt_ids: Sequence[int], sample: int) -> int:
    """What a completion's noise hangs on, as a signed 64-bit number: not on the model."""
    ids = np.asarray(prompt_ids, "<i4").tobytes()
    digest = hashlib.sha256(f"{seed}:{sample}:".encode() + ids).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def choose(
    logits: torch.Tensor, keys: torch.Tensor, positions: torch.Tensor, sampling: Sampling
) -> Choice:
    """
    The next token of each row.

    `logits` [n, vocabulary], `keys` int64[n] of `noise_key`, `positions` int64[n]: how many new
    tokens there are before this one. Costs a pass over the logits, and a sort of the few that
    matter.
    """
    logits = logits.float()
    if bool(logits.isnan().any()):
        raise CurateError("expected logits that are numbers, found some that are none (NaN)")
    finite = logits.abs().nan_to_num(posinf=0.0)  # what a model rules out is minus infinity
    error = ROUNDING * finite.amax(-1).clamp(min=1)
    if sampling.temperature == 0:
        return _greatest(logits, error)
    found = _candidates(logits, error[:, None], sampling)
    sums = found.values.double() / sampling.temperature + _noise(keys, positions, found.ids)
    best = sums.masked_fill(~found.inside, -torch.inf).argmax(-1, keepdim=True)
    others = sums.masked_fill(~found.maybe, -torch.inf).scatter(-1, best, -torch.inf).amax(-1)
    ahead = sums.gather(-1, best)[:, 0] - others > 2 * error / sampling.temperature
    sure = ahead & found.surely.gather(-1, best)[:, 0]
    return Choice(found.ids.gather(-1, best)[:, 0], sure)


def _greatest(logits: torch.Tensor, error: torch.Tensor) -> Choice:
    """The likeliest token, of several that are the same as likely the first."""
    best = logits.topk(2).values
    ids = torch.arange(logits.shape[-1], device=logits.device)
    first = torch.where(logits == best[:, :1], ids, logits.shape[-1]).amin(-1)
    return Choice(first, best[:, 0] - best[:, 1] > 2 * error)


def _candidates(logits: torch.Tensor, error: torch.Tensor, sampling: Sampling) -> Candidates:
    """All tokens that may be drawn."""
    vocabulary = logits.shape[-1]
    if sampling.top_p == 1 and not sampling.top_k:
        every = torch.ones_like(logits, dtype=torch.bool)
        ids = torch.arange(vocabulary, device=logits.device).expand_as(logits)
        return Candidates(logits, ids, every, every, every)
    size = sampling.top_k + 1 if sampling.top_k else FEWEST
    while True:
        size = min(size, vocabulary)
        found = _likeliest(logits, error, sampling, size)
        if size == vocabulary or not bool(found.maybe[:, -1].any()):
            return found
        size *= MORE


def _likeliest(
    logits: torch.Tensor, error: torch.Tensor, sampling: Sampling, size: int
) -> Candidates:
    """The likeliest tokens, the likeliest first; enough of them if the last one is out for sure."""
    values, ids = logits.topk(size)
    ranked = torch.arange(size, device=logits.device)[None] < (sampling.top_k or size)
    before = _mass_before(logits, values, ranked, sampling)
    inside = ranked & (before < sampling.top_p)
    edge = EDGE + error / (2 * sampling.temperature)  # what logits' errors make of their shares
    last = values.masked_fill(~inside, torch.inf).amin(-1, keepdim=True)
    next_one = values.masked_fill(inside, -torch.inf).amax(-1, keepdim=True)
    maybe = (ranked & (before < sampling.top_p + edge)) | (values >= last - 2 * error)
    surely = inside & (before < sampling.top_p - edge) & (values > next_one + 2 * error)
    return Candidates(values, ids, inside, maybe, surely)


def _mass_before(
    logits: torch.Tensor, values: torch.Tensor, ranked: torch.Tensor, sampling: Sampling
) -> torch.Tensor:
    """The probability of all likelier tokens, of those that `top_k` leaves: float64[n, c]."""
    among = values.masked_fill(~ranked, -torch.inf) if sampling.top_k else logits
    total = (among / sampling.temperature).logsumexp(-1, keepdim=True)
    share = (values / sampling.temperature - total).double().exp()
    return share.cumsum(-1) - share


def _noise(keys: torch.Tensor, positions: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Gumbel noise float64[n, c] by row, position and token; SplitMix64 (Steele et al. 2014)."""
    streams = _mixed(keys + positions * GOLDEN)[:, None]
    bits = _mixed(streams + ids * GOLDEN)
    uniform = (_shifted(bits, 11).double() + 0.5) * 2.0**-53
    return -(-uniform.log()).log()


def _mixed(state: torch.Tensor) -> torch.Tensor:
    state = state + GOLDEN
    state = (state ^ _shifted(state, 30)) * FACTORS[0]
    state = (state ^ _shifted(state, 27)) * FACTORS[1]
    return state ^ _shifted(state, 31)


def _shifted(state: torch.Tensor, places: int) -> torch.Tensor:
    """Shifted right as if there were no sign."""
    return (state >> places) & ((1 << (64 - places)) - 1)
