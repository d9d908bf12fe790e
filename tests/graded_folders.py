"""Evaluation folders to grade, and their grades."""

import hashlib

import pyarrow as pa

from curate.evaluate.evaluation import (
    COMPLETIONS,
    PROBLEMS,
    new_record,
    read_record,
    read_table,
    record_of,
    table_of,
    write_record,
    write_table,
)
from curate.evaluate.grading import Asked, grade_tasks


def add_task(folder, task, scorer, golds, texts, *, endings="eos", prompts="?", tokens=10):
    """
    Add a task: `texts` has for each gold its samples' texts, `endings` is as large or one for all.

    `prompts` has one for each gold, or is one for all.
    """
    count, samples = len(golds), len(texts[0])
    flat = [text for row in texts for text in row]
    ends = (
        [endings] * len(flat)
        if isinstance(endings, str)
        else [one for row in endings for one in row]
    )
    ids = [f"{task}-{n}" for n in range(count)]
    problems = {
        "index": range(count),
        "id": ids,
        "cluster": ids,
        "problem": ["?"] * count,
        "prompt": [prompts] * count if isinstance(prompts, str) else prompts,
        "prompt_ids": [[1]] * count,
        "gold": golds,
    }
    completions = {
        "key": [f"{n}" for n in range(len(flat))],
        "index": [n // samples for n in range(len(flat))],
        "id": [ids[n // samples] for n in range(len(flat))],
        "sample": [n % samples for n in range(len(flat))],
        "text": flat,
        "token_ids": [[7]] * len(flat),
        "tokens": [tokens] * len(flat),
        "ending": ends,
    }
    folder.mkdir(parents=True, exist_ok=True)
    begun = record_of(folder).exists()
    record = read_record(folder) if begun else new_record(model="m", source="replay", settings={})
    write_table(folder, task, "problems", pa.table(problems, schema=PROBLEMS))
    write_table(folder, task, "completions", pa.table(completions, schema=COMPLETIONS))
    digest = hashlib.sha256(table_of(folder, task, "completions").read_bytes()).hexdigest()
    record["tasks"][task] = {
        "state": "complete",
        "title": task,
        "scorer": scorer,
        "problems": count,
        "samples": samples,
        "sampling": {},
        "completions": digest,
        "notes": [],
    }
    write_record(folder, record)
    return folder


def graded(folder, task, *, workers=2, **asked):
    """Rows of the grades of one task, which is graded if it has not been."""
    grade_tasks(folder, Asked(tasks=(task,), workers=workers, **asked))
    return read_table(folder, task, "grades").to_pylist()
