"""
Configuration of trainers beside a dataset: which files, columns and roles, the loss on the
completion alone, and an explicit bound on a row's length in place of a silent one.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from curate.trainers import COLUMNS, FIELDS, ROLES, TRAINERS
from curate.wholefile import whole_file

MAX_LENGTH = 32_768
"""Tokens of a row in all configurations; a user has to look at it, so each of them says so."""

NAME = "curated"
"""The dataset's name in `dataset_info.json`."""

LOOK = "LOOK AT THIS: tokens of a row, the chat template's own among them."


CONFIGURATIONS = (
    "dataset_info.json",
    *(
        f"trainers/{name}"
        for name in ("trl_sft.py", "axolotl.yaml", "llamafactory.yaml", "verl.sh")
    ),
)
"""All paths that there may be, in the dataset's folder."""


def write_configuration(folder: Path, format: str, *, thinking: bool) -> list[str]:
    """
    Write a configuration for each trainer that loads this format; their paths in the folder.

    `thinking` says whether the dataset holds the thoughts. The bytes depend on these two alone;
    there is none for a trainer that does not load the format, nor for the format `original`.
    """
    written = []
    for path, text in configurations(format, thinking=thinking).items():
        (folder / path).parent.mkdir(exist_ok=True)
        with whole_file(folder / path) as part:
            part.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def configurations(format: str, *, thinking: bool) -> Mapping[str, str]:
    """The text of each configuration, by its path in the dataset's folder."""
    files: dict[str, dict[str, Callable[[str, bool], str]]] = {
        "TRL": {"trainers/trl_sft.py": _trl},
        "axolotl": {"trainers/axolotl.yaml": _axolotl},
        "LLaMA-Factory": {
            "dataset_info.json": _dataset_info,
            "trainers/llamafactory.yaml": _llamafactory,
        },
        "verl": {"trainers/verl.sh": _verl},
    }
    return {
        path: text(format, thinking)
        for trainer in TRAINERS
        if format in trainer.loads
        for path, text in files[trainer.name].items()
    }


def _trl(format: str, thinking: bool) -> str:
    # Not trl.py: it would be imported in place of TRL.
    loss = {"prompt-completion": "completion_only_loss", "messages": "assistant_only_loss"}[format]
    return f'''"""
Supervised fine-tuning on this dataset with TRL: python trainers/trl_sft.py MODEL OUT

The loss is on the assistant's tokens alone. TRL would cut longer rows without a word, so nothing is
cut here: training does not begin where a row is too long.
"""

import sys
from pathlib import Path

from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

MAX_LENGTH = {MAX_LENGTH}
"""{LOOK}"""


def main(model: str, out: str) -> None:
    folder = Path(__file__).resolve().parents[1]
    dataset = load_dataset(str(folder), split="train")
    arguments = SFTConfig(output_dir=out, max_length=None, {loss}=True)
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=dataset)
    lengths = [len(tokens) for tokens in trainer.train_dataset["input_ids"]]
    longer = sum(length > MAX_LENGTH for length in lengths)
    if longer:
        sys.exit(f"{{longer}} rows have over {{MAX_LENGTH}} tokens, the longest {{max(lengths)}}")
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python trainers/trl_sft.py MODEL OUT")
    main(*sys.argv[1:])
'''


def _axolotl(format: str, thinking: bool) -> str:
    role, content = FIELDS[format]
    return f"""\
# Supervised fine-tuning on this dataset with axolotl, in the dataset's folder:
#     axolotl train trainers/axolotl.yaml --base-model MODEL --output-dir OUT
base_model: MODEL
output_dir: OUT

datasets:
  - path: data
    ds_type: parquet
    data_files: data/train-*.parquet
    split: train
    type: chat_template
    field_messages: {COLUMNS[format][0]}
    message_property_mappings:
      role: {role}
      content: {content}
    # The loss is on the assistant's tokens alone. Templates that write <think> themselves, as
    # Qwen3's, leave this one tag out of it.
    roles_to_train: [assistant]
    train_on_eos: turn
train_on_inputs: false

# {LOOK}
sequence_len: {MAX_LENGTH}
# Longer rows end the run; the default is to drop them.
excess_length_strategy: raise

micro_batch_size: 1
gradient_accumulation_steps: 8
num_epochs: 1
optimizer: adamw_torch_fused
learning_rate: 1.0e-5
lr_scheduler: cosine
bf16: auto
gradient_checkpointing: true
"""


def _dataset_info(format: str, thinking: bool) -> str:
    role, content = FIELDS[format]
    system, user, assistant = ROLES[format]
    entry = {
        "file_name": "data",
        "formatting": "sharegpt",
        "columns": {"messages": COLUMNS[format][0]},
        "tags": {
            "role_tag": role,
            "content_tag": content,
            "user_tag": user,
            "assistant_tag": assistant,
            "system_tag": system,
        },
    }
    return json.dumps({NAME: entry}, indent=2) + "\n"


def _llamafactory(format: str, thinking: bool) -> str:
    thoughts = (
        "The rows hold the thoughts, in tags."
        if thinking
        else "The rows hold no thoughts: false puts an empty one in the prompt, out of the loss."
    )
    return f"""\
# Supervised fine-tuning on this dataset with LLaMA-Factory, in the dataset's folder:
#     llamafactory-cli train trainers/llamafactory.yaml \\
#         model_name_or_path=MODEL template=TEMPLATE output_dir=OUT
model_name_or_path: MODEL
template: TEMPLATE
output_dir: OUT

stage: sft
do_train: true
finetuning_type: full

dataset_dir: .
dataset: {NAME}
# {thoughts}
enable_thinking: {str(thinking).lower()}
# The loss is on the assistant's tokens alone.
train_on_prompt: false

# {LOOK}
# Longer rows are cut without a word, and nothing else can be asked for: `curate check` counts them.
cutoff_len: {MAX_LENGTH}

per_device_train_batch_size: 1
gradient_accumulation_steps: 8
num_train_epochs: 1
learning_rate: 1.0e-5
lr_scheduler_type: cosine
bf16: true
"""


def _verl(format: str, thinking: bool) -> str:
    return f"""\
#!/bin/sh
# Supervised fine-tuning on this dataset with verl, in the dataset's folder:
#     sh trainers/verl.sh MODEL OUT [OPTION=VALUE ...]
#
# verl renders each message by itself. Chat templates that drop the thought of a message which
# follows no user's, as Qwen3's, then end the run: give it one that keeps thoughts, and leave
# data.ignore_input_ids_mismatch as it is, or the thoughts are gone without a word.
set -eu
model=$1 out=$2
shift 2

# {LOOK}
# Longer rows end the run.
MAX_LENGTH={MAX_LENGTH}

exec torchrun --standalone --nproc_per_node="${{GPUS:-1}}" -m verl.trainer.sft_trainer \\
    model.path="$model" \\
    trainer.default_local_dir="$out" \\
    trainer.total_epochs=1 \\
    'trainer.logger=[console]' \\
    data.train_files=data \\
    data.messages_key={COLUMNS[format][0]} \\
    data.max_length="$MAX_LENGTH" \\
    data.max_token_len_per_gpu="$MAX_LENGTH" \\
    data.truncation=error \\
    data.enable_thinking_default={str(thinking).lower()} \\
    data.ignore_input_ids_mismatch=false \\
    "$@"
"""
