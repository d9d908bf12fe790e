"""Folders of token scores, as `curate losses` writes them, made up for tests of the token view."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.evaluate.lossfiles import SCHEMA, file_of, new_record, read_record, write_record
from curate.evaluate.tokenview import TokenView, report


def sample(teacher: str | None, nll: Sequence[float], **scores: Any) -> dict[str, Any]:
    """A sample by its NLL; the rest as given, else plain."""
    size = len(nll)
    plain = {"token": [7] * size, "kind": [1] * size, "entropy": [0.5] * size, "rank": [0] * size}
    return {"teacher": teacher, "first": 3, "nll": list(nll), **plain, **scores}


def write(
    folder: Path,
    samples: Sequence[dict[str, Any]],
    file_rows: int = 3,
    *,
    model: str | None = None,
    data: str | None = None,
) -> Path:
    """The samples as `curate losses` writes them, some to a file; of a model and data so named."""
    (folder / "tokens").mkdir(parents=True)
    rows = [{"index": at, "key": f"a:{at}:0", "id": None, **one} for at, one in enumerate(samples)]
    for number, start in enumerate(range(0, max(len(rows), 1), file_rows)):
        table = pa.Table.from_pylist(rows[start : start + file_rows], SCHEMA)
        pq.write_table(table, file_of(folder, number))
    model = model or folder.name
    settings = {"model": {"sha256": model}, "data": data or str(folder)}
    record = new_record(model=model, data=data or str(folder), settings=settings, notes=[])
    counts = {"rows": len(rows), "teachers": Counter(one["teacher"] or "" for one in samples)}
    write_record(folder, {**record, "state": "complete", "counts": counts})
    return folder


def say(folder: Path, **told: Any) -> None:
    """Change what a folder says of itself."""
    write_record(folder, {**read_record(folder), **told})


def both(folder: Path, samples: Sequence[dict], base: Sequence[dict], **options: Any) -> TokenView:
    return report(write(folder / "tuned", samples), write(folder / "base", base), **options)


def random_samples(seed: int, teachers: Sequence[str], count: int) -> tuple[list, list]:
    """Samples of random lengths under two models, entropies with ties and many easy tokens."""
    rng = np.random.default_rng(seed)
    tuned, base = [], []
    for at in range(count):
        size = int(rng.integers(0, 40))
        tokens = rng.integers(0, 99, size).tolist()
        for model in (tuned, base):
            model.append(
                sample(
                    teachers[at % len(teachers)],
                    (rng.exponential(size=size) * rng.integers(0, 2, size)).tolist(),
                    token=tokens,
                    kind=rng.integers(0, 5, size).tolist(),
                    entropy=(rng.integers(0, 30, size) / 10).tolist(),
                    rank=rng.integers(0, 3, size).tolist(),
                    key=f"k{at}",
                )
            )
    return tuned, base


def flat(section: Any) -> list[float]:
    """Every number of a section's teachers and gaps."""
    found: list[float] = []

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            [walk(part[name]) for name in part]
        elif isinstance(part, list):
            [walk(each) for each in part]
        elif isinstance(part, int | float):
            found.append(part)

    view = TokenView(0.01, 100, 0, [section]).as_dict()
    walk([view["sections"][0]["teachers"], view["sections"][0]["gaps"]])
    return found
