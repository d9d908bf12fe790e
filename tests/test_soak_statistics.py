"""
How often a test rejects and an interval holds the truth, in simulated evaluations.

Chances of success are drawn by problem from Beta(0.5, 0.5): most problems are mostly solved or
mostly not. The numbers of three seeds, set beforehand, are printed each; bounds are asked of all
three together, as 1,000 repeats alone leave a rate of 5 % uncertain by 0.7 points.
"""

import click
import numpy as np
import pytest

from curate.differences import Benchmark, difference, flipped
from curate.samplesize import Design, Variance, problems_needed
from curate.statistics import average
from curate.trainingseeds import recipe_difference

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

SEEDS = (1, 2, 3)
REPEATS = 1000

CELLS = [(problems, samples) for problems in (30, 100, 500) for samples in (1, 4, 16)]


def sampled(random, chances, samples):
    """bool [problems, samples]."""
    return random.random((len(chances), samples)) < chances[:, None]


def holds(interval, truth):
    return interval[0] <= truth <= interval[1]


def rates(once, seed, *key):
    """Shares of repeats in which each of what `once` tells is so, in percent."""
    random = np.random.default_rng([seed, *key])
    return 100 * np.mean([once(random) for _ in range(REPEATS)], axis=0)


def shown(name, found):
    return f"{name:>26}  " + "   ".join(" ".join(f"{rate:5.1f}" for rate in each) for each in found)


def by_seed(name, once, *key):
    """A line of the rates by seed, and their means."""
    found = [rates(once, seed, *key) for seed in SEEDS]
    click.echo(shown(name, [*found, np.mean(found, axis=0)]))
    return np.mean(found, axis=0)


def head(*told):
    click.echo(f"\n{', '.join(told)} in %: {REPEATS:,} repeats of seed {SEEDS}, all")


def test_two_samplings_of_one_model_differ_in_five_percent(capsys):
    with capsys.disabled():
        head("A/A: rejected and covered")
        found = {
            cell: by_seed("{} problems, k {}".format(*cell), alike(*cell), *cell) for cell in CELLS
        }
    odd = {cell: rate for cell, rate in found.items() if not (3.5 <= rate[0] <= 6.5)}
    assert odd == {}
    assert {cell: rate for cell, rate in found.items() if not (93 <= rate[1] <= 97)} == {}


def alike(problems, samples):
    def once(random):
        chances = random.beta(0.5, 0.5, problems)
        pair = sampled(random, chances, samples), sampled(random, chances, samples)
        benchmark = Benchmark([pair], np.arange(problems))
        return flipped([benchmark]).p <= 0.05, holds(difference(benchmark).interval, 0)

    return once


def test_intervals_hold_a_difference_that_there_is(capsys):
    with capsys.disabled():
        head("half of all failures mended (25 points): found and covered")
        found = {
            cell: by_seed("{} problems, k {}".format(*cell), mended(*cell), *cell) for cell in CELLS
        }
    assert {cell: rate for cell, rate in found.items() if not (93 <= rate[1] <= 97)} == {}


def mended(problems, samples):
    def once(random):
        chances = random.beta(0.5, 0.5, problems)
        pair = sampled(random, (1 + chances) / 2, samples), sampled(random, chances, samples)
        benchmark = Benchmark([pair], np.arange(problems))
        return flipped([benchmark]).p <= 0.05, holds(difference(benchmark).interval, 0.25)

    return once


@pytest.mark.parametrize(("shape", "least"), [((0.5, 0.5), 93), ((4, 0.25), 92), ((0.2, 3.8), 92)])
def test_intervals_of_an_accuracy_hold_it(shape, least, capsys):
    truth = shape[0] / sum(shape)

    def once(problems, samples):
        def draw(random):
            correct = sampled(random, random.beta(*shape, problems), samples)
            return (holds(average(correct, np.arange(problems)).interval, truth),)

        return draw

    with capsys.disabled():
        head(f"accuracy {truth:.2f}, Beta{shape}: covered")
        found = {
            cell: by_seed("{} problems, k {}".format(*cell), once(*cell), *cell)[0]
            for cell in CELLS
        }
    assert {cell: rate for cell, rate in found.items() if rate < least} == {}


def test_clusters_of_problems_are_not_taken_for_independent(capsys):
    def once(clusters, size, samples):
        def draw(random):
            chances = np.repeat(random.beta(0.5, 0.5, clusters), size)
            correct = sampled(random, chances, samples)
            known = average(correct, np.repeat(np.arange(clusters), size)).interval
            return holds(known, 0.5), holds(
                average(correct, np.arange(clusters * size)).interval, 0.5
            )

        return draw

    with capsys.disabled():
        head("problems in clusters of 4: covered, and were the clusters not known")
        found = {n: by_seed(f"{n} clusters", once(n, 4, 4), n) for n in (30, 100)}
    assert all(93 <= rate[0] <= 97 for rate in found.values())
    assert all(rate[1] < 80 for rate in found.values())


def test_recipes_that_are_alike_differ_in_five_percent_at_most(capsys):
    cases = [
        (s, n, k, sd) for s in (5, 10) for n in (30, 100) for k in (1, 4) for sd in (0, 0.2, 0.8)
    ]
    with capsys.disabled():
        head("recipes alike: rejected and covered")
        found = {
            case: by_seed(named(*case), recipes(*case), *case[:3], int(10 * case[3]))
            for case in cases
        }
    assert {case: rate for case, rate in found.items() if rate[0] > 6.5 or rate[1] < 93} == {}


def named(seeds, problems, samples, sd):
    return f"{seeds} seeds, {problems}, k {samples}, {sd:g}"


def recipes(seeds, problems, samples, sd):
    """A training run moves the log odds of all problems by `sd`, and of each by twice as much."""

    def run(random, odds):
        moved = odds + random.normal(0, sd) + random.normal(0, 2 * sd, len(odds))
        return sampled(random, 1 / (1 + np.exp(-moved)), samples)

    def once(random):
        chances = random.beta(0.5, 0.5, problems).clip(1e-4, 1 - 1e-4)
        odds = np.log(chances / (1 - chances))
        pairs = [(run(random, odds), run(random, odds)) for _ in range(seeds)]
        found, p = recipe_difference([Benchmark(pairs, np.arange(problems))])
        return p <= 0.05, holds(found.interval, 0)

    return once


def test_as_many_problems_as_planned_find_the_difference(capsys):
    """Half of them gain 0.2 and half lose 0.1: 5 points, and a spread of 0.15."""

    def once(problems, samples):
        def draw(random):
            chances = 0.1 + 0.7 * random.beta(0.5, 0.5, problems)
            moved = chances + np.where(random.random(problems) < 0.5, 0.2, -0.1)
            pair = sampled(random, moved, samples), sampled(random, chances, samples)
            return (flipped([Benchmark([pair], np.arange(problems))]).p <= 0.05,)

        return draw

    random = np.random.default_rng(0)
    chances = 0.1 + 0.7 * random.beta(0.5, 0.5, 1_000_000)
    moved = chances + np.where(random.random(len(chances)) < 0.5, 0.2, -0.1)
    variance = Variance(0.15**2, tuple(float((p * (1 - p)).mean()) for p in (moved, chances)))
    with capsys.disabled():
        head("a difference of 5 points, planned for 80: found")
        for samples in (1, 4, 16):
            needed = problems_needed(0.05, variance, Design(2, (samples, samples)))
            rate = by_seed(f"{needed} problems, k {samples}", once(needed, samples), samples)[0]
            assert 77 <= rate <= 83
