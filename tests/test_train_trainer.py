"""An arm is trained as TRL would train it, on the loss and in the order that were asked for."""

import functools
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import CurateError
from tests.trained_arms import BY, ROWS, network, rendered, start, token_nlls, train

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from curate.train import running  # noqa: E402
from curate.train.model import _shape  # noqa: E402
from curate.train.ordering import Order, shuffled  # noqa: E402
from curate.train.trainer import ArmTrainer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that are not ours


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    return start(tmp_path_factory.mktemp("trainer"))


@pytest.fixture(scope="module")
def rows(begin):
    return rendered(begin)


# Bare TRL.


def bare(begin, place, model, steps, batch, **more):
    """TRL's own trainer on the dataset as it lies there, in its order; its losses and weights."""
    from datasets import Dataset

    dataset = Dataset.from_parquet(sorted(map(str, (begin.data / "data").iterdir())))
    config = trl.SFTConfig(
        output_dir=str(place),
        max_steps=steps,
        per_device_train_batch_size=batch,
        train_sampling_strategy="sequential",
        max_length=100_000,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
        **BY,
        **more,
    )
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(begin.model)
    columns = dataset.select_columns(["prompt", "completion"])
    trainer = trl.SFTTrainer(model, args=config, train_dataset=columns, processing_class=tokenizer)
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return losses, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("plain", {}),
        ("stored", {"gradient_accumulation_steps": 3, "gradient_checkpointing": False}),
    ],
)
def test_it_is_the_same_to_the_last_bit_as_bare_trl(begin, name, more):
    flags = [word for option, value in more.items() for word in (f"--{option}", value)]
    arm = train(begin, f"parity-{name}", *flags)
    losses, weights = bare(begin, begin.place / f"bare-{name}", str(begin.model), 3, 4, **more)
    assert len(losses) == 3 and np.ptp(losses) > 0.01
    assert arm.losses == losses
    ours, before = arm.weights(3), network(begin.model).state_dict()
    for key, theirs in weights.items():
        assert torch.equal(ours[key], theirs), key
        assert not torch.equal(before[key], theirs), key


def test_without_a_recorder_it_is_the_same_too(begin):
    with_one, without = train(begin, "with"), train(begin, "without", token_losses=False)
    assert (with_one.run / "token_losses").exists()
    assert with_one.losses == without.losses
    assert not (without.run / "token_losses").exists()
    ours, theirs = with_one.weights(3), without.weights(3)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


# The loss.

SHAPES = {
    "padded": [],
    # The second step ends the epoch, with a micro-batch of four rows alone.
    "accumulated": ["--gradient_accumulation_steps", "4", "--per_device_train_batch_size", "5"],
    "packed": [
        *("--packing", "--max_length", "600", "--per_device_train_batch_size", "2"),
        *("--gradient_accumulation_steps", "2"),
    ],
}


def by_hand(model, rows, reduction):
    """The loss of a step by the rows' own logits."""
    each = [token_nlls(model, row) for row in rows]
    if reduction == "sample":
        return torch.stack([nlls.mean() for nlls in each]).mean()
    return torch.cat(each).mean()


@pytest.mark.parametrize("reduction", ["token", "sample"])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient_are_those_of_the_models_own_logits(begin, rows, shape, reduction):
    told = ["--reduction", reduction, "--checkpoints", "1", "2", "--optim", "sgd"]
    arm = train(begin, f"{reduction}-{shape}", *SHAPES[shape], *told, "--learning_rate", "0.5")
    other = {"token": "sample", "sample": "token"}[reduction]
    apart = []
    assert len(arm.losses) == 3
    for step, loss in enumerate(arm.losses, start=1):
        folder = begin.model if step == 1 else arm.run / f"checkpoint-{step - 1}"
        model, of_step = network(folder), [rows[row] for row in arm.rows_of(step)]
        wanted = by_hand(model, of_step, reduction)
        assert loss == pytest.approx(wanted.item(), rel=1e-5)
        apart.append(abs(loss - by_hand(model, of_step, other).item()))
        wanted.backward()
        after = arm.weights(step)
        for key, weight in model.named_parameters():
            moved = (weight.detach() - after[key]) / 0.5
            torch.testing.assert_close(moved, weight.grad, rtol=1e-3, atol=2e-6)
    assert max(apart) > 5e-3  # it tells them apart


def test_no_row_is_lost_at_the_end_of_an_epoch(begin):
    arm = train(begin, "rows", *SHAPES["accumulated"], steps=4)
    epoch = [list(range(20)), list(range(20, ROWS))]
    assert [arm.rows_of(step) for step in range(1, 5)] == epoch * 2
    assert [log["epoch"] for log in arm.logs] == pytest.approx([0.8, 1, 1.8, 2])


# What the trainer cannot do.


def test_rows_that_weigh_the_same_need_the_forward_of_trl(begin, monkeypatch):
    monkeypatch.setattr(running, "ArmTrainer", functools.partial(ArmTrainer, own_head=True))
    with pytest.raises(CurateError) as refused:
        train(begin, "refused", "--reduction", "sample")
    assert str(refused.value) == (
        "--reduction sample: expected a TRL whose forward returns log_probs, entropy, is_top1, "
        "label_mask; train with --reduction token, or with another version of trl"
    )


def test_what_trl_refuses_is_one_line(begin, monkeypatch):
    """As several GPUs in one process, whose batches transformers would split."""
    monkeypatch.setattr(trl.SFTConfig, "n_gpu", 2)
    with pytest.raises(CurateError) as refused:
        train(begin, "two-gpus")
    assert str(refused.value).isprintable()
    assert "Launch the script with `accelerate launch`" in str(refused.value)


@pytest.mark.soak
def test_a_compiled_model_is_compiled_once(begin, monkeypatch):
    """What is counted in the hook would be another graph in every step."""
    import torch._dynamo

    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    flags = ["--torch_compile", "--torch_compile_backend", "eager"]
    plain, compiled = train(begin, "eager", steps=12), train(begin, "dynamo", *flags, steps=12)
    assert compiled.losses == plain.losses
    assert compiled.recorded.equals(plain.recorded)


# Order.

KEYS = st.lists(st.text(max_size=8), max_size=40, unique=True)


@given(KEYS, st.integers(0, 2**31 - 1), st.integers(0, 50))
def test_an_order_has_every_row_once_and_is_drawn_by_the_seed(keys, seed, epoch):
    order = Order(keys, seed, shuffle=True)
    order.set_epoch(epoch)
    drawn = list(order)
    assert sorted(drawn) == list(range(len(keys))) and len(order) == len(keys)
    assert drawn == list(order) == shuffled(keys, seed, epoch).tolist()
    plain = Order(keys, seed, shuffle=False)
    plain.set_epoch(epoch)
    assert list(plain) == list(range(len(keys)))


@given(KEYS, st.data(), st.integers(0, 1000), st.integers(0, 5))
def test_shared_rows_are_in_the_same_order(keys, data, seed, epoch):
    chosen = data.draw(st.permutations([key for key in keys if data.draw(st.booleans())]))
    others = [f"{key} of another arm, longer than any" for key in keys[::3]]
    arms = [keys, data.draw(st.permutations([*chosen, *others]))]
    orders = [[arm[n] for n in shuffled(arm, seed, epoch)] for arm in arms]
    shared = [[key for key in order if key in set(chosen)] for order in orders]
    assert shared[0] == shared[1]


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_another_epoch_or_seed_is_another_order(seed):
    keys = [f"0.parquet:{n}:0" for n in range(30)]
    orders = {(s, e): tuple(shuffled(keys, s, e)) for s in (seed, seed + 1) for e in range(4)}
    assert len(set(orders.values())) == len(orders)
    assert tuple(range(30)) not in orders.values()


def test_each_epoch_of_a_run_has_its_own_order(begin):
    arms = [
        train(begin, f"shuffled-{n}", "--order", "shuffled", "--seed", seed, steps=8, batch=6)
        for n, seed in enumerate((7, 7, 8))
    ]
    first, again, other = ([arm.rows_of(step) for step in range(1, 9)] for arm in arms)
    epochs = [[*chain(*first[:4])], [*chain(*first[4:])]]
    keys = keys_of(begin)
    # Rows of a batch are recorded in its order.
    assert epochs == [shuffled(keys, 7, epoch).tolist() for epoch in (0, 1)]
    assert epochs[0] != epochs[1]
    assert first == again != other
    assert sorted(chain(*other[:4])) == list(range(ROWS))


def keys_of(begin):
    from curate.samples import open_samples

    return [sample.key for sample in open_samples(begin.data)]


def test_a_parameter_of_which_a_process_holds_a_part_is_known_whole():
    """As ZeRO-3 leaves it: nothing of it here, and its shape noted on it."""
    held = torch.nn.Parameter(torch.empty(0))
    assert _shape(held) == (0,)
    held.ds_shape = torch.Size([400, 32])
    assert _shape(held) == (400, 32)
