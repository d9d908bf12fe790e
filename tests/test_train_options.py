"""Options of `curate train`: TRL's names as flags and YAML, and what is refused."""

import dataclasses
import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("trl", reason="training needs the extra `train`")

from trl import ModelConfig, SFTConfig

from curate.errors import CurateError
from curate.train import refusals
from curate.train.options import (
    DEFAULTS,
    FORCED,
    Options,
    computes_in_bf16,
    has_accelerator,
    read,
)
from curate.train.optiontypes import as_type, canonical, known

NONE_SUCH = "neither TRL nor curate has such an option"
DTYPES = "expected one of auto, bfloat16, float16, float32"


def asked(options: Options, by: str) -> dict[str, object]:
    """What one layer set."""
    return {name: one.value for name, one in options.given.items() if one.by == by}


def flags(text: str) -> dict[str, object]:
    """What flags set, which are words between blanks."""
    return asked(read(text.split(), None, None), "flag")


def refused(arguments: list[str], config: Path | None = None, recipe: str | None = None) -> str:
    """The line that ends a run."""
    with pytest.raises(CurateError) as error:
        read(arguments, config, recipe)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def yaml_file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "options.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("", {}),
        ("--learning_rate 5e-5", {"learning_rate": 5e-5}),
        ("--learning-rate 5e-5", {"learning_rate": 5e-5}),
        ("--learning_rate=5e-5", {"learning_rate": 5e-5}),
        ("--learning_rate 1 --learning-rate 2", {"learning_rate": 2.0}),
        ("--max_steps -1", {"max_steps": -1}),
        ("--bf16", {"bf16": True}),
        ("--bf16 true", {"bf16": True}),
        ("--bf16 False", {"bf16": False}),
        ("--no_bf16", {"bf16": False}),
        ("--no-logging-nan-inf-filter", {"logging_nan_inf_filter": False}),
        ("--packing --max_length 8", {"packing": True, "max_length": 8}),
        ("--max_length none", {"max_length": None}),
        ("--gradient_checkpointing", {"activation_checkpointing": True}),
        ("--no-gradient-checkpointing", {"activation_checkpointing": False}),
        ("--activation_checkpointing no", {"activation_checkpointing": False}),
        (
            "--use_peft --lora_target_modules q v",
            {"use_peft": True, "lora_target_modules": ["q", "v"]},
        ),
        ("--report_to wandb trackio", {"report_to": ["wandb", "trackio"]}),
        ("--run_name none", {"run_name": "none"}),
        ('--lr_scheduler_kwargs {"min_lr":1}', {"lr_scheduler_kwargs": {"min_lr": 1}}),
        ("--deepspeed zero3.json", {"deepspeed": "zero3.json"}),
        ("--fsdp", {"fsdp": True}),
        ("--fsdp full_shard", {"fsdp": "full_shard"}),
        ("--lr_scheduler_type cosine", {"lr_scheduler_type": "cosine"}),
        ("--optim sgd", {"optim": "sgd"}),
        ("--dtype auto", {"dtype": "auto"}),
        ("--pad_to_multiple_of 8", {"pad_to_multiple_of": 8}),
        ("--eos_token <|im_end|>", {"eos_token": "<|im_end|>"}),
        ("--checkpoints 1 2 4", {"checkpoints": [1, 2, 4]}),
        ("--checkpoints 1,2,4", {"checkpoints": [1, 2, 4]}),
        ("--overlength drop --order shuffled", {"overlength": "drop", "order": "shuffled"}),
        ("--mask-spans branches", {"mask_spans": "branches"}),
        ("--from-config", {"from_config": True}),
    ],
)
def test_flags_are_what_was_asked_and_nothing_else(given, values):
    assert flags(given) == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("learning_rate: 5e-5", {"learning_rate": 5e-5}),  # which is text to YAML
        ("learning_rate: 1", {"learning_rate": 1.0}),
        ("run_name: 7", {"run_name": "7"}),
        ("max_length: null", {"max_length": None}),
        ("packing: yes\nmax_length: 9", {"packing": True, "max_length": 9}),
        ("gradient_checkpointing: false", {"activation_checkpointing": False}),
        (
            "use_peft: true\nlora_target_modules: all-linear",
            {"use_peft": True, "lora_target_modules": ["all-linear"]},
        ),
        ("report_to: [wandb, trackio]", {"report_to": ["wandb", "trackio"]}),
        (
            "deepspeed: {zero_optimization: {stage: 3}}",
            {"deepspeed": {"zero_optimization": {"stage": 3}}},
        ),
        ("checkpoints: [1, 2]", {"checkpoints": [1, 2]}),
    ],
)
def test_yaml_has_the_same_names_and_types(yaml_file, text, values):
    path = yaml_file(text)
    assert asked(read([], path, None), str(path)) == values


def test_flags_go_before_the_file_and_the_file_before_the_recipe(yaml_file):
    path = yaml_file("learning_rate: 2.0\nweight_decay: 2.0\ngradient_checkpointing: false")
    options = read(["--learning_rate", "3"], path, "2604.06628")
    assert options.given["learning_rate"].value == 3.0
    assert options.given["weight_decay"].value == 2.0
    assert options.given["num_train_epochs"].value == 8.0
    layers = {
        "learning_rate": "flag",
        "weight_decay": str(path),
        "activation_checkpointing": str(path),
    }
    layers |= {"num_train_epochs": "recipe 2604.06628", "logging_steps": "curate"}
    assert {name: options.given[name].by for name in layers} == layers
    assert json.loads(json.dumps(options.as_json()))["max_length"] == {
        "value": 20000,
        "by": "recipe 2604.06628",
    }
    assert options.as_json()["learning_rate"] == {"value": 3.0, "by": "flag"}


def test_a_recipe_may_be_a_path(yaml_file):
    path = yaml_file("seed: 3")
    options = read([], None, str(path))
    assert (options.seed, options.given["seed"].by) == (3, f"recipe {path}")


def test_without_options_only_our_few_defaults_differ_from_trl(tmp_path):
    options = read([], None, None)
    assert options.values == DEFAULTS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL's own default is one
        theirs = SFTConfig(output_dir=str(tmp_path), bf16=computes_in_bf16())
    ours = options.sft_config(tmp_path)
    differ = {f.name for f in dataclasses.fields(SFTConfig) if f.init}
    differ = {name for name in differ if getattr(ours, name) != getattr(theirs, name)}
    assert differ == {
        "max_length",
        "logging_nan_inf_filter",
        "logging_steps",
        "save_strategy",
        "dataset_kwargs",
        "remove_unused_columns",
        "ddp_find_unused_parameters",
        *([] if has_accelerator() else ["dataloader_pin_memory"]),
    }
    assert (options.seed, options.max_length, options.packing) == (theirs.seed, None, False)


def test_trl_never_gets_what_would_make_it_cut_or_pack(tmp_path):
    options = read("--max_length 64 --packing --chat_template_path qwen3".split(), None, None)
    config = options.sft_config(tmp_path)
    assert {name: getattr(config, name) for name in FORCED if name != "save_strategy"} == {
        name: value for name, value in FORCED.items() if name != "save_strategy"
    }
    assert config.save_strategy.value == "no"
    assert (options.max_length, options.packing) == (64, True)
    assert options.chat_template_path == "qwen3"
    assert options.sft_config(tmp_path, seed=9, max_length=7).seed == 9


def test_models_get_what_was_asked():
    options = read(
        "--dtype bfloat16 --attn_implementation eager --trust_remote_code".split(), None, None
    )
    kwargs = {"revision": "main", "dtype": "bfloat16", "attn_implementation": "eager"}
    assert options.model_kwargs() == {**kwargs, "trust_remote_code": True}
    options = read(["--model_init_kwargs", '{"use_kernels": true}'], None, None)
    assert options.model_kwargs()["use_kernels"] is True
    assert options.model_config().dtype == "float32"
    assert options.peft() is None


def test_an_adapter_is_what_was_asked():
    adapter = read(
        "--use_peft --lora_r 4 --lora_target_modules q_proj v_proj".split(), None, None
    ).peft()
    assert adapter is not None
    assert (adapter.r, set(adapter.target_modules)) == (4, {"q_proj", "v_proj"})


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("--lerning_rate 4", f"{NONE_SUCH}, did you mean learning_rate?"),
        ("--qwertz", NONE_SUCH),
        ("--learn 4", NONE_SUCH),  # no abbreviations
        ("--learning_rate fast", "expected a number, found 'fast'"),
        ("--learning-rate nan", "expected a number, found 'nan'"),
        ("--learning_rate", "expected one argument"),
        ("--max_length 1e3", "expected an integer, found '1e3'"),
        ("--seed true", "expected an integer, found 'true'"),
        ("--bf16 maybe", "expected true or false, found 'maybe'"),
        ("--dtype float8", f"{DTYPES}, found 'float8'"),
        ("--overlength cut", "expected one of error, drop, truncate, found 'cut'"),
        ("--lr_scheduler_kwargs x", "expected a JSON object, found 'x'"),
        ("--deepspeed {x", "expected a JSON object or the path of one, found '{x'"),
        ("--checkpoints 4 x", "expected a list of integers, found '4 x'"),
        ("--checkpoints 4 2", "expected steps from 1 in ascending order, found [4, 2]"),
        ("--checkpoints 0,2", "expected steps from 1 in ascending order, found [0, 2]"),
        ("--max_length 0", "expected more than 0, found 0"),
        ("--packing", "expected max_length with it, the tokens of a pack"),
        ("--lora_r 4", "has no effect without use_peft"),
        ("--load_in_4bit", "only an adapter trains so; add use_peft"),
        (
            "--loss_type dft --reduction sample",
            "dft weighs tokens by itself and cannot go with reduction: sample",
        ),
    ],
)
def test_a_wrong_flag_is_one_line(given, what):
    option = given.split()[0].replace("learning-", "learning_")
    assert refused(given.split()) == f"{option}: {what}"


def test_of_many_choices_the_nearest_are_named():
    many = len(known()["optim"].choices)
    line = refused("--optim adam_torch".split())
    assert line.startswith(f"--optim: expected one of {many} names, such as adamw_torch, ")
    assert line.endswith(", found 'adam_torch'")


def test_what_is_no_flag_is_one_line():
    for word in ("file.yaml", "-x", "--"):
        line = f"unexpected argument {word!r}: expected an option, `--name value`"
        assert refused([word]) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lerning_rate: 4", f"lerning_rate: {NONE_SUCH}, did you mean learning_rate?"),
        ("learning_rate: [1]", "learning_rate: expected a number, found [1]"),
        ("learning_rate: {max: 1}", "learning_rate: expected a number, found {'max': 1}"),
        ("learning_rate: true", "learning_rate: expected a number, found True"),
        ("learning_rate:", "learning_rate: expected a number, found None"),
        ("seed: 1.5", "seed: expected an integer, found 1.5"),
        ("run_name: no", "run_name: expected text, found False"),
        ("dtype: [auto]", f"dtype: {DTYPES}, found 'auto'"),
        ("optimizer: {lr: 1}", f"optimizer: {NONE_SUCH}, did you mean optim?"),
        ("seed: 1\nseed: 2", "seed: given twice"),
        (
            "gradient_checkpointing: true\nactivation_checkpointing: false",
            "activation_checkpointing: given twice, by two names",
        ),
        ("- seed", "expected `option: value` on each line"),
        ("seed", "expected `option: value` on each line"),
        ("save_total_limit: 2", f"save_total_limit: {refusals.REFUSED['save_total_limit']}"),
        ("use_dora: true", "use_dora: has no effect without use_peft"),
    ],
)
def test_a_wrong_file_is_one_line(yaml_file, text, line):
    path = yaml_file(text)
    assert refused([], path) == f"{path}: {line}"


def test_files_that_cannot_be_read_are_named(yaml_file, tmp_path):
    broken = yaml_file("seed: [1")
    assert refused([], broken).startswith(f"{broken}: expected a YAML file of options: while pars")
    missing = tmp_path / "missing.yaml"
    assert refused([], missing).startswith(f"{missing}: expected a YAML file of options: [Errno 2]")
    line = "--recipe 2604: expected one of 2604.06628, lora, scratch, or the path of a YAML file"
    assert refused([], recipe="2604") == line


@pytest.mark.parametrize("name", sorted(refusals.REFUSED))
def test_an_option_that_breaks_a_promise_is_refused_with_the_reason(name):
    assert name in known()
    assert refused([f"--{name}=x"]) == f"--{name}: {refusals.REFUSED[name]}"


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("completion_only_loss", "true", "false"),
        ("assistant_only_loss", "false", "true"),
        ("shuffle_dataset", "false", "true"),
        ("dataloader_drop_last", "false", "true"),
        ("average_tokens_across_devices", "true", "false"),
        ("max_steps", "7", "0"),
        ("truncation_mode", "keep_start", "keep_end"),
        ("loss_type", "nll", "chunked_nll"),
    ],
)
def test_an_option_may_say_what_is_done_anyway(name, right, wrong):
    assert name in flags(f"--{name} {right}")
    only = {**refusals.REFUSED_UNLESS, **refusals.REFUSED_VALUES}[name]
    assert refused([f"--{name}", wrong]) == f"--{name}: {only[1]}"


def test_every_rule_is_of_an_option_that_there_is():
    ruled = {*refusals.REFUSED_UNLESS, *refusals.REFUSED_VALUES, *refusals.POSITIVE}
    assert {canonical(name) for name in {*ruled, *DEFAULTS, *FORCED}} <= set(known())


@pytest.mark.parametrize("name", sorted(refusals.GONE))
def test_old_names_say_what_became_of_them(name):
    assert name not in known()
    assert refused([f"--{name}", "1"]) == f"--{name}: {refusals.GONE[name]}"


def test_what_transformers_refuses_is_one_line(tmp_path):
    for arguments in (["--fp16", "--bf16", "--use_cpu"], ["--pad_to_multiple_of", "x"]):
        with pytest.raises(CurateError, match=r"^SFTConfig: [^\n]+$"):
            read(arguments, None, None).sft_config(tmp_path)
    both = "--load_in_4bit --load_in_8bit --use_peft".split()
    with pytest.raises(CurateError, match=r"^ModelConfig: [^\n]+$"):
        read(both, None, None).model_config()


def test_bf16_is_on_where_the_device_has_it(tmp_path):
    assert read([], None, None).sft_config(tmp_path).bf16 is computes_in_bf16()
    assert read(["--use_cpu"], None, None).sft_config(tmp_path).bf16 is False
    assert read(["--use_cpu", "--bf16"], None, None).sft_config(tmp_path).bf16 is True
    assert read(["--no_bf16"], None, None).sft_config(tmp_path).bf16 is False


def test_every_field_of_trl_is_known_and_has_a_type():
    trl = {f.name for cls in (SFTConfig, ModelConfig) for f in dataclasses.fields(cls) if f.init}
    assert trl <= set(known())
    for name in trl - set(refusals.REFUSED):
        option = known()[name]
        with pytest.raises(ValueError, match=r"^expected [a-z0-9]"):
            as_type(option, object())


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.booleans())
def test_numbers_are_the_same_by_flag_and_file(number, integer, boolean):
    for name, value in ("learning_rate", number), ("seed", integer), ("bf16", boolean):
        assert as_type(known()[name], value) == as_type(known()[name], str(value)) == value


@given(st.text(), st.sampled_from(sorted(known())))
def test_any_text_is_a_value_or_one_clear_error(text, name):
    try:
        json.dumps(as_type(known()[name], text))
    except ValueError as error:
        assert str(error).startswith("expected")
