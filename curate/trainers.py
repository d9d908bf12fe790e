"""
What trainers do with a dataset: the formats they load, how long a row may be, which names they take
for their own.

Read in the sources of TRL 1.16.0, axolotl 0.19.0, LLaMA-Factory 0.9.5 and verl 0.9.1; each fact
names its file.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

FORMATS = ("original", "prompt-completion", "messages", "sharegpt")

COLUMNS: dict[str, tuple[str, ...]] = {
    "original": (),
    "prompt-completion": ("prompt", "completion"),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
}
"""The columns of each format; each is a list of messages."""

FIELDS: dict[str, tuple[str, str]] = {
    "prompt-completion": ("role", "content"),
    "messages": ("role", "content"),
    "sharegpt": ("from", "value"),
}
"""The fields of a message: who speaks, and what is said."""

ROLES: dict[str, tuple[str, str, str]] = {
    "prompt-completion": ("system", "user", "assistant"),
    "messages": ("system", "user", "assistant"),
    "sharegpt": ("system", "human", "gpt"),
}
"""Who speaks: the system, the user, the assistant."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """
    A trainer: the formats it loads, and what it does with rows of more tokens than its limit.

    `beyond` is "cut" (the row loses its end), "drop" (the row is left out) or "refuse" (training
    ends with an error). `limit` is its default, `option` what sets it; `source` says where to look.
    """

    name: str
    loads: tuple[str, ...]
    option: str
    limit: int
    beyond: str
    source: str


TRAINERS = (
    Trainer(
        name="TRL",
        # Of `sharegpt` it renames the fields but keeps `human` and `gpt`, which chat templates do
        # not know (trl/data_utils.py, maybe_convert_to_chatml).
        loads=("prompt-completion", "messages"),
        option="max_length",
        limit=1024,
        beyond="cut",
        source="trl/trainer/sft_config.py (max_length, truncation_mode)",
    ),
    Trainer(
        name="axolotl",
        loads=("messages", "sharegpt"),
        option="sequence_len",
        limit=512,
        beyond="drop",
        source="axolotl/utils/schemas/config.py (sequence_len, excess_length_strategy)",
    ),
    Trainer(
        name="LLaMA-Factory",
        loads=("messages", "sharegpt"),
        option="cutoff_len",
        limit=2048,
        beyond="cut",
        source="llamafactory/hparams/data_args.py (cutoff_len), data/processor/supervised.py",
    ),
    Trainer(
        name="verl",
        loads=("messages",),
        option="data.max_length",
        limit=1024,
        beyond="refuse",
        source="verl/trainer/config/sft_trainer_engine.yaml (max_length, truncation)",
    ),
)


@dataclass(frozen=True, slots=True)
class Reserved:
    """A name that trainers take for their own: which do, and what they make of the column."""

    by: tuple[str, ...]
    why: str


_EITHER = "which of these columns tells whether rows are conversations varies"

RESERVED: dict[str, Reserved] = {
    # trl/trainer/sft_trainer.py (_prepare_dataset), trl/data_utils.py (is_conversational)
    "prompt": Reserved(("TRL",), "rows are taken for prompts and want a `completion`"),
    "completion": Reserved(("TRL",), _EITHER),
    "messages": Reserved(("TRL",), _EITHER),
    "chosen": Reserved(("TRL",), _EITHER),
    "rejected": Reserved(("TRL",), _EITHER),
    "conversations": Reserved(("TRL",), "renamed to `messages`, in place of any other"),
    "labels": Reserved(("TRL",), "trained on in place of the text"),
    "completion_mask": Reserved(("TRL",), "masks the loss"),
    "assistant_masks": Reserved(("TRL",), "masks the loss"),
    "seq_lengths": Reserved(("TRL",), "taken for the lengths of rows packed into one"),
    "chat_template_kwargs": Reserved(("TRL",), "handed to the chat template as arguments"),
    "image": Reserved(("TRL",), "rows are taken for images with text"),
    # these also axolotl/utils/data/wrappers.py, prompt_strategies/chat_template.py
    "input_ids": Reserved(("TRL", "axolotl"), "rows are taken for tokenized"),
    "system": Reserved(("axolotl",), "put before messages that begin with none of the system"),
    # and verl/utils/dataset/multiturn_sft_dataset.py
    "tools": Reserved(("TRL", "axolotl", "verl"), "handed to the chat template"),
    "images": Reserved(("TRL", "axolotl", "verl"), "rows are taken for images with text"),
    "videos": Reserved(("verl",), "rows are taken for videos with text"),
    "enable_thinking": Reserved(("verl",), "handed to the chat template"),
}
"""LLaMA-Factory reads only the columns that `dataset_info.json` names."""


def collisions(names: Iterable[str], format: str) -> dict[str, str]:
    """
    Columns of a corpus that may not keep their names beside those of a format, and why.

    These are the format's own, and those reserved by a trainer that loads it.
    """
    found = {}
    for name in names:
        if name in COLUMNS[format]:
            found[name] = f"a column of the format {format}"
        elif by := misreaders(name, format):
            found[name] = f"{', '.join(by)}: {RESERVED[name].why}"
    return found


def misreaders(name: str, format: str) -> list[str]:
    """The trainers that load a format and would take a further column of it for their own."""
    by = RESERVED[name].by if name in RESERVED else ()
    return [each.name for each in TRAINERS if format in each.loads and each.name in by]


def renamed(name: str, taken: Collection[str]) -> str:
    """Another name for a column: `source_` before it, as often as it takes to be a new one."""
    other = f"source_{name}"
    return renamed(other, taken) if other in taken else other
