"""What `curate losses` does not score: one line each, and nothing of a user's is touched."""

import json
import os
import shutil

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

from curate.evaluate import losses  # noqa: E402
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
    monkeypatch.setattr(losses, "PART_SAMPLES", 5)


@pytest.fixture(scope="module")
def scored(data, model, tmp_path_factory):
    """All rows scored, several in a batch."""
    out = tmp_path_factory.mktemp("scored") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "PART_SAMPLES", 5)
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
    assert only_error(model, data, out, device="cuda:77").startswith("--device: cannot use cuda:77")


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


def test_the_command_scores_data_and_probe_and_reports(data, model, tmp_path):
    base = save_model(tmp_path / "base", seed=1)
    shared = ["--data", data, "--probe", data, "--limit", 8]
    told = command("--model", base, "--out", tmp_path / "of-base", *shared)
    assert told.exception is None
    first, second, *_ = told.stdout.splitlines()
    assert first.startswith(f"data: {data}, rows: 8, tokens scored: ")
    assert second.startswith(f"probe: {data}, rows: 8, tokens scored: ")
    ours = ["--model", model, "--out", tmp_path / "out", "--base", tmp_path / "of-base", *shared]
    for _ in range(2):  # scored, then only reported
        told = command(*ours, "--json")
        assert told.exception is None
        document = json.loads(told.stdout)
        assert document["scored"]["data"]["counts"] == document["scored"]["probe"]["counts"]
        assert document["scored"]["data"]["state"] == "complete"
        assert document["report"]
    same(rows_of(tmp_path / "out" / "probe"), rows_of(tmp_path / "out"))


def test_the_command_tells_two_arms_under_one_cut(data, model, tmp_path):
    models = {"a": model, "b": save_model(tmp_path / "m-b", seed=2)}
    base = save_model(tmp_path / "m-0", seed=1)
    shared = ["--data", data, "--probe", data, "--limit", 8]
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
    assert lines[3].startswith(f"{tmp_path / 'a'}: probe: {data}, rows: 8, tokens scored: ")
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
