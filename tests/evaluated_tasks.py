"""Tasks of a few problems, as files in a folder, and a model that answers them at random."""

import json
from pathlib import Path

from tests.tiny_models import countdown, write_model

TASK = r"""
name = "{name}"
title = "Sums"
licence = "none"
scorer = "mathematics"
prompt = "{{problem}}\nPut your final answer within \\boxed{{}}."
[file]
name = "{name}.jsonl"
problems = {count}
id = "id"
fields = {{ problem = "question" }}
gold = {{ column = "answer" }}
"""


def write_task(folder: Path, name: str = "sums", count: int = 6, first: int = 0) -> Path:
    """A task of sums: `first`+n and n, for n from 0."""
    rows = [
        {"id": f"{name}-{n}", "question": f"What is {first + n} + {n}?", "answer": first + 2 * n}
        for n in range(count)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    path = folder / f"{name}.toml"
    path.write_text(TASK.format(name=name, count=count), encoding="utf-8")
    return path


def write_small_model(folder: Path, **changes: object) -> Path:
    """A random model, and the dataset that its tokenizer is of beside it."""
    return write_model(folder / "model", countdown(folder), **changes)


def tables(out: Path) -> dict[str, bytes]:
    """The bytes of each table of completions and problems."""
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes() for path in out.glob("*/*.parquet")
    }
