"""
`python -m bench kernel`: counting alone, one thread, text in memory; no decoding is timed.

Speed depends on the phrases, on how often they occur, on who wrote the text, and on the host's
vectors. Each of these varies alone, beside the default lexicon on all traces by the host's own
kernel; `markers/KB` is how many there are in 1,000 bytes.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc

from bench import answers, contenders, corpora, runs
from bench.answers import Answers
from bench.corpora import Corpus
from bench.report import Result, Row, Target, row
from bench.runs import BenchError, Ran
from bench.settings import QUICK_GB, Settings
from curate.buffers import text_buffers
from curate.lexicon import load

DEFAULT = "default lexicon"
DRAWN_FROM = 300  # traces
CHECKED_BYTES, QUICK_CHECKED_BYTES = 20_000, 2_000
SLOW_ROWS = 300
RE, HYPERSCAN = "Python re counts", "Hyperscan counts markers"
LIMITS = {RE: 0.01, HYPERSCAN: 0.33}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What is counted: by a lexicon, name or file, in the text of a shard or of its first rows."""

    shard: str
    lexicon: str = "default"
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """By whom it is counted: the host's kernel, unless another or a contender is named."""

    what: str
    shows: str
    text: Text
    kernel: str | None = None
    want_steps: bool = False
    contender: str | None = None
    distinct_bytes: int = 0


def run(settings: Settings) -> Result:
    """Check the kernel by the reference, then time all cases in rounds, each checked by it."""
    corpus = Corpus(kind="repeated", gb=QUICK_GB if settings.quick else settings.gb, shards=1)
    shard = _shard(settings, corpus)
    alone = [*_by_lexicon(settings, shard), *_by_teacher(settings, corpus.gb)]
    checked = sum(_rows_checked(settings, case.text) for case in alone)
    cases = [*alone, *_by_kernel(shard), *_contenders(shard)]
    known = {text: _counted(text).answer["answers"] for text in {case.text for case in cases}}
    timed = {case.what: partial(_contend, case, known[case.text]) for case in cases}
    ran = runs.rounds(timed, 1 if settings.quick else settings.pairs)
    pace = {case.what: _pace(ran[case.what], known[case.text]) for case in cases}
    facts = {
        "corpus": corpora.source_name(),
        "threads": 1,
        "kernel": ran[DEFAULT][0].answer["kernel"],
        "rows checked against the reference": checked,
        "answers": "every contender's, on all that it reads",
    }
    return Result(
        bench="kernel",
        title="kernel",
        facts=facts,
        rows=[_row(case, ran[case.what], known[case.text], pace) for case in cases],
        targets=[
            Target(
                name=f"{DEFAULT} / {what}",
                value=runs.paired_ratio(pace[DEFAULT], pace[what]),
                limit=limit,
            )
            for what, limit in LIMITS.items()
        ],
    )


def _shard(settings: Settings, corpus: Corpus) -> str:
    (shard,) = corpora.shards_of(corpora.ready(corpus, settings.cache))
    return shard


def _by_lexicon(settings: Settings, shard: str) -> list[Case]:
    folder = str(settings.out("lexicons"))
    drawn = runs.job("bench.lexicons:draw", shard=shard, rows=DRAWN_FROM, folder=folder).answer
    shows = "phrases drawn from the text: what the size of a lexicon costs, at its density"
    return [
        Case(what=DEFAULT, shows="what all others stand beside", text=Text(shard=shard)),
        *(
            Case(what=what, shows=shows, text=Text(shard=shard, lexicon=file))
            for what, file in drawn.items()
        ),
    ]


def _by_teacher(settings: Settings, gb: float) -> list[Case]:
    shows = "one teacher's text alone; where it has few distinct MB, its branches are foreseen"
    cases = []
    for teacher, size in runs.job("bench.corpora:teachers").answer.items():
        shard = _shard(settings, Corpus(kind="repeated", gb=gb, shards=1, teacher=teacher))
        text = Text(shard=shard)
        cases.append(Case(what=teacher, shows=shows, text=text, distinct_bytes=size))
    return cases


def _by_kernel(shard: str) -> list[Case]:
    text = Text(shard=shard)
    steps = "what it costs to also say where each step is and what it holds"
    kernels = runs.job("bench.counting:kernels").answer["names"]
    return [
        Case(what=f"{DEFAULT}, each step", shows=steps, text=text, want_steps=True),
        *(
            Case(
                what=f"kernel {name}",
                shows="the default lexicon by the kernel that CURATE_KERNEL names",
                text=text,
                kernel=name,
            )
            for name in kernels
        ),
    ]


def _contenders(shard: str) -> list[Case]:
    return [
        Case(
            what=RE,
            shows="the same counts by the standard library, of text that is decoded already",
            text=Text(shard=shard, rows=SLOW_ROWS),
            contender="re_in_memory",
        ),
        Case(
            what=HYPERSCAN,
            shows="the fastest library of regexes, called from Python: markers only, no steps",
            text=Text(shard=shard),
            contender="hyperscan_in_memory",
        ),
    ]


def _contend(case: Case, known: Answers) -> Ran:
    """One run of a case, its answer checked."""
    if case.contender:
        ran = runs.job(
            "bench.contenders:timed",
            contender=case.contender,
            shards=[case.text.shard],
            rows=case.text.rows,
            threads=1,
        )
    else:
        ran = _counted(case.text, case.kernel, want_steps=case.want_steps)
    answers.check(case.what, ran.answer["answers"], known)
    return ran


def _counted(text: Text, kernel: str | None = None, *, want_steps: bool = False) -> Ran:
    environment = {"CURATE_KERNEL": kernel or ""}
    job, steps = "bench.counting:count", want_steps
    return runs.job(job, threads=1, environment=environment, **asdict(text), want_steps=steps)


def count(
    shard: str, lexicon: str, rows: int | None, want_steps: bool, threads: int
) -> dict[str, Any]:
    """A job: the answers of this process's kernel, and its seconds once it has given them."""
    from curate.native.measure import HOST_KERNEL
    from curate.native.simd import WIDTH

    del threads
    measure, names = _measurer(lexicon, want_steps=want_steps)
    batches = [text_buffers(batch) for batch in contenders.batches(shard, rows)]
    found = answers.add(_named(batch, measure(*batch), names) for batch in batches)
    told: dict[str, Any] = {"answers": found, "kernel": f"{HOST_KERNEL}, {WIDTH} bytes"}
    with runs.clock(told):
        for batch in batches:
            measure(*batch)
    return told


def _measurer(lexicon: str, *, want_steps: bool = False) -> tuple[Callable[..., Any], list[str]]:
    """`native.measure` of a lexicon, and its categories."""
    from curate import native

    held = load(lexicon)
    tables = native.build_tables(held.patterns(), len(held.categories))
    return partial(native.measure, tables=tables, want_steps=want_steps), list(held.category_names)


def _named(batch: tuple[np.ndarray, np.ndarray], counts: Any, categories: list[str]) -> Answers:
    """A batch's counts in sum, under the names that contenders use."""
    offsets = batch[1]
    values = [offsets[-1] - offsets[0], counts.steps.sum(), counts.branch_steps.sum()]
    named = zip(answers.names_of(categories), [*values, *counts.markers.sum(axis=0)], strict=True)
    return {name: int(value) for name, value in named}


def _rows_checked(settings: Settings, text: Text) -> int:
    size = QUICK_CHECKED_BYTES if settings.quick else CHECKED_BYTES
    job = partial(runs.job, "bench.counting:against_reference")
    return int(job(shard=text.shard, lexicon=text.lexicon, text_bytes=size).answer["rows"])


def against_reference(shard: str, lexicon: str, text_bytes: int, threads: int) -> dict[str, int]:
    """A job: compare the kernel with the slow reference in the first rows, about so much text."""
    from curate.native import reference

    del threads
    held = load(lexicon)
    measure, categories = _measurer(lexicon, want_steps=True)
    batch = next(contenders.batches(shard))
    seen = np.cumsum(pc.binary_length(batch).to_numpy())
    rows = min(len(batch), int(np.searchsorted(seen, text_bytes)) + 1)
    for n in range(rows):
        buffers = text_buffers(batch.slice(n, 1))
        measured = measure(*buffers)
        found = _named(buffers, measured, categories)
        trace = batch[n].as_py().encode()
        counts: dict[str, Any] = reference.measure(trace, held.patterns(), len(categories))
        answers.check(f"row {n} of {shard}", found, answers.named(trace, counts, list(found)))
        for name in ("spans", "step_markers"):
            if getattr(measured, name).tolist() != list(map(list, counts[name])):
                raise BenchError(f"row {n} of {shard}: wrong {name}")
    return {"rows": rows}


def kernels(threads: int) -> dict[str, list[str]]:
    """A job: what CURATE_KERNEL may name on this host."""
    from curate.native.simd import host_kernels

    del threads
    return {"names": [*host_kernels(), "scalar"]}


def _pace(ran: list[Ran], known: Answers) -> list[float]:
    """Seconds for a byte."""
    return [each.seconds / known["bytes"] for each in ran]


def _row(case: Case, ran: list[Ran], known: Answers, pace: dict[str, list[float]]) -> Row:
    markers = sum(value for name, value in known.items() if name.endswith("_markers"))
    return row(
        case.what,
        case.shows,
        ran,
        text_bytes=known["bytes"],
        ratios={
            "markers/KB": markers / known["bytes"] * 1000,
            "distinct MB": case.distinct_bytes / 1e6,
            f"/ {DEFAULT}": runs.paired_ratio(pace[case.what], pace[DEFAULT]),
        },
    )
