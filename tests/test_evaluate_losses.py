"""Token losses of a dataset are those of the model's own logits, however they were come by."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.errors import CurateError
from curate.samples import open_samples
from curate.tokenkinds import KINDS
from tests.conftest import ROOT
from tests.token_losses import ROWS, expected, rows_of, same, save_model, write_data

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from curate.evaluate import checkpoint, losses, survey  # noqa: E402
from curate.evaluate.losses import Asked, score_dataset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that are not ours


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Several files of so few rows."""
    monkeypatch.setattr(survey, "PART_SAMPLES", 5)


@pytest.fixture(scope="module")
def scored(data, model, tmp_path_factory):
    """All rows scored, several in a batch."""
    out = tmp_path_factory.mktemp("scored") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "PART_SAMPLES", 5)
        score_dataset(str(model), data, out, Asked(batch_tokens=600))
    return out


def test_they_are_those_of_the_full_log_softmax(scored, model, data):
    rows = rows_of(scored)
    assert [row["index"] for row in rows] == list(range(ROWS))
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(ROWS)]
    same(rows, list(expected(model, data)))
    schema = pq.read_schema(scored / "tokens/00000.parquet")
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    assert kinds == {
        **{"index": "int64", "key": "string", "id": "string", "teacher": "string"},
        **{"first": "int32", "token": "list<element: int32>", "kind": "list<element: uint8>"},
        **{"nll": "list<element: float>", "entropy": "list<element: float>"},
        "rank": "list<element: int32>",
    }


def test_the_record_says_what_was_scored(scored, model, data):
    record = json.loads((scored / "losses.json").read_text())
    rows = rows_of(scored)
    flat = np.bincount([kind for row in rows for kind in row["kind"]], minlength=len(KINDS))
    assert record["state"] == "complete"
    assert (record["model"], record["data"]) == (str(model), str(data))
    assert record["settings"]["data"] == open_samples(data).digest
    assert record["settings"]["dtype"] == "float32"
    assert record["counts"] == {
        "rows": ROWS,
        "dropped": 0,
        "tokens": sum(len(row["token"]) for row in rows),
        "kinds": dict(zip(KINDS, flat.tolist(), strict=True)),
        "teachers": {"A": ROWS // 2, "B": ROWS // 2},
    }
    assert flat[KINDS.index("branch")] > 0
    assert flat[KINDS.index("answer")] > 0
    assert os.listdir(scored / "tokens") and not list(scored.rglob(".*"))


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_they_do_not_depend_on_batches(scored, data, model, tmp_path, batch_tokens):
    score_dataset(str(model), data, tmp_path / "out", Asked(batch_tokens=batch_tokens))
    same(rows_of(tmp_path / "out"), rows_of(scored), atol=1e-5)


def test_a_batch_holds_no_more_than_it_may_and_every_sample_once():
    lengths = [5, 100, 7, 1, 30, 30, 2]
    for most in (1, 30, 60, 500):
        batches = list(losses._batches(lengths, most))
        assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
        padded = [len(batch) * max(lengths[n] for n in batch) for batch in batches]
        assert all(
            size <= most or len(batch) == 1 for size, batch in zip(padded, batches, strict=True)
        )


def test_in_bfloat16_they_are_those_of_the_model_in_bfloat16(data, model, tmp_path):
    asked = Asked(batch_tokens=1, dtype="bfloat16")
    record = score_dataset(str(model), data, tmp_path / "out", asked)
    assert record["settings"]["dtype"] == "bfloat16"
    found, wanted = rows_of(tmp_path / "out"), list(expected(model, data, torch.bfloat16))
    exact = list(expected(model, data))
    for row, other, full in zip(found, wanted, exact, strict=True):
        # A logit more or less in the last place of bfloat16, which kernels of other shapes round.
        np.testing.assert_allclose(row["nll"], other["nll"], atol=0.05)
        np.testing.assert_allclose(row["entropy"], other["entropy"], atol=0.05)
        assert np.abs(np.subtract(row["nll"], full["nll"])).max() > 1e-3  # it was bfloat16


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Gemma2", {"final_logit_softcapping": 2.0, "sliding_window": 64}),
        ("Granite", {"logits_scaling": 4.0}),
    ],
)
def test_capped_and_scaled_logits_are_the_models_own(data, tmp_path, name, more):
    model = save_model(tmp_path / "model", name, **more)
    score_dataset(str(model), data, tmp_path / "out", Asked(limit=6))
    same(rows_of(tmp_path / "out"), list(expected(model, data))[:6])


# Going on.

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from curate.evaluate import losses, survey
model, data, out, *moments = sys.argv[1:]
torch.set_num_threads(1)
survey.PART_SAMPLES = 5

def run(moment):
    def hook(event, arguments):
        if event == "os.rename" and moment and str(arguments[0]).endswith(moment):
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    losses.score_dataset(model, Path(data), Path(out), losses.Asked(batch_tokens=600))
    os._exit(0)

for moment in [*moments, ""]:
    child = os.fork()
    if not child:
        run(moment)
    status = os.waitpid(child, 0)[1]
    files = sorted(str(path.relative_to(out)) for path in Path(out).rglob("*") if path.is_file())
    print(os.waitstatus_to_exitcode(status), *files)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(scored, data, model, tmp_path):
    out = tmp_path / "out"
    moments = [".losses.json.part", ".00000.parquet.part", ".00003.parquet.part"]
    command = [sys.executable, "-c", KILLED, str(model), str(data), str(out), *moments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    files = [f"tokens/{n:05d}.parquet" for n in range(5)]
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["-9", ".losses.json.part"],
        ["-9", "losses.json", "tokens/.00000.parquet.part"],
        ["-9", "losses.json", "tokens/.00003.parquet.part", *files[:3]],
        ["0", "losses.json", *files],
    ]
    same(rows_of(out), rows_of(scored), atol=1e-6)
    records = [json.loads((place / "losses.json").read_text()) for place in (out, scored)]
    assert records[0] == records[1]


def test_what_is_whole_is_not_scored_again(scored, data, model):
    before = {path: path.stat().st_mtime_ns for path in scored.rglob("*")}
    record = score_dataset(str(model), data, scored, Asked())
    assert record == json.loads((scored / "losses.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in scored.rglob("*")} == before


# What tells models apart.


def test_checkpoints_of_one_run_differ_and_copies_do_not(model, tmp_path):
    told = checkpoint.fingerprint(str(model))
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "training_args.bin").write_bytes(b"of a trainer")
    assert checkpoint.fingerprint(str(copy)) == told
    network = transformers.AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        network.base_model.layers[1].mlp.up_proj.weight += 1e-3
    network.save_pretrained(tmp_path / "trained")
    sizes = {
        (place / "model.safetensors").stat().st_size for place in (model, tmp_path / "trained")
    }
    assert len(sizes) == 1
    assert checkpoint.fingerprint(str(tmp_path / "trained")) != told


def test_a_head_that_does_not_say_all_is_an_error(model):
    loaded = checkpoint.load(str(model), "float32", torch.device("cpu"))
    wrong = replace(loaded, head=replace(loaded.head, logit_scale=1.1))
    with pytest.raises(CurateError, match="expected logits that its output embeddings make of"):
        checkpoint._check_head(wrong)
