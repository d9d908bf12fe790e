"""
Samples as tokens: what the chat template makes of a conversation, and where its completion begins.

Training and evaluation both render here, so that they see the same tokens. What comes out is what
TRL's `SFTTrainer` prepares of the same row: a conversation is rendered to text and tokenised with
no further special tokens, plain text gets those that the tokenizer adds and an EOS where it has
none, and the completion begins where the row's tokens part from those of the prompt alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import CurateError
from curate.terminal import printable

if TYPE_CHECKING:
    from curate.samples import Sample

Prompt = list[dict[str, Any]] | str


@dataclass(frozen=True, slots=True)
class Rendered:
    """
    A sample as training sees it: `prompt_tokens` tokens of prompt, then the completion.

    `text` is the whole conversation as the template renders it, or prompt, completion and EOS of
    plain text; `prompt_text` is what an answer is asked for with, generation prompt and opened
    thought included. `input_ids` int32[n] are the tokens of `text`, `offsets` int32[n, 2] their
    half-open spans of its characters: empty for what the tokenizer adds, overlapping where tokens
    share a character. `prompt_ids` int32[p] are the tokens of `prompt_text` alone, `prompt_tokens`
    counts the leading ones that both have in common; fewer than p, and the prompt is no prefix.
    """

    text: str
    prompt_text: str
    input_ids: np.ndarray
    offsets: np.ndarray
    prompt_ids: np.ndarray
    prompt_tokens: int

    @property
    def completion_start(self) -> int:
        """The character of `text` that the first token of the completion begins with."""
        behind = self.offsets[self.prompt_tokens :]
        return int(behind[0, 0]) if len(behind) else len(self.text)


class Renderer:
    """
    Renders by a tokenizer of transformers and its chat template, or another one's text.

    Raises CurateError for a tokenizer that cannot tell which characters its tokens stand for.
    """

    def __init__(self, tokenizer: Any, *, chat_template: str | None = None) -> None:
        if not tokenizer.is_fast:
            raise CurateError(
                f"{_name(tokenizer)}: expected a fast tokenizer, which tells where in the text its "
                f"tokens are, found {type(tokenizer).__name__}"
            )
        self.tokenizer = tokenizer
        self.chat_template = chat_template

    def prompt(self, prompt: Prompt) -> tuple[str, np.ndarray]:
        """The text that an answer to a prompt is asked for with, and its tokens int32[p]."""
        text = self._prompt_text(prompt, "the prompt")
        return text, _ids(self._encode([text], plain=isinstance(prompt, str))["input_ids"][0])

    def render(self, samples: Sequence["Sample"]) -> list[Rendered]:
        """Samples as tokens, in their order. Raises CurateError for one that cannot be rendered."""
        texts = [self._texts(sample) for sample in samples]
        rendered: dict[int, Rendered] = {}
        for plain in (False, True):
            chosen = [n for n, one in enumerate(samples) if isinstance(one.prompt, str) is plain]
            if chosen:
                each = self._tokenise([texts[n] for n in chosen], plain)
                rendered.update(zip(chosen, each, strict=True))
        return [rendered[n] for n in range(len(samples))]

    def _texts(self, sample: "Sample") -> tuple[str, str]:
        """The text of a sample as a whole, and of its prompt alone."""
        where = _name_of(sample)
        prompt, completion = sample.prompt, sample.completion
        prompt_text = self._prompt_text(prompt, where)
        if isinstance(prompt, str) and isinstance(completion, str):
            return prompt + self._ended(completion), prompt_text
        if isinstance(prompt, list) and isinstance(completion, list):
            return self._by_template(prompt + completion, where), prompt_text
        raise CurateError(
            f"{where}: expected prompt and completion both as messages or both as text, found "
            f"{_kind(prompt)} and {_kind(completion)}"
        )

    def _prompt_text(self, prompt: Prompt, where: str) -> str:
        if isinstance(prompt, str):
            return prompt
        return self._by_template(prompt, where, add_generation_prompt=True)

    def _ended(self, completion: str) -> str:
        eos = self.tokenizer.eos_token
        if not eos:
            raise CurateError(
                f"{_name(self.tokenizer)}: expected an EOS token to end plain text with, found "
                "none: --eos_token names one"
            )
        return completion if completion.endswith(eos) else completion + eos

    def _by_template(self, messages: list[dict[str, Any]], where: str, **options: Any) -> str:
        if not (self.chat_template or self.tokenizer.chat_template):
            raise CurateError(
                f"{_name(self.tokenizer)}: expected a chat template, as the prompts are "
                "conversations, found none: --chat_template_path names one"
            )
        try:
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=self.chat_template, tokenize=False, **options
            )
        except Exception as complaint:  # a template is a program, and raises what it likes
            said = printable(" ".join(str(complaint).split())) or type(complaint).__name__
            raise CurateError(f"{where}: the chat template refuses it: {said}") from complaint
        return str(text)

    def _tokenise(self, texts: list[tuple[str, str]], plain: bool) -> list[Rendered]:
        wholes, prompts = [whole for whole, _ in texts], [prompt for _, prompt in texts]
        encoded = self._encode(wholes, plain=plain, return_offsets_mapping=True)
        prompt_ids = [_ids(ids) for ids in self._encode(prompts, plain=plain)["input_ids"]]
        each = zip(texts, encoded["input_ids"], encoded["offset_mapping"], prompt_ids, strict=True)
        return [
            _rendered(whole, prompt, _ids(ids), offsets, of_prompt)
            for (whole, prompt), ids, offsets, of_prompt in each
        ]

    def _encode(self, texts: list[str], *, plain: bool, **options: Any) -> Any:
        return self.tokenizer(
            texts,
            add_special_tokens=plain,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # that a row is longer than the model is for the audit to say
            **options,
        )


def _rendered(
    text: str,
    prompt_text: str,
    ids: np.ndarray,
    offsets: list[tuple[int, int]],
    prompt_ids: np.ndarray,
) -> Rendered:
    flat = np.fromiter(chain.from_iterable(offsets), np.int32, 2 * len(ids))
    spans = flat.reshape(-1, 2)
    return Rendered(text, prompt_text, ids, spans, prompt_ids, common_prefix(prompt_ids, ids))


def common_prefix(one: np.ndarray, other: np.ndarray) -> int:
    """How many leading items two arrays have in common."""
    shorter = min(len(one), len(other))
    apart = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(apart[0]) if len(apart) else shorter


def _ids(ids: list[int]) -> np.ndarray:
    return np.array(ids, np.int32)


def _kind(turn: Prompt) -> str:
    return "text" if isinstance(turn, str) else "messages"


def _name(tokenizer: Any) -> str:
    return f"tokenizer {tokenizer.name_or_path}".rstrip()


def _name_of(sample: "Sample") -> str:
    named = f" ({printable(sample.id)})" if sample.id is not None else ""
    return f"row {sample.index:,}{named}"
