"""
TRL's options that contradict what `curate train` promises, and what to use in their place.

It promises that no row is lost or cut unseen, that arms are comparable, that checkpoints stay, that
token losses add up to the loss, and that a resumed run is the run. An option that would break that,
or that would be taken and do nothing, is an error: never taken in silence.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

_STEPS = "checkpoints are kept at set steps, so that no two arms differ in them; use checkpoints"
_NO_SET = (
    "there is no evaluation set while training; `curate losses` and `curate evaluate` take any "
    "checkpoint"
)
_PREPARED = "the dataset is read and rendered by curate train, before TRL sees it"

_GROUPS = {
    _STEPS: "save_strategy save_steps save_total_limit save_only_model enable_jit_checkpoint",
    _NO_SET: "eval_strategy eval_steps eval_delay eval_on_start eval_packing do_eval do_predict "
    "per_device_eval_batch_size eval_accumulation_steps eval_do_concat_batches "
    "eval_use_gather_object batch_eval_metrics include_for_metrics prediction_loss_only "
    "bf16_full_eval fp16_full_eval load_best_model_at_end metric_for_best_model greater_is_better",
    _PREPARED: "dataset_text_field dataset_kwargs dataset_num_proc remove_unused_columns "
    "label_names length_column_name",
}

REFUSED: dict[str, str] = {name: why for why, names in _GROUPS.items() for name in names.split()}
"""Options that are refused whatever they are set to, with the reason."""

REFUSED |= {
    "output_dir": "say where with --output-dir, which stands beside --data",
    "model_name_or_path": "say which model with --model",
    "resume_from_checkpoint": "a run resumes from the newest whole checkpoint of its --output-dir",
    "data_seed": "the order of rows goes by seed, as all that is drawn does",
    "disable_tqdm": "progress is a bar on a terminal and a line now and then elsewhere",
    "packing_strategy": "rows are packed in their order, the same in all arms, and never cut",
    "accelerator_config": "processes share rows out in one way, the same in all runs",
    "push_to_hub": "a checkpoint is an ordinary folder; `hf upload` takes it",
    "ignore_data_skip": "a resumed run would see rows again; it goes on where it was",
    "train_sampling_strategy": "arms that share rows take them in the same order; use order",
    "padding_free": "packing does that, with the documents kept apart",
    "auto_find_batch_size": "one arm would get another batch than the next; set "
    "per_device_train_batch_size and gradient_accumulation_steps",
    "label_smoothing_factor": "the losses of tokens would not add up to the loss, and TRL drops it "
    "in version 2",
    "use_liger_kernel": "TRL drops it in version 2; use model_init_kwargs with use_kernels",
    "liger_kernel_config": "TRL drops it in version 2; use model_init_kwargs with use_kernels",
    "parallelism_config": "it is part of the configuration that `accelerate launch` takes",
    "hub_token": "run.json keeps every option; set HF_TOKEN in the environment",
}

REFUSED_UNLESS: dict[str, tuple[Any, str]] = {
    "completion_only_loss": (True, "the loss is on what the model has to write; prompts have none"),
    "assistant_only_loss": (
        False,
        "the loss is on the completion, found without a template's help",
    ),
    "dataloader_drop_last": (False, "the last rows of an epoch would be lost"),
    "shuffle_dataset": (False, "use order: shuffled, which is the same for rows that arms share"),
    "average_tokens_across_devices": (True, "the loss is a mean over a step's tokens, all of them"),
    "truncation_mode": ("keep_start", "cutting the prompt is not offered; see overlength"),
}
"""Options that may be set to what is done anyway, and to nothing else."""

REFUSED_VALUES = {
    "loss_type": ("chunked_nll", "TRL drops it in version 2; use nll, the same loss"),
    "max_steps": (0, "expected at least 1 step, or -1 to go by epochs"),
}
"""Options that may not be set to one value."""

GONE = {
    "warmup_ratio": "gone from transformers; warmup_steps below 1 is a share of the steps",
    "max_seq_length": "TRL renamed it; use max_length",
    "torch_dtype": "TRL renamed it; use dtype",
    "use_flash_attn": "TRL renamed it; use attn_implementation: flash_attention_2",
}
"""Options that TRL and transformers no longer have, as they stand in many a script."""


POSITIVE = {
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_length",
    "lora_r",
}


def refusal(name: str, value: Any) -> str | None:
    """Why an option that is not refused altogether may not be set to this; None where it may."""
    if name in REFUSED_UNLESS:
        only, why = REFUSED_UNLESS[name]
        return None if value == only else why
    if name in REFUSED_VALUES and REFUSED_VALUES[name][0] == value:
        return REFUSED_VALUES[name][1]
    if name == "checkpoints" and value is not None and not _ascend(value):
        return f"expected steps from 1 in ascending order, found {value}"
    if name in POSITIVE and value is not None and value <= 0:
        return f"expected more than 0, found {value}"
    if name == "learning_rate" and value is not None and value < 0:
        return f"expected at least 0, found {value}"
    return None


def _ascend(steps: list[int]) -> bool:
    return bool(steps) and all(a < b for a, b in pairwise([0, *steps]))


def contradiction(values: dict[str, Any]) -> tuple[str, str] | None:
    """The first option that contradicts another, and why; None where all agree."""
    for name, amiss, why in _rules(values):
        if amiss:
            return name, why
    return None


def _rules(values: dict[str, Any]) -> Iterable[tuple[str, bool, str]]:
    sample, peft = values.get("reduction") == "sample", values.get("use_peft")
    yield (
        "loss_type",
        values.get("loss_type") == "dft" and sample,
        "dft weighs tokens by itself and cannot go with reduction: sample",
    )
    yield (
        "packing",
        bool(values.get("packing")) and values.get("max_length") is None,
        "expected max_length with it, the tokens of a pack",
    )
    for name in ("load_in_4bit", "load_in_8bit"):
        yield name, bool(values.get(name)) and not peft, "only an adapter trains so; add use_peft"
    for name in (each for each in values if each.startswith(("bnb_", "use_bnb_"))):
        yield name, not values.get("load_in_4bit"), "has no effect without load_in_4bit"
    quantised = [name for name in ("load_in_4bit", "load_in_8bit") if values.get(name)]
    for name in quantised:
        yield name, bool(values.get("from_config")), "random weights are not quantised"
    adapters = [name for name in values if name.startswith(("lora_", "use_rslora", "use_dora"))]
    for name in adapters:
        yield name, not peft, "has no effect without use_peft"
