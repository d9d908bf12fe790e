"""What a dataset holds, looked at as a whole before the first sample of it is scored."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from curate.errors import CurateError
from curate.evaluate.tokenarms import check_teachers
from curate.rendering import Rendered, Renderer
from curate.samples import Sample, Samples
from curate.terminal import printable
from curate.tokenkinds import trace_start

PART_SAMPLES = 256
PART_TOKENS = 1 << 20
"""A file ends with whichever it reaches first; that is also what a kill costs at most."""

RENDERED_AT_ONCE = 64
NAMED = 3
"""Rows that are too long and named in the error; the rest is counted."""


class Rows:
    """
    The samples of a dataset with their tokens, as often as they are asked for.

    The first `rows` of them or all; those of more than `limit` tokens are too long.
    """

    def __init__(
        self, samples: Samples, renderer: Renderer, rows: int | None, limit: int | None
    ) -> None:
        self.samples, self.limit = samples, limit
        self._renderer, self._rows = renderer, rows

    def rendered(self, begin: int = 0) -> Iterator[tuple[Sample, Rendered]]:
        """From sample `begin` on, those that are too long too."""
        each = islice(self.samples, begin, self._rows)
        while group := list(islice(each, RENDERED_AT_ONCE)):
            yield from zip(group, self._renderer.render(group), strict=True)

    def is_overlong(self, rendered: Rendered) -> bool:
        """Whether it has more tokens than the limit."""
        return self.limit is not None and len(rendered.input_ids) > self.limit

    def parts(self, begin: int) -> Iterator[list[tuple[Sample, Rendered]]]:
        """What stands in a file each, from sample `begin` on, without those that are too long."""
        part: list[tuple[Sample, Rendered]] = []
        tokens = 0
        for sample, rendered in self.rendered(begin):
            if self.is_overlong(rendered):
                continue
            part.append((sample, rendered))
            tokens += len(rendered.input_ids)
            if len(part) == PART_SAMPLES or tokens >= PART_TOKENS:
                yield part
                part, tokens = [], 0
        if part:
            yield part


class _Odd:
    """Rows that have something wrong with them: how many by teacher, and the first."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: list[str] = []

    def add(self, sample: Sample, told: str = "") -> None:
        self.counts[sample.teacher or ""] += 1
        if len(self.first) < NAMED:
            self.first.append(named(sample) + told)

    def __str__(self) -> str:
        by_teacher = ", ".join(
            f"{printable(teacher) or 'no teacher'}: {n:,}"
            for teacher, n in sorted(self.counts.items())
        )
        return f"{self.counts.total():,} rows ({by_teacher})"


def survey(rows: Rows, vocabulary: int, overlength: str, model: str) -> dict[str, Any]:
    """
    Look at all rows: how many, how long, and which are too long.

    Raises CurateError where there are any that the run may not drop, where the template alters a
    thought or a prompt is no token prefix of its row, and where no row is left.
    """
    samples = size = largest = 0
    long, altered, apart = _Odd(), _Odd(), _Odd()
    teachers: set[str | None] = set()
    for sample, rendered in rows.rendered():
        samples += 1
        teachers.add(sample.teacher)
        largest = max(largest, int(rendered.input_ids.max(initial=0)))
        if rows.is_overlong(rendered):
            long.add(sample, f" has {len(rendered.input_ids):,}")
            continue
        size += len(rendered.text.encode())
        if (sample.trace or "").strip() and trace_start(rendered, sample) is None:
            altered.add(sample)
        if rendered.prompt_tokens < len(rendered.prompt_ids):
            apart.add(sample)
    check_teachers(len(teachers))
    if largest >= vocabulary:
        raise CurateError(
            f"{model}: expected tokens below {vocabulary:,}, its vocabulary, but its tokenizer "
            f"makes {largest:,}"
        )
    _check_rendered(rows, altered, apart)
    _check_long(rows, long, samples, overlength)
    return {"rows": samples, "bytes": size, "overlength": dict(sorted(long.counts.items()))}


def _check_rendered(rows: Rows, altered: _Odd, apart: _Odd) -> None:
    """Hold rows to be what training and evaluation see of them."""
    for odd, expected, found in (
        (altered, "thoughts letter by letter", "the chat template strips or alters those of"),
        (apart, "prompts whose tokens begin their rows", "that they do not in"),
    ):
        if odd.counts:
            raise CurateError(
                f"{rows.samples.path}: expected {expected}, found {found} {odd}, the first is "
                f"{odd.first[0]}; --chat-template-path takes another template"
            )


def _check_long(rows: Rows, long: _Odd, samples: int, overlength: str) -> None:
    where, found = rows.samples.path, long.counts.total()
    if found and overlength == "error":
        counts = str(long).replace(" rows ", " rows with more ", 1)
        raise CurateError(
            f"{where}: expected at most {rows.limit:,} tokens a row, found {counts}: "
            f"{', '.join(long.first)}; --overlength drop leaves them out"
        )
    if found == samples:
        what = "only rows that are too long" if found else "none"
        raise CurateError(f"{where}: expected rows to score, found {what}")


def named(sample: Sample) -> str:
    """A row as a user finds it."""
    return f"row {sample.index:,}" + (f" ({printable(sample.id)})" if sample.id else "")
