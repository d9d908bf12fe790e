"""Datasets and tiny models for token losses, and what the losses must be, without the tool."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.rendering import Renderer
from curate.samples import open_samples
from curate.tokenkinds import token_kinds
from tests.command_line import invoke
from tests.tiny_models import KEEPS_THOUGHTS, train_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROWS = 22
TEMPLATE = KEEPS_THOUGHTS
TINY = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 400,
}


def trace(number):
    steps = [f"First I add {number}.", "Wait, let me check – 2 × 3."]
    return "\n\n".join([*steps, *["Alternatively, try again."] * (number % 7)])


def write_data(place, first=0):
    """A dataset as it is emitted, with steps; its rows are of very different lengths."""
    numbers = range(first, first + ROWS)
    columns = {
        "id": [f"r{n}" for n in numbers],
        "problem": [f"What is {n}?" for n in numbers],
        "teacher": ["A", "B"] * (ROWS // 2),
        "trace": [trace(n) for n in numbers],
        "answer": [f"The answer is {n}." for n in numbers],
    }
    pq.write_table(pa.table(columns), place / "a.parquet")
    names = [option for name in ("id", "problem", "teacher") for option in (f"--{name}", name)]
    form = ["--answer", "answer", "--format", "prompt-completion", "--keep", "true", "--steps"]
    invoke("scan", place / "a.parquet", "--out", place / "out", *names, *form)
    return place / "out"


def save_tokenizer(place):
    fast = train_tokenizer(map(trace, range(20)), TEMPLATE, 320)
    fast.save_pretrained(place)
    return fast


def save_model(place, name="Qwen3", seed=0, **more):
    """A model with weights so large that its losses differ, and its tokenizer."""
    fast = save_tokenizer(place)
    ends = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    config = {"vocab_size": len(fast), **TINY, **ends, **more}
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**config)
    )
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(0, 0.5)
    model.save_pretrained(place)
    return place


def rows_of(out):
    files = sorted((out / "tokens").iterdir())
    assert [file.name for file in files] == [f"{n:05d}.parquet" for n in range(len(files))]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def expected(model, data, dtype=torch.float32):
    """The same by the full log-softmax of the model's own logits, a sample at a time."""
    network = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()
    renderer = Renderer(transformers.AutoTokenizer.from_pretrained(model))
    for sample in open_samples(data, steps=True):
        (rendered,) = renderer.render([sample])
        ids, first = torch.from_numpy(rendered.input_ids).long(), rendered.prompt_tokens
        with torch.no_grad():
            logits = network(input_ids=ids[None]).logits[0].double()[first - 1 : -1]
        logs, own = logits.log_softmax(-1), ids[first:, None]
        yield {
            "index": sample.index,
            "key": sample.key,
            "id": sample.id,
            "teacher": sample.teacher,
            "first": first,
            "token": ids[first:].tolist(),
            "kind": token_kinds(rendered, sample)[first:].tolist(),
            "nll": -logs.gather(-1, own)[:, 0],
            "entropy": -(logs.exp() * logs).sum(-1),
            "rank": (logits > logits.gather(-1, own)).sum(-1).tolist(),
        }


def same(found, wanted, atol=1e-4):
    assert len(found) == len(wanted)
    for row, other in zip(found, wanted, strict=True):
        for name in ("index", "key", "id", "teacher", "first", "token", "kind", "rank"):
            assert row[name] == other[name], (row["index"], name)
        for name in ("nll", "entropy"):
            assert len(row[name]) == len(row["token"])
            np.testing.assert_allclose(row[name], other[name], atol=atol, rtol=1e-5)
