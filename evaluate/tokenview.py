"""
The token view of arXiv 2604.01702: which tokens a model has yet to learn, by teacher.

A low mean loss may come from many easy tokens rather than from hard ones that were learnt. So
tokens are grouped by what the *base* model made of them, before training, and the gap between two
teachers is split by these groups (`curate.evaluate.gaps`). Groups by the tuned model's own scores
would be made of what they are to explain. The paper does not say how it chose its hard tokens.

All tokens count alike, in whatever sample they stand. Scores are read three times and never held.
Several folders may be told as one, such as two models, each on the data that it was tuned on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from curate.evaluate.gaps import Estimate, estimate, mean, split, weights
from curate.evaluate.quantiles import Quantiles
from curate.evaluate.scorefiles import Scored
from curate.evaluate.tokenarms import Arms, Place, own_data, probe
from curate.tokenkinds import KINDS

EASY = 0.01
"""NLL in nats below which a token is easy: the model gave it more than 0.99."""

NLL_SHARES = (50, 250, 500, 750, 900, 950, 990)
"""NLL quantiles that are told, in per mille."""

EDGES = (100, 200, 300, 400, 500, 600, 700, 800, 900, 950)
"""Quantiles of the base model's entropy, pooled over teachers, between groups; in per mille."""

HARDEST = (5, 10, 20)
"""The hardest tokens that are told, in percent; each is an edge."""

DECILES = (*range(len(EDGES)), len(EDGES) - 1)
"""The tenth that each of the groups between edges belongs to."""

FEW = 4
"""Up to so many teachers, gaps are between each two; beyond, between each and all others."""


@dataclass(frozen=True, slots=True)
class Share:
    """Part of a teacher's tokens, and their mean NLL; None where there are none."""

    share: float
    mean_nll: float | None


@dataclass(frozen=True, slots=True)
class TeacherTokens:
    """
    One teacher's tokens under the model, NLL and entropy in nats; None where there are no tokens.

    Where folders of several models are told as one, the arm's name stands behind the teacher's.
    `quantiles` are by share, `kinds` by name, both of the model's NLL. `easy` is the share of
    tokens of NLL below the cut under the model itself, `easy_base` under the base model. `hardest`
    are by percent, and what share of this teacher's tokens is among them.
    """

    teacher: str
    samples: int
    tokens: int
    mean_nll: float | None
    mean_entropy: float | None
    mean_rank: float | None
    rank_0: float | None
    easy: float | None
    easy_base: float | None
    quantiles: dict[str, float]
    kinds: dict[str, Share]
    hardest: dict[str, Share]


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a gap that lie in other shares of the groups, and in other means within them."""

    composition: Estimate
    within: Estimate


@dataclass(frozen=True, slots=True)
class Gap:
    """Mean NLL of `a` less that of `b`; `splits` by `entropy` and `easy`, none without a base."""

    a: str
    b: str
    gap: Estimate
    splits: dict[str, Split]


@dataclass(frozen=True, slots=True)
class Section:
    """One set of samples; `cuts`: the base entropy that so many percent, the hardest, are above."""

    name: str
    model: str
    base: str | None
    cuts: dict[str, float]
    teachers: list[TeacherTokens]
    gaps: list[Gap]


@dataclass(frozen=True, slots=True)
class TokenView:
    """The token view of own data, and of the probe where there is one."""

    easy_below: float
    draws: int
    seed: int
    sections: list[Section]

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON would hold it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Tables for a terminal."""
        from curate.evaluate.tokenlines import lines

        return lines(self)


class _Totals:
    """What is summed up of one teacher; cells are the groups that gaps are split by."""

    def __init__(self, cells: int, draws: int) -> None:
        self.samples = self.rank = self.rank_0 = self.easy = self.easy_base = 0
        self.entropy = 0.0
        self.quantiles = Quantiles(NLL_SHARES)
        self.kinds = np.zeros((2, len(KINDS)))  # tokens, and their NLL
        self.cells = np.zeros((2, cells))
        self.drawn = np.zeros((2, draws, cells))

    @property
    def tokens(self) -> int:
        """Tokens in all, exactly up to 2**53."""
        return int(self.kinds[0].sum())


@dataclass(frozen=True, slots=True)
class _Side:
    """Samples, and tokens and NLL by cell, float64[2, 1 + draws, cells], the first as they are."""

    sums: np.ndarray
    samples: int

    @classmethod
    def of(cls, totals: _Totals) -> "_Side":
        """One teacher's."""
        return cls(np.concatenate([totals.cells[:, None], totals.drawn], axis=1), totals.samples)


def report(
    out: Path,
    base: Path | None,
    *,
    beside: Sequence[Place] = (),
    easy: float = EASY,
    draws: int = 1000,
    seed: int = 0,
) -> TokenView:
    """
    The token view of the scores in `out`, a folder of `curate losses`, and in `out/probe` if any.

    `base` holds the base model's scores of the same tokens, `base/probe` those of the probe.
    Without it there are no hardest tokens and no split. Folders `beside` it, each with its own base
    scores of the same base model, are pooled with it; a model's probe counts once, and is of the
    same tokens in all. Teachers are then told by folder if the folders are of several models. Cuts
    are pooled over the teachers and folders of the own data, and over those of the probe; a token
    is hard if its base entropy is above the cut, so ties with it are out and at most so many
    percent are in. `easy` is in nats; intervals are of `draws` draws of samples, the cuts held
    fixed; samples of the same key, as two models' of the probe, are drawn together. Quantiles and
    cuts are exact. Memory: 4 MB and `draws` times 704 bytes for each teacher. Raises CurateError
    for scores that are broken or of other tokens, and for folders that cannot be pooled.
    """
    places = [(out, base), *beside]
    sections = [_section("own data", own_data(places), easy, draws, seed)]
    if (probes := probe(places)) is not None:
        sections.append(_section("probe", probes, easy, draws, seed))
    return TokenView(easy, draws, seed, sections)


def _section(name: str, scores: Arms, easy: float, draws: int, seed: int) -> Section:
    cells = 1 if scores.base_model is None else 2 * (len(EDGES) + 1)
    totals: dict[str, _Totals] = {}
    pooled = Quantiles(EDGES)
    for batch in scores:
        if batch.base_entropy is not None:
            pooled.add(batch.base_entropy)
        for teacher, part in _by_teacher(batch):
            if teacher not in totals:
                totals[teacher] = _Totals(cells, draws)
            _sum_up(totals[teacher], part, easy)
    for batch in scores:
        if batch.base_entropy is not None:
            pooled.add_again(batch.base_entropy)
        for teacher, part in _by_teacher(batch):
            totals[teacher].quantiles.add_again(part.nll)
    edges = pooled.values()
    for batch in scores:
        for teacher, part in _by_teacher(batch):
            _group(totals[teacher], part, _cells(part, edges, easy), draws, seed)
    totals = dict(sorted(totals.items()))
    return Section(
        name=name,
        model=scores.model,
        base=scores.base_model,
        cuts={str(q): edges[EDGES.index(1000 - 10 * q)] for q in HARDEST} if edges else {},
        teachers=[_told(teacher, each, bool(edges)) for teacher, each in totals.items()],
        gaps=list(_gaps(totals, bool(edges))),
    )


def _by_teacher(batch: Scored) -> Iterator[tuple[str, Scored]]:
    """The samples of each teacher in turn."""
    names = np.array(batch.teachers, object)
    for teacher in dict.fromkeys(names):
        own = names == teacher
        of = np.repeat(own, batch.tokens)
        yield (
            teacher,
            Scored(
                keys=[key for key, mine in zip(batch.keys, own, strict=True) if mine],
                teachers=[teacher] * int(own.sum()),
                tokens=batch.tokens[own],
                kind=batch.kind[of],
                nll=batch.nll[of],
                entropy=batch.entropy[of],
                rank=batch.rank[of],
                base_nll=None if batch.base_nll is None else batch.base_nll[of],
                base_entropy=None if batch.base_entropy is None else batch.base_entropy[of],
            ),
        )


def _sum_up(totals: _Totals, part: Scored, easy: float) -> None:
    """First pass: all that needs no cut."""
    totals.samples += len(part.keys)
    totals.kinds[0] += np.bincount(part.kind, minlength=len(KINDS))
    totals.kinds[1] += np.bincount(part.kind, part.nll, minlength=len(KINDS))
    totals.entropy += float(part.entropy.sum(dtype=np.float64))
    totals.rank += int(part.rank.sum(dtype=np.int64))
    totals.rank_0 += int((part.rank == 0).sum())
    totals.easy += int((part.nll < easy).sum())
    totals.easy_base += 0 if part.base_nll is None else int((part.base_nll < easy).sum())
    totals.quantiles.add(part.nll)


def _cells(part: Scored, edges: Sequence[float], easy: float) -> np.ndarray:
    """The cell of each token, int64[t]: how many edges its base entropy is above, and if easy."""
    if part.base_entropy is None or part.base_nll is None:
        return np.zeros(len(part.nll), np.int64)
    above = np.searchsorted(np.array(edges, np.float32), part.base_entropy, side="left")
    cells: np.ndarray = 2 * above + (part.base_nll < easy)
    return cells


def _group(totals: _Totals, part: Scored, cells: np.ndarray, draws: int, seed: int) -> None:
    """Last pass: tokens and NLL by cell, as they are and as each draw of samples has them."""
    samples, width = len(part.keys), totals.cells.shape[1]
    places = np.repeat(np.arange(samples), part.tokens) * width + cells
    tokens = np.bincount(places, minlength=samples * width).reshape(samples, width)
    nll = np.bincount(places, part.nll, minlength=samples * width).reshape(samples, width)
    drawn = weights(part.keys, draws, seed)
    for at, sums in enumerate((tokens, nll)):
        totals.cells[at] += sums.sum(axis=0)
        totals.drawn[at] += drawn @ sums


def _told(teacher: str, totals: _Totals, with_base: bool) -> TeacherTokens:
    count = totals.tokens
    shares = [_share(tokens, nll, count) for tokens, nll in totals.kinds.T]
    hardest = {}
    for percent in HARDEST if with_base else ():
        first = EDGES.index(1000 - 10 * percent) + 1
        tokens, nll = totals.cells.reshape(2, -1, 2)[:, first:].sum(axis=(1, 2))
        hardest[str(percent)] = _share(tokens, nll, count)
    return TeacherTokens(
        teacher=teacher,
        samples=totals.samples,
        tokens=count,
        mean_nll=totals.kinds[1].sum() / count if count else None,
        mean_entropy=totals.entropy / count if count else None,
        mean_rank=totals.rank / count if count else None,
        rank_0=totals.rank_0 / count if count else None,
        easy=totals.easy / count if count else None,
        easy_base=totals.easy_base / count if count and with_base else None,
        quantiles={
            str(share / 1000): value
            for share, value in zip(NLL_SHARES, totals.quantiles.values(), strict=False)
        },
        kinds=dict(zip(KINDS, shares, strict=True)),
        hardest=hardest,
    )


def _share(tokens: float, nll: float, of: int) -> Share:
    return Share(float(tokens) / of if of else 0.0, float(nll / tokens) if tokens else None)


def _gaps(totals: Mapping[str, _Totals], with_base: bool) -> Iterator[Gap]:
    """Between each two teachers that have tokens, or each and all others where these are many."""
    having = {teacher: each for teacher, each in totals.items() if each.tokens}
    sides = {teacher: _Side.of(each) for teacher, each in having.items()}
    if len(sides) <= FEW:
        for a, b in combinations(sides, 2):
            yield _gap(a, b, sides[a], sides[b], with_base)
        return
    whole = _Side(
        np.sum([each.sums for each in sides.values()], axis=0),
        sum(each.samples for each in sides.values()),
    )
    for a, ours in sides.items():
        rest = _Side(whole.sums - ours.sums, whole.samples - ours.samples)
        yield _gap(a, "all others", ours, rest, with_base)


def _gap(a: str, b: str, ours: _Side, theirs: _Side, with_base: bool) -> Gap:
    """Values and draws go the same way: a row of groups each."""
    side_a, side_b = ours.sums, theirs.sums
    samples = min(ours.samples, theirs.samples)
    gap = mean(*side_a) - mean(*side_b)
    splits = {}
    for name in ("entropy", "easy") if with_base else ():
        parts = split(*_grouped(side_a, name), *_grouped(side_b, name))
        told = [estimate(float(part[0]), part[1:], samples) for part in parts]
        splits[name] = Split(*told)
    return Gap(a, b, estimate(float(gap[0]), gap[1:], samples), splits)


def _grouped(side: np.ndarray, by: str) -> np.ndarray:
    """The cells as groups: tenths of the base model's entropy, or easy and not."""
    cells = side.reshape(*side.shape[:2], -1, 2)
    firsts = np.unique(DECILES, return_index=True)[1]
    groups: np.ndarray = (
        cells.sum(axis=2) if by == "easy" else np.add.reduceat(cells.sum(axis=3), firsts, axis=2)
    )
    return groups
