"""Completions are those of the reference whatever is together, in what order, with what memory."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.evaluate import reference
from curate.evaluate.continuous import write_continuously
from curate.evaluate.decoding import Decoder, Request
from curate.evaluate.sampling import Sampling, noise_key

VOCABULARY = 97
STOP = [3, 50]
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "max_position_embeddings": 256,
}
FULL_AND_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]

ARCHITECTURES = {
    "qwen3": ("Qwen3Config", {}),
    "qwen2": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "llama": ("LlamaConfig", {}),
    "mistral, sliding": ("MistralConfig", {"sliding_window": 7}),
    "gemma3, sliding": (
        "Gemma3TextConfig",
        {"sliding_window": 5, "layer_types": FULL_AND_SLIDING, "query_pre_attn_scalar": 8},
    ),
    "gpt-oss, sliding": (
        "GptOssConfig",
        {
            "sliding_window": 6,
            "layer_types": FULL_AND_SLIDING,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "phi3": ("Phi3Config", {"pad_token_id": 0}),
    "olmo2": ("Olmo2Config", {}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "opt": ("OPTConfig", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
}


SCARCE_MODEL = {"num_key_value_heads": 64, "num_attention_heads": 64, "head_dim": 32}


def model_of(name):
    kind, changes = ARCHITECTURES[name]
    return made(kind, changes)


def made(kind, changes):
    config = getattr(transformers, kind)(**{**SMALL, **changes})
    transformers.set_seed(1)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def model():
    return model_of("qwen3")


def requests(count, seed=0, longest=24):
    drawn = random.Random(seed)
    prompts = [
        [drawn.randrange(VOCABULARY) for _ in range(drawn.randint(1, longest))]
        for _ in range(count)
    ]
    return [Request(f"{n}", ids, noise_key(0, ids, n)) for n, ids in enumerate(prompts)]


def written(model, asked, sampling, batch, stop=STOP):
    decoder = Decoder(model, sampling, stop, batch)
    found = list(decoder.write(asked))
    assert len(found) == len(asked)
    return {one.request.key: (one.token_ids, one.stopped) for one in found}


def alone(model, asked, sampling, stop=STOP):
    each = [reference.write(model, one, sampling, stop) for one in asked]
    return {one.request.key: (one.token_ids, one.stopped) for one in each}


SMALL_CACHE = {"num_blocks": 32, "max_batch_tokens": 256}

DRAWN = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=40)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_write_what_the_reference_does(name):
    network, asked = model_of(name), requests(9)
    Decoder(network, DRAWN, STOP, 4).check(asked)
    assert written(network, asked, DRAWN, 4) == alone(network, asked, DRAWN)


@settings(max_examples=25)
@given(
    batch=st.integers(1, 20),
    count=st.integers(1, 14),
    seed=st.integers(0, 99),
    limit=st.integers(1, 50),
    sampling=st.sampled_from([Sampling(temperature=0), DRAWN, Sampling(temperature=0.7, top_k=9)]),
)
def test_batch_and_order_change_nothing(model, batch, count, seed, limit, sampling):
    sampling = Sampling(
        temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k,
        max_new_tokens=limit,
    )  # fmt: skip
    asked = requests(count, seed)
    found = written(model, asked, sampling, batch)
    assert found == written(model, asked[::-1], sampling, 3)
    assert all(len(ids) == limit or stopped for ids, stopped in found.values())


def test_greedy_is_what_generate_writes(model):
    asked = requests(8)
    found = written(model, asked, Sampling(temperature=0, max_new_tokens=30), 8)
    for one in asked:
        told = model.generate(
            torch.tensor([one.prompt_ids]),
            attention_mask=torch.ones(1, len(one.prompt_ids), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=30,
            eos_token_id=STOP,
            pad_token_id=0,
        )
        assert told[0, len(one.prompt_ids) :].tolist() == found[one.key][0]


def test_continuous_batching_writes_the_same_greedily(model):
    asked = requests(4)
    sampling = Sampling(temperature=0, max_new_tokens=8)
    told: list[int] = []
    found = list(write_continuously(model, asked, sampling, STOP, told.append, **SMALL_CACHE))
    assert [one.request for one in found] == asked
    assert {one.request.key: (one.token_ids, one.stopped) for one in found} == written(
        model, asked, sampling, 4
    )
    assert sum(told) == sum(len(one.token_ids) for one in found)


def test_unsure_tokens_are_chosen_from_logits_of_the_row_alone():
    """All logits are alike but for rounding, so each greedy token is a tie."""
    network = model_of("llama")
    network.lm_head.weight.data[:] = network.lm_head.weight.data[:1]
    asked = requests(5)
    sampling = Sampling(temperature=0, max_new_tokens=6)
    decoder = Decoder(network, sampling, [], 4)
    found = {one.request.key: one.token_ids for one in decoder.write(asked)}
    assert decoder.settled_alone == 5 * 6
    assert found == {key: ids for key, (ids, _) in alone(network, asked, sampling, []).items()}


def test_tokens_are_told_as_they_are_written(model):
    told: list[int] = []
    asked = requests(7)
    found = list(Decoder(model, DRAWN, STOP, 3, told.append).write(asked))
    assert sum(told) == sum(len(one.token_ids) for one in found)
    assert max(told) <= 3


def test_states_that_are_no_keys_and_values_are_refused():
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=2
    )
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    asked = requests(3)
    with pytest.raises(CurateError, match=r"Mamba.*(cannot be decoded|expected a row)"):
        Decoder(network, DRAWN, STOP, 2).check(asked)


class RunsOut(torch.nn.Module):
    """A model for which memory does not suffice at one of its calls."""

    def __init__(self, network, at):
        super().__init__()
        self.network, self.left = network, at
        self.device = network.device

    def forward(self, input_ids, logits_to_keep=0, **given):
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return self.network(input_ids=input_ids, logits_to_keep=logits_to_keep, **given)


@pytest.mark.parametrize("ties", [False, True])
def test_memory_may_run_out_at_any_call(ties):
    """Also where a token is chosen anew, which with ties all are: no row gets one too many."""
    network = model_of("llama")
    if ties:
        network.lm_head.weight.data[:] = network.lm_head.weight.data[:1]
    asked, sampling = requests(5, longest=6), Sampling(temperature=0, max_new_tokens=4)
    expected = alone(network, asked, sampling, [])
    for at in range(1, 30):
        halved: list[int] = []
        decoder = Decoder(RunsOut(network, at), sampling, [], 4, halved=halved.append)
        found = {one.request.key: (one.token_ids, one.stopped) for one in decoder.write(asked)}
        assert found == expected
        assert halved in ([2], [])


def test_a_decoder_that_wrote_little_still_takes_its_whole_batch(model):
    told: list[int] = []
    decoder = Decoder(model, DRAWN, [], 6, told.append)
    list(decoder.write(requests(1)))
    list(decoder.write(requests(6)))
    assert max(told) == 6


def test_continuous_batching_draws_other_samples_for_other_requests(model):
    """Its generator starts anew with each call."""
    ids = [5, 6, 7]
    asked = [Request(str(n), ids, noise_key(0, ids, n)) for n in range(6)]
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=12)
    parts = (asked[:3], asked[3:])
    found = [
        [one.token_ids for one in write_continuously(model, part, sampling, [0], **SMALL_CACHE)]
        for part in parts
    ]
    assert len({tuple(one) for part in found for one in part}) == 6
    again = write_continuously(model, parts[0], sampling, [0], **SMALL_CACHE)
    assert [one.token_ids for one in again] == found[0]


SCARCE = """
import resource, sys
from tests.test_evaluate_decoding import SCARCE_MODEL, Decoder, Sampling, made, requests
import torch
torch.set_num_threads(1)
network = made("Qwen3Config", {**SCARCE_MODEL, "num_hidden_layers": 4})
rows, free, longest = map(int, sys.argv[1:])
asked = requests(rows, longest=longest)
sampling = Sampling(temperature=0, max_new_tokens=3)
list(Decoder(network, sampling, [], 1).write(requests(1)))  # what first use takes
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (held + free, before[1]))
halved = []
decoder = Decoder(network, sampling, [], rows, halved=halved.append)
found = {one.request.key: one.token_ids for one in decoder.write(asked)}
resource.setrlimit(resource.RLIMIT_AS, before)
again = Decoder(network, sampling, [], 8)
assert found == {one.request.key: one.token_ids for one in again.write(asked)}
print(*halved)
"""


def scarce(rows, free, longest):
    return subprocess.run(
        [sys.executable, "-c", SCARCE, str(rows), str(free), str(longest)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "MALLOC_ARENA_MAX": "1"},
    )


def test_a_batch_that_memory_does_not_suffice_for_is_halved():
    """Keys and values of 16 rows take 16 x 300 columns x 64 KB, some 300 MB; there are 150."""
    done = scarce(16, 150 << 20, 40)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [8, 4, 2, 1][: len(done.stdout.split())] == [*map(int, done.stdout.split())] != []


def test_memory_for_no_row_at_all_is_told():
    """Its keys and values take some 100 MB."""
    done = scarce(1, 2 << 20, 3_000)
    assert done.returncode == 1
    assert "CurateError: expected memory for one row of" in done.stderr
