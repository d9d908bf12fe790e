"""
Loss masks inside a trace: tokens that the model reads and is not trained to write.

`branch-steps` masks the steps that the lexicon marks. Where a branch that such a step opens ends
again cannot be known from markers, so the steps that follow it inside the branch stay in the loss;
a column of spans (`--mask-spans`), where a generator knows them, covers whole branches. `random`
masks as many tokens of the same trace, drawn by a hash of the row: the control.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from curate.errors import CurateError
from curate.rendering import Rendered
from curate.samples import Sample
from curate.tokenkinds import BRANCH, STEP, THOUGHT, in_spans, token_kinds


@dataclass(frozen=True, slots=True)
class Mask:
    """Which tokens of a trace are left out of the loss."""

    spans: bool = False  # those of the column of spans, else branch steps
    random: bool = False  # as many of the trace's instead
    seed: int = 0

    def of(self, sample: Sample, rendered: Rendered, kept: int | None = None) -> np.ndarray:
        """The tokens to mask among the first `kept` ones, or among all: bool[n]."""
        kinds = token_kinds(rendered, sample)
        marked = self._marked(sample, rendered, kinds)
        marked[kept if kept is not None else len(marked) :] = False
        if not self.random:
            return marked
        of_trace = np.isin(kinds[:kept], (BRANCH, STEP, THOUGHT))
        return _as_many(np.flatnonzero(of_trace), marked, self.seed, sample.key)

    def _marked(self, sample: Sample, rendered: Rendered, kinds: np.ndarray) -> np.ndarray:
        if not self.spans:
            return np.asarray(kinds == BRANCH)
        places = np.array(sample.spans or [], np.int64).reshape(-1, 2)
        return in_spans(rendered, sample, places[:, 0], places[:, 1])


def _as_many(places: np.ndarray, marked: np.ndarray, seed: int, key: str) -> np.ndarray:
    """As many tokens as are marked, drawn from the trace's without replacement."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    drawn = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    chosen = np.zeros(len(marked), np.bool_)
    chosen[drawn.choice(places, int(marked.sum()), replace=False)] = True
    return chosen


def mask_of(mask: str | None, spans: str | None, seed: int) -> Mask | None:
    """The mask that options ask for, None for none."""
    if mask == "branch-steps" and spans is not None:
        raise CurateError(
            "--mask branch-steps: expected without --mask-spans, which says what to mask instead"
        )
    if mask is None and spans is None:
        return None
    return Mask(spans=spans is not None, random=mask == "random", seed=seed)
