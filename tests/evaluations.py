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
    fingerprint=None,
    notes=(),
    sampling=None,
    state="complete",
    title=None,
    not_compared=0,
):
    """
    Add a graded task to an evaluation, which is begun where there is none; the folder.

    `statuses` has for each problem its samples' statuses, as words or in the letters of `LETTERS`;
    `groups`, `lenient`, `texts` and `answers` are as large and are made up where not given.
    `tokens` is as large, or one number, or None for counts that are not known. `clusters`, `ids`,
    `problems` and `golds` have one for each problem. `fingerprint` is the model's, by default its
    name.
    """
    rows = [[LETTERS.get(one, one) for one in row] for row in statuses]
    asked = _problems(task, len(rows), clusters, ids, problems, golds)
    places = _places(asked["id"], len(rows[0]))
    flat = _flat(rows)
    answers = _flat(answers) or _answers(asked["gold"], rows)
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "problems": pa.table(asked, schema=PROBLEMS),
        "completions": _completions(task, places, flat, answers, _flat(texts), tokens),
        "grades": _grades(places, flat, answers, _flat(lenient), _flat(groups)),
    }
    for name, table in made.items():
        write_table(folder, task, name, table)
    told = {
        "state": state,
        "title": title or task,
        "scorer": scorer,
        "problems": len(rows),
        "samples": len(rows[0]),
        "sampling": SAMPLING | (sampling or {}),
        "completions": _digest(folder, task, "completions"),
        "notes": [],
    }
    _write_scored(folder, task, scorer, not_compared)
    begun = {"model": model, "settings": {"model": fingerprint or model}, "notes": list(notes)}
    _write_told(folder, task, told, begun)
    return folder


def _problems(task, count, clusters, ids, problems, golds):
    ids = ids or [f"{task}-{n}" for n in range(count)]
    return {
        "index": range(count),
        "id": ids,
        "cluster": clusters or ids,
        "problem": problems or [f"What is {n} + 1?" for n in range(count)],
        "prompt": [f"User: What is {n} + 1?\n<think>\n" for n in range(count)],
        "prompt_ids": [[1, 2, n] for n in range(count)],
        "gold": golds or [str(n + 1) for n in range(count)],
    }


def _places(ids, samples):
    return {
        "index": np.repeat(np.arange(len(ids)), samples),
        "id": np.repeat(ids, samples),
        "sample": np.tile(np.arange(samples), len(ids)),
    }


def _answers(golds, rows):
    return [
        gold if status == "correct" else "-1" if status in ANSWERING else None
        for gold, row in zip(golds, rows, strict=True)
        for status in row
    ]


def _completions(task, places, statuses, answers, texts, tokens):
    count = len(statuses)
    counts = _flat(tokens) if isinstance(tokens, list) else [tokens] * count
    columns = {
        "key": [hashlib.sha256(f"{task} {n}".encode()).hexdigest() for n in range(count)],
        **places,
        "text": texts or [_text(*each) for each in zip(statuses, answers, strict=True)],
        "token_ids": [None if n is None else [7] * min(n, 8) for n in counts],
        "tokens": counts,
        "ending": ["length" if status == "truncated" else "eos" for status in statuses],
    }
    return pa.table(columns, schema=COMPLETIONS)


def _grades(places, statuses, answers, lenient, groups):
    columns = {
        **places,
        "status": statuses,
        "lenient": lenient or statuses,
        "answer": answers,
        "group": groups or [_group(*each) for each in zip(statuses, answers, strict=True)],
        "detail": [None] * len(statuses),
    }
    return pa.table(columns, schema=GRADES)


def _write_scored(folder, task, scorer, not_compared):
    told = {
        **{name: _digest(folder, task, name) for name in ("completions", "problems")},
        "scorer": scorer,
        "versions": {},
        "counts": {},
        "groups": {"compared": 0, "not_compared": not_compared},
    }
    (folder / task / "grades.json").write_text(json.dumps(told))


def _write_told(folder, task, told, begun):
    """Put a task into the record, which is begun where there is none."""
    there = record_of(folder).exists()
    record = read_record(folder) if there else new_record(source="replay", **begun)
    record["tasks"][task] = told
    write_record(folder, record)


def _digest(folder, task, name):
    return hashlib.sha256(table_of(folder, task, name).read_bytes()).hexdigest()


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
