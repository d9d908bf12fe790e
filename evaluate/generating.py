"""
What a model writes to the problems of tasks: the main path of `curate evaluate generate`.

    tasks -> prompts -> keys -> those that are missing -> decoded, journalled -> tables

A completion is found again by its key, so nothing is written twice: not after a kill, not when a
task or samples are added, and not where two tasks ask the same.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from curate.errors import OutputError
from curate.evaluate import checkpoint, evaluation, problems, prompting
from curate.evaluate.asking import Asked, Wanted, settings_of, wanted_of
from curate.evaluate.decoding import Decoder, Request, Written
from curate.evaluate.evaluation import Record
from curate.evaluate.lengths import Lengths
from curate.evaluate.pace import Pace, unpaced
from curate.evaluate.prompting import Prompter
from curate.evaluate.sampling import noise_key
from curate.evaluate.stopping import defaults_unlike
from curate.evaluate.store import Store
from curate.evaluate.task import Task
from curate.output import writing
from curate.rendering import Renderer

ROWS = 1000
"""Completions that are held at once while a table is written."""

Say = Callable[[str], None]
Watch = Callable[[int], AbstractContextManager[Pace]]


def generate(
    model: str,
    tasks: Sequence[Task],
    out: Path,
    asked: Asked | None = None,
    *,
    watch: Watch = unpaced,
    say: Say = lambda line: None,
) -> Record:
    """
    Have a model write completions to the problems of tasks, into the folder `out`.

    Goes on with what is there already, and writes only what is missing. `say` hears of what a user
    should know. Returns the record as `evaluation.json` holds it. Raises CurateError where a task
    or the model cannot be read, and OutputError where `out` holds something else.
    """
    asked = asked or Asked()
    device = checkpoint.device_of(asked.device)
    asked = replace(asked, dtype=checkpoint.dtype_of(asked.dtype, device), device=str(device))
    tokenizer = checkpoint.load_tokenizer(model)
    form = prompting.form_of(tokenizer, asked.chat_template, asked.prompts, asked.system)
    prompter = Prompter(Renderer(tokenizer, chat_template=asked.chat_template), form, asked.system)
    settings = settings_of(model, tokenizer, asked, form)
    found = [problems.read(task, asked.benchmarks, asked.limit) for task in tasks]
    wanted = [wanted_of(model, one, prompter, settings, asked) for one in found]
    notes = [*defaults_unlike(model, asked.sampling)]
    for note in dict.fromkeys([*notes, *(note for one in wanted for note in one.notes)]):
        say(note)
    with writing(out):
        record = evaluation.begin(out, _record(model, settings, notes), asked.overwrite)
        for one in wanted:
            record = _with_task(out, record, one, settings, say)
        with Store(out) as store:
            _write_missing(model, tokenizer, wanted, store, settings, asked, watch, say)
            for one in wanted:
                record = _finish(out, record, one, store)
            _end_journal(record, store, say)
    return record


# What is asked.


def _record(model: str, settings: dict[str, Any], notes: list[str]) -> Record:
    return evaluation.new_record(model=model, source="generate", settings=settings, notes=notes)


def _with_task(
    out: Path, record: Record, one: Wanted, settings: dict[str, Any], say: Say
) -> Record:
    """The record with a task that is under way, unless all that is wanted of it is there."""
    old = record["tasks"].get(one.name)
    task = one.problems.task
    told = {
        "state": "running",
        "title": task.title,
        "scorer": task.scorer,
        "definition": hashlib.sha256(task.text.encode()).hexdigest(),
        "source": one.problems.source,
        "problems": len(one.keys),
        "samples": len(one.keys[0]),
        "sampling": settings["sampling"],
        "completions": None,
        "notes": one.notes,
    }
    if old is not None:
        _check_kept(out, one, old, told)
        for what in ("definition", "source"):
            if old[what] != told[what]:
                say(f"task {one.name} has another {what} than when it was begun")
        whole = evaluation.table_of(out, one.name, "completions").exists()
        if whole and old == {**told, "state": "complete", "completions": old["completions"]}:
            return record
    evaluation.write_table(out, one.name, "problems", _problems_table(one))
    record = {**record, "tasks": {**record["tasks"], one.name: told}}
    evaluation.write_record(out, record)
    return record


def _check_kept(out: Path, one: Wanted, old: Record, told: Record) -> None:
    """Raise OutputError where completions that are there would be dropped."""
    if old["problems"] > told["problems"] or old["samples"] > told["samples"]:
        raise OutputError(
            f"{out}: task {one.name} has {old['problems']:,} problems and {old['samples']} "
            f"samples of each, found {told['problems']:,} and {told['samples']} asked for "
            "(--overwrite starts anew)"
        )
    if not evaluation.table_of(out, one.name, "completions").exists():
        return
    there = evaluation.read_table(out, one.name, "completions", ["key"])["key"].to_pylist()
    gone = len({*there} - {key for keys in one.keys for key in keys})
    if gone:
        raise OutputError(
            f"{out}: task {one.name}: {gone:,} completions that are there are of prompts that are "
            "not asked now (--overwrite starts anew)"
        )


def _problems_table(one: Wanted) -> pa.Table:
    rows = [
        {
            "index": index,
            "id": problem.id,
            "cluster": problem.cluster,
            "problem": problem.content,
            "prompt": text,
            "prompt_ids": ids,
            "gold": problem.gold,
        }
        for index, (problem, text, ids) in enumerate(
            zip(one.problems.rows, one.texts, one.prompt_ids, strict=True)
        )
    ]
    return pa.Table.from_pylist(rows, schema=evaluation.PROBLEMS)


# What is written.


def _write_missing(
    model: str,
    tokenizer: Any,
    wanted: Sequence[Wanted],
    store: Store,
    settings: dict[str, Any],
    asked: Asked,
    watch: Watch,
    say: Say,
) -> None:
    """Decode what no table and no journal has; what takes longest first."""
    requests = _missing(wanted, store, asked)
    there = len({key for one in wanted for keys in one.keys for key in keys}) - len(requests)
    if there:
        say(f"going on: {there:,} completions are there, {len(requests):,} are missing")
    if not requests:
        return
    network = checkpoint.load_network(model, str(asked.dtype), torch.device(str(asked.device)))
    with watch(len(requests)) as pace:
        for written in _decoded(network, requests, settings, asked, pace, say):
            store.add(_row(written, tokenizer))
            pace.finished(len(written.token_ids))


def _missing(wanted: Sequence[Wanted], store: Store, asked: Asked) -> list[Request]:
    lengths = Lengths(asked.lengths_from)
    found: dict[str, tuple[float, Request]] = {}
    for one in wanted:
        rows = zip(one.problems.rows, one.prompt_ids, one.keys, strict=True)
        for problem, ids, keys in rows:
            known = [count for key in keys if (count := store.tokens.get(key)) is not None]
            expected = lengths.expected(one.name, problem.id, known)
            prompt = ids.tolist()
            for sample, key in enumerate(keys):
                if key not in store and key not in found:
                    noise = noise_key(asked.sampling.seed, prompt, sample)
                    found[key] = (expected, Request(key, prompt, noise))
    return [request for _, request in sorted(found.values(), key=lambda each: -each[0])]


def _decoded(
    network: Any,
    requests: Sequence[Request],
    settings: dict[str, Any],
    asked: Asked,
    pace: Pace,
    say: Say,
) -> Iterator[Written]:
    stop_ids = settings["sampling"]["stop_ids"]
    if asked.backend == "continuous":
        from curate.evaluate.continuous import write_continuously

        yield from write_continuously(network, requests, asked.sampling, stop_ids, pace.wrote)
        return
    decoder = Decoder(
        network,
        asked.sampling,
        stop_ids,
        asked.batch,
        tell=pace.wrote,
        halved=lambda rows: say(f"memory does not suffice: {rows:,} completions at once from now"),
    )
    decoder.check(requests)
    yield from decoder.write(requests)


def _row(written: Written, tokenizer: Any) -> dict[str, Any]:
    ids = written.token_ids[:-1] if written.stopped else written.token_ids
    return {
        "key": written.request.key,
        "text": tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        ),
        "token_ids": written.token_ids,
        "tokens": len(written.token_ids),
        "ending": "eos" if written.stopped else "length",
    }


def _finish(out: Path, record: Record, one: Wanted, store: Store) -> Record:
    """Write a task's table, unless all of it is there, and call the task complete."""
    told = record["tasks"][one.name]
    if told["state"] == "complete":
        return record
    digest = evaluation.write_completions(out, one.name, _batches(one, store))
    store.know_table(one.name)
    told = {**told, "state": "complete", "completions": digest}
    record = {**record, "tasks": {**record["tasks"], one.name: told}}
    evaluation.write_record(out, record)
    return record


def _end_journal(record: Record, store: Store, say: Say) -> None:
    """Remove the journal once tables have all that is in it."""
    if any(told["state"] != "complete" for told in record["tasks"].values()):
        return
    if left := store.journalled():
        say(f"{left:,} completions in completions.jsonl are of no prompt that is asked; they stay")
        return
    store.remove_journal()


def _batches(one: Wanted, store: Store) -> Iterator[pa.RecordBatch]:
    """The rows of the table, by problem and sample."""
    places = [(n, sample) for n, keys in enumerate(one.keys) for sample in range(len(keys))]
    for begin in range(0, len(places), ROWS):
        part = places[begin : begin + ROWS]
        rows = store.rows([one.keys[n][sample] for n, sample in part])
        full = [
            row | {"index": n, "id": one.problems.rows[n].id, "sample": sample}
            for row, (n, sample) in zip(rows, part, strict=True)
        ]
        yield pa.RecordBatch.from_pylist(full, schema=evaluation.COMPLETIONS)
