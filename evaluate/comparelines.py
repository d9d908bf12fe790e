"""A comparison as text for a terminal."""

from collections.abc import Iterator

from curate.evaluate.columns import columns
from curate.evaluate.comparing import RECIPE, Arm, Comparison, Row
from curate.terminal import printable
from curate.trainingseeds import LEAST_SEEDS

DASH = "–"

HEADER = ["task", "problems", "samples", "accuracy A", "B", "A less B", "95 % interval", "p"]
HEADER += ["p (Holm)", "truncated A", "B", "no answer A", "B", "mean tokens A", "B"]


def lines(found: Comparison, seed: int) -> list[str]:
    """What the numbers are about stands above them, what to beware of beneath."""
    rows = [*found.rows, *([found.pooled] if found.pooled else [])]
    told = [*_about(found), "", *columns(HEADER, [_row(row) for row in rows]), "", *_methods(found)]
    told += _seeds(rows, seed)
    if len(found.pairs) > 1:
        told += ["", *_by_pair(found, rows)]
    told += [
        f"task {task} left out: {', '.join(at)} has none of it"
        for task, at in found.left_out.items()
    ]
    told += [f"note: {note}" for note in found.notes]
    return [printable(line) for line in told]


def _about(found: Comparison) -> Iterator[str]:
    count = len(found.pairs)
    if found.level == RECIPE:
        yield f"{RECIPE}: A and B as recipes, on new training seeds and new problems of these kinds"
        yield f"{count} pairs of training seeds"
    else:
        yield (
            f"{found.level}: these checkpoints, on new problems and samples of these kinds; says "
            "nothing of another training run"
        )
    if 1 < count < LEAST_SEEDS:
        yield (
            f"no recipe claim: {count} of at least {LEAST_SEEDS} paired training seeds; numbers "
            f"are means over these {count} pairs"
        )
    for (a, b), (first, second) in zip(found.pairs, found.models, strict=True):
        yield f"A {a}{_model(first)}, B {b}{_model(second)}"


def _model(name: str | None) -> str:
    return "" if name is None else f" ({name})"


def _row(row: Row) -> list[str]:
    low, high = row.interval
    arms = row.a, row.b
    return [
        *(row.task, _size(row), _samples(row)),
        *(_percent(None if arm is None else arm.accuracy) for arm in arms),
        *(points(row.difference), f"[{points(low)}, {points(high)}]"),
        *(p_value(row.p), DASH if row.p_holm is None else p_value(row.p_holm)),
        *(_percent(None if arm is None else arm.truncated) for arm in arms),
        *(_percent(None if arm is None else arm.no_answer) for arm in arms),
        *map(_tokens, arms),
    ]


def _size(row: Row) -> str:
    """Problems, and in how many clusters, where that is not the same."""
    clusters = "" if row.clusters == row.problems else f" in {row.clusters:,}"
    return f"{row.problems:,}{clusters}"


def _samples(row: Row) -> str:
    """Of A and of B, where they are not the same; several where pairs are not."""
    if row.a is None or row.b is None:
        return DASH
    counts = ["/".join(map(str, dict.fromkeys(arm.samples))) for arm in (row.a, row.b)]
    return " : ".join(dict.fromkeys(counts))


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{share:.1%}"


def points(difference: float) -> str:
    """A difference in percentage points, with its sign; none for 0.0."""
    return f"{round(100 * difference, 1) or 0.0:+.1f}".replace("+0.0", "0.0")


def p_value(p: float) -> str:
    """A p-value, never as 0."""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def _tokens(arm: Arm | None) -> str:
    return DASH if arm is None or arm.mean_tokens is None else f"{arm.mean_tokens:,.0f}"


def _methods(found: Comparison) -> Iterator[str]:
    yield "A less B in percentage points, paired by problem; errors clustered"
    if any(row.clusters != row.problems for row in found.rows):
        yield "problems in fewer clusters: what is new are whole clusters, so they are what counts"
    if found.level == RECIPE:
        yield "intervals and p: by t, over seeds and problems"
    else:
        yield "p: sign flips of problems' differences, two-sided, mid-p; intervals: by t"
    if len(found.rows) > 1:
        yield f"Holm: over {len(found.rows)} tasks; in the mean each task counts the same"


def _seeds(rows: list[Row], seed: int) -> Iterator[str]:
    for row in rows:
        if row.draws:
            yield f"p of {row.task}: {row.draws:,} drawn signs, --seed {seed}, as exact is too dear"


def _by_pair(found: Comparison, rows: list[Row]) -> list[str]:
    header = ["A less B by pair", *(str(n + 1) for n in range(len(found.pairs)))]
    return columns(header, [[row.task, *map(points, row.seeds)] for row in rows])
