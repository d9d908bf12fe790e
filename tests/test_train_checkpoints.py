"""Checkpoints: when they are made, what is left of them, that they are models like any other."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("trl", reason="training needs the extra `train`")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from curate.train import checkpoints
from curate.train.checkpoints import schedule
from tests.command_line import tree
from tests.conftest import ROOT
from tests.tiny_models import STRIPS_THOUGHTS
from tests.training_runs import Runs, account_of, asked, prepare

WEIGHTS = [
    *("chat_template.jinja", "config.json", "curate.json", "generation_config.json"),
    *("model.safetensors", "tokenizer.json", "tokenizer_config.json", "training_args.bin"),
]
TRAINED = ["--max_steps", 23, "--per_device_train_batch_size", 1]
STATE = ["optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    served = Runs(tmp_path_factory.mktemp("runs"))
    yield served
    served.end()


@pytest.fixture(scope="module")
def trained(ground, runs, tmp_path_factory):
    """A run of 23 steps."""
    run = tmp_path_factory.mktemp("trained") / "run"
    done = runs(run, *asked(ground, *TRAINED))
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize(
    ("last", "steps", "expected"),
    [
        (1, None, [1]),
        (9, None, [9]),
        (10, None, [10]),
        (11, None, [10, 11]),
        (20, None, [10, 20]),
        (100, None, [10, 20, 40, 80, 100]),
        (640, None, [10, 20, 40, 80, 160, 320, 640]),
        (640, [10, 20, 40, 80, 160, 320, 480, 640], [10, 20, 40, 80, 160, 320, 480, 640]),
        (100, [5, 50], [5, 50, 100]),
        (100, [100, 200], [100]),
        (3, [], [3]),
    ],
)
def test_steps_double_and_the_last_is_kept(last, steps, expected):
    assert schedule(last, steps) == expected


@given(st.integers(1, 10**9))
def test_a_schedule_is_short_and_ends_with_the_last_step(last):
    steps = schedule(last)
    assert steps[-1] == last
    assert steps[:-1] == [10 << n for n in range(len(steps) - 1)]
    assert all(a < b <= 2 * a for a, b in pairwise(steps))
    assert last <= 10 or steps[0] == 10


def names(checkpoint):
    return sorted(path.name for path in checkpoint.iterdir())


def test_the_newest_keeps_its_state_and_older_ones_are_weights(trained):
    assert checkpoints.steps_of(trained) == account_of(trained)["checkpoints_at"] == [10, 20, 23]
    for step, state in ((10, "weights"), (20, "weights"), (23, "full")):
        path = checkpoints.path_of(trained, step)
        mark = checkpoints.read_mark(path)
        assert (mark["step"], mark["state"], mark["rows"]) == (step, state, step)
        assert mark["data"] == account_of(trained)["data"]
        assert names(path) == sorted(WEIGHTS + STATE * (state == "full"))
    assert checkpoints.newest(trained) == trained / "checkpoint-23"


def test_a_checkpoint_is_a_model_like_any_other(ground, trained):
    start = AutoModelForCausalLM.from_pretrained(ground / "model").state_dict()
    seen = [start]
    for step in (10, 20, 23):
        model = AutoModelForCausalLM.from_pretrained(trained / f"checkpoint-{step}")
        assert model.state_dict().keys() == start.keys()
        seen.append(model.state_dict())
    for one, other in pairwise(seen):
        name = "model.layers.0.mlp.up_proj.weight"
        assert not torch.equal(one[name], other[name])
    tokenizer, own = (
        AutoTokenizer.from_pretrained(place)
        for place in (trained / "checkpoint-10", ground / "model")
    )
    assert tokenizer.get_vocab() == own.get_vocab()
    assert tokenizer.chat_template == own.chat_template
    assert (tokenizer.eos_token, tokenizer.pad_token) == (own.eos_token, own.pad_token)
    model = AutoModelForCausalLM.from_pretrained(trained / "checkpoint-23")
    assert model.generation_config.eos_token_id == own.eos_token_id


def fake(run: Path, step: int, state: str | None, *files: str) -> Path:
    """A folder of a checkpoint, without the mark that it is whole where there is no state."""
    path = checkpoints.path_of(run, step)
    path.mkdir(parents=True)
    for name in ("model.safetensors", *files):
        (path / name).touch()
    if state is not None:
        checkpoints.write_mark(path, {"step": step, "state": state})
    return path


def test_checkpoints_without_a_state_are_not_trained_over(ground, trained, runs, tmp_path):
    """As where the newest was moved away: to start anew would remove the others."""
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "checkpoint-23")
    account = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(account | {"state": "running"}))
    before = tree(run / "checkpoint-20")
    done = runs(run, *asked(ground, *TRAINED))
    assert done.stderr.splitlines()[-1] == (
        f"error: {run}: expected a checkpoint with its state to go on from, found weights alone at "
        "10, 20; --overwrite starts anew"
    )
    assert tree(run / "checkpoint-20") == before


def test_what_is_not_whole_or_lies_behind_is_removed(tmp_path):
    kept = [fake(tmp_path, 2, "weights"), fake(tmp_path, 4, "full")]
    gone = [fake(tmp_path, 3, None), fake(tmp_path, 5, None), fake(tmp_path, 6, "weights")]
    other = tmp_path / "checkpoint-old"
    other.mkdir()
    assert checkpoints.newest(tmp_path) == kept[1]
    assert checkpoints.remove_broken(tmp_path, 4) == gone
    assert sorted(tmp_path.iterdir()) == sorted([*kept, other])
    assert checkpoints.newest(tmp_path / "none") is None
    assert checkpoints.remove_broken(tmp_path / "none", 0) == []


def test_the_state_of_fsdp_and_deepspeed_goes_too(tmp_path):
    files = ["optimizer.bin", "scaler.pt", "rng_state_0.pth", "latest", "zero_to_fp32.py"]
    path = fake(tmp_path, 2, "full", *files, *STATE)
    for name in ("global_step2", "pytorch_model_fsdp_0", "optimizer_0"):
        (path / name).mkdir()
        (path / name / "shard").touch()
    fake(tmp_path, 4, "full")
    checkpoints.reduce_before(tmp_path, 4)
    assert names(path) == ["curate.json", "model.safetensors"]
    assert checkpoints.read_mark(path)["state"] == "weights"
    assert checkpoints.read_mark(tmp_path / "checkpoint-4")["state"] == "full"


def torchrun(ground, run, *more):
    """Two processes on the CPU."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    words = asked(ground, "--use_cpu", "--ddp_backend", "gloo", "--output-dir", run, *more)
    return subprocess.run(
        [*start, "--standalone", "-m", "curate", "train", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_an_error_of_the_audit_ends_all_processes(ground, tmp_path):
    template = tmp_path / "strips.jinja"
    template.write_text(STRIPS_THOUGHTS)
    done = torchrun(ground, tmp_path / "run", "--chat_template_path", template)
    assert (done.returncode, done.stdout) == (1, "")
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told == [
        "error: trace_altered: 24 of 24 rows: the thought or the answer is not trained on letter "
        "by letter",
        f"error: {ground / 'dataset'}: the audit found errors, told above; nothing was trained",
    ]
    assert names(tmp_path / "run") == ["audit.json"]
    audit = json.loads((tmp_path / "run/audit.json").read_text())
    assert [error["check"] for error in audit["errors"]] == ["trace_altered"]
