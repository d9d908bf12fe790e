"""Chat templates by name: TRL's, a Jinja file, or those of another tokenizer."""

import difflib
from importlib.resources import files
from pathlib import Path

from curate.errors import CurateError


def shipped() -> dict[str, str]:
    """The templates that TRL ships, by name: `qwen3`, `qwen3_training`, ..."""
    folder = files("trl") / "chat_templates"
    found = [file for file in folder.iterdir() if file.name.endswith(".jinja")]
    return {f.name.removesuffix(".jinja"): f.read_text(encoding="utf-8") for f in found}


def training_twin(template: str) -> str | None:
    """The name of the template for training that TRL ships for a template, None for none."""
    by_name = shipped()
    names = (name for name, text in by_name.items() if text == template)
    return next((twin for name in sorted(names) if (twin := f"{name}_training") in by_name), None)


def hint_for(template: str) -> str | None:
    """The option that takes TRL's template for training in place of a stock template, or None."""
    twin = training_twin(template)
    return None if twin is None else f"--chat_template_path {twin} (TRL's, for training)"


def load_chat_template(name_or_path: str) -> str:
    """
    A chat template, as Jinja: a file, one that TRL ships, or a tokenizer's, in that order.

    Tokens that a template writes are not added to a vocabulary by this; those that a tokenizer
    lacks become several ordinary ones.

    Raises:
        CurateError: there is none by that name.
    """
    if Path(name_or_path).is_file():
        try:
            return Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CurateError(f"chat_template_path {name_or_path}: {error}") from error
    by_name = shipped()
    if name_or_path in by_name:
        return by_name[name_or_path]
    return _of_tokenizer(name_or_path, by_name)


def _of_tokenizer(name: str, by_name: dict[str, str]) -> str:
    from transformers import AutoTokenizer

    try:
        template: str = AutoTokenizer.from_pretrained(name).get_chat_template()
    except (OSError, ValueError, KeyError) as error:
        close = difflib.get_close_matches(name, by_name, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise CurateError(
            f"chat_template_path {name}: expected a Jinja file, a template that TRL ships, or a "
            f"tokenizer with a template{meant}"
        ) from error
    return template
