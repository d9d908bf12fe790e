"""NLL, entropy and rank a few positions at a time are those of the full log-softmax."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.tokenscores import CHUNK, head_of, score
from tests.conftest import ROOT

torch = pytest.importorskip("torch")

VOCABULARY = 97


def full(logits, labels):
    """The same of all logits at once, as the definitions have it."""
    logs = torch.log_softmax(logits.double(), -1)
    own = logs.gather(-1, labels[:, None])
    probabilities = logs.exp()
    entropy = -torch.where(probabilities > 0, probabilities * logs, 0).sum(-1)
    rank = (logits > logits.gather(-1, labels[:, None])).sum(-1)
    return -own[:, 0], entropy, rank, logits.argmax(-1) == labels


def parts(size, *, hidden=8, scale=3.0, dtype=None, bias=True, seed=0):
    """Hidden states, a head and labels of it, half of them the most likely."""
    draw = torch.Generator().manual_seed(seed)
    states = (scale * torch.randn(size, hidden, generator=draw)).to(dtype)
    weight = torch.randn(VOCABULARY, hidden, generator=draw).to(dtype)
    offset = torch.randn(VOCABULARY, generator=draw).to(dtype) if bias else None
    labels = torch.randint(VOCABULARY, (size,), generator=draw)
    labels[::2] = torch.nn.functional.linear(states, weight, offset).argmax(-1)[::2]
    return states, weight, offset, labels


def same(found, expected, atol):
    nll, entropy, rank, top1 = found
    assert (nll.dtype, entropy.dtype) == (torch.float32,) * 2
    assert (rank.dtype, top1.dtype) == (torch.int32, torch.bool)
    torch.testing.assert_close(nll.double(), expected[0], atol=atol, rtol=1e-5)
    torch.testing.assert_close(entropy.double(), expected[1], atol=atol, rtol=1e-5)
    assert rank.tolist() == expected[2].tolist()
    assert top1.tolist() == expected[3].tolist()


@given(
    size=st.integers(0, 40), chunk=st.integers(1, 50), seed=st.integers(0, 99), bias=st.booleans()
)
def test_it_is_the_full_log_softmax_whatever_the_chunk(size, chunk, seed, bias):
    hidden, weight, offset, labels = parts(size, seed=seed, bias=bias)
    logits = hidden @ weight.T + (0 if offset is None else offset)
    same(score(hidden, weight, offset, labels, chunk=chunk), full(logits, labels), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_head_of_a_shorter_type_has_a_softmax_in_float32(dtype):
    hidden, weight, _, labels = parts(64, dtype=dtype, bias=False)
    logits = hidden @ weight.T
    assert logits.dtype == dtype
    same(score(hidden, weight, None, labels, chunk=64), full(logits.float(), labels), 1e-5)
    short = torch.log_softmax(logits, -1).gather(-1, labels[:, None])[:, 0]
    found = score(hidden, weight, None, labels)[0]
    assert (found + short.float()).abs().max() > 1e-3  # what the shorter type would have cost


def test_hidden_states_of_another_type_are_cast_to_the_heads():
    hidden, weight, _, labels = parts(16, bias=False)
    found = score(hidden.bfloat16(), weight, None, labels)
    same(found, full(hidden.bfloat16().float() @ weight.T, labels), 1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.0625, 2.5])
@pytest.mark.parametrize("softcap", [None, 1.0, 30.0])
def test_logits_are_scaled_and_then_capped(scale, softcap):
    hidden, weight, bias, labels = parts(32)
    logits = scale * (hidden @ weight.T + bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    found = score(hidden, weight, bias, labels, chunk=7, logit_scale=scale, softcap=softcap)
    nll, entropy, _, _ = full(logits, labels)
    torch.testing.assert_close(found[0].double(), nll, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1].double(), entropy, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("logits", "label", "nll", "entropy", "rank", "top1"),
    [
        ([0.0, 0.0], 0, 0.6931472, 0.6931472, 0, True),
        ([0.0, 0.0], 1, 0.6931472, 0.6931472, 0, False),  # none above it, but not the first
        ([1e4, -1e4], 0, 0.0, 0.0, 0, True),
        ([1e4, -1e4], 1, 2e4, 0.0, 1, False),
        ([3.0, 3.0, -torch.inf], 0, 0.6931472, 0.6931472, 0, True),
        ([3.0, 3.0, -torch.inf], 2, torch.inf, 0.6931472, 2, False),
        ([0.0, 2.0, 1.0], 2, 1.4076060, 0.8323956, 1, False),
    ],
)
def test_edges(logits, label, nll, entropy, rank, top1):
    weight = torch.tensor(logits)[:, None]
    found = [
        each[0].item() for each in score(torch.ones(1, 1), weight, None, torch.tensor([label]))
    ]
    assert found == [pytest.approx(nll), pytest.approx(entropy, abs=1e-6), rank, top1]


def test_no_gradient_flows_and_nothing_is_changed():
    hidden, weight, bias, labels = parts(10)
    hidden.requires_grad_()
    weight = torch.nn.Parameter(weight)
    before = weight.detach().clone(), bias.clone(), hidden.detach().clone()
    found = score(hidden, weight, bias, labels)
    assert not any(each.requires_grad for each in found)
    assert all(map(torch.equal, before, (weight, bias, hidden)))


# The head of a model.

TINY = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def tiny(name, **more):
    """A model with weights so large that scales and caps tell."""
    import transformers

    config = getattr(transformers, f"{name}Config")(**TINY | more)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(0, 3)
    return model


MODELS = [
    ("Qwen3", {"head_dim": 8}, (1.0, None)),
    ("Qwen3", {"head_dim": 8, "tie_word_embeddings": True}, (1.0, None)),
    ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 5.0}, (1.0, 5.0)),
    ("Cohere", {"logit_scale": 0.25}, (0.25, None)),
    ("Granite", {"logits_scaling": 8.0}, (0.125, None)),
]


@pytest.mark.parametrize(("name", "more", "expected"), MODELS)
def test_the_head_gives_the_models_own_logits(name, more, expected):
    model = tiny(name, pad_token_id=0, bos_token_id=None, eos_token_id=1, **more)
    head = head_of(model)
    assert (head.logit_scale, head.softcap) == expected
    ids = torch.arange(33)[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1]
        hidden = model.base_model(input_ids=ids).last_hidden_state[0, :-1]
    found = score(
        hidden,
        head.weight,
        head.bias,
        ids[0, 1:],
        logit_scale=head.logit_scale,
        softcap=head.softcap,
    )
    nll, entropy, _, _ = full(logits, ids[0, 1:])
    assert entropy.min() < 0.9 * torch.tensor(64.0).log()  # far from uniform
    torch.testing.assert_close(found[0].double(), nll, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1].double(), entropy, atol=1e-4, rtol=1e-4)


def test_a_model_without_a_head_is_an_error():
    import transformers

    model = transformers.Qwen3Model(transformers.Qwen3Config(**TINY, head_dim=8))
    with pytest.raises(
        CurateError, match=r"^Qwen3Model: expected a causal language model, found no"
    ):
        head_of(model)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of what peft asks of transformers
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_around_the_head_is_an_error_until_it_is_merged(dtype):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    model = peft.get_peft_model(tiny("Qwen3", head_dim=8).to(dtype), lora)
    with pytest.raises(CurateError) as error:
        head_of(model)
    assert str(error.value) == (
        "PeftModel: expected an output layer without an adapter, found "
        "peft.tuners.lora.layer.Linear around it; merge the adapter into the model first"
    )
    head = head_of(model.merge_and_unload())
    assert head.weight.dtype == dtype


def test_a_scale_that_is_a_word_is_none():
    import transformers

    shape = {"d_model": 16, "n_heads": 2, "n_layers": 1, "vocab_size": 64}
    config = transformers.MptConfig(**shape, logit_scale="inv_sqrt_d_model")
    assert head_of(transformers.MptForCausalLM(config)).logit_scale == 1.0


# What it takes.

PEAK = """
import resource, sys, torch
from curate.tokenscores import score
torch.set_num_threads(1)
positions, vocabulary, dtype = int(sys.argv[1]), int(sys.argv[2]), getattr(torch, sys.argv[3])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
weight = torch.empty(vocabulary, 896, dtype=dtype).normal_()  # no other type beside it
hidden = torch.randn(positions, 896, dtype=dtype)
labels = torch.randint(vocabulary, (positions,))
score(hidden[:2], weight, None, labels[:2])  # what the libraries take once
before = peak()
score(hidden, weight, None, labels)
print(peak() - before)
"""


def peak_of(positions, vocabulary, dtype):
    """How much more memory a process holds at its most while it scores, in MB."""
    command = [sys.executable, "-c", PEAK, str(positions), str(vocabulary), dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1e6


def test_memory_does_not_grow_with_the_positions():
    few, many = (peak_of(chunks * CHUNK, 20_000, "float32") for chunks in (1, 4))
    assert few < 100  # five buffers of the 20 MB that a chunk has
    assert many < few + 20


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("dtype", "positions"), [("float32", 8192), ("bfloat16", 2 * CHUNK)])
def test_8192_positions_of_152k_logits_take_less_than_1_gb(dtype, positions, capsys):
    peak = peak_of(positions, 152_000, dtype)  # processors are slow at shorter types
    with capsys.disabled():
        print(f"\n{positions:,} positions x 152,000 logits, {dtype}: {peak:.0f} MB")  # noqa: T201
    assert peak < 1000


def test_it_is_imported_without_torch():
    code = "import sys; import curate.tokenscores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
