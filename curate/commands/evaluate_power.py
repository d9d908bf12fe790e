"""`curate evaluate power`: how many problems, samples and seeds a difference takes."""

import json
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

import click

MOST = 10_000_000
"""Problems or samples; beyond that no plan is meant."""


class Number(click.FloatRange):
    """A number in a range, which NaN is not, though no comparison says so."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Of the option's text; click calls it with its default as well."""
        number: float = super().convert(value, param, ctx)
        if isnan(number):
            self.fail(f"expected a number, found {value}", param, ctx)
        return number


SHARE = Number(0, 1, min_open=True, max_open=True)

DEVIATION = Number(0, 1)
"""Of differences of accuracies, which lie in [-1, 1], so it is 1 at most."""


class Counts(click.ParamType):
    """Whole numbers from 1 to `MOST`, with commas between."""

    name = "counts"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Of the option's text; click calls it with its default as well."""
        try:
            counts = tuple(int(each) for each in str(value).split(","))
        except ValueError:
            counts = ()
        if not counts or min(counts) < 1 or max(counts) > MOST:
            self.fail(f"expected whole numbers such as 1,4,16, found {value}", param, ctx)
        return tuple(dict.fromkeys(counts))


@click.command()
@click.argument("pilots", nargs=-1, metavar="[PILOT_A [PILOT_B]]")
@click.option(
    "--difference", type=SHARE, required=True, metavar="D", help="To be found, such as 0.05."
)
@click.option(
    "--power",
    "chance",
    type=Number(0.5, 1, min_open=True, max_open=True),
    default=0.8,
    show_default=True,
    metavar="P",
    help="Chance of finding it.",
)
@click.option(
    "--alpha",
    type=Number(1e-9, 1, max_open=True),
    default=0.05,
    show_default=True,
    metavar="A",
    help="Chance of finding one where there is none, two-sided.",
)
@click.option(
    "--problems",
    type=click.IntRange(2, MOST),
    metavar="N",
    help="Problems for which to tell what can be found [default: as many as the pilot has].",
)
@click.option(
    "--samples",
    type=Counts(),
    default="1,4,16,64",
    show_default=True,
    metavar="K,...",
    help="Samples of each problem and model.",
)
@click.option(
    "--seeds",
    type=click.IntRange(5, 10_000),
    metavar="S",
    help="Paired training seeds, 5 at least: plan for a claim about recipes.",
)
@click.option(
    "--problem-sd",
    type=DEVIATION,
    metavar="SD",
    help="How the true difference varies from problem to problem "
    "[default: as two pilots show, else 0.15].",
)
@click.option(
    "--seed-sd",
    type=DEVIATION,
    metavar="SD",
    help="How the true difference varies from seed to seed [default: 0.01]; with --seeds.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def power(
    pilots: tuple[str, ...],
    difference: float,
    chance: float,
    alpha: float,
    problems: int | None,
    samples: tuple[int, ...],
    seeds: int | None,
    problem_sd: float | None,
    seed_sd: float | None,
    as_json: bool,
) -> None:
    """
    Say how many problems a comparison needs to find a difference, by samples of each problem, and
    what the problems that there are would find.

    Pilots are graded evaluations: two, of models as different as those to be compared, on the same
    problems, tell how much they vary; with one or none something is assumed, and said.
    """
    from curate.evaluate.planlines import lines
    from curate.evaluate.planning import Asked, plans

    if len(pilots) > 2:
        raise click.UsageError(f"expected two pilots at most, found {len(pilots)}")
    if seed_sd is not None and seeds is None:
        raise click.UsageError("--seed-sd: expected --seeds with it")
    asked = Asked(
        difference=difference,
        power=chance,
        alpha=alpha,
        problems=problems,
        samples=samples,
        seeds=seeds,
        spread=problem_sd,
        seed_spread=seed_sd,
    )
    found = plans([Path(pilot) for pilot in pilots], asked)
    if as_json:
        told = {"asked": asdict(asked), "plans": [plan.as_dict() for plan in found]}
        click.echo(json.dumps(told, allow_nan=False))
    else:
        click.echo("\n".join(lines(found, asked)))
