"""Tokens are drawn as the reference and the probabilities say, and not otherwise by rounding."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.evaluate import reference
from curate.evaluate.sampling import ROUNDING, Sampling, choose, noise_key

SETTINGS = [
    Sampling(temperature=0),
    Sampling(),
    Sampling(temperature=1.0, top_p=1.0),
    Sampling(temperature=1.3, top_p=0.5),
    Sampling(temperature=1.0, top_p=1.0, top_k=5),
    Sampling(temperature=0.7, top_p=0.8, top_k=20),
    Sampling(temperature=5.0, top_p=0.999),
    Sampling(temperature=1.0, top_p=1e-6),
    Sampling(temperature=1.0, top_p=0.9, top_k=10_000),
]


def rows(n, vocabulary, spread, seed=0):
    return torch.randn(n, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0])
@pytest.mark.parametrize("vocabulary", [2, 64, 65, 66, 700])
@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_tokens_are_those_of_the_reference(sampling, vocabulary, spread):
    logits = rows(20, vocabulary, spread)
    keys = torch.arange(20) * 7_919 - 70_000
    positions = torch.arange(20) * 3
    found = choose(logits, keys, positions, sampling)
    for row, token, sure in zip(range(20), found.tokens.tolist(), found.sure.tolist(), strict=True):
        expected = reference.choose(
            logits[row].tolist(), int(keys[row]), int(positions[row]), sampling
        )
        assert token == expected or not sure


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 40_000), st.integers(0, 200_000))
def test_noise_is_that_of_the_reference(key, position, token):
    """With logits that are all alike, the greatest noise of two tokens wins."""
    logits = torch.full((1, token + 2), -torch.inf)
    logits[0, token:] = 0.0
    sampling = Sampling(temperature=1.0, top_p=1.0)
    found = choose(logits, torch.tensor([key]), torch.tensor([position]), sampling).tokens
    sums = [reference.noise(key, position, one) for one in (token, token + 1)]
    assert int(found[0]) == token + (sums[1] > sums[0])


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.8, top_p=0.9), Sampling(top_p=1.0)])
def test_frequencies_are_the_probabilities(sampling):
    logits = torch.tensor([[2.0, 1.5, 1.0, 0.0, -1.0, -3.0]]).expand(40_000, -1)
    found = choose(logits, torch.arange(40_000), torch.zeros(40_000, dtype=torch.int64), sampling)
    scaled = [one / sampling.temperature for one in logits[0].tolist()]
    kept = reference.allowed(scaled, sampling)
    total = sum(math.exp(scaled[token]) for token in kept)
    counts = Counter(found.tokens.tolist())
    assert {*counts} <= {*kept}
    for token in kept:
        share = math.exp(scaled[token]) / total
        assert counts[token] / 40_000 == pytest.approx(share, abs=4 * math.sqrt(share / 40_000))


@given(
    st.sampled_from([one for one in SETTINGS if one.top_p < 1 or one.top_k]),
    st.integers(0, 10_000),
    st.floats(0.05, 8.0),
)
def test_what_is_sure_is_so_for_any_rounding(sampling, seed, spread):
    """Moved by as much as a batch's shape may move them, logits give the same token."""
    logits = rows(64, 300, spread, seed)
    keys, positions = torch.arange(64) + seed, torch.arange(64)
    noise = rows(64, 300, 1.0, seed + 1).clamp(-1, 1)
    moved = logits + noise * ROUNDING * logits.abs().amax(-1, keepdim=True).clamp(min=1)
    one = choose(logits, keys, positions, sampling)
    other = choose(moved, keys, positions, sampling)
    assert torch.equal(one.tokens[one.sure], other.tokens[one.sure])


@pytest.mark.parametrize("sampling", [*SETTINGS[:6]], ids=str)
def test_nearly_all_tokens_are_sure(sampling):
    found = choose(rows(20_000, 300, 3.0), torch.arange(20_000), torch.arange(20_000), sampling)
    assert found.sure.double().mean() > 0.997


def test_ties_are_unsure():
    logits = torch.tensor([[1.0, 1.0, 0.0], [3.0, 1.0, 0.0]])
    nothing = torch.zeros(2, dtype=torch.int64)
    assert choose(logits, nothing, nothing, Sampling(temperature=0)).sure.tolist() == [False, True]


def test_the_edge_of_the_nucleus_is_unsure():
    """Half of the probability lies before the second token, and half is the bound."""
    logits = torch.tensor([[math.log(0.5), math.log(0.25), math.log(0.25)]]).repeat(200, 1)
    keys = torch.arange(200)
    zeros = torch.zeros(200, dtype=torch.int64)
    edge = choose(logits, keys, zeros, Sampling(temperature=1.0, top_p=0.5))
    clear = choose(logits, keys, zeros, Sampling(temperature=1.0, top_p=0.4))
    assert not edge.sure.all() and clear.sure.all() and (clear.tokens == 0).all()


@pytest.mark.parametrize("greatest", [1.0, 30.0, 300.0])
def test_the_edge_grows_with_what_rounding_does(greatest):
    """Half of the probability before the second token, give or take what moves the logits."""
    sampling = Sampling(temperature=0.6, top_p=0.5)
    gap = torch.linspace(-1e-3, 1e-3, 2_000)
    logits = torch.stack([greatest + gap, torch.full_like(gap, greatest), -gap.abs() - 99], -1)
    keys, zeros = torch.arange(2_000), torch.zeros(2_000, dtype=torch.int64)
    moved = logits.clone()
    moved[:, 0] -= ROUNDING * max(1.0, greatest) * gap.sign()
    one, other = (choose(each, keys, zeros, sampling) for each in (logits, moved))
    assert torch.equal(one.tokens[one.sure], other.tokens[one.sure])


def test_logits_that_are_no_numbers_are_told():
    logits = torch.tensor([[0.0, math.nan]])
    nothing = torch.zeros(1, dtype=torch.int64)
    for temperature in (0, 1):
        with pytest.raises(CurateError, match="expected logits that are numbers"):
            choose(logits, nothing, nothing, Sampling(temperature=temperature))


def test_what_a_model_rules_out_leaves_the_rest_sure():
    logits = torch.tensor([[3.0, 1.0, -math.inf]]).expand(500, -1)
    keys, zeros = torch.arange(500), torch.zeros(500, dtype=torch.int64)
    found = choose(logits, keys, zeros, Sampling(temperature=1.0, top_p=1.0))
    assert found.sure.double().mean() > 0.99 and int(found.tokens.max()) == 1


def test_what_noise_hangs_on():
    told = [
        noise_key(*one) for one in [(0, [1, 2], 0), (1, [1, 2], 0), (0, [1, 3], 0), (0, [1, 2], 1)]
    ]
    assert len({*told}) == 4
    assert noise_key(0, [1, 2], 0) == noise_key(0, np.array([1, 2]), 0) == told[0]
    assert all(-(2**63) <= one < 2**63 for one in told)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"max_new_tokens": 0},
    ],
)
def test_settings_that_mean_nothing_are_refused(changes):
    with pytest.raises(CurateError, match="sampling: expected"):
        Sampling(**changes)
