"""
The options of a run: a recipe, then a YAML file, then flags, each over what stands before it.

They are TRL's, by TRL's names, and the few of `Additions`. What was asked, and by which of the
three, is kept for `run.json`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from trl import ModelConfig, SFTConfig, get_peft_config, get_quantization_config

from curate.errors import CurateError
from curate.train.optiontypes import Additions, Known, as_type, canonical, flags, known, nearest
from curate.train.refusals import GONE, REFUSED, contradiction, refusal

if TYPE_CHECKING:
    from peft import PeftConfig

Config = TypeVar("Config", SFTConfig, ModelConfig)

RECIPES = Path(__file__).parent / "recipes"

DEFAULTS: dict[str, Any] = {
    # TRL's is 1,024, which would cut nearly every trace. None: what the model itself can take.
    "max_length": None,
    # A curve over log-spaced checkpoints needs its first steps.
    "logging_steps": 1.0,
    # Else a loss that is not a number is replaced by the mean of the others.
    "logging_nan_inf_filter": False,
    # Every parameter of a language model has a gradient; to look for others costs a pass a step.
    "ddp_find_unused_parameters": False,
    # As TRL has it, under the name that transformers does not warn of.
    canonical("gradient_checkpointing"): True,
}
"""What holds where nothing was asked, and TRL's own default does not. `bf16` is
another: on where the device computes in it, as it is slower than float32 where it does not; and so
is pinned memory, which is of use beside an accelerator only."""

FORCED: dict[str, Any] = {
    # Rows above the limit have met their fate before TRL sees them; it would cut them unseen.
    "max_length": None,
    # Packs are made beforehand, too, and TRL told of them by padding_free.
    "packing": False,
    "shuffle_dataset": False,
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "remove_unused_columns": False,  # tokens' kinds and rows go with them
    "save_strategy": "no",  # checkpoints come at set steps
    # Both are for models that TRL loads itself, and for templates that it puts into a tokenizer.
    "model_init_kwargs": None,
    "chat_template_path": None,
    "pad_token": None,  # set in the tokenizer, too; TRL warns of it
}
"""What TRL's trainer is always given."""


@dataclass(frozen=True, slots=True)
class Given:
    """What an option is set to, and by which layer: `curate`, a recipe, a file, a flag."""

    value: Any
    by: str


@dataclass(frozen=True)
class Options:
    """Every option that was asked for, or differs from TRL's default."""

    given: dict[str, Given]

    @property
    def values(self) -> dict[str, Any]:
        """The values alone."""
        return {name: one.value for name, one in self.given.items()}

    def as_json(self) -> dict[str, dict[str, Any]]:
        """For run.json: name, value and layer of each."""
        return {n: {"value": one.value, "by": one.by} for n, one in sorted(self.given.items())}

    @cached_property
    def additions(self) -> Additions:
        """Our own options."""
        return Additions(**self._of(Additions))

    @property
    def max_length(self) -> int | None:
        """The most tokens of a row, and the tokens of a pack; None for what the model can take."""
        limit: int | None = self.values["max_length"]
        return limit

    @property
    def packing(self) -> bool:
        """Whether rows are packed."""
        return bool(self.values.get("packing", False))

    @property
    def seed(self) -> int:
        """Of everything that is drawn, the random start included."""
        return int(self.values.get("seed", SFTConfig.seed))

    @property
    def chat_template_path(self) -> str | None:
        """What `curate.train.templates.load_chat_template` is to load for the tokenizer."""
        return self.values.get("chat_template_path")

    def sft_config(self, output_dir: str | Path, **forced: Any) -> SFTConfig:
        """
        TRL's configuration; `forced` is set whatever was asked.

        `eos_token` is passed on, so that TRL sets it in the model's configuration as well; in the
        tokenizer it has to be set before rows are rendered.

        Raises:
            CurateError: transformers refuses the options, or this device cannot run them.
        """
        pinned = {"dataloader_pin_memory": has_accelerator()}
        values = {"bf16": self._bf16(), **pinned, **self._of(SFTConfig), **FORCED}
        values |= {"padding_free": self.packing, **forced}
        return _made(SFTConfig, {"output_dir": str(output_dir), **values})

    def model_config(self) -> ModelConfig:
        """TRL's configuration of the model."""
        return _made(ModelConfig, self._of(ModelConfig))

    def model_kwargs(self) -> dict[str, Any]:
        """What `from_pretrained` of the model is to be given."""
        config = self.model_config()
        kwargs: dict[str, Any] = {"revision": config.model_revision, "dtype": config.dtype}
        kwargs["trust_remote_code"] = self.values.get("trust_remote_code", False)
        if config.attn_implementation:
            kwargs["attn_implementation"] = config.attn_implementation
        if config.load_in_4bit or config.load_in_8bit:
            kwargs["quantization_config"] = get_quantization_config(config)
        return kwargs | (self.values.get("model_init_kwargs") or {})

    def peft(self) -> "PeftConfig | None":
        """The adapter's configuration, None for full parameters."""
        try:
            return get_peft_config(self.model_config())
        except ValueError as error:
            raise CurateError(f"use_peft: {_line(error)}") from error

    def _of(self, cls: type) -> dict[str, Any]:
        return {name: value for name, value in self.values.items() if known()[name].of is cls}

    def _bf16(self) -> bool:
        return not (self.values.get("fp16") or self.values.get("use_cpu")) and computes_in_bf16()


def has_accelerator() -> bool:
    """Whether there is a device beside the CPU."""
    import torch

    return bool(torch.accelerator.is_available())


def computes_in_bf16() -> bool:
    """Whether there is an accelerator that computes in bfloat16 itself, rather than emulate it."""
    import torch
    from transformers.utils import is_torch_bf16_gpu_available

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(is_torch_bf16_gpu_available())


def recipes() -> dict[str, Path]:
    """The recipes there are, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def read(arguments: Sequence[str], config: Path | None, recipe: str | None) -> Options:
    """
    The options of a run.

    Args:
        arguments: flags, `--learning_rate 5e-5`, `--learning-rate=5e-5`, `--packing`,
            `--no-packing`.
        config: a YAML file of TRL's names, flat.
        recipe: the name of a recipe, or a path.

    Raises:
        CurateError: an option that is unknown, of the wrong type, refused, or contradicts another.
    """
    given = {name: Given(value, "curate") for name, value in DEFAULTS.items()}
    if recipe is not None:
        given |= _file(_recipe(recipe), f"recipe {recipe}")
    if config is not None:
        given |= _file(config, str(config))
    given |= _flags(arguments)
    amiss = contradiction({name: one.value for name, one in given.items()})
    if amiss:
        raise CurateError(f"{_named(amiss[0], given[amiss[0]].by)}: {amiss[1]}")
    return Options(given)


def _recipe(recipe: str) -> Path:
    there = recipes()
    path = there.get(recipe, Path(recipe))
    if not path.is_file():
        raise CurateError(
            f"--recipe {recipe}: expected one of {', '.join(there)}, or the path of a YAML file"
        )
    return path


def _file(path: Path, by: str) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for name, asked in _mapping(path).items():
        key = canonical(name)
        if key in given:
            raise CurateError(f"{path}: {name}: given twice, by two names")
        given[key] = Given(_value(name, asked, by), by)
    return given


def _mapping(path: Path) -> dict[str, Any]:
    """What a YAML file says; PyYAML would take the last of two equal keys and say nothing."""
    try:
        text = path.read_text(encoding="utf-8")
        node, asked = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CurateError(f"{path}: expected a YAML file of options: {_line(error)}") from error
    if asked is None:
        return {}
    if not isinstance(asked, dict) or not isinstance(node, yaml.MappingNode):
        raise CurateError(f"{path}: expected `option: value` on each line")
    keys = [str(key.value) for key, _ in node.value]
    twice = next((key for n, key in enumerate(keys) if key in keys[:n]), None)
    if twice is not None:
        raise CurateError(f"{path}: {twice}: given twice")
    return {str(key): value for key, value in asked.items()}


def _flags(arguments: Sequence[str]) -> dict[str, Given]:
    try:
        parsed, extra = flags().parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        option = (error.argument_name or "").partition("/")[0]
        raise CurateError(f"{option}: {error.message}") from error
    if extra:
        _unexpected(extra[0])
    return {
        name: Given(_value(name, asked, "flag"), "flag") for name, asked in vars(parsed).items()
    }


def _unexpected(word: str) -> None:
    name = word.partition("=")[0].lstrip("-").replace("-", "_")
    if not word.startswith("--") or not name:
        raise CurateError(f"unexpected argument {word!r}: expected an option, `--name value`")
    _known(name, "flag")


def _value(name: str, asked: Any, by: str) -> Any:
    """What an option is set to. Raises CurateError, naming it as it was given."""
    option = _known(name, by)
    if name in REFUSED:
        raise CurateError(f"{_named(name, by)}: {REFUSED[name]}")
    try:
        value = as_type(option, asked)
    except ValueError as error:
        raise CurateError(f"{_named(name, by)}: {error}, found {_spoken(asked)}") from error
    why = refusal(name, value)
    if why:
        raise CurateError(f"{_named(name, by)}: {why}")
    return value


def _spoken(asked: Any) -> str:
    """What was asked; a flag's list as the words that it was."""
    return repr(
        " ".join(asked) if isinstance(asked, list) and asked == [*map(str, asked)] else asked
    )


def _known(name: str, by: str) -> Known:
    if name in known():
        return known()[name]
    why = GONE.get(name) or f"neither TRL nor curate has such an option{nearest(name)}"
    raise CurateError(f"{_named(name, by)}: {why}")


def _named(name: str, by: str) -> str:
    return f"--{name}" if by == "flag" else f"{by}: {name}"


def _made(cls: type[Config], values: dict[str, Any]) -> Config:
    try:
        return cls(**values)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise CurateError(f"{cls.__name__}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
