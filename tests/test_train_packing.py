"""Packed rows are trained on as if each stood alone, and none is cut, lost or moved."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.tokenkinds import KINDS
from tests.trained_arms import ROWS, rendered, start, train

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("trl")

from curate.errors import CurateError  # noqa: E402
from curate.rendering import Renderer  # noqa: E402
from curate.samples import open_samples  # noqa: E402
from curate.train.audit import Audit  # noqa: E402
from curate.train.collating import NAMES, Collator  # noqa: E402
from curate.train.ordering import shuffled  # noqa: E402
from curate.train.packs import check_apart  # noqa: E402
from curate.train.preparing import Plan, _batch, _packed, _Record, prepare  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that are not ours

LIMIT = 1000


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    return start(tmp_path_factory.mktemp("packing"))


@pytest.fixture(scope="module")
def rows(begin):
    return rendered(begin)


def prepared(begin, name, **plan):
    """The records of the dataset as a trainer gets them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(begin.model)
    samples = open_samples(begin.data, teacher="teacher", steps=True)
    audit = Audit(tokenizer, limit=plan.get("limit"), overlength="error")
    made = prepare(samples, Renderer(tokenizer), audit, Plan(**plan), begin.place / name)
    return made, list(made.dataset())


@pytest.fixture(scope="module")
def blocks(begin):
    return prepared(begin, "packed.arrow", limit=LIMIT, packing=True)[1]


# Blocks.


def record(index, size):
    ids = np.full(size, index, np.int32)
    return _Record(index, f"#{index}", ids, ids.copy(), ids.astype(np.uint8))


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 200))
def test_every_row_is_in_one_block_in_order_and_no_block_has_room_for_the_next(sizes, limit):
    records = [record(n, size) for n, size in enumerate(sizes)]
    blocks = list(_packed(iter(records), limit))
    assert [each for block in blocks for each in block] == records  # the very objects
    filled = [sum(len(each.input_ids) for each in block) for block in blocks]
    assert all(0 < size <= limit for size in filled)
    following = [len(block[0].input_ids) for block in blocks[1:]]
    assert all(size + more > limit for size, more in zip(filled, following, strict=False))


@given(st.lists(st.integers(1, 99), min_size=1, max_size=20))
def test_a_row_above_the_limit_is_a_block_of_its_own(sizes):
    """Only where it is an error anyway, which is told once all rows are seen."""
    blocks = list(_packed(iter([record(n, size) for n, size in enumerate(sizes)]), 30))
    for block in blocks:
        assert len(block) == 1 or sum(len(each.input_ids) for each in block) <= 30
    assert [each.index for block in blocks for each in block] == list(range(len(sizes)))


def test_blocks_hold_the_rows_letter_by_letter(blocks, rows):
    assert [row for block in blocks for row in block["rows"]] == list(range(ROWS))
    assert 1 < len(blocks) < ROWS / 2
    for block in blocks:
        own = [rows[row] for row in block["rows"]]
        assert block["seq_lengths"] == [len(ids) for ids, _, _ in own]
        assert sum(block["seq_lengths"]) == len(block["input_ids"]) <= LIMIT
        assert block["input_ids"] == [token for ids, _, _ in own for token in ids.tolist()]
        assert block["kinds"] == [kind for _, _, kinds in own for kind in kinds.tolist()]
        wanted = [[-100] * first + ids[first:].tolist() for ids, first, _ in own]
        assert block["labels"] == [label for labels in wanted for label in labels]


def test_the_first_token_of_a_row_follows_no_other_row():
    """Which counts where a row has no prompt."""
    rows = [record(7, 3), record(8, 2)]
    (made,) = _batch([rows]).to_pylist()
    assert made["labels"] == [-100, 7, 7, -100, 8]
    assert (made["rows"], made["seq_lengths"]) == ([7, 8], [3, 2])
    assert rows[0].labels.tolist() == [7, 7, 7]


def test_shuffled_rows_are_packed_in_their_order(begin, blocks):
    made, found = prepared(
        begin, "shuffled.arrow", limit=LIMIT, packing=True, order="shuffled", seed=5
    )
    keys = [sample.key for sample in open_samples(begin.data)]
    order = [row for block in found for row in block["rows"]]
    assert order == shuffled(keys, 5, 0).tolist() != list(range(ROWS))
    assert made.keys == [keys[block["rows"][0]] for block in found]
    assert made.rows == ROWS
    assert made.tokens == sum(len(block["input_ids"]) for block in blocks)


# Batches.


def test_a_batch_knows_whose_each_token_is(blocks, rows):
    batch = Collator(0, packed=True)(blocks[:2])
    own = batch["rows"]
    assert own == blocks[0]["rows"] + blocks[1]["rows"]
    whose = [n for n, row in enumerate(own) for _ in rows[row][0]]
    kinds = [kind for row in own for kind in rows[row][2].tolist()]
    slots = [n * len(KINDS) + kind for n, kind in zip(whose, kinds, strict=True)]
    assert batch["slots"].tolist() == [slots]
    positions = [place for row in own for place in range(len(rows[row][0]))]
    assert batch["position_ids"].tolist() == [positions]
    assert "attention_mask" not in batch
    assert batch["tokens"] == len(whose)
    assert batch["trained_tokens"] == sum(len(rows[row][0]) - rows[row][1] for row in own)


def test_padding_is_nobodys(begin):
    _, records = prepared(begin, "plain.arrow", limit=LIMIT)
    batch = Collator(0, packed=False, pad_to_multiple_of=64)(records[:3])
    sizes = [len(record["input_ids"]) for record in records[:3]]
    assert len(set(sizes)) == 3 and batch["slots"].shape[1] % 64 == 0
    for n, size in enumerate(sizes):
        assert set(batch["slots"][n, :size].div(len(KINDS), rounding_mode="floor").tolist()) == {n}
        assert batch["labels"][n, size:].eq(-100).all()
        assert batch["attention_mask"][n].sum() == size
    assert batch["tokens"] == sum(sizes)


# What the model makes of them.


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logits_are_those_of_each_row_alone(begin, blocks, rows, attention):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        begin.model, attn_implementation=attention
    )
    batch = Collator(0, packed=True)(blocks[:1])
    inputs = {name: each for name, each in batch.items() if name not in (*NAMES, "labels")}
    inputs["use_cache"] = False
    joined = {"input_ids": batch["input_ids"], "use_cache": False}
    leaking = joined | {"attention_mask": torch.ones_like(batch["input_ids"])}
    with torch.no_grad():
        alone = [
            model(input_ids=torch.from_numpy(rows[row][0])[None], use_cache=False).logits[0]
            for row in batch["rows"]
        ]
        packed, leaked = (model(**each).logits[0] for each in (inputs, leaking))
    assert len(alone) > 2
    alone = torch.cat(alone)
    second = len(rows[batch["rows"][0]][0])
    assert (packed - alone).abs().max() < 1e-4
    assert (leaked - alone)[:second].abs().max() < 1e-4  # nothing stands before the first row
    assert (leaked - alone)[second:].abs().max() > 1
    assert 1 < alone.std() < 20


@pytest.mark.parametrize("reduction", ["token", "sample"])
def test_a_packed_step_has_the_losses_of_its_rows_padded(begin, reduction):
    told = ["--reduction", reduction, "--max_length", str(LIMIT)]
    packed = train(begin, f"packed-{reduction}", *told, "--packing", batch=2, steps=2)
    of_step = packed.rows_of(1)
    assert len(of_step) > 4
    padded = train(begin, f"padded-{reduction}", *told, batch=len(of_step), steps=1)
    assert padded.rows_of(1) == of_step
    assert padded.losses[0] == pytest.approx(packed.losses[0], rel=1e-6)
    assert padded.logs[0]["grad_norm"] == pytest.approx(packed.logs[0]["grad_norm"], rel=1e-4)
    ours, theirs = (
        arm.recorded.filter(pl.col("step") == 1).sort("row", "kind") for arm in (packed, padded)
    )
    exact = ["row", "teacher", "kind", "tokens"]
    assert ours.select(exact).equals(theirs.select(exact))
    for name in ("nll", "entropy"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)


def test_an_epoch_of_packed_rows_has_each_row_once(begin):
    arm = train(begin, "epoch", "--packing", "--max_length", LIMIT, steps=-1, batch=2)
    assert arm.account["epochs"] == 3  # TRL's own default
    assert arm.account["seen_rows"] == 3 * ROWS
    each = arm.recorded.group_by("row").agg(pl.col("step").n_unique(), pl.col("tokens").sum())
    assert sorted(each["row"]) == list(range(ROWS))
    assert set(each["step"]) == {3}
    assert each["tokens"].sum() == arm.account["seen_trained_tokens"]
    assert arm.account["seen_trained_tokens"] == 3 * arm.account["arm"]["trained_tokens"]


# Architectures that would mix documents, and say nothing or something of it.

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
HEADS = {"num_key_value_heads": 1, "intermediate_size": 64, "head_dim": 16}
MAMBA = {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}


def tried(kind, changes):
    config = transformers.AutoConfig.for_model(kind, **changes)
    transformers.set_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    check_apart(model, Collator(0, packed=True), 64)
    assert model.training == transformers.AutoModelForCausalLM.from_config(config).training


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen3", SMALL | HEADS),
        ("llama", SMALL | HEADS),
        ("gpt2", {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}),
        ("gemma3_text", SMALL | HEADS),
    ],
)
def test_architectures_that_keep_documents_apart_are_packed(kind, changes):
    tried(kind, changes)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("gpt_oss", SMALL | HEADS | EXPERTS, "GptOssForCausalLM .*mixes them: logits change by"),
        ("mamba2", SMALL | MAMBA, "Mamba2ForCausalLM .*mixes them: logits change by"),
        ("bloom", {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 2}, "mixes them"),
    ],
)
def test_architectures_that_mix_documents_are_refused(kind, changes, said):
    with pytest.raises(CurateError, match=f"^--packing: expected documents that .*{said}"):
        tried(kind, changes)
