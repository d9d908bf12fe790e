"""The tokenizer and the model that a run starts from: weights, or a configuration and a seed."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

from curate.errors import CurateError
from curate.rawfooter import first_line
from curate.train.options import Options
from curate.train.templates import load_chat_template

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LOADING = (OSError, ValueError, KeyError, ImportError, RuntimeError)
"""What transformers raises for a folder or a name that is no model."""


@dataclass(frozen=True, slots=True)
class Start:
    """A model on disk or the Hub, and how options have it loaded."""

    name: str
    options: Options
    seed: int

    @property
    def _trust(self) -> bool:
        return bool(self.options.values.get("trust_remote_code", False))

    @property
    def _revision(self) -> str:
        return str(self.options.values.get("model_revision", "main"))

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer, with the template and the special tokens that options ask for."""
        loaded: PreTrainedTokenizerBase = self._loaded("tokenizer", AutoTokenizer)
        values = self.options.values
        if self.options.chat_template_path is not None:
            loaded.chat_template = load_chat_template(self.options.chat_template_path)
        for name in ("eos_token", "pad_token"):
            if (token := values.get(name)) is None:
                continue
            if token not in loaded.get_vocab():
                raise CurateError(f"--{name}: expected a token of {self.name}, found {token!r}")
            setattr(loaded, name, token)
        if not loaded("a", add_special_tokens=False)["input_ids"]:
            # Of a folder without one, transformers makes one that knows no word.
            raise CurateError(
                f"--model {self.name}: expected a tokenizer, found none that knows text"
            )
        if loaded.eos_token is None:
            raise CurateError(f"{self.name}: the tokenizer has no EOS; --eos_token names one")
        return loaded

    def config(self) -> "PretrainedConfig":
        """The model's configuration."""
        loaded: PretrainedConfig = self._loaded("configuration", AutoConfig)
        return loaded

    def check(self, vocabulary: int) -> None:
        """Raise CurateError where the configuration has too few embeddings, before all else."""
        size = self.config().get_text_config().vocab_size
        if size < vocabulary:
            raise CurateError(
                f"--model {self.name}: expected embeddings for all {vocabulary:,} tokens of the "
                f"tokenizer, the configuration has {size:,}"
            )

    def load(self, vocabulary: int) -> "PreTrainedModel":
        """The model, which must have embeddings for so many tokens."""
        if self.options.additions.from_config:
            loaded = self._random()
        else:
            loaded = self._loaded("weights", AutoModelForCausalLM, **self.options.model_kwargs())
        if (size := _shape(loaded.get_input_embeddings().weight)[0]) < vocabulary:
            raise CurateError(
                f"{self.name}: expected embeddings for all {vocabulary:,} tokens of the "
                f"tokenizer, found {size:,}"
            )
        set_seed(self.seed)  # an adapter's weights are drawn next
        found: PreTrainedModel = loaded
        return found

    def _random(self) -> Any:
        """Random weights, which the seed decides."""
        set_seed(self.seed)
        kwargs = self.options.model_kwargs()
        known = {"dtype", "attn_implementation", "revision", "trust_remote_code"}
        if unread := sorted(kwargs.keys() - known):
            raise CurateError(f"--from_config: expected without {', '.join(unread)}")
        dtype = kwargs.get("dtype")
        chosen = {"dtype": torch.float32 if dtype in (None, "auto") else _dtype(str(dtype))}
        if "attn_implementation" in kwargs:
            chosen["attn_implementation"] = kwargs["attn_implementation"]
        try:
            return AutoModelForCausalLM.from_config(self.config(), **chosen)
        except LOADING as error:
            raise CurateError(f"--model {self.name}: {first_line(error)}") from None

    def _loaded(self, what: str, loader: Any, **kwargs: Any) -> Any:
        kwargs = {"revision": self._revision, "trust_remote_code": self._trust, **kwargs}
        try:
            return loader.from_pretrained(self.name, **kwargs)
        except LOADING as error:
            hint = "; --from_config starts from random ones" if what == "weights" else ""
            raise CurateError(
                f"--model {self.name}: no {what} can be loaded: {first_line(error)}{hint}"
            ) from None

    def told(self, model: Any) -> dict[str, Any]:
        """What was started from, for the account."""
        each = [(math.prod(_shape(p)), p.requires_grad) for p in model.parameters()]
        return {
            "model": self.name,
            "random": self.options.additions.from_config,
            "commit": getattr(model.config, "_commit_hash", None),
            "class": type(model).__name__,
            "parameters": sum(size for size, _ in each),
            "trained_parameters": sum(size for size, trained in each if trained),
        }


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise CurateError(f"--dtype: expected a type of PyTorch such as bfloat16, found {name!r}")
    return found


def _shape(parameter: Any) -> tuple[int, ...]:
    """Of a parameter as a whole: under ZeRO-3 a process holds a part and knows the rest."""
    found: tuple[int, ...] = tuple(getattr(parameter, "ds_shape", parameter.shape))
    return found


def longest(config: "PretrainedConfig") -> int | None:
    """The most tokens that a model can take, where its configuration says."""
    found: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found
