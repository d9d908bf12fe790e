"""The numbers that every contender must give, and the check that it does."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.runs import BenchError
from curate.lexicon import load

Answers = dict[str, int]


def names_of(categories: Sequence[str]) -> list[str]:
    """The features that contenders count."""
    return ["bytes", "steps", "branch_steps", *(f"{category}_markers" for category in categories)]


def add(parts: Iterable[Mapping[str, int]]) -> Answers:
    """The sums by name."""
    totals: Answers = {}
    for part in parts:
        for name, value in part.items():
            totals[name] = totals.get(name, 0) + value
    return totals


def totals(scanned: Path, shards: int | None = None, rows: int | None = None) -> Answers:
    """What a scan says in sum: of its first shards, of each all rows or its first ones."""
    names = names_of(load("default").category_names)
    found = []
    for file in sorted((scanned / ".curate" / "features").iterdir())[:shards]:
        table = pq.read_table(file, columns=names).slice(0, rows)
        found.append({name: pc.sum(table[name]).as_py() or 0 for name in names})
    return add(found)


def check(what: str, answers: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Raise BenchError unless each answer is the expected one."""
    wrong = [
        f"{name}: expected {expected[name]:,}, found {value:,}"
        for name, value in answers.items()
        if expected[name] != value
    ]
    if wrong or not answers:
        raise BenchError(f"{what}: wrong answer: {'; '.join(wrong) or 'none given'}")


def against_reference(scanned: str, shard: str, text_bytes: int, threads: int) -> dict[str, Any]:
    """
    A job: compare a scan, trace by trace, with the slow reference on about so much text.

    The first shard's first rows; returns how many rows those are.
    """
    from bench.contenders import batches
    from curate.native import reference

    del threads
    lexicon = load("default")
    names = names_of(lexicon.category_names)
    features = pq.read_table(Path(scanned) / ".curate" / "features" / "00000.parquet")
    texts = (text for batch in batches(shard) for text in batch.to_pylist())
    seen = row = 0
    while seen < text_bytes and row < features.num_rows:
        trace = next(texts).encode()
        counts = reference.measure(trace, lexicon.patterns(), len(lexicon.categories))
        expected = named(trace, counts, names)
        check(f"row {row} of {shard}", {n: features[n][row].as_py() for n in names}, expected)
        seen, row = seen + len(trace), row + 1
    return {"rows": row, "bytes": seen}


def named(trace: bytes, counts: Mapping[str, Any], names: Sequence[str]) -> Answers:
    """A trace's counts by the reference, under the names of `names_of`."""
    values = [len(trace), counts["steps"], counts["branch_steps"], *counts["markers"]]
    return dict(zip(names, values, strict=True))
