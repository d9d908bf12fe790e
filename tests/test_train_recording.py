"""Token losses of a run add up to what it logged, and are those that `curate losses` finds."""

import dataclasses
import functools
import re

import numpy as np
import polars as pl
import pytest

from curate.tokenkinds import KINDS
from tests.token_losses import rows_of
from tests.trained_arms import network, rendered, start, train

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from curate.evaluate.losses import Asked, score_dataset  # noqa: E402
from curate.train import recording, running  # noqa: E402
from curate.train.recording import NEEDED, Recorder, TokenScores, forget_after  # noqa: E402
from curate.train.trainer import ArmTrainer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that are not ours

ACCUMULATED = ["--gradient_accumulation_steps", "3", "--per_device_train_batch_size", "2"]
PACKED = ["--packing", "--max_length", "1024", "--per_device_train_batch_size", "1"]
LORA = ["--use_peft", "--lora_r", "4", "--lora_target_modules", "q_proj", "v_proj"]


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    return start(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def arm(begin):
    """Accumulated: as many rows in each micro-batch, not as many tokens."""
    return train(begin, "arm", *ACCUMULATED, "--checkpoints", "1", "2")


# What was logged.


def sums(arm):
    """Of each step: tokens, nll, entropy and top-1 hits."""
    columns = [pl.col(name).sum() for name in ("tokens", "nll", "entropy", "top1")]
    return arm.recorded.group_by("step", maintain_order=True).agg(columns)


def adds_up(arm, rel=1e-6):
    found = sums(arm)
    assert found["step"].to_list() == [log["step"] for log in arm.logs] == [1, 2, 3]
    means = (found["nll"] / found["tokens"]).to_list()
    assert means == pytest.approx(arm.losses, rel=rel)
    assert np.ptp(arm.losses) > 0.01
    return found


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("stored", ["--no_gradient_checkpointing"]),
        ("packed", [*PACKED, "--gradient_accumulation_steps", "2"]),
        ("branches masked", ["--mask", "branch-steps", *ACCUMULATED]),
        ("as many masked, packed", ["--mask", "random", *PACKED]),
        ("lora", LORA),
    ],
)
def test_sums_are_the_logged_loss(begin, name, flags):
    arm = train(begin, name, *flags)
    found = adds_up(arm)
    assert found["tokens"].sum() == arm.account["seen_trained_tokens"]
    kinds = set(arm.recorded["kind"].unique())
    assert kinds == set(KINDS) - ({"branch"} if name == "branches masked" else set())


def test_in_bfloat16_too(begin):
    arm = train(begin, "bfloat16", "--bf16", *ACCUMULATED, "--checkpoints", "1")
    found = adds_up(arm, rel=1e-5)
    assert found["nll"].is_finite().all() and found["entropy"].is_finite().all()
    full = train(begin, "float32", *ACCUMULATED, steps=1)
    assert arm.losses[0] != full.losses[0]
    assert arm.losses[0] == pytest.approx(full.losses[0], rel=0.01)


def test_sums_are_trls_own_figures(arm):
    """TRL logs the mean over micro-batches of each one's mean over tokens."""
    adds_up(arm)
    columns = [pl.col(name).sum() for name in ("tokens", "entropy", "top1")]
    rows = arm.recorded.group_by("step", "row", maintain_order=True).agg(columns)
    for log in arm.logs:
        of_step = rows.filter(pl.col("step") == log["step"])
        assert of_step.height == 6
        parts = [of_step.slice(n, 2).sum() for n in (0, 2, 4)]  # micro-batches of two rows
        assert len({part["tokens"].item() for part in parts}) == 3
        for name, theirs in (("entropy", "entropy"), ("top1", "mean_token_accuracy")):
            means = [part[name].item() / part["tokens"].item() for part in parts]
            assert np.mean(means) == pytest.approx(log[theirs], rel=1e-6)
    assert 0 < rows["top1"].sum() < rows["tokens"].sum()


# What `curate losses` finds.


def by_row_and_kind(scored):
    """What was scored, as a run records it."""
    found = {}
    for row in scored:
        nll, entropy, rank = (np.array(row[name]) for name in ("nll", "entropy", "rank"))
        kinds = np.array(row["kind"])
        for number in np.unique(kinds):
            of = kinds == number
            each = (of.sum(), nll[of].sum(), entropy[of].sum(), (rank[of] == 0).sum())
            found[row["index"], KINDS[number]] = tuple(float(one) for one in each)
    return found


def test_losses_of_a_checkpoint_are_those_of_the_step_behind_it(begin, arm):
    recorded = arm.recorded
    for step, folder in [(1, begin.model), *((n + 1, arm.run / f"checkpoint-{n}") for n in (1, 2))]:
        out = begin.place / f"scored-{step}"
        score_dataset(str(folder), begin.data, out, Asked(teacher="teacher"))
        scored, of_step = rows_of(out), recorded.filter(pl.col("step") == step)
        found, teachers = by_row_and_kind(scored), {row["index"]: row["teacher"] for row in scored}
        assert of_step["row"].n_unique() == 6
        there = [key for key in found if key[0] in arm.rows_of(step)]
        assert sorted(there) == sorted(of_step.select("row", "kind").iter_rows())
        for line in of_step.iter_rows(named=True):
            of = found[line["row"], line["kind"]]
            assert (line["tokens"], line["top1"]) == (of[0], of[3])
            assert (line["nll"], line["entropy"]) == pytest.approx(of[1:3], rel=1e-4)
            assert line["teacher"] == teachers[line["row"]]
    assert set(recorded["teacher"]) == {"convergent", "divergent"}


def test_another_step_has_other_losses(begin, arm):
    """Or the comparison above would hold for any."""
    scored = by_row_and_kind(rows_of(begin.place / "scored-1"))
    of_step = arm.recorded.filter(pl.col("step") == 3)
    apart = [
        abs(line["nll"] / scored[line["row"], line["kind"]][1] - 1)
        for line in of_step.iter_rows(named=True)
    ]
    assert np.median(apart) > 1e-2


# The fields relied on, and what there is without them.


def test_trls_forward_returns_what_is_relied_on(begin):
    from trl.trainer.utils import add_fused_lm_head

    assert recording.output_fields().issuperset(NEEDED)
    model, rows = network(begin.model), rendered(begin)[:3]
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    size = max(len(ids) for ids, _, _ in rows)
    ids, labels = torch.zeros(3, size, dtype=torch.int64), torch.full((3, size), -100)
    for n, (tokens, first, _) in enumerate(rows):
        ids[n, : len(tokens)] = torch.from_numpy(tokens)
        labels[n, first : len(tokens)] = torch.from_numpy(tokens[first:])
    inputs = {"input_ids": ids, "attention_mask": torch.arange(size) < (ids > 0).sum(1)[:, None]}
    output = model(**inputs, labels=labels, fused_lm_head=True)
    assert dataclasses.is_dataclass(output)  # `replace` is used
    scores = TokenScores.of(output)
    for name in NEEDED:
        assert getattr(scores, name).shape == (3, size - 1), name
    mask = labels[:, 1:] != -100
    assert torch.equal(scores.label_mask, mask) and scores.is_top1.dtype == torch.bool
    for each in (scores.log_probs, scores.entropy, scores.is_top1):
        assert not each[~mask].any()
    assert not scores.log_probs.requires_grad and output.log_probs.requires_grad
    logs = model(**inputs).logits[:, :-1].log_softmax(-1)
    own = logs.gather(-1, ids[:, 1:, None])[..., 0]
    close = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
    close(scores.log_probs[mask], own[mask].detach())
    close(scores.entropy[mask], -(logs.exp() * logs).sum(-1)[mask].detach())
    assert torch.equal(scores.is_top1[mask], (logs.argmax(-1) == ids[:, 1:])[mask])


def test_what_returns_something_else_is_none():
    from transformers.modeling_outputs import CausalLMOutput

    assert TokenScores.of(CausalLMOutput(logits=torch.zeros(1, 2, 3))) is None
    fields = dict.fromkeys(NEEDED, torch.zeros(1, 2)) | {"entropy": None}
    assert TokenScores.of(trl.trainer.utils.FusedCausalLMOutput(**fields)) is None


@pytest.mark.parametrize("flags", [ACCUMULATED, [*PACKED, *LORA]], ids=["padded", "packed lora"])
def test_a_head_of_our_own_records_the_same(begin, arm, monkeypatch, flags):
    theirs = arm if flags is ACCUMULATED else train(begin, "by-trl", *flags)
    monkeypatch.setattr(running, "ArmTrainer", functools.partial(ArmTrainer, own_head=True))
    ours = train(begin, f"own-head-{len(flags)}", *flags)
    assert ours.losses == theirs.losses
    name = "adapter_model.safetensors" if "--use_peft" in flags else "model.safetensors"
    weights, others = ours.weights(3, name), theirs.weights(3, name)
    assert all(torch.equal(weights[key], others[key]) for key in others)
    exact = ["step", "row", "teacher", "kind", "tokens", "top1"]
    assert ours.recorded.select(exact).equals(theirs.recorded.select(exact))
    for column in ("nll", "entropy"):
        np.testing.assert_allclose(ours.recorded[column], theirs.recorded[column], rtol=1e-4)


# Files.


def scores(nlls, mask=None):
    """Scores of one row."""
    nll = torch.tensor([nlls])
    mask = torch.ones_like(nll, dtype=torch.bool) if mask is None else torch.tensor([mask])
    return TokenScores(-nll, nll * 2, nll < 1, mask)


def slots(*kinds):
    """Of one row, whose first token is nobody's next."""
    return torch.tensor([[KINDS.index(kind) for kind in ("other", *kinds)]])


def lines(folder):
    return {path.name: pl.read_parquet(path).rows() for path in sorted(folder.iterdir())}


def test_files_are_named_by_their_steps_and_hold_the_kinds_there_are(tmp_path):
    recorder = Recorder(tmp_path / "losses", ["A", None], rank=3)
    recorder.flush()
    assert not (tmp_path / "losses").exists()
    recorder.add(1, [1], slots("step", "step", "answer"), scores([0.5, 1.5, 3.0]))
    recorder.add(2, [0], slots("branch", "step"), scores([0.0, 0.25], [False, True]))
    recorder.flush()
    recorder.flush()
    recorder.add(3, [0], slots("other"), scores([1.0]))
    recorder.flush()
    assert lines(tmp_path / "losses") == {
        "00000001-00000002-3.parquet": [
            (1, 1, None, "step", 2, 2.0, 4.0, 1),
            (1, 1, None, "answer", 1, 3.0, 6.0, 0),
            (2, 0, "A", "step", 1, 0.25, 0.5, 1),
        ],
        "00000003-00000003-3.parquet": [(3, 0, "A", "other", 1, 1.0, 2.0, 0)],
    }
    forget_after(tmp_path / "losses", 3)
    assert len(lines(tmp_path / "losses")) == 2
    forget_after(tmp_path / "losses", 2)
    assert list(lines(tmp_path / "losses")) == ["00000001-00000002-3.parquet"]
    forget_after(tmp_path / "losses", 0)
    assert lines(tmp_path / "losses") == {}
    forget_after(tmp_path / "there-is-none", 0)


def test_a_row_twice_in_a_step_is_recorded_twice(tmp_path):
    recorder = Recorder(tmp_path, ["A"])
    for _ in range(2):
        recorder.add(1, [0], slots("step"), scores([0.5]))
    recorder.flush()
    assert lines(tmp_path) == {
        "00000001-00000001-0.parquet": [(1, 0, "A", "step", 1, 0.5, 1, 1)] * 2
    }


def test_no_two_files_have_a_step_in_common(tmp_path, monkeypatch):
    """Where a step has more rows than are held; one file would take the other's place."""
    monkeypatch.setattr(recording, "FLUSH_ROWS", 2)
    recorder = Recorder(tmp_path, ["A"] * 5)
    for row, step in enumerate([5, 5, 5, 6, 7]):
        recorder.add(step, [row], slots("step"), scores([0.5]))
    recorder.flush()
    found = {name: [line[:2] for line in file] for name, file in lines(tmp_path).items()}
    assert found == {
        "00000005-00000005-0.parquet": [(5, 0), (5, 1), (5, 2)],
        "00000006-00000007-0.parquet": [(6, 3), (7, 4)],
    }


def test_sums_are_in_double_precision(tmp_path):
    recorder = Recorder(tmp_path, ["A"])
    nlls = [10_000.0, *[1e-4] * 9_999]
    recorder.add(1, [0], slots(*["step"] * 10_000), scores(nlls))
    recorder.flush()
    ((*_, tokens, nll, _, _),) = next(iter(lines(tmp_path).values()))
    each = float(np.float32(1e-4))
    assert (tokens, nll) == (10_000, pytest.approx(10_000 + 9_999 * each, rel=1e-12))


def test_a_loss_that_is_no_number_stays_one(tmp_path):
    recorder = Recorder(tmp_path, ["A"])
    recorder.add(1, [0], slots("step", "branch"), scores([float("nan"), 1.0]))
    recorder.flush()
    (file,) = lines(tmp_path).values()
    assert [(line[3], str(line[5])) for line in file] == [("branch", "1.0"), ("step", "nan")]


def test_a_run_whose_loss_is_no_number_says_so(begin):
    arm = train(begin, "diverged", "--learning_rate", "1e30", "--optim", "sgd")
    assert re.fullmatch(r"\d\.\d+", str(arm.losses[0]))
    assert not np.isfinite(arm.losses[1:]).any()
    nll = sums(arm)["nll"]
    assert np.isfinite(nll[0]) and not nll[1:].is_finite().any()
