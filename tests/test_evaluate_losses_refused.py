"""What `curate losses` does not score: one line each, and nothing of a user's is touched."""

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from curate.errors import CurateError
from tests.token_losses import (
    ROWS,
    expected,
    rows_of,
    same,
    save_model,
    save_tokenizer,
    write_data,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from curate.evaluate import checkpoint, survey  # noqa: E402
from curate.evaluate.losses import Asked, score_dataset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that are not ours


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """Problems that are not in the data."""
    return write_data(tmp_path_factory.mktemp("probe"), first=100)


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


OTHER = [
    ({"dtype": "bfloat16"}, 'dtype was "float32", now "bfloat16"'),
    ({"limit": 3}, "limit was null, now 3"),
    ({"max_length": 399}, "max_length was null, now 399"),
    ({"teacher": "id"}, 'teacher was null, now "id"'),
]


@pytest.mark.parametrize(("more", "told"), OTHER)
def test_other_settings_are_an_error(scored, data, model, more, told):
    with pytest.raises(CurateError) as error:
        score_dataset(str(model), data, scored, Asked(**more))
    assert str(error.value) == (
        f"{scored}: holds token losses with other settings: {told} (--overwrite starts anew)"
    )


def test_another_model_is_an_error_and_overwrite_starts_anew(scored, data, model, tmp_path):
    out = shutil.copytree(scored, tmp_path / "out")
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(CurateError, match="with other settings: model was"):
        score_dataset(str(other), data, out, Asked(limit=7))
    score_dataset(str(model), data, out / "probe", Asked(limit=2))
    record = score_dataset(str(other), data, out, Asked(limit=7, overwrite=True))
    assert record["counts"]["rows"] == 7
    assert not (out / "probe").exists()  # of the model before
    same(rows_of(out), list(expected(other, data))[:7])


# What is wrong.


def only_error(model, data, out, **more):
    with pytest.raises(CurateError) as error:
        score_dataset(str(model), data, out, Asked(**more))
    line = str(error.value)
    assert "\n" not in line
    return line


def test_rows_over_the_length_are_named_or_dropped_and_counted(scored, data, model, tmp_path):
    rows = rows_of(scored)
    lengths = [row["first"] + len(row["token"]) for row in rows]
    most = sorted(lengths)[ROWS // 2]
    long = [n for n, length in enumerate(lengths) if length > most]
    named = ", ".join(f"row {n} (r{n}) has {lengths[n]}" for n in long[:3])
    by = {who: sum(rows[n]["teacher"] == who for n in long) for who in "AB"}
    assert only_error(model, data, tmp_path / "out", max_length=most) == (
        f"{data}: expected at most {most} tokens a row, found {len(long)} rows with more "
        f"(A: {by['A']}, B: {by['B']}): {named}; --overlength drop leaves them out"
    )
    asked = Asked(max_length=most, overlength="drop")  # in the same folder: nothing was scored
    record = score_dataset(str(model), data, tmp_path / "out", asked)
    assert record["survey"]["overlength"] == by
    assert record["counts"]["dropped"] == len(long)
    kept = [row for row, length in zip(rows, lengths, strict=True) if length <= most]
    same(rows_of(tmp_path / "out"), kept)


def test_what_the_model_takes_is_the_limit(data, tmp_path):
    model = save_model(tmp_path / "model", max_position_embeddings=50)
    line = only_error(model, data, tmp_path / "out")
    assert line.startswith(f"{data}: expected at most 50 tokens a row, found {ROWS} rows with more")
    line = only_error(model, data, tmp_path / "out", overlength="drop")
    assert line == f"{data}: expected rows to score, found only rows that are too long"
    record = score_dataset(str(model), data, tmp_path / "out", Asked(max_length=1000, limit=2))
    assert record["notes"] == [
        "--max-length 1,000: above the 50 positions that the model's configuration says it takes"
    ]
    same(rows_of(tmp_path / "out"), list(expected(model, data))[:2])


def test_a_model_of_learnt_positions_takes_no_more(data, tmp_path):
    save_model(place := tmp_path / "model")
    tiny = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 50}
    ends = {"bos_token_id": None, "eos_token_id": 2}
    config = transformers.GPT2Config(vocab_size=320, **tiny, **ends)
    transformers.GPT2LMHeadModel(config).save_pretrained(place)
    line = only_error(place, data, tmp_path / "out", max_length=1000)
    assert line.startswith(f"{place}: expected a model that takes ")
    assert line.endswith("(--max-length)")


def test_broken_models_are_one_line(data, model, tmp_path):
    out = tmp_path / "out"
    absent = tmp_path / "absent"
    assert only_error(absent, data, out).startswith(
        f"{absent}: expected a model's folder or a name"
    )
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    (bare / "tokenizer_config.json").unlink()
    line = only_error(bare, data, out)
    assert line == f"{bare}: expected a tokenizer, found none that knows any text"
    (weightless := shutil.copytree(model, tmp_path / "w")).joinpath("model.safetensors").unlink()
    assert only_error(weightless, data, out).startswith(f"{weightless}: expected a model's weights")
    small = save_model(tmp_path / "small", vocab_size=100)
    assert only_error(small, data, out).startswith(f"{small}: expected tokens below 100, its voc")
    for device in ("cuda:77", "meta"):
        line = only_error(model, data, out, device=device)
        assert line.startswith(f"--device: cannot use {device}: ")
    weights = "model.safetensors"
    for size, told in ((-100, "cannot load a model: "), (4, "expected a safetensors file, found")):
        cut = shutil.copytree(model, tmp_path / f"cut{size}")
        (cut / weights).write_bytes((model / weights).read_bytes()[:size])
        assert only_error(cut, data, out).startswith(
            f"{cut / weights if size > 0 else cut}: {told}"
        )


def test_a_device_that_cannot_take_the_weights_is_one_line():
    with torch.device("meta"):
        network = torch.nn.Linear(2, 2)
    with pytest.raises(CurateError, match=r"^m: cannot be put on cpu: [^\n]*$"):
        checkpoint.moved("m", network, torch.device("cpu"))


def test_missing_weights_and_losses_that_are_no_numbers_are_errors(data, model, tmp_path):
    network = transformers.AutoModelForCausalLM.from_pretrained(model)
    state = network.state_dict()
    half = {name: tensor for name, tensor in state.items() if "layers.1.mlp" not in name}
    network.save_pretrained(tmp_path / "half", state_dict=half)
    save_tokenizer(tmp_path / "half")
    line = only_error(tmp_path / "half", data, tmp_path / "out")
    assert "expected all weights, found none of model.layers.1.mlp." in line
    with torch.no_grad():
        network.get_output_embeddings().weight[5] = torch.nan
    network.save_pretrained(tmp_path / "nan")
    save_tokenizer(tmp_path / "nan")
    line = only_error(tmp_path / "nan", data, tmp_path / "out")
    assert line == (
        f"{tmp_path / 'nan'}: expected losses that are numbers, found others in row 0 (r0) "
        "(float32)"
    )


def test_an_adapter_of_the_head_is_to_be_merged_first(data, model, tmp_path):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    network = transformers.AutoModelForCausalLM.from_pretrained(model)
    tuned = peft.get_peft_model(network, lora)
    tuned.save_pretrained(tmp_path / "adapter")
    save_tokenizer(tmp_path / "adapter")
    for dtype in ("float32", "bfloat16"):
        line = only_error(tmp_path / "adapter", data, tmp_path / "out", dtype=dtype)
        assert line.endswith("around it; merge the adapter into the model first")
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    save_tokenizer(tmp_path / "merged")
    score_dataset(str(tmp_path / "merged"), data, tmp_path / "of-merged", Asked(limit=3))
    same(rows_of(tmp_path / "of-merged"), list(expected(tmp_path / "merged", data))[:3])


def test_files_behind_a_gap_are_not_taken_for_nothing(scored, data, model, tmp_path):
    out = shutil.copytree(scored, tmp_path / "out")
    (out / "tokens/00000.parquet").unlink()
    told = f"{out / 'tokens/00000.parquet'}: expected it beside 00001.parquet"
    assert only_error(model, data, out) == f"{told} (--overwrite starts anew)"
    assert len(os.listdir(out / "tokens")) == 4
    score_dataset(str(model), data, out, Asked(overwrite=True, batch_tokens=600))
    same(rows_of(out), rows_of(scored), atol=1e-6)


def test_what_is_emptied_is_never_called_complete(scored, data, model, tmp_path, monkeypatch):
    out = shutil.copytree(scored, tmp_path / "out")
    gone, unlink = [], Path.unlink

    def watched(path, missing_ok=False):
        if path.suffix == ".parquet":
            gone.append(path.name)
            assert json.loads((out / "losses.json").read_text())["state"] == "running"
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    score_dataset(str(model), data, out, Asked(limit=3, overwrite=True))
    assert gone == [f"{n:05d}.parquet" for n in range(5)]


def test_a_folder_of_something_else_stays_as_it_is(data, model, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    line = only_error(model, data, tmp_path, overwrite=True)
    assert line == (
        f"{tmp_path}: expected an empty or new folder, or token losses, found notes.txt"
    )
    assert os.listdir(tmp_path) == ["notes.txt"]


# The command.


def command(*arguments):
    from curate.commands.losses import losses as losses_command

    return CliRunner().invoke(losses_command, list(map(str, arguments)), standalone_mode=False)


def test_the_command_scores_data_and_probe_and_reports(data, probe, model, tmp_path):
    base = save_model(tmp_path / "base", seed=1)
    shared = ["--data", data, "--probe", probe, "--limit", 8]
    told = command("--model", base, "--out", tmp_path / "of-base", *shared)
    assert told.exception is None
    first, second, *_ = told.stdout.splitlines()
    assert first.startswith(f"data: {data}, rows: 8, tokens scored: ")
    assert second.startswith(f"probe: {probe}, rows: 8, tokens scored: ")
    ours = ["--model", model, "--out", tmp_path / "out", "--base", tmp_path / "of-base", *shared]
    for _ in range(2):  # scored, then only reported
        told = command(*ours, "--json")
        assert told.exception is None
        document = json.loads(told.stdout)
        assert document["scored"]["probe"]["counts"]["rows"] == 8
        assert document["scored"]["data"]["state"] == "complete"
        assert document["report"]
    same(rows_of(tmp_path / "out" / "probe"), list(expected(model, probe))[:8])


def test_the_command_tells_two_arms_under_one_cut(data, probe, model, tmp_path):
    models = {"a": model, "b": save_model(tmp_path / "m-b", seed=2)}
    base = save_model(tmp_path / "m-0", seed=1)
    shared = ["--data", data, "--probe", probe, "--limit", 8]
    for name in models:  # the base model is asked of each arm's data, here the same
        told = command("--model", base, "--out", tmp_path / f"{name}-0", *shared)
        assert told.exception is None
    told = command("--model", models["a"], "--out", tmp_path / "a", *shared)
    assert told.exception is None
    ours = ["--model", models["b"], "--out", tmp_path / "b", *shared, "--base", tmp_path / "b-0"]
    ours += ["--beside", tmp_path / "a", "--beside-base", tmp_path / "a-0"]
    told = command(*ours)
    assert told.exception is None
    lines = told.stdout.splitlines()
    assert lines[2].startswith(f"{tmp_path / 'a'}: data: {data}, rows: 8, tokens scored: ")
    assert lines[3].startswith(f"{tmp_path / 'a'}: probe: {probe}, rows: 8, tokens scored: ")
    document = json.loads(command(*ours, "--json").stdout)
    assert document["beside"][str(tmp_path / "a")]["data"]["model"] == str(model)
    for section in document["report"]["sections"]:
        teachers = {each["teacher"]: each for each in section["teachers"]}
        assert list(teachers) == ["A (a)", "A (b)", "B (a)", "B (b)"]
        assert teachers["A (a)"]["tokens"] == teachers["A (b)"]["tokens"]
        assert teachers["A (a)"]["mean_nll"] != teachers["A (b)"]["mean_nll"]
        shares = [teachers[f"A ({arm})"]["hardest"]["20"]["share"] for arm in "ab"]
        assert shares[0] == shares[1] > 0


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--base", "nowhere"], "--base nowhere: expected a folder of `curate losses`, found none"),
        (
            ["--beside", "nowhere"],
            "--beside nowhere: expected a folder of `curate losses`, found none",
        ),
        (
            ["--beside", "a", "--beside", "b", "--beside-base", "c"],
            "--beside-base: expected one for each --beside (2) or none, found 1",
        ),
        (
            ["--beside-base", "c"],
            "--beside-base: expected one for each --beside (0) or none, found 1",
        ),
        (
            ["--chat-template-path", "nowhere"],
            "--chat-template-path nowhere: expected a file of a chat template, found none",
        ),
    ],
)
def test_what_the_command_is_told_wrong_is_told_before_it_scores(data, model, tmp_path, more, line):
    told = command("--model", model, "--data", data, "--out", tmp_path / "out", *more)
    assert isinstance(told.exception, CurateError)
    assert str(told.exception) == line
    assert not (tmp_path / "out").exists()


def test_arms_that_cannot_be_told_as_one_are_told_before_it_scores(data, model, scored, tmp_path):
    ours = ["--model", model, "--data", data, "--out", tmp_path / "out"]
    only_base = command(*ours, "--base", scored, "--beside", scored)
    assert isinstance(only_base.exception, CurateError)
    assert str(only_base.exception) == (
        f"{scored}: expected the base model's scores too (--base, --beside-base), "
        f"as for {tmp_path / 'out'}, found none"
    )
    twice = command(*ours, "--beside", scored, "--beside", scored)
    assert str(twice.exception) == f"{scored}: expected a folder once, found it twice"
    assert not (tmp_path / "out").exists()
