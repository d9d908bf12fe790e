"""Corpora of which a shard is broken in a known way, and what is to come of them."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.broken_files import overwrite

ROWS, GROUP = 12, 4
"""Rows of a shard, and of a row group."""

NAMES = ("a", "b", "c")


def rows_of(name, rows=ROWS, **columns):
    """The rows of a shard; `columns` replace or extend them."""
    table = {
        "id": [f"{name}-{n}" for n in range(rows)],
        "teacher": [f"t{n % 2}" for n in range(rows)],
        "size": list(range(rows)),
        "note": [f"note {n} of {name}" for n in range(rows)],
        "trace": [f"{name} {n}\n\n" + "Alternatively, it.\n\n" * (n % 5) for n in range(rows)],
    }
    return pa.table(table | columns)


def write(path, table, group=GROUP, **options):
    """A shard with checksums, with its rows in row groups of a few."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group, write_page_checksum=True, **options)
    return path


def broken_corpus(folder, broken):
    """A corpus of which shard `b` is broken; its path, and the account of what is to come of it."""
    tables, path = corpus_of(folder), folder / "b.parquet"
    broken.way(path)
    if broken.reason == "schema" and broken.groups is not None:
        tables["b"] = pq.read_table(path)
    return path, account_of(tables, broken)


def corpus_of(folder, **tables):
    """A corpus of shards `a`, `b` and `c`, of which some are given; the rows of each."""
    rows = {name: tables.get(name, rows_of(name)) for name in NAMES}
    for name, table in rows.items():
        write(folder / f"{name}.parquet", table)
    return rows


@dataclass(frozen=True)
class Broken:
    """
    A way to break shard `b`, and what is to become of it.

    `groups` are the row groups that are left out by number, None for all of a shard of which `rows`
    are known; those of `late` turn out only when rows are copied.
    """

    way: object
    message: str
    groups: tuple[int, ...] | None = None
    late: tuple[int, ...] = ()
    rows: int | None = None
    reason: str = "unreadable"


def replaced(**columns):
    """Write the shard anew with other columns, None for one that is to go."""

    def rewrite(path):
        table = {**dict(zip(COLUMNS, rows_of("b").columns, strict=True)), **columns}
        write(path, pa.table({n: column for n, column in table.items() if column is not None}))

    return rewrite


def cut(size):
    """Keep so many bytes, or lose them if negative."""
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def put(content):
    """Replace all bytes."""
    return lambda path: path.write_bytes(content)


def ways(*each):
    """One after the other."""

    def apply(path):
        whole = path.read_bytes()
        changed = bytearray(whole)
        for way, *arguments in each:  # places are looked up in the sound file
            path.write_bytes(whole)
            way(path, *arguments)
            for at, byte in enumerate(path.read_bytes()):
                if byte != whole[at]:
                    changed[at] = byte
        path.write_bytes(changed)

    return apply


def spoil_footer(path):
    size = path.stat().st_size
    overwrite(path, size - 200, b"\xff" * 100)


def encrypt(path):
    overwrite(path, path.stat().st_size - 4, b"PARE")


COLUMNS = tuple(rows_of("b").column_names)


@dataclass
class Account:
    """What is to come of a corpus: skipped parts, the verdict of each row, and those emitted."""

    rows: pa.Table
    skipped: list[dict] = field(default_factory=list)
    verdicts: list[list[str]] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)

    @property
    def counts(self):
        reasons = [reason for reason in self.reasons if reason is not None]
        return {
            "rows": len(self.reasons),
            "kept": self.reasons.count(None),
            "rejected": {},
            "quarantined": {reason: reasons.count(reason) for reason in sorted({*reasons})},
            "units_skipped": len(self.skipped),
        }


def account_of(tables, broken):
    """The account of `a`, a broken `b`, and `c`, of which all that can be read is kept."""
    account = Account(pa.concat_tables([tables["a"], tables["c"]]))
    told = {"stage": "scan", "shard": 1, "reason": broken.reason}
    if broken.groups is None:
        account.skipped = [told | {"row_group": None, "first_row": 0, "rows": broken.rows}]
        of_b = [broken.reason] * (broken.rows or 0)
        verdicts = of_b
    else:
        of_b = [broken.reason if n // GROUP in broken.groups else None for n in range(ROWS)]
        early = [group for group in broken.groups if group not in broken.late]
        verdicts = [broken.reason if n // GROUP in early else "ok" for n in range(ROWS)]
        account.rows = pa.concat_tables(
            [
                tables["a"],
                tables["b"].filter(pa.array([reason is None for reason in of_b])),
                tables["c"],
            ]
        )
        for group in broken.groups:
            stage = {"stage": "emit"} if group in broken.late else {}
            place = {"row_group": group, "first_row": GROUP * group, "rows": GROUP}
            account.skipped.append(told | place | stage)
    account.verdicts = [["ok"] * ROWS, verdicts, ["ok"] * ROWS]
    account.reasons = [None] * ROWS + of_b + [None] * ROWS
    return account


def sidecar(out, kind):
    """All rows of a kind of sidecar."""
    return pa.concat_tables(map(pq.read_table, sorted((out / ".curate" / kind).glob("*.parquet"))))


def dataset(out):
    return pa.concat_tables(map(pq.read_table, sorted((out / "data").iterdir())))


def manifest(out):
    return json.loads((out / ".curate" / "manifest.json").read_text())


def check_output(out, account, path, message):
    """The whole output folder against an account."""
    told = manifest(out)
    assert told["state"] == "complete"
    verdicts = Counter(reason or "ok" for reason in account.reasons)
    others = {"verdicts": dict(sorted(verdicts.items())), "grades": {}}
    assert told["counts"] == account.counts | others
    details = [one.pop("detail") for one in told["skipped"]]
    assert told["skipped"] == account.skipped
    for detail in details:
        assert detail.startswith(f"{path}: ")
        assert len(detail.splitlines()) == 1
    assert dataset(out).equals(account.rows)
    features, decided = sidecar(out, "features"), sidecar(out, "selection")
    assert features["verdict"].to_pylist() == list(chain(*account.verdicts))
    assert decided["reason"].to_pylist() == account.reasons
    assert decided["kept"].to_pylist() == [reason is None for reason in account.reasons]
    for number, verdicts in enumerate(account.verdicts):
        of_shard = pq.read_table(out / ".curate" / "features" / f"{number:05d}.parquet")
        assert of_shard["row"].to_pylist() == list(range(len(verdicts)))
        assert set(of_shard["shard"].to_pylist()) <= {f"{NAMES[number]}.parquet"}
        lost = of_shard.filter(pc.not_equal(of_shard["verdict"], "ok"))
        assert not any(lost["bytes"].to_pylist() + lost["steps"].to_pylist())
        file = out / ".curate" / "quarantine" / f"{number:05d}.parquet"
        if {*verdicts} <= {"ok"}:
            assert not file.exists()
        else:
            quarantined = pq.read_table(file)
            places = [(row["row"], row["reason"]) for row in quarantined.to_pylist()]
            assert places == [(n, v) for n, v in enumerate(verdicts) if v != "ok"]
            assert {*quarantined["detail"].to_pylist()} <= {*details}
    card = (out / "README.md").read_text()
    for reason, count in account.counts["quarantined"].items():
        assert f"| quarantined: {reason} | {count} |" in card
    assert len(re.findall(rf"^- \w+: `+ ?{path}: ", card, re.MULTILINE)) == len(account.skipped)
    assert re.search(message, card)
    assert not list(out.rglob("*.part"))
    assert not (out / ".curate" / "journal.jsonl").exists()
    return details
