"""Plans as text for a terminal."""

from collections.abc import Iterator, Sequence
from math import sqrt

from curate.evaluate.columns import columns
from curate.evaluate.planning import Asked, Plan
from curate.terminal import printable


def lines(plans: Sequence[Plan], asked: Asked) -> list[str]:
    """What is asked, and for each task what it takes and on what that stands."""
    out = [
        f"to find a difference of {100 * asked.difference:g} points with a chance of "
        f"{100 * asked.power:g} %, two-sided at {asked.alpha:g}, {_about(asked)}"
    ]
    for plan in plans:
        out += ["", *_plan(plan, asked)]
    return [printable(line) for line in out]


def _about(asked: Asked) -> str:
    if asked.seeds is None:
        return "between two checkpoints on the same problems"
    return f"between two recipes with {asked.seeds} paired training seeds on the same problems"


def _plan(plan: Plan, asked: Asked) -> Iterator[str]:
    sizes = list(plan.needs[0].detectable)
    header = ["samples", "problems needed"]
    if asked.seeds is not None and plan.problems:
        header.append(f"seeds needed for {plan.problems:,} problems")
    header += [f"{n:,} problems find" for n in sizes]
    rows = []
    for need in plan.needs:
        row = [f"{need.samples:,}", _count(need.problems)]
        if asked.seeds is not None and plan.problems:
            row.append(_count(need.seeds))
        rows.append([*row, *(_points(need.detectable[n]) for n in sizes)])
    yield plan.task or "without a pilot"
    yield from columns(header, rows)
    first, second = plan.variance.within
    yield (
        f"standard deviations: true difference from problem to problem "
        f"{sqrt(plan.variance.between):.3f}, one sample of a problem {sqrt(first):.3f} (A) and "
        f"{sqrt(second):.3f} (B)"
    )
    yield from plan.assumptions


def _count(number: int | None) -> str:
    return "no number" if number is None else f"{number:,}"


def _points(difference: float | None) -> str:
    return "none" if difference is None else f"{100 * difference:.1f} points"
