"""
NLL, entropy and rank of every token under a model, from hidden states, a few positions at a time.

A vocabulary of 152,000 makes 5 GB of logits of 8,192 positions. Here only `chunk` of them have
logits at once, a buffer of chunk x vocabulary in float32 and at times another: at a chunk of 256
the peak was measured at 354 MB with a head in float32 and at 349 MB with one in bfloat16. The
product is in the head's own type, as the model itself has it; all that follows is float32.
"""

from dataclasses import dataclass
from typing import Any

from curate.errors import CurateError

Tensor = Any
"""Of torch, which stays unknown here: all that is done with tensors are methods of theirs."""

CHUNK = 256
"""Positions that have logits at once."""

LEAST = -1e4
"""Below that `exp` is zero in float32; times minus infinity it would not be a number."""


@dataclass(frozen=True, slots=True)
class Head:
    """
    What makes logits of hidden states: `softcap * tanh(scale * (h @ weight.T + bias) / softcap)`.

    `weight` is [vocabulary, hidden], `bias` [vocabulary] or None; without a `softcap` there is no
    tanh.
    """

    weight: Tensor
    bias: Tensor | None
    logit_scale: float = 1.0
    softcap: float | None = None


def head_of(model: Any) -> Head:
    """
    The head of a causal language model, its scale and cap read off the configuration.

    Raises CurateError where the model has no output embeddings, or an adapter's around them.
    Whether the head says all that the model does to its logits is for the caller to see by
    comparing the two.
    """
    found = model.get_output_embeddings()
    if found is None or getattr(found, "weight", None) is None:
        name = type(model).__name__
        raise CurateError(f"{name}: expected a causal language model, found no output embeddings")
    if hasattr(found, "base_layer"):  # whose weight is not all that makes the logits
        name = type(model).__name__
        raise CurateError(
            f"{name}: expected an output layer without an adapter, found {type(found).__module__}."
            f"{type(found).__name__} around it; merge the adapter into the model first"
        )
    config = model.config.get_text_config()
    cap = _number(config, "final_logit_softcapping")
    return Head(found.weight, getattr(found, "bias", None), _scale_of(config), cap)


def _scale_of(config: Any) -> float:
    """What logits are multiplied by: architectures name it differently, or divide instead."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):  # None: not scaled
        if (scale := _number(config, name)) is not None:
            return scale
    scaling = _number(config, "logits_scaling")
    if scaling is None:
        return 1.0
    return scaling if config.model_type == "hyperclovax" else 1 / scaling


def _number(config: Any, name: str) -> float | None:
    """A value of a configuration; what is no number is a word that the model may make one of."""
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) else None


def score(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    chunk: int = CHUNK,
    logit_scale: float = 1.0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    How likely each label is at its position.

    hidden
        [n, hidden], what the model has at the positions before the labels.
    weight, bias
        [vocabulary, hidden] and [vocabulary] or None; `hidden` is cast to their type.
    labels
        int64[n], each in [0, vocabulary); there is none that is passed over.

    Returns the NLL and the entropy of each position (float32[n], nats), the rank of its label
    (int32[n], logits strictly above it, so 0 for the most likely) and whether it is the first of
    the most likely (bool[n]), on the device of `hidden`. No gradient flows.
    """
    hidden, weight = hidden.detach(), weight.detach()
    bias = None if bias is None else bias.detach()
    size = len(labels)
    nll, entropy = (hidden.new_empty(size).float() for _ in range(2))
    rank, top1 = labels.new_empty(size).int(), labels.new_empty(size).bool()
    for begin in range(0, size, chunk):
        part = slice(begin, begin + chunk)
        logits = _logits(hidden[part].to(weight.dtype), weight, bias, logit_scale, softcap)
        nll[part], entropy[part], rank[part], top1[part] = _scored(logits, labels[part])
        del logits  # or it would stand beside the next
    return nll, entropy, rank, top1


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None
) -> Tensor:
    """float32[n, vocabulary]."""
    logits = hidden @ weight.T
    if bias is not None:
        logits += bias
    logits = logits.float()
    if scale != 1.0:
        logits *= scale
    if cap is not None:
        logits.div_(cap).tanh_().mul_(cap)
    return logits


def _scored(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `score` gives, of one chunk; overwrites the logits."""
    top, first = logits.max(-1, keepdim=True)
    own = logits.gather(-1, labels[:, None])
    # A sum of zeros and ones in float32 is exact up to 2**24; one of bool makes int64 of them all.
    rank = (logits > own).float().sum(-1).int()
    logits -= top
    weights = logits.exp()
    total = weights.sum(-1)
    log_total = total.log()
    nll = log_total - (own - top).squeeze(-1)
    # H = log Z - E[logit], and a logit of minus infinity has no part in it.
    mean = weights.mul_(logits.clamp_(min=LEAST)).sum(-1) / total
    return nll, log_total - mean, rank, first.squeeze(-1) == labels
