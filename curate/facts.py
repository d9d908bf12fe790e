"""
Facts of each row that take more than a look at its bytes: token counts, grades, overlap, hashes.

Each is computed from the corpus once it is measured, and stands beside the features as
`.curate/derived/NAME.parquet`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.buffers import is_text, plain_text
from curate.contamination import CONTAMINATED, Benchmarks
from curate.errors import CurateError
from curate.features import FIELDS
from curate.layout import Layout
from curate.nesting import beside, last_said, spans
from curate.tokens import TokenCounter, load_tokenizer
from curate.traces import TraceReader, Traces
from curate.units import Columns
from curate.verdicts import UNCLOSED

Compute = Callable[[pa.RecordBatch, Traces], list[pa.Array]]


@dataclass(frozen=True, slots=True)
class Fact:
    """
    A fact: its name, the column it reads beside the traces, and how it is computed.

    `cancel` has whoever computes it stop, from any thread.
    """

    name: str
    column: str | None
    compute: Compute
    cancel: Callable[[], None] = lambda: None

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """What it adds to the features."""
        return FIELDS[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that a run is asked for: a tokenizer, a column of golds, benchmarks, hashes."""

    tokenizer: TokenCounter | None = None
    verify: str | None = None
    lenient: bool = False
    benchmarks: Benchmarks | None = None
    files: tuple[str, ...] = ()
    hashes: bool = False

    @property
    def names(self) -> list[str]:
        """The facts, in the order of `FIELDS`."""
        asked = (self.tokenizer, self.verify, self.benchmarks, self.hashes or None)
        return [name for name, one in zip(FIELDS, asked, strict=True) if one is not None]

    def as_dict(self) -> dict[str, Any]:
        """What decides their values, as JSON would hold it."""
        return {
            "tokenizer": None if self.tokenizer is None else self.tokenizer.name,
            "tokenizer_digest": None if self.tokenizer is None else self.tokenizer.digest,
            "verify": self.verify,
            "lenient": self.lenient,
            "decontaminate": list(self.files),
            "benchmarks_digest": None if self.benchmarks is None else self.benchmarks.digest(),
            "hashes": self.hashes,
        }

    def check(self, layout: Layout, columns: Columns, corpus: pa.Schema) -> None:
        """Raise CurateError where what they need is not known, or not as it must be."""
        if self.verify is not None and layout.answer is None and not layout.tags:
            raise CurateError("--verify: expected --answer, the column of the answers")
        if self.benchmarks is not None:
            problem = problem_of(layout, columns)
            found = None if problem is None else corpus.field(problem).type
            if not (found is None and layout.turn) and (found is None or not is_text(found)):
                raise CurateError(
                    "--decontaminate: expected --problem, a column of text, found "
                    f"{'none' if problem is None else f'`{problem}` of {found}'}"
                )

    @contextmanager
    def ready(self, layout: Layout, columns: Columns, workers: int) -> Iterator[list[Fact]]:
        """The facts, ready to be computed by any number of threads."""
        with ExitStack() as held:
            facts = []
            if self.tokenizer is not None:
                facts.append(Fact("tokens", None, _tokens(self.tokenizer)))
            if self.verify is not None:
                from curate.grading import Grader

                grader = held.enter_context(Grader(workers, lenient=self.lenient))
                compute = _grades(grader.grade, TraceReader(layout), self.verify)
                facts.append(Fact("grades", self.verify, compute, grader.close))
            if self.benchmarks is not None:
                problem = problem_of(layout, columns)
                compute = _overlap(self.benchmarks, problem, layout)
                column = layout.column if problem is None else problem
                facts.append(Fact("contamination", column, compute))
            if self.hashes:
                facts.append(Fact("hashes", None, _hashes()))
            yield facts


def load_facts(
    *,
    tokenizer: str | None,
    verify: str | None,
    lenient: bool,
    decontaminate: tuple[str, ...],
    hashes: bool,
) -> Facts:
    """The facts that options ask for, with what they need loaded. Raises CurateError."""
    if lenient and verify is None:
        raise CurateError("--lenient: expected together with --verify")
    return Facts(
        tokenizer=None if tokenizer is None else load_tokenizer(tokenizer),
        verify=verify,
        lenient=lenient,
        benchmarks=Benchmarks.load(decontaminate) if decontaminate else None,
        files=decontaminate,
        hashes=hashes,
    )


def with_facts(features: pa.Schema, facts: Sequence[str]) -> pa.Schema:
    """The features with what some facts add; a later one of the same name counts."""
    fields = {field.name: field for field in features}
    fields |= {field.name: field for fact in facts for field in FIELDS[fact]}
    if "grade" in fields:
        fields["correct"] = pa.field("correct", pa.bool_())
    return pa.schema(list(fields.values()))


def problem_of(layout: Layout, columns: Columns) -> str | None:
    """The column of the problems."""
    return columns.problem if columns.problem is not None else layout.prompt


def _tokens(counter: TokenCounter) -> Compute:
    def compute(batch: pa.RecordBatch, found: Traces) -> list[pa.Array]:
        return [pa.array(counter.count(spans(found.data, found.starts, found.ends)))]

    return compute


def _grades(grade: Callable[..., list[str | None]], reader: TraceReader, gold: str) -> Compute:
    def compute(batch: pa.RecordBatch, found: Traces) -> list[pa.Array]:
        answers = reader.answers(batch, found)
        golds = plain_text(beside(batch.column(gold), found, gold))
        golds = golds if is_text(golds.type) else golds.cast(pa.string())
        truncated = (found.verdicts == UNCLOSED).tolist()
        grades = grade(_texts(answers), _texts(golds.cast(pa.large_binary())), truncated)
        return [pa.array(grades, pa.string())]

    return compute


def _texts(answers: pa.Array | None) -> list[str | None]:
    assert answers is not None
    return [None if a is None else a.decode(errors="replace") for a in answers.to_pylist()]


def _overlap(benchmarks: Benchmarks, problem: str | None, layout: Layout) -> Compute:
    def compute(batch: pa.RecordBatch, found: Traces) -> list[pa.Array]:
        if problem is None:
            problems = last_said(batch.column(layout.column), found, layout)
        else:
            problems = beside(batch.column(problem), found, problem)
        unknown = problems.is_null().to_numpy(zero_copy_only=False)
        coverage, items = benchmarks.overlap(problems)
        by = [
            benchmarks.describe(int(item)) if share >= CONTAMINATED else None
            for share, item in zip(coverage.tolist(), items.tolist(), strict=True)
        ]
        return [pa.array(coverage, mask=unknown), pa.array(by, pa.string())]

    return compute


def _hashes() -> Compute:
    from curate.duplicates import TraceHashes

    hashes = TraceHashes()

    def compute(batch: pa.RecordBatch, found: Traces) -> list[pa.Array]:
        of_traces = hashes.add((found.data, found.starts, found.ends))
        return [pa.array(np.ascontiguousarray(of_traces[:, n])) for n in range(2)]

    return compute
