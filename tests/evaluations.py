"""Small folders of graded evaluations, written as `curate evaluate` writes them."""

import hashlib
import json

import numpy as np
import pyarrow as pa

from curate.evaluate.evaluation import (
    COMPLETIONS,
    GRADES,
    PROBLEMS,
    new_record,
    read_record,
    record_of,
    table_of,
    write_record,
    write_table,
)

LETTERS = {
    "c": "correct",
    "w": "wrong",
    "n": "no_answer",
    "t": "truncated",
    "p": "parse_error",
    "s": "timed_out",
}
"""Statuses in short: `"ccw"` is a problem with three samples."""

ANSWERING = {"correct", "wrong", "parse_error", "timed_out"}

SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_new_tokens": 4096, "seed": 0}


def write_evaluation(
    folder,
    task,
    statuses,
    *,
    groups=None,
    tokens=100,
    lenient=None,
    clusters=None,
    ids=None,
    problems=None,
    golds=None,
    texts=None,
    answers=None,
    scorer="mathematics",
    model="tiny",
    sampling=None,
    state="complete",
    title=None,
):
    """
    Add a graded task to an evaluation, which is begun where there is none; the folder.

    `statuses` has for each problem its samples' statuses, as words or in the letters of `LETTERS`;
    `groups`, `lenient`, `texts` and `answers` are as large and are made up where not given.
    `tokens` is as large, or one number, or None for counts that are not known. `clusters`, `ids`,
    `problems` and `golds` have one for each problem.
    """
    rows = [[LETTERS.get(one, one) for one in row] for row in statuses]
    count, samples = len(rows), len(rows[0])
    flat = [status for row in rows for status in row]
    ids = ids or [f"{task}-{n}" for n in range(count)]
    table = {
        "index": range(count),
        "id": ids,
        "cluster": clusters or ids,
        "problem": problems or [f"What is {n} + 1?" for n in range(count)],
        "prompt": [f"User: What is {n} + 1?\n<think>\n" for n in range(count)],
        "prompt_ids": [[1, 2, n] for n in range(count)],
        "gold": golds or [str(n + 1) for n in range(count)],
    }
    places = {
        "index": np.repeat(np.arange(count), samples),
        "id": np.repeat(ids, samples),
        "sample": np.tile(np.arange(samples), count),
    }
    right = np.repeat(table["gold"], samples).tolist()
    made_up = [
        gold if status == "correct" else "-1" if status in ANSWERING else None
        for gold, status in zip(right, flat, strict=True)
    ]
    answers = _flat(answers) or made_up
    counts = _flat(tokens) if isinstance(tokens, list) else [tokens] * len(flat)
    completions = {
        "key": [hashlib.sha256(f"{task} {n}".encode()).hexdigest() for n in range(len(flat))],
        **places,
        "text": _flat(texts) or [_text(*each) for each in zip(flat, answers, strict=True)],
        "token_ids": [None if n is None else [7] * min(n, 8) for n in counts],
        "tokens": counts,
        "ending": ["length" if status == "truncated" else "eos" for status in flat],
    }
    grades = {
        **places,
        "status": flat,
        "lenient": _flat(lenient) or flat,
        "answer": answers,
        "group": _flat(groups) or [_group(*each) for each in zip(flat, answers, strict=True)],
        "detail": [None] * len(flat),
    }
    begun = record_of(folder).exists()
    folder.mkdir(parents=True, exist_ok=True)
    record = read_record(folder) if begun else new_record(model=model, source="replay", settings={})
    write_table(folder, task, "problems", pa.table(table, schema=PROBLEMS))
    write_table(folder, task, "completions", pa.table(completions, schema=COMPLETIONS))
    write_table(folder, task, "grades", pa.table(grades, schema=GRADES))
    digest = hashlib.sha256(table_of(folder, task, "completions").read_bytes()).hexdigest()
    told = {"completions": digest, "scorer": scorer, "versions": {}, "counts": {}}
    (folder / task / "grades.json").write_text(json.dumps(told))
    record["tasks"][task] = {
        "state": state,
        "title": title or task,
        "scorer": scorer,
        "problems": count,
        "samples": samples,
        "sampling": SAMPLING | (sampling or {}),
        "completions": digest,
        "notes": [],
    }
    write_record(folder, record)
    return folder


def drawn(rng, chances, samples):
    """Statuses of samples that are right with a chance for each problem, in letters."""
    right = rng.random((len(chances), samples)) < np.asarray(chances)[:, None]
    return ["".join("c" if one else "w" for one in row) for row in right]


def _flat(rows):
    return None if rows is None else [one for row in rows for one in row]


def _group(status, answer):
    return None if answer is None else 0 if status == "correct" else 1


def _text(status, answer):
    if status == "truncated":
        return "Let me see, perhaps 7 and then"
    boxed = "I do not know." if answer is None else f"It is \\boxed{{{answer}}}."
    return f"Let me see.\n</think>\n{boxed}"
