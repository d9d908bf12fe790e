"""Arms that can be compared: steps, orders and masks, on one device and on two processes."""

import json
import signal
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("trl", reason="training needs the extra `train`")

from transformers import AutoTokenizer

from curate.errors import CurateError
from curate.rendering import Renderer
from curate.samples import open_samples
from curate.tokenkinds import KINDS, token_kinds
from curate.train.audit import Audit
from curate.train.masks import Mask, mask_of
from curate.train.ordering import shuffled
from curate.train.preparing import Plan
from curate.train.preparing import prepare as to_tokens
from tests.command_line import invoke, only_line
from tests.training_runs import Runs, account_of, asked, losses, prepare

TRACE = [KINDS.index(kind) for kind in ("branch", "step", "thought")]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    place = prepare(tmp_path_factory.mktemp("train"))
    invoke(
        *("select", place / "dataset", "--out", place / "filtered"),
        *("--keep", "branch_frac <= 0.2", "--format", "prompt-completion"),
    )
    return place


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    served = Runs(tmp_path_factory.mktemp("runs"))
    yield served
    served.end()


@pytest.fixture(scope="module")
def tokens(ground):
    """Each row of the dataset with its tokens."""
    samples = list(open_samples(ground / "dataset", steps=True, spans="branches"))
    renderer = Renderer(AutoTokenizer.from_pretrained(ground / "model"))
    return list(zip(samples, renderer.render(samples), strict=True))


def rows_by_step(run):
    """The rows of each optimizer step."""
    told = {}
    for loss in losses(run):
        told.setdefault(loss["step"], {})[loss["row"]] = None
    return [list(told[step]) for step in sorted(told)]


@pytest.mark.parametrize("order", ["dataset", "shuffled"])
def test_arms_of_equal_steps_take_shared_rows_in_the_same_order(ground, runs, tmp_path, order):
    steps, epochs = ["--order", order, "--max_steps", 12], {}
    for name in ("dataset", "filtered"):
        run = tmp_path / name
        like = ["--like", tmp_path / "dataset"] if name == "filtered" else []
        done = runs(run, *asked(ground, "--data", ground / name, *steps), *like)
        assert done.returncode == 0, done.stderr
        assert "note:" not in done.stderr
        keys = [sample.key for sample in open_samples(ground / name)]
        taken = rows_by_step(run)
        in_epoch = -(-len(keys) // 4)
        epochs[name] = [
            [keys[row] for step in taken[first : first + in_epoch] for row in step]
            for first in range(0, 12 - in_epoch + 1, in_epoch)
        ]
        assert all(sorted(epoch) == sorted(keys) for epoch in epochs[name])
        account = account_of(run)
        assert account["arm"]["rows"] == account["seen_unique_rows"] == len(keys)
        assert account["seen_rows"] == sum(len(step) for step in taken)
        assert account["epochs"] == pytest.approx(12 / in_epoch)
    assert (tmp_path / "filtered/arms.png").read_bytes()[:4] == b"\x89PNG"
    shared = {*epochs["filtered"][0]}
    assert 3 < len(shared) < 24
    assert len(epochs["dataset"]) == 2 <= len(epochs["filtered"])
    for ours, others in zip(*epochs.values(), strict=False):
        assert [key for key in ours if key in shared] == others
    assert (epochs["dataset"][0] == epochs["dataset"][1]) == (order == "dataset")


def test_an_arm_is_held_against_another(ground, runs, tmp_path):
    one = tmp_path / "one"
    done = runs(one, *asked(ground, "--max_steps", 2, "--checkpoints", "1,7"))
    assert "note: no checkpoints at 7: 2 steps in all\n" in done.stderr
    filtered = asked(ground, "--data", ground / "filtered", "--like", one)
    line = runs(tmp_path / "two", *filtered, "--max_steps", 3).stderr.splitlines()[-1]
    assert line == (
        f"error: --like {one}: expected as many optimizer steps, 2, found 3; --max_steps 2 sets "
        "them"
    )
    assert not (tmp_path / "two/run.json").exists()
    more = ["--max_steps", 2, "--checkpoints", "1,7", "--learning_rate", 1e-3, "--seed", 7]
    done = runs(tmp_path / "two", *filtered, *more)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "differs" in line] == [
        f"note: learning_rate differs from {one}: None there, 0.001 here",
        f"note: seed differs from {one}: None there, 7 here",
    ]
    line = only_line(runs(tmp_path / "none", *asked(ground, "--like", tmp_path / "gone")))
    assert line.startswith("--like: expected a run of `curate train`: ")


def test_the_account_counts_what_was_trained_on(ground, runs, tokens, tmp_path):
    run = tmp_path / "run"
    done = runs(run, *asked(ground, "--max_steps", 8, "--checkpoints", 3, "--reduction", "sample"))
    assert done.returncode == 0, done.stderr
    sizes = [len(rendered.input_ids) for _, rendered in tokens]
    trained = [len(r.input_ids) - r.prompt_tokens for _, r in tokens]
    account = account_of(run)
    assert account["arm"] == {
        **{"rows": 24, "records": 24, "tokens": sum(sizes), "trained_tokens": sum(trained)},
        **{"masked_tokens": 0, "overlength": {}, "lost_tokens": 0},
    }
    assert account["settings"]["reduction"] == "sample"
    first, last = account["checkpoints"]
    assert (first["step"], first["rows"], first["unique_rows"], first["epoch"]) == (3, 12, 12, 0.5)
    assert first["tokens"] == sum(sizes[:12])
    assert (last["rows"], last["unique_rows"]) == (32, 24)
    assert account["epochs"] == last["epoch"] == pytest.approx(32 / 24)
    assert account["seen_tokens"] == last["tokens"] == sum(sizes) + sum(sizes[:8])
    assert account["seen_trained_tokens"] == sum(trained) + sum(trained[:8])
    assert sum(loss["tokens"] for loss in losses(run)) == sum(trained) + sum(trained[:8])
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert logged[-1]["num_tokens"] == last["tokens"]


MASKS = {
    "--mask branch-steps": Mask(),
    "--mask random": Mask(random=True, seed=42),
    "--mask_spans branches": Mask(spans=True),
    "--mask random --mask_spans branches": Mask(spans=True, random=True, seed=42),
}


@pytest.mark.parametrize("words", MASKS)
def test_masked_tokens_are_left_out_of_the_loss_and_counted(ground, runs, tokens, tmp_path, words):
    run, mask = tmp_path / "run", MASKS[words]
    done = runs(run, *asked(ground, "--num_train_epochs", 1), *words.split())
    assert done.returncode == 0, done.stderr
    wanted, masked = Counter(), 0
    for sample, rendered in tokens:
        hidden, kinds = mask.of(sample, rendered), token_kinds(rendered, sample)
        masked += int(hidden.sum())
        left = kinds[rendered.prompt_tokens :][~hidden[rendered.prompt_tokens :]]
        wanted.update((sample.index, KINDS[kind]) for kind in left.tolist())
    found = {(loss["row"], loss["kind"]): loss["tokens"] for loss in losses(run)}
    assert found == dict(wanted)
    assert account_of(run)["arm"]["masked_tokens"] == masked > 0
    assert any(kind == "branch" for _, kind in found) == (words != "--mask branch-steps")


def test_a_mask_of_steps_needs_steps(ground, runs, tmp_path):
    bare = tmp_path / "bare"
    invoke(
        *("scan", ground / "corpus", "--out", bare, "--id", "id", "--problem", "problem"),
        *("--answer", "answer", "--keep", "true", "--format", "prompt-completion"),
    )
    for mask in ("branch-steps", "random"):
        line = only_line(runs(tmp_path / "run", *asked(ground, "--data", bare, "--mask", mask)))
        assert line == (
            f"{bare}: expected steps in .curate/steps, found none; `curate scan --steps` writes "
            "them"
        )
    with_steps = asked(ground, "--data", bare, "--mask", "branch-steps", "--max_steps", 1)
    done = runs(tmp_path / "run", *with_steps, "--steps-from", ground / "dataset")
    assert done.returncode == 0, done.stderr
    assert account_of(tmp_path / "run")["arm"]["masked_tokens"] > 0


def test_two_ways_to_mask_are_refused():
    with pytest.raises(CurateError, match="--mask branch-steps: expected without --mask-spans"):
        mask_of("branch-steps", "branches", 0)
    assert mask_of(None, None, 0) is None


@given(seed=st.integers(0, 1 << 40), row=st.integers(0, 23), spans=st.booleans())
def test_a_random_mask_takes_as_many_tokens_of_the_trace(tokens, seed, row, spans):
    sample, rendered = tokens[row]
    mask = Mask(spans=spans, random=True, seed=seed)
    marked, drawn = Mask(spans=spans).of(sample, rendered), mask.of(sample, rendered)
    assert drawn.sum() == marked.sum()
    assert np.isin(token_kinds(rendered, sample)[drawn], TRACE).all()
    assert np.array_equal(drawn, mask.of(sample, rendered))
    other = Mask(spans=spans, random=True, seed=seed + 1).of(sample, rendered)
    assert not marked.any() or not np.array_equal(drawn, other)


@given(row=st.integers(0, 23), spans=st.booleans(), share=st.floats(0, 1))
def test_of_a_row_that_is_cut_as_many_tokens_are_drawn_as_are_marked(tokens, row, spans, share):
    sample, rendered = tokens[row]
    kept = int(share * len(rendered.input_ids))
    marked = Mask(spans=spans).of(sample, rendered, kept)
    drawn = Mask(spans=spans, random=True).of(sample, rendered, kept)
    assert len(marked) == len(drawn) == len(rendered.input_ids)
    assert drawn.sum() == marked.sum() == Mask(spans=spans).of(sample, rendered)[:kept].sum()
    assert not drawn[kept:].any() and not marked[kept:].any()
    assert np.isin(token_kinds(rendered, sample)[drawn], TRACE).all()


def prepared(ground, path, mask, data=None, spans="branches", **plan):
    """A dataset as a trainer gets it under a mask, and what the audit says."""
    tokenizer = AutoTokenizer.from_pretrained(ground / "model")
    samples = open_samples(data or ground / "dataset", steps=data is None, spans=spans)
    plan = Plan(mask=mask, **plan)
    audit = Audit(tokenizer, limit=plan.limit, overlength=plan.overlength)
    made = to_tokens(samples, Renderer(tokenizer), audit, plan, path)
    return made, audit.report()


def test_a_random_mask_leaves_as_much_of_cut_rows_as_the_mask_that_it_controls(
    ground, tokens, tmp_path
):
    sizes = sorted(len(rendered.input_ids) for _, rendered in tokens)
    limit, trained = sizes[len(sizes) // 4], []
    for random in (False, True):
        made, report = prepared(
            ground,
            tmp_path / f"{random}.arrow",
            Mask(random=random),
            limit=limit,
            overlength="truncate",
        )
        assert report.errors == []
        rows = list(made.dataset())
        trained.append([sum(label != -100 for label in row["labels"]) for row in rows])
        assert made.masked_tokens > 0 < made.lost_tokens
        assert made.trained_tokens == sum(trained[-1])
        assert made.trained_tokens + made.masked_tokens == report.tokens["trained"]
    assert trained[0] == trained[1]


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("random", [False, True])
def test_rows_that_a_mask_leaves_nothing_of_are_findings(ground, tmp_path, random):
    """Cut within a thought that is marked as a whole, its tag a part of the prompt."""
    rows = [
        {"prompt": "2 + 2 <think>", "completion": "x" * size + "</think>4", "spans": [(0, size)]}
        for size in (5, 99, 98)
    ]
    made, report = prepared(
        ground,
        tmp_path / "all.arrow",
        Mask(spans=True, random=random),
        data=parquet(tmp_path / "rows.parquet", [*rows, rows[0] | {"spans": []}]),
        spans="spans",
        limit=60,
        overlength="truncate",
    )
    (finding,) = report.errors
    assert (finding.check, finding.rows) == ("fully_masked", 2)
    assert [example.row for example in finding.examples] == [1, 2]
    assert made.trained_tokens + made.masked_tokens == report.tokens["trained"]
    assert made.rows == 4


def test_keys_that_are_places_are_told(ground, tmp_path):
    assert not prepared(ground, tmp_path / "keyed.arrow", None)[0].positional
    rows = [{"prompt": "?", "completion": "4"}, {"prompt": "??", "completion": "5"}]
    for name, ids, positional in (("ids", ["#0", "#1"], False), ("none", [None, "b"], True)):
        table = [row | {"id": id} for row, id in zip(rows, ids, strict=True)]
        data = parquet(tmp_path / f"{name}.parquet", table)
        made, _ = prepared(ground, tmp_path / f"{name}.arrow", None, data=data, spans=None)
        assert made.positional is positional


@given(st.sets(st.text(max_size=3), min_size=1), st.data(), st.integers(0, 9), st.integers(0, 9))
def test_an_order_does_not_depend_on_other_rows(keys, data, seed, epoch):
    every = sorted(keys)
    some = [key for key in every if data.draw(st.booleans())] or every
    ordered = [every[n] for n in shuffled(every, seed, epoch)]
    assert sorted(ordered) == every
    assert [key for key in ordered if key in some] == [some[n] for n in shuffled(some, seed, epoch)]


@pytest.mark.parametrize("reduction", ["token", "sample"])
def test_two_processes_train_as_one_of_twice_the_batch_and_go_on(ground, runs, tmp_path, reduction):
    # Three batches an epoch: the kill is in the middle of the second one.
    words = ["--max_steps", 9, "--checkpoints", 4, "--order", "shuffled", "--use_cpu"]
    words += ["--reduction", reduction]
    one = runs(tmp_path / "one", *asked(ground, *words, "--per_device_train_batch_size", 8))
    assert one.returncode == 0, one.stderr
    options = [*asked(ground, *words), "--ddp_backend", "gloo"]
    killed = runs(tmp_path / "two", *options, before="open metrics.jsonl", nth=5, processes=2)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    two = runs(tmp_path / "two", *options, processes=2)
    assert two.returncode == 0, two.stderr
    assert two.stdout == one.stdout.replace("/one: ", "/two: ")
    assert "going on: 4 steps are trained" in two.stderr
    logged = [
        [json.loads(line)["loss"] for line in path.read_text().splitlines()]
        for path in (tmp_path / "one/metrics.jsonl", tmp_path / "two/metrics.jsonl")
    ]
    np.testing.assert_allclose(*logged, rtol=0, atol=1e-5)
    each = [
        {(loss["step"], loss["row"], loss["kind"]): loss for loss in losses(tmp_path / run)}
        for run in ("one", "two")
    ]
    assert each[0].keys() == each[1].keys()
    for place, loss in each[0].items():
        assert each[1][place]["tokens"] == loss["tokens"]
        assert each[1][place]["nll"] == pytest.approx(loss["nll"], rel=1e-4)
    assert (
        account_of(tmp_path / "one")["checkpoints"] == account_of(tmp_path / "two")["checkpoints"]
    )
    assert account_of(tmp_path / "two")["settings"]["processes"] == 2


def test_the_seed_decides_on_an_adapters_start(ground, runs, tmp_path):
    lora = ["--use_peft", "--lora_target_modules", "all-linear", "--max_steps", 1]
    seen = []
    for seed in (1, 2):
        run = tmp_path / str(seed)
        done = runs(run, *asked(ground, *lora, "--seed", seed))
        assert done.returncode == 0, done.stderr
        seen.append((run / "checkpoint-1/adapter_model.safetensors").read_bytes())
    assert seen[0] != seen[1]


def test_rows_that_fill_the_last_batch_of_all_processes_are_counted_and_told(
    ground, runs, tmp_path
):
    words = asked(ground, "--num_train_epochs", 1, "--per_device_train_batch_size", 5)
    done = runs(tmp_path / "run", *words, "--use_cpu", "--ddp_backend", "gloo", processes=2)
    assert done.returncode == 0, done.stderr
    note = "note: each epoch ends with 6 of its first records, to fill all processes\n"
    assert done.stderr.count(note) == 1
    account = account_of(tmp_path / "run")
    assert (account["repeated_an_epoch"], account["seen_rows"]) == (6, 30)
    assert account["seen_unique_rows"] == 24
    taken = [row for step in rows_by_step(tmp_path / "run") for row in step]
    assert sorted(taken) == sorted([*range(24), *range(6)])
