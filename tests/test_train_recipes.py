"""Recipes, accelerate's configurations and chat templates of `curate train`."""

import os
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="training needs the extra `train`")

from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from curate.errors import CurateError
from curate.train.options import read, recipes
from curate.train.templates import load_chat_template, shipped

ACCELERATE = Path(__file__).parents[1] / "train" / "accelerate"
MEANT = "; did you mean qwen3_training?"


@pytest.mark.parametrize("name", ["2604.06628", "lora", "scratch"])
def test_every_recipe_builds_without_a_warning(name, tmp_path, capfd):
    options = read([], None, name)  # every warning is an error here
    config, _ = options.sft_config(tmp_path), options.model_config()
    assert capfd.readouterr() == ("", "")
    assert list(recipes()) == ["2604.06628", "lora", "scratch"]
    assert recipes()[name].read_text().startswith("# ")
    assert (options.peft() is not None) is (name == "lora")
    assert options.additions.from_config is (name == "scratch")
    assert config.activation_checkpointing is (name != "scratch")


def test_the_recipe_of_the_paper_is_the_papers(tmp_path):
    options = read([], None, "2604.06628")
    config = options.sft_config(tmp_path)
    assert (config.learning_rate, config.lr_scheduler_type.value) == (5e-5, "cosine")
    assert config.get_warmup_steps(640) == 64
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == 256
    assert (config.num_train_epochs, config.max_grad_norm, config.weight_decay) == (8, 1.0, 0.01)
    assert (config.adam_beta1, config.adam_beta2) == (0.9, 0.999)
    assert options.additions.checkpoints == [10, 20, 40, 80, 160, 320, 480, 640]
    assert (options.additions.order, options.additions.overlength) == ("dataset", "error")
    assert options.max_length == 20000


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("ddp", {"ACCELERATE_MIXED_PRECISION": "bf16"}),
        (
            "fsdp",
            {
                "ACCELERATE_USE_FSDP": "true",
                "FSDP_VERSION": "2",
                "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
                "FSDP_RESHARD_AFTER_FORWARD": "true",
                "FSDP_ACTIVATION_CHECKPOINTING": "false",
            },
        ),
        (
            "deepspeed_zero3",
            {
                "ACCELERATE_USE_DEEPSPEED": "true",
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
                "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
            },
        ),
    ],
)
def test_accelerate_launches_by_its_files(name, environment):
    path = str(ACCELERATE / f"{name}.yaml")
    fields = ClusterConfig.from_yaml_file(path)
    words = ["--config_file", path, "--num_processes", "2", "-m", "curate", "train", "--check"]
    before = dict(os.environ)
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    arguments.deepspeed_fields_from_accelerate_config = [*(fields.deepspeed_config or {})]
    deepspeed = name == "deepspeed_zero3"
    made = (
        prepare_deepspeed_cmd_env(arguments)[1] if deepspeed else prepare_multi_gpu_env(arguments)
    )
    assert arguments.num_processes == 2  # a flag goes before the file
    assert {key: made.get(key) for key in environment} == environment
    assert dict(os.environ) == before


def test_templates_are_found_by_name_file_or_tokenizer(tmp_path):
    assert "enable_thinking" in load_chat_template("qwen3")
    assert {"qwen3_training", "deepseek_r1_distill", "llama3"} <= set(shipped())
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages[0].content }}")
    assert load_chat_template(str(file)) == "{{ messages[0].content }}"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer())
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert load_chat_template(str(tmp_path / "tokenizer")) == "{{ messages }}"


def test_a_template_that_is_nowhere_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    PreTrainedTokenizerFast(tokenizer_object=_tokenizer()).save_pretrained(tmp_path / "without")
    none = str(tmp_path / "none")
    for name, meant in (str(tmp_path / "without"), ""), (none, ""), ("qwen3_train", MEANT):
        with pytest.raises(CurateError) as error:
            load_chat_template(name)
        assert str(error.value) == (
            f"chat_template_path {name}: expected a Jinja file, a template that TRL ships, or a "
            f"tokenizer with a template{meant}"
        )


def _tokenizer():
    return Tokenizer(WordLevel({"a": 0}, unk_token="a"))
