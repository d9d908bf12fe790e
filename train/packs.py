"""
Whether a model keeps the documents of a pack apart, tried on it before the first step.

Packed rows stand in one sequence without padding, their positions beginning anew with each. Most
architectures make an attention mask of that; some look at a mask or a state of their own and would
let every document see those before it, without a word.
"""

from typing import Any

import torch

from curate.errors import CurateError
from curate.train.collating import Collator, beside

SIZE = 8
"""Tokens of each document that is tried."""

MOST = 1e-3
"""By how much logits may change; of documents kept apart they do not: the shapes are the same."""


def check_apart(model: Any, collator: Collator, vocabulary: int) -> None:
    """Raise CurateError if a document's logits depend on the one that is packed before it."""
    try:
        one, other = (_second(model, collator, _ids(shift, vocabulary)) for shift in (0, 1))
    except ValueError as error:  # as of architectures that say they cannot
        raise CurateError(f"--packing: {' '.join(str(error).split())}") from None
    changed = float((one - other).abs().max())
    if not changed <= MOST:
        raise CurateError(
            f"--packing: expected documents that do not see each other, found that "
            f"{type(model).__name__} with attention {model.config._attn_implementation!r} mixes "
            f"them: logits change by {changed:.2g} with the document before"
        )


def _ids(shift: int, vocabulary: int) -> list[int]:
    """Two documents, of which the first is another for each shift."""
    first = [(3 * n + 5 * shift) % vocabulary for n in range(SIZE)]
    return first + [(7 * n + 1) % vocabulary for n in range(SIZE)]


def _second(model: Any, collator: Collator, ids: list[int]) -> torch.Tensor:
    """The logits of the second document: float32[SIZE, vocabulary]."""
    record: dict[str, Any] = {"input_ids": ids, "labels": ids, "kinds": [0] * len(ids)}
    batch = collator([record | {"rows": [0, 1], "seq_lengths": [SIZE, SIZE]}])
    beside(batch)
    del batch["labels"]
    trained = model.training
    model.eval()
    with torch.no_grad():
        inputs = {n: v.to(model.device) if torch.is_tensor(v) else v for n, v in batch.items()}
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
    model.train(trained)
    return logits[0, SIZE:].float()
