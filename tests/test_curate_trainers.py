"""What trainers take: names that may not stand beside a format, and configuration files."""

import ast
import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.trainerfiles import MAX_LENGTH, configurations, write_configuration
from curate.trainers import COLUMNS, FIELDS, FORMATS, RESERVED, ROLES, TRAINERS, collisions, renamed
from tests.command_line import tree

yaml = pytest.importorskip("yaml")

FILES = {
    "original": [],
    "prompt-completion": ["trainers/trl_sft.py"],
    "messages": [
        "trainers/trl_sft.py",
        "trainers/axolotl.yaml",
        "dataset_info.json",
        "trainers/llamafactory.yaml",
        "trainers/verl.sh",
    ],
    "sharegpt": ["trainers/axolotl.yaml", "dataset_info.json", "trainers/llamafactory.yaml"],
}


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("original", []),
        ("prompt-completion", ["prompt", "messages", "chosen", "labels", "images"]),
        ("messages", ["prompt", "messages", "chosen", "labels", "system", "images", "videos"]),
        ("sharegpt", ["conversations", "system", "images"]),
    ],
)
def test_names_that_would_be_misread_are_found(format, expected):
    names = ["id", "trace", "prompt", "messages", "conversations", "chosen", "labels", "system"]
    names += ["images", "videos", "text", "problem", "curate_steps"]
    found = collisions(names, format)
    if format != "sharegpt" and format != "original":
        expected = [*expected, "conversations"]
    assert sorted(found) == sorted(expected)
    assert all(why and "\n" not in why for why in found.values())


def test_a_reserved_name_says_who_takes_it():
    assert collisions(["images"], "sharegpt") == {
        "images": "axolotl: rows are taken for images with text"
    }
    assert collisions(["prompt"], "prompt-completion") == {
        "prompt": "a column of the format prompt-completion"
    }


def test_the_tables_speak_of_the_same_formats_and_trainers():
    names = {trainer.name for trainer in TRAINERS}
    assert set(COLUMNS) == set(FORMATS)
    assert set(FIELDS) == set(ROLES) == set(FORMATS) - {"original"}
    assert all(set(trainer.loads) <= set(FIELDS) for trainer in TRAINERS)
    assert all(trainer.beyond in ("cut", "drop", "refuse") for trainer in TRAINERS)
    assert all(set(reserved.by) <= names for reserved in RESERVED.values())


NAMES = st.sampled_from(["prompt", "source_prompt", "source_source_prompt"]) | st.text(max_size=4)


@given(NAMES, st.sets(NAMES, max_size=6))
def test_another_name_is_a_new_one_that_no_trainer_takes(name, taken):
    other = renamed(name, taken)
    assert other not in taken
    assert other.startswith("source_") and other.endswith(name)
    assert not any(collisions([other], format) for format in FORMATS)
    assert renamed(name, set()) == f"source_{name}"


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("format", FORMATS)
def test_configurations_are_the_same_bytes_each_time(tmp_path, format, thinking):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written = write_configuration(tmp_path / name, format, thinking=thinking)
        assert written == FILES[format]
    write_configuration(tmp_path / "two", format, thinking=thinking)
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    assert one == two
    assert sorted(one) == sorted(FILES[format])
    assert str(tmp_path).encode() not in b"".join(one.values())


@pytest.mark.parametrize("format", ["messages", "sharegpt"])
def test_axolotl_and_llama_factory_are_told_columns_roles_and_limits(format):
    files = configurations(format, thinking=True)
    (column,), (role, content) = COLUMNS[format], FIELDS[format]
    axolotl = yaml.safe_load(files["trainers/axolotl.yaml"])
    (dataset,) = axolotl["datasets"]
    assert dataset["field_messages"] == column
    assert dataset["message_property_mappings"] == {"role": role, "content": content}
    assert dataset["roles_to_train"] == ["assistant"]
    assert axolotl["train_on_inputs"] is False
    assert axolotl["sequence_len"] == MAX_LENGTH
    assert axolotl["excess_length_strategy"] == "raise"
    factory = yaml.safe_load(files["trainers/llamafactory.yaml"])
    assert factory["cutoff_len"] == MAX_LENGTH
    assert factory["train_on_prompt"] is False
    entry = json.loads(files["dataset_info.json"])[factory["dataset"]]
    assert (entry["file_name"], factory["dataset_dir"]) == ("data", ".")
    # Its parser sets what is not named here to None, the system's tag among them.
    assert entry["columns"] == {"messages": column}
    system, user, assistant = ROLES[format]
    assert entry["tags"] == {
        "role_tag": role,
        "content_tag": content,
        "user_tag": user,
        "assistant_tag": assistant,
        "system_tag": system,
    }


@pytest.mark.parametrize("format", ["prompt-completion", "messages"])
def test_trl_is_told_to_cut_nothing(format):
    script = configurations(format, thinking=True)["trainers/trl_sft.py"]
    calls = [node for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Call)]
    (config,) = [call for call in calls if getattr(call.func, "id", "") == "SFTConfig"]
    told = {key.arg: ast.unparse(key.value) for key in config.keywords}
    loss = {"prompt-completion": "completion_only_loss", "messages": "assistant_only_loss"}
    assert told == {"output_dir": "out", "max_length": "None", loss[format]: "True"}
    assert f"MAX_LENGTH = {MAX_LENGTH}\n" in script
    assert max(map(len, script.splitlines())) <= 100


@pytest.mark.parametrize("thinking", [True, False])
def test_verl_is_told_limits_and_to_refuse(tmp_path, thinking):
    write_configuration(tmp_path, "messages", thinking=thinking)
    (tmp_path / "bin").mkdir()
    torchrun = tmp_path / "bin/torchrun"
    torchrun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    torchrun.chmod(0o755)
    ran = subprocess.run(
        ["/bin/sh", tmp_path / "trainers/verl.sh", "a model", "out", "optim.lr=1e-5"],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    arguments = ran.stdout.splitlines()
    told = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    assert told["model.path"] == "a model"
    assert told["data.max_length"] == told["data.max_token_len_per_gpu"] == str(MAX_LENGTH)
    assert (told["data.truncation"], told["data.train_files"]) == ("error", "data")
    assert told["data.enable_thinking_default"] == str(thinking).lower()
    assert (told["data.messages_key"], told["optim.lr"]) == ("messages", "1e-5")


@pytest.mark.parametrize(("thinking", "told"), [(True, True), (False, False)])
def test_llama_factory_is_told_whether_there_are_thoughts(thinking, told):
    text = configurations("messages", thinking=thinking)["trainers/llamafactory.yaml"]
    assert yaml.safe_load(text)["enable_thinking"] is told


def test_each_configuration_asks_to_look_at_the_limit():
    for format in FORMATS:
        for path, text in configurations(format, thinking=True).items():
            assert ("LOOK AT THIS" in text) == (path != "dataset_info.json"), path
