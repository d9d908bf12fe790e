"""What ends a completion, and what a checkpoint would do that this run does not."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from curate.errors import CurateError
from curate.evaluate.sampling import Sampling
from curate.rawfooter import first_line

OURS = ("temperature", "top_p", "top_k", "max_new_tokens")
OF_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
OF_FILES = (
    "transformers_version",
    "_from_model_config",
    "max_length",
    "do_sample",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "return_dict_in_generate",
)


def stop_ids_of(model: str, tokenizer: Any) -> list[int]:
    """The tokens that end a completion: those of the checkpoint's defaults, and the tokenizer's."""
    named = _defaults(model).get("eos_token_id")
    ids = [*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id]
    if not all(one is None or type(one) is int for one in ids):
        raise CurateError(f"{model}: eos_token_id: expected token ids, found {named!r}")
    found = sorted({one for one in ids if one is not None})
    if not found:
        raise CurateError(f"{model}: expected a token that ends a completion, found none")
    return found


def defaults_unlike(model: str, sampling: Sampling) -> Iterator[str]:
    """Each default of the checkpoint's generation_config.json that this run does not follow."""
    told = _defaults(model)
    own = asdict(sampling)
    for name, value in sorted(told.items()):
        if name in (*OF_TOKENS, *OF_FILES) or value is None:
            continue
        if name in OURS and value != own[name]:
            yield f"generation_config.json of the checkpoint: {name} {value}; this run: {own[name]}"
        elif name not in OURS:
            yield f"generation_config.json of the checkpoint: {name} {value}; not followed"


def _defaults(model: str) -> dict[str, Any]:
    """What the checkpoint says of generation; nothing where it says nothing."""
    folder, name = Path(model), "generation_config.json"
    if folder.is_dir() and not (folder / name).exists():
        return {}
    try:
        return dict(GenerationConfig.from_pretrained(model).to_diff_dict())
    except OSError as error:
        if not folder.is_dir():  # on the Hub, where not every model has one
            return {}
        raise CurateError(f"{folder / name}: cannot be read: {first_line(error)}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise CurateError(f"{model}: {name}: expected settings: {first_line(error)}") from None
