"""
What can be wrong with one row that a model is to be trained on.

Each fault is the name of a check and a few words on what was found. Whether the trace is trained on
is judged twice: by the characters that the tokens stand for, and by what the labels decode to.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.rendering import Rendered
from curate.samples import Sample
from curate.terminal import quoted
from curate.tokenkinds import OPENING_TAG, answer_start, trace_start

IGNORED = -100
"""The label of a token that is not trained on, as in PyTorch."""

PROBE = 16
"""Characters that a text is looked for by, where it is not there as a whole."""

TAG = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
"""A tag of thoughts or answers, in the words of any layout."""

HEADER = 20
"""Characters that name a channel at the most, as in `<|channel|>analysis<|message|>`."""

QUOTE = 40
"""Characters that are quoted of a text."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a row: a check, and what was found."""

    check: str
    found: str


def labels_of(rendered: Rendered) -> np.ndarray:
    """The labels of a row before any mask: the tokens behind the prompt, int32[n]."""
    labels = rendered.input_ids.astype(np.int32)
    labels[: rendered.prompt_tokens] = IGNORED
    return labels


@dataclass(frozen=True, slots=True)
class Row:
    """A row and its labels int32[m]; m is less than its number of tokens where it was cut."""

    sample: Sample
    rendered: Rendered
    labels: np.ndarray
    tokenizer: Any

    def ids(self) -> np.ndarray:
        """The tokens that have labels, int32[m]."""
        return self.rendered.input_ids[: len(self.labels)]

    def decoded(self, ids: np.ndarray) -> str:
        """Tokens as text, special ones included."""
        decode = self.tokenizer.decode
        return str(decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def special(self, token: int) -> bool:
        """Whether a token is EOS or another special one."""
        left: str = self.tokenizer.decode([token], skip_special_tokens=True)
        return token == self.tokenizer.eos_token_id or not left

    def quoted(self, ids: np.ndarray) -> str:
        """The first tokens of some as text in quotes, so many as are worth showing."""
        text = self.decoded(ids[:QUOTE])
        return quoted(text[:QUOTE] + "…" if len(text) > QUOTE or len(ids) > QUOTE else text)


def faults(row: Row) -> Iterator[Fault]:
    """All that is wrong with a row; what was cut off a row that is too long is not told again."""
    rendered = row.rendered
    if not (row.labels[1:] != IGNORED).any():  # no token comes before the first one
        yield Fault("fully_masked", f"none of its {len(row.labels):,} tokens is in the loss")
        return
    yield from _prompt_faults(row)
    if len(rendered.input_ids) > 1 and rendered.input_ids[0] == rendered.input_ids[1]:
        if rendered.input_ids[0] == row.tokenizer.bos_token_id:
            yield Fault("bos_doubled", f"it begins with {row.quoted(rendered.input_ids[:2])}")
    if len(row.labels) == len(rendered.input_ids):
        yield from _trace_faults(row)
        yield from _eos_faults(row)


def _prompt_faults(row: Row) -> Iterator[Fault]:
    rendered, begin = row.rendered, row.rendered.prompt_tokens
    leaked = np.flatnonzero(row.labels[:begin] != IGNORED)
    if len(leaked):
        yield Fault(
            "prompt_in_loss",
            f"{len(leaked):,} of {begin:,} tokens of the prompt, "
            f"{row.quoted(rendered.input_ids[leaked])}",
        )
    if begin < len(rendered.prompt_ids):
        asked, trained = rendered.prompt_ids[begin:], rendered.input_ids[begin:]
        yield Fault(
            "prompt_not_prefix",
            f"at token {begin:,} evaluation's prompt ends with {row.quoted(asked)}, "
            f"training goes on with {row.quoted(trained)}",
        )


def _trace_faults(row: Row) -> Iterator[Fault]:
    """Whether thought and answer are in the loss letter by letter; the first difference is told."""
    sample, rendered = row.sample, row.rendered
    trace = sample.trace or ""
    begin = trace_start(rendered, sample)
    core = trace.strip()
    lead = trace.index(core)
    if core:
        if begin is None:
            yield Fault("trace_altered", _thought_lost(row, core, lead))
            return
        if begin < 0 or not rendered.text.startswith(trace, begin):
            yield Fault("trace_trimmed", _trimmed(trace, rendered.text, begin))
        before = _opened_before(rendered, begin + lead)
        if before.count(OPENING_TAG) > 1:
            yield Fault("thought_opened_twice", f"{quoted(before[-QUOTE:])} stands before it")
        hidden = _hidden(row, begin + lead, len(core))
        if hidden:
            yield Fault("trace_altered", f"thought not in the loss: {hidden}")
            return
    answer = answer_start(rendered, sample)
    if answer is None and sample.answer:
        behind = rendered.completion_start if begin is None else begin + len(trace)
        lost = _difference(sample.answer, rendered.text[behind:], 0)
        yield Fault("trace_altered", f"answer {lost}")
        return
    if answer is not None and (hidden := _hidden(row, answer, len(sample.answer))):
        yield Fault("trace_altered", f"answer not in the loss: {hidden}")
        return
    if begin is not None and answer is not None:
        between = rendered.text[begin + len(trace.rstrip()) : answer]
        if not between.strip():
            lost = f"nothing but {quoted(between)} stands between thought and answer"
            yield Fault("thought_not_closed", lost)
    thought = [] if begin is None else [begin + lead, begin + lead + len(core)]
    yield from _other_faults(row, [*thought, *([] if answer is None else _span(answer, row))])
    yield from _decoding_faults(row, core)


def _span(answer: int, row: Row) -> list[int]:
    return [answer, answer + len(row.sample.answer)]


def _other_faults(row: Row, said: list[int]) -> Iterator[Fault]:
    """Text in the loss other than what is said, which begins and ends at these places."""
    last = len(row.rendered.text)
    if row.rendered.prompt_tokens < len(row.rendered.prompt_ids):
        return  # an error anyway; a part of the prompt would be told again
    edges = [row.rendered.completion_start, *said, last]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if other := _other(row, start, end, headers=end < last):
            yield Fault("other_in_loss", quoted(other[:QUOTE] + ("…" if other[QUOTE:] else "")))
            return


def _other(row: Row, start: int, end: int, *, headers: bool) -> str:
    """The first text among tags and special tokens; `headers` beside these may name a channel."""
    parts = _between_special(row, start, end)
    for part in parts:
        words = TAG.sub("\n", part).strip()
        header = headers and len(parts) > 1 and len(words) <= HEADER
        if words and not header:
            return words
    return ""


def _between_special(row: Row, start: int, end: int) -> list[str]:
    """The characters [start, end) of the text without special tokens: what stands between them."""
    text, (starts, ends) = row.rendered.text, row.rendered.offsets.T
    parts, at = [], start
    for token in np.flatnonzero((starts >= start) & (starts < ends) & (ends <= end)):
        if not row.special(row.rendered.input_ids[token]):
            continue
        parts.append(text[at : starts[token]])
        at = int(ends[token])
    return [*parts, text[at:end]]


def _opened_before(rendered: Rendered, begin: int) -> str:
    """The completion's text before the thought, from the opening tag that its prompt ends with."""
    start = rendered.completion_start
    prompt = rendered.text[max(0, start - 2 * len(OPENING_TAG)) : start]
    opened = prompt.rstrip().endswith(OPENING_TAG)
    return (prompt[prompt.rindex(OPENING_TAG) :] if opened else "") + rendered.text[start:begin]


def _thought_lost(row: Row, core: str, lead: int) -> str:
    behind = row.rendered.text[row.rendered.completion_start :]
    if _has_neither_end(core, behind):
        kept = quoted(behind[:QUOTE] + ("…" if len(behind) > QUOTE else ""))
        return f"thought stripped: of its {len(core):,} characters nothing is left in {kept}"
    return f"thought {_difference(core, behind, lead)}"


def _has_neither_end(piece: str, text: str) -> bool:
    return piece[:PROBE] not in text and piece[-PROBE:] not in text


def _difference(piece: str, text: str, lead: int) -> str:
    """Where a text that is not there as a whole first differs; `lead` characters come before it."""
    at = text.find(piece[:PROBE])
    if at < 0 and _has_neither_end(piece, text):
        return f"missing: {quoted(piece[:QUOTE])} is not in {quoted(text[:QUOTE])}"
    if at < 0:
        return f"altered within its first {lead + PROBE} characters: {quoted(piece[:PROBE])}"
    same = _common(piece, text[at : at + len(piece)])
    was, became = piece[same : same + PROBE], text[at + same : at + same + PROBE]
    return f"altered at character {lead + same:,}: {quoted(was)} became {quoted(became)}"


def _common(one: str, other: str) -> int:
    """How many leading characters two texts have in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def _trimmed(trace: str, text: str, begin: int) -> str:
    """Which blanks at the ends of a trace the template left out."""
    core = trace.strip()
    lead = trace.index(core)
    before, behind = trace[:lead], trace[lead + len(core) :]
    starts = begin >= 0 and text.startswith(before, begin)
    ends = text.startswith(behind, begin + lead + len(core))
    lost = [] if starts else [f"{quoted(before)} at its begin"]
    return " and ".join(lost if ends else [*lost, f"{quoted(behind)} at its end"])


def _hidden(row: Row, start: int, length: int) -> str:
    """What of the characters from `start` on has no label of its own; nothing if all of it has."""
    offsets = row.rendered.offsets
    of_span = np.flatnonzero((offsets[:, 0] < start + length) & (offsets[:, 1] > start))
    missing = of_span[row.labels[of_span] != row.ids()[of_span]]
    if not len(missing):
        return ""
    quote = row.quoted(row.ids()[missing])
    return f"{len(missing):,} of {len(of_span):,} tokens, {quote}"


def _decoding_faults(row: Row, core: str) -> Iterator[Fault]:
    """Whether the labels decode to what the characters say; tokenizers may rewrite a text."""
    decoded = row.decoded(row.labels[row.labels != IGNORED])
    at = decoded.find(core)
    if at >= 0 and decoded.find(row.sample.answer, at + len(core)) >= 0:
        return
    missing = core if at < 0 else row.sample.answer
    same = unicodedata.normalize("NFC", missing) in unicodedata.normalize("NFC", decoded)
    check = "trace_normalised" if same else "trace_altered"
    yield Fault(check, _rewritten(row.rendered.text[row.rendered.completion_start :], decoded))


def _rewritten(text: str, decoded: str) -> str:
    """Where the tokenizer first gives back another text than it was given."""
    text, decoded = text.lstrip(), decoded.lstrip()  # some lose the blank that a text begins with
    same = _common(text, decoded)
    was, became = text[same : same + PROBE], decoded[same : same + PROBE]
    return f"the tokenizer turns {quoted(was)} into {quoted(became)}"


def _eos_faults(row: Row) -> Iterator[Fault]:
    """Whether the model learns to stop behind the answer."""
    eos, rendered = row.tokenizer.eos_token_id, row.rendered
    if eos is None:
        yield Fault("eos_missing", "the tokenizer has no EOS token")
        return
    name = row.tokenizer.eos_token
    starts, ends = rendered.offsets.T
    before = np.flatnonzero((starts < _said_until(row)) & (ends > starts))
    behind = int(before[-1]) + 1 if len(before) else 0
    inside = np.flatnonzero(row.labels[rendered.prompt_tokens : behind] == eos)
    if len(inside):
        yield Fault("eos_inside", _stops(row, inside + rendered.prompt_tokens))
    if eos in row.labels[behind:]:
        return
    if eos in rendered.input_ids[behind:]:
        yield Fault("eos_missing", f"{name} is there, but not in the loss")
    else:
        yield Fault("eos_missing", _ending(row, rendered.input_ids[behind:]))


def _said_until(row: Row) -> int:
    """The character that the answer ends at, the trace without one; EOS that ends it is no part."""
    sample, rendered = row.sample, row.rendered
    if (answer := answer_start(rendered, sample)) is not None:
        return answer + len(sample.answer.removesuffix(row.tokenizer.eos_token))
    trace = trace_start(rendered, sample)
    return (
        rendered.completion_start if trace is None else trace + len((sample.trace or "").rstrip())
    )


def _stops(row: Row, inside: np.ndarray) -> str:
    """Where some tokens that are EOS stand."""
    rendered, times = row.rendered, f"{len(inside):,} time{'s' if len(inside) > 1 else ''}"
    at = int(rendered.offsets[inside[0], 0])
    begin = max(rendered.completion_start, at - QUOTE)
    words = f"is in the loss {times} before the answer ends, first behind"
    return f"{row.tokenizer.eos_token} {words} {quoted(rendered.text[begin:at])}"


def _ending(row: Row, ids: np.ndarray) -> str:
    """What a turn ends with in place of EOS."""
    instead = closing_token(row.tokenizer, ids)
    if not len(ids):
        return f"the turn ends with the answer, no {row.tokenizer.eos_token} behind it"
    found = f"the turn ends with {row.quoted(ids[-QUOTE:])}, not with {row.tokenizer.eos_token}"
    return found + (f" (--eos_token '{instead}'?)" if instead else "")


def closing_token(tokenizer: Any, ids: np.ndarray) -> str | None:
    """The last special token among some, other than BOS; None if there is none."""
    known = tokenizer.added_tokens_decoder
    special = [
        str(known[int(token)])
        for token in ids
        if int(token) in known and known[int(token)].special and token != tokenizer.bos_token_id
    ]
    return special[-1] if special else None
