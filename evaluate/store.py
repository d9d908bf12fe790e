"""
Completions that are written, by their keys: those in a folder's tables, and those in its journal.

The journal is `OUT/completions.jsonl`, a line for each completion as it is done; a line is whole
once its newline is there, and what follows the last newline is what a killed run left, and is
dropped.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from curate.errors import OutputError
from curate.evaluate import evaluation

STORED = ("key", "text", "token_ids", "tokens", "ending")
SYNC_SECONDS = 5.0


def key_of(told: Mapping[str, Any], prompt_ids: np.ndarray, sample: int) -> str:
    """
    The storage key of a completion: a SHA-256, in hex.

    `told` is what it depends on beside the prompt's token ids int32[p] and the number of the
    sample: the model's fingerprint, and how tokens are drawn.
    """
    head = json.dumps([told, sample], sort_keys=True).encode()
    return hashlib.sha256(head + b"\n" + prompt_ids.astype("<i4").tobytes()).hexdigest()


def journal_of(out: Path) -> Path:
    """Where completions stand that are in no table yet."""
    return out / "completions.jsonl"


def _is_completion(row: Any) -> bool:
    """Whether a line of the journal has what a completion needs."""
    return (
        isinstance(row, dict)
        and {*STORED} == {*row}
        and isinstance(row["key"], str)
        and isinstance(row["text"], str)
        and row["ending"] in evaluation.ENDINGS
        and isinstance(row["token_ids"], list)
        and all(type(one) is int for one in row["token_ids"])
        and row["tokens"] == len(row["token_ids"])
    )


class Store:
    """
    The completions of a folder; a context manager, as the journal is open for writing.

    `tokens` has the number of new tokens of each by its key (None where an import has no count).
    Raises OutputError for a journal that is damaged before its last line.
    """

    def __init__(self, out: Path) -> None:
        self.tokens: dict[str, int | None] = {}
        self._out = out
        self._places: dict[str, int | tuple[str, int]] = {}
        for task in evaluation.read_record(out)["tasks"]:
            if evaluation.table_of(out, task, "completions").exists():
                self.know_table(task)
        self._file = open(journal_of(out), "a+b")
        self._synced = time.monotonic()
        try:
            self._know_journal()
        except OutputError:
            self._file.close()
            raise

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self._sync()
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a completion: its `key`, `text`, `token_ids`, `tokens` and `ending`."""
        at = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps({name: row[name] for name in STORED}).encode() + b"\n")
        self._file.flush()
        self._places[row["key"]], self.tokens[row["key"]] = at, row["tokens"]
        if time.monotonic() - self._synced > SYNC_SECONDS:  # against a crash of the machine
            self._sync()

    def rows(self, keys: list[str]) -> list[dict[str, Any]]:
        """The completions of some keys, in their order."""
        found: dict[str, dict[str, Any]] = {}
        wanted: dict[str, list[int]] = {}
        for key in keys:
            place = self._places[key]
            if isinstance(place, int):
                self._file.seek(place)
                found[key] = json.loads(self._file.readline())
            else:
                wanted.setdefault(place[0], []).append(place[1])
        for task, places in wanted.items():
            for row in evaluation.read_rows(self._out, task, places, STORED):
                found[row["key"]] = row
        return [found[key] for key in keys]

    def know_table(self, task: str) -> None:
        """Look at a task's table, which is there or has been written anew."""
        table = evaluation.read_table(self._out, task, "completions", ["key", "tokens"])
        for row, (key, tokens) in enumerate(
            zip(table["key"].to_pylist(), table["tokens"].to_pylist(), strict=True)
        ):
            self._places[key], self.tokens[key] = (task, row), tokens

    def journalled(self) -> int:
        """How many completions are in no table."""
        return sum(isinstance(place, int) for place in self._places.values())

    def remove_journal(self) -> None:
        """Forget the journal, all of whose completions are in tables."""
        self._file.truncate(0)
        journal_of(self._out).unlink()

    def _know_journal(self) -> None:
        end = 0
        for at, line in self._lines():
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                if not _is_completion(row):
                    raise ValueError
                self._places[row["key"]], self.tokens[row["key"]] = at, row["tokens"]
            except (ValueError, RecursionError):
                raise OutputError(
                    f"{journal_of(self._out)}: byte {at:,}: expected a completion, found something "
                    "else (--overwrite starts anew)"
                ) from None
            end = at + len(line)
        self._file.truncate(end)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        self._file.seek(0)
        at = 0
        for line in self._file:
            yield at, line
            at += len(line)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()
