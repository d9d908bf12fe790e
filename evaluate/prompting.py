"""
Prompts as token ids, and whether they are those that the model was trained to answer.

A model answers best to what it was trained on, to the token. Two things are looked at: whether the
prompt is a prefix of the conversation with an answer behind it, as the chat template renders it;
and, for a checkpoint of `curate train` whose dataset is still there, whether the trained prompts
are rendered and worded alike.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from curate.errors import CurateError
from curate.evaluate.task import PLACEHOLDER, Task
from curate.rawfooter import first_line
from curate.rendering import Prompt, Renderer
from curate.samples import Sample, open_samples
from curate.terminal import quoted

COMPARED = 64
"""Trained prompts that are looked at, the first ones."""

ANSWER = "<think>\nA thought.\n</think>\n\nAn answer."


@dataclass(frozen=True, slots=True)
class Prompter:
    """Makes prompts: messages through the chat template, or plain text."""

    renderer: Renderer
    form: str
    system: str | None = None

    def conversation(self, content: str) -> Prompt:
        """The prompt before it is rendered."""
        if self.form == "text":
            return content
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": content}]

    def render(self, content: str) -> tuple[str, np.ndarray]:
        """A prompt as the model sees it, and its token ids int32[p]."""
        return self.renderer.prompt(self.conversation(content))


def form_of(tokenizer: Any, template: str | None, asked: str | None, system: str | None) -> str:
    """Whether prompts are rendered by a chat template: as asked, else if there is one."""
    has = bool(template or tokenizer.chat_template)
    form = asked or ("chat" if has else "text")
    if form == "chat" and not has:
        raise CurateError(
            "--prompts chat: expected a chat template in the tokenizer or in --chat-template-path, "
            "found none"
        )
    if form == "text" and system is not None:
        raise CurateError("--system: expected chat prompts, found prompts that are plain text")
    return form


def warnings(prompter: Prompter, model: str, task: Task, contents: Sequence[str]) -> Iterator[str]:
    """What is amiss with a task's prompts to a model, each line with a name in front."""
    if prompter.form == "chat":
        yield from _not_a_prefix(prompter, contents[0])
    mark = Path(model) / "curate.json"
    if not mark.is_file():
        return  # nothing says what it was trained on
    try:
        data = json.loads(mark.read_text(encoding="utf-8"))["settings"]["data"]
        trained = [sample.prompt for sample in islice(open_samples(Path(data)), COMPARED)]
    except (OSError, ValueError, KeyError, TypeError, CurateError) as error:
        yield f"prompt_unchecked: the dataset that {mark} names cannot be read: {first_line(error)}"
    else:
        yield from _unlike(prompter, trained, task, contents)


def _not_a_prefix(prompter: Prompter, content: str) -> Iterator[str]:
    prompt = prompter.conversation(content)
    answer = [{"role": "assistant", "content": ANSWER}]
    sample = Sample(0, "#0", None, None, prompt, answer, None, ANSWER, None, None)
    try:
        (whole,) = prompter.renderer.render([sample])
    except CurateError:  # a template that knows no such answer cannot have been trained with it
        return
    if whole.prompt_tokens < len(whole.prompt_ids):
        at = whole.prompt_tokens
        asked = prompter.renderer.tokenizer.decode(whole.prompt_ids[at : at + 8])
        trained = prompter.renderer.tokenizer.decode(whole.input_ids[at : at + 8])
        yield (
            "prompt_not_prefix: with an answer behind it, the chat template renders the prompt "
            f"otherwise: {quoted(trained)} where the prompt has {quoted(asked)}"
        )


def _unlike(
    prompter: Prompter, trained: Sequence[Prompt], task: Task, contents: Sequence[str]
) -> Iterator[str]:
    asked = prompter.conversation(contents[0])
    if _roles(trained[0]) != _roles(asked):
        yield (
            f"prompt_roles: the model was trained on prompts of {_roles(trained[0])}, these are of "
            f"{_roles(asked)}"
        )
    elif _system(trained[0]) != _system(asked):
        yield "prompt_system: the model was trained under another system message"
    own = Renderer(prompter.renderer.tokenizer)
    if prompter.renderer.chat_template and not isinstance(trained[0], str):
        (_, before), (_, now) = own.prompt(trained[0]), prompter.renderer.prompt(trained[0])
        if not np.array_equal(before, now):
            yield (
                "prompt_template: --chat-template-path renders the prompts that the model was "
                "trained on to other tokens than the checkpoint's own template"
            )
    words, now_words = _end([_content(one) for one in trained]), _wording(task, contents)
    if len(trained) > 1 and not words.endswith(now_words):
        yield (
            f"prompt_wording: the prompts that the model was trained on end with {quoted(words)}, "
            f"these of {task.name} with {quoted(now_words)}"
        )


def _wording(task: Task, contents: Sequence[str]) -> str:
    """What a task puts behind its problems; without that, what all of its prompts end with."""
    behind = PLACEHOLDER.split(task.prompt)[-1]
    return behind or (_end(contents) if len(contents) > 1 else "")


def _system(prompt: Prompt) -> list[str]:
    turns = [] if isinstance(prompt, str) else prompt
    return [str(one["content"]) for one in turns if one["role"] == "system"]


def _roles(prompt: Prompt) -> str:
    return "text" if isinstance(prompt, str) else ", ".join(str(one["role"]) for one in prompt)


def _content(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def _end(texts: Sequence[str]) -> str:
    """What all texts end with."""
    first, last = min(turned := [text[::-1] for text in texts]), max(turned)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(one for one, _ in same)[::-1]
