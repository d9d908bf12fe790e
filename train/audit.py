"""
What is wrong with the rows that a model is to be trained on, told before the first step.

An `Audit` sees every row as it is prepared and keeps counts, lengths and a few named examples. Its
report parts what must not be trained on (errors) from what should be known (notes).
"""

from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from rich.text import Text

from curate.errors import CurateError
from curate.rendering import Rendered, Renderer
from curate.samples import Sample
from curate.terminal import printable, printable_lines
from curate.train.faults import IGNORED, Fault, Row, faults, labels_of
from curate.train.templates import hint_for, shipped, training_twin

CHECKS = {
    "trace_altered": "the thought or the answer is not trained on letter by letter",
    "thought_opened_twice": "the template opens another thought before the thought",
    "eos_missing": "the model does not learn to stop: no EOS in the loss behind the answer",
    "eos_inside": "the model would learn to stop there: EOS is in the loss before the answer ends",
    "prompt_not_prefix": "training's prompt is not the one that evaluation will send",
    "prompt_in_loss": "tokens of the prompt are in the loss",
    "fully_masked": "no token is in the loss",
    "overlength": "longer than the limit",
    "pad_is_eos": "the pad token is EOS",
    "thought_not_closed": "nothing tells the thought's end: no tag stands before the answer",
    "other_in_loss": "there is text in the loss that is neither thought nor answer",
    "trace_trimmed": "the template left out blanks at the thought's ends",
    "trace_normalised": "the tokenizer writes characters in another form of Unicode (NFC)",
    "bos_doubled": "the row begins with two BOS tokens",
}
"""All checks, in the order of a report, and what a row that fails one has."""

NOTES = ("thought_not_closed", "other_in_loss", "trace_trimmed", "trace_normalised", "bos_doubled")
"""The checks that do not stop a training."""

CURED_BY_TEMPLATE = ("trace_altered", "thought_opened_twice", "eos_missing", "prompt_not_prefix")

QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "longest": 1.0}
TEACHERS_SHOWN = 8
TOKENS_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Example:
    """A row that failed a check, and what was found."""

    row: int
    id: str | None
    teacher: str | None
    found: str

    def line(self) -> str:
        """The example on one line."""
        named = [printable(self.id)] if self.id is not None else []
        named += [f"teacher {printable(self.teacher)}"] if self.teacher is not None else []
        who = f" ({', '.join(named)})" if named else ""
        return f"row {self.row:,}{who}: {self.found}"


@dataclass(slots=True)
class Finding:
    """A check that rows failed, or the run as a whole where it has no rows."""

    check: str
    rows: int = 0
    examples: list[Example] = field(default_factory=list)
    by_teacher: dict[str, int] = field(default_factory=dict)
    tokens_lost: int = 0
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The findings of an audit and how long its rows are, in tokens; by teacher, "" for none."""

    rows: int
    limit: int | None
    errors: list[Finding]
    notes: list[Finding]
    tokens: dict[str, Any]
    by_teacher: dict[str, dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for a terminal."""
        lines = [f"{self.rows:,} rows: {_lengths(self.tokens)}"]
        shown = list(self.by_teacher.items()) if len(self.by_teacher) > 1 else []
        for teacher, tokens in shown[:TEACHERS_SHOWN]:
            named = printable(teacher) or "without a teacher"
            lines.append(f"  {named}: {tokens['rows']:,} rows: {_lengths(tokens)}")
        if len(shown) > TEACHERS_SHOWN:
            lines.append(f"  and {len(shown) - TEACHERS_SHOWN:,} more teachers")
        for kind, findings in (("error", self.errors), ("note", self.notes)):
            for finding in findings:
                lines += _told(kind, finding, self.rows)
        return lines


def _lengths(tokens: dict[str, Any]) -> str:
    said = f"{tokens['total']:,} tokens, {tokens['trained']:,} in the loss"
    lengths = ", ".join(f"{name} {length:,}" for name, length in tokens["lengths"].items())
    return f"{said}; length: {lengths}" if lengths else said


def _told(kind: str, finding: Finding, rows: int) -> list[str]:
    count = f" {finding.rows:,} of {rows:,} rows:" if finding.rows else ""
    lines = [f"{kind}: {finding.check}:{count} {CHECKS[finding.check]}"]
    if finding.tokens_lost:
        each = [f"{printable(name) or '-'} {n:,}" for name, n in finding.by_teacher.items()]
        lines.append(f"  {finding.tokens_lost:,} tokens too many; rows by teacher: {_some(each)}")
    lines += [f"  {example.line()}" for example in finding.examples]
    return [*lines, f"  hint: {finding.hint}"] if finding.hint else lines


def _some(each: Sequence[str]) -> str:
    more = len(each) - TEACHERS_SHOWN
    return ", ".join(each[:TEACHERS_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


@dataclass(slots=True)
class _Tokens:
    """Lengths of rows in tokens, and how many of these are in the loss."""

    trained: int = 0
    lengths: array = field(default_factory=lambda: array("q"))

    def as_dict(self) -> dict[str, Any]:
        lengths = np.array(self.lengths, np.int64)
        quantiles = np.quantile(lengths, list(QUANTILES.values()), method="higher")
        return {
            "rows": len(lengths),
            "total": int(lengths.sum()),
            "trained": self.trained,
            "lengths": dict(zip(QUANTILES, quantiles.tolist(), strict=True)),
        }


class Audit:
    """
    Sees the rows of a training one by one.

    `limit` is the most tokens a row may have, `overlength` what happens to one that has more: it is
    an error, or is dropped or truncated, and a note then. A note or error names `examples` rows.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        limit: int | None = None,
        overlength: str = "error",
        examples: int = 3,
    ) -> None:
        self._tokenizer = tokenizer
        self._limit, self._overlength = limit, overlength
        self._examples = examples
        self._found: dict[str, Finding] = {}
        self._tokens: dict[str, _Tokens] = {}

    def see(
        self,
        sample: Sample,
        rendered: Rendered,
        labels: np.ndarray,
        hidden: np.ndarray | None = None,
    ) -> None:
        """
        Take a row into account.

        `labels` int32[m] are its labels before any are masked on purpose, -100 where a token is not
        trained on; fewer of them than the row has tokens, and it was cut. `hidden` bool[m] are the
        tokens that are masked on purpose.
        """
        size = len(rendered.input_ids)
        kept = size if self._limit is None else min(size, self._limit)
        kept = min(kept, len(labels))
        if kept < size:
            self._overlong(sample, size, kept)
        if kept < size and self._overlength == "drop":
            return
        left = labels[:kept] if self._overlength == "truncate" else labels
        tokens = self._tokens.setdefault(sample.teacher or "", _Tokens())
        tokens.lengths.append(len(left))
        trainable = _trainable(left)
        tokens.trained += trainable
        # What is cut on request is told as that, and the row is judged as it was before, unless
        # nothing is left to train on.
        judged = labels if trainable else left
        for fault in faults(Row(sample, rendered, judged, self._tokenizer)):
            self._add(sample, fault)
        if trainable and not _trainable(left, hidden):
            taken = f"the mask takes all of the {trainable:,} tokens that were in the loss"
            self._add(sample, Fault("fully_masked", taken))

    def report(self) -> AuditReport:
        """What was found in all rows so far."""
        found = {**self._found, **{one.check: one for one in self._of_the_run()}}
        findings = [found[check] for check in CHECKS if check in found]
        notes = NOTES if self._overlength == "error" else (*NOTES, "overlength")
        dropped = found["overlength"].rows if self._drops and "overlength" in found else 0
        each = {name: tokens.as_dict() for name, tokens in sorted(self._tokens.items())}
        every = _together(list(self._tokens.values()))
        return AuditReport(
            rows=every["rows"] + dropped,
            limit=self._limit,
            errors=[one for one in findings if one.check not in notes],
            notes=[one for one in findings if one.check in notes],
            tokens=every,
            by_teacher=each,
        )

    @property
    def _drops(self) -> bool:
        return self._overlength == "drop"

    def _overlong(self, sample: Sample, size: int, kept: int) -> None:
        finding = self._add(sample, Fault("overlength", f"{size:,} tokens, {kept:,} would be kept"))
        finding.tokens_lost += size if self._drops else size - kept

    def _add(self, sample: Sample, fault: Fault) -> Finding:
        finding = self._found.setdefault(fault.check, Finding(fault.check))
        if not finding.rows:
            finding.hint = self._hint(sample, fault.check)
        finding.rows += 1
        teacher = sample.teacher or ""
        finding.by_teacher[teacher] = finding.by_teacher.get(teacher, 0) + 1
        if len(finding.examples) < self._examples:
            example = Example(sample.index, sample.id, sample.teacher, fault.found)
            finding.examples.append(example)
        return finding

    def _hint(self, sample: Sample, check: str) -> str | None:
        """TRL's template for training, if the first row that fails a check does not under it."""
        if check not in CURED_BY_TEMPLATE or isinstance(sample.prompt, str):
            return None
        template = self._tokenizer.get_chat_template()
        twin = training_twin(template)
        if twin is None or check in self._faults_under(shipped()[twin], sample):
            return None
        return hint_for(template)

    def _faults_under(self, template: str, sample: Sample) -> set[str]:
        renderer = Renderer(self._tokenizer, chat_template=template)
        try:
            (rendered,) = renderer.render([sample])
        except CurateError:
            return set(CHECKS)
        row = Row(sample, rendered, labels_of(rendered), self._tokenizer)
        return {fault.check for fault in faults(row)}

    def _of_the_run(self) -> list[Finding]:
        """What is wrong with the tokenizer, whatever the rows are."""
        pad, eos = self._tokenizer.pad_token_id, self._tokenizer.eos_token_id
        if pad is not None and pad != eos:
            return []
        hint = "--pad_token names another token of the vocabulary"
        if pad is None:
            hint = f"there is no pad token, and TRL takes EOS for it; {hint}"
        return [Finding("pad_is_eos", hint=hint)]


def _trainable(labels: np.ndarray, hidden: np.ndarray | None = None) -> int:
    """How many tokens are in the loss: no token comes before the first one."""
    inside = labels[1:] != IGNORED
    return int((inside if hidden is None else inside & ~hidden[1 : len(labels)]).sum())


def _together(each: Sequence[_Tokens]) -> dict[str, Any]:
    if not each:
        return {"rows": 0, "total": 0, "trained": 0, "lengths": {}}
    every = _Tokens(sum(one.trained for one in each))
    for one in each:
        every.lengths.extend(one.lengths)
    return every.as_dict()


def coloured(sample: Sample, rendered: Rendered, labels: np.ndarray, tokenizer: Any) -> Text:
    """
    One sample as a terminal shows it: what is in the loss in bold green, the rest dim.

    `labels` int32[m] as for `Audit.see`; tokens behind the m-th were cut. Of long parts the middle
    is left out, and the number of its tokens said.
    """
    named = f" ({printable(sample.id)})" if sample.id is not None else ""
    shown = Text(f"row {sample.index:,}{named}: in the loss", style="default")
    shown.append(" ").append("⟦like this⟧", style="bold green").append(", not ")
    shown.append("like this", style="dim").append("\n")
    trained = labels != IGNORED
    ends = [0, *(np.flatnonzero(trained[1:] != trained[:-1]) + 1).tolist(), len(labels)]
    at = 0
    for start, end in pairwise(ends):
        marked = bool(start < end and trained[start])
        style = "bold green" if marked else "dim"
        shown.append("⟦" if marked else "", style=style)  # as not everybody sees colours
        at = _show(shown, rendered, tokenizer, start, end, at, style)
        shown.append("⟧" if marked else "", style=style)
    if len(labels) < len(rendered.input_ids):
        cut = len(rendered.input_ids) - len(labels)
        shown.append(f"\n[{cut:,} tokens cut off]", style="bold red")
    return shown


def _show(
    shown: Text, rendered: Rendered, tokenizer: Any, start: int, end: int, at: int, style: str
) -> int:
    """Append tokens [start, end) from character `at` on; returns the character behind them."""
    parts = [(start, end)]
    if end - start > 2 * TOKENS_SHOWN + 1:
        parts = [(start, start + TOKENS_SHOWN), (end - TOKENS_SHOWN, end)]
    for first, last in parts:
        if first > start:
            left_out = first - start - TOKENS_SHOWN
            shown.append(f"\n[… {left_out:,} tokens …]\n", style="italic cyan")
            at = int(rendered.offsets[first, 0])
        pieces = []
        for token in range(first, last):
            begin, behind = (int(edge) for edge in rendered.offsets[token])
            text = rendered.text[max(at, begin) : behind]
            if begin == behind:
                text = str(tokenizer.convert_ids_to_tokens(int(rendered.input_ids[token])))
            pieces.append(printable_lines(text.encode()))
            at = max(at, behind)
        shown.append("".join(pieces), style=style)
    return at
