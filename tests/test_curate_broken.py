"""Corpora that cannot be read in part: a run stops with one line, or goes on without it."""

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import curate
from curate.memory import SLACK_BYTES, resident_bytes
from curate.pipeline import run_plan
from curate.planning import plan_scan
from curate.progress import Silent
from curate.run import Running
from curate.selection import Selection
from curate.skipping import OnError
from curate.units import Columns
from tests.broken_files import flip, overwrite, zero_header
from tests.command_line import only_line, run, tree

ROWS, GROUP = 12, 4
"""Rows of a shard, and of a row group."""

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module", autouse=True)
def kernels():
    """Compiled beforehand, as a run that takes long says on stderr how far it is."""
    curate.measure(["a"])


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


def reorder(path):
    table = rows_of("b")
    write(path, table.select(table.column_names[::-1]))


COLUMNS = tuple(rows_of("b").column_names)
NOT_UTF8 = pa.array([b"\xff\xfe" if n == 5 else b"fine" for n in range(ROWS)]).view(pa.string())

SCHEMA = {"rows": ROWS, "reason": "schema"}
BROKEN = {
    "truncated by a little": Broken(cut(-100), r"not a Parquet file: .*PAR1"),
    "truncated by half": Broken(cut(800), r"not a Parquet file: .*PAR1"),
    "truncated to its magic": Broken(cut(4), r"not a Parquet file: .* at the end of 4 bytes"),
    "no bytes": Broken(put(b""), r"not a Parquet file: .* at the end of 0 bytes"),
    "not Parquet": Broken(put(b"id,trace\n1,hello\n" * 99), r"not a Parquet file: .*'llo\\n'"),
    "a page of HTML": Broken(put(b"<html>429\x1b[31m</html>" * 9), r"not a Parquet file"),
    "encrypted footer": Broken(encrypt, r"its footer is encrypted, expected plain Parquet"),
    "spoilt footer": Broken(spoil_footer, r"not a readable Parquet file: "),
    "trace missing": Broken(replaced(trace=None), r"no column `trace`, found `id`, ", **SCHEMA),
    "trace of numbers": Broken(
        replaced(trace=list(range(ROWS))), r"column `trace` is not text, found int64", **SCHEMA
    ),
    "trace of lists": Broken(
        replaced(trace=[["x"]] * ROWS), r"column `trace` is not text, found list<", **SCHEMA
    ),
    "id missing": Broken(replaced(id=None), r"no column `id`, found `teacher`, ", **SCHEMA),
    "id of lists": Broken(
        replaced(id=[["x"]] * ROWS), r"column `id` is not a scalar, found list<", **SCHEMA
    ),
    "other column missing": Broken(
        replaced(note=None), r"no column `note`, which .*a\.parquet has", **SCHEMA
    ),
    "other column more": Broken(
        replaced(more=[1] * ROWS), r"columns id, .*, more, expected id, .* as in ", **SCHEMA
    ),
    "other type": Broken(
        replaced(size=["x"] * ROWS), r"column `size` is string, expected int64", **SCHEMA
    ),
    "other order": Broken(reorder, r"columns trace, .*, expected id, .* as in ", **SCHEMA),
    "id not UTF-8": Broken(
        replaced(id=NOT_UTF8), r"column `id` holds text that is not UTF-8", (1,), reason="schema"
    ),
    "trace flipped first": Broken(
        lambda path: flip(path, "trace", 0), r"row group 0.*: .*checksum", (0,)
    ),
    "trace flipped midway": Broken(
        lambda path: flip(path, "trace", 1), r"row group .*: .*checksum", (1,)
    ),
    "trace flipped last": Broken(
        lambda path: flip(path, "trace", 2), r"row group .*: .*checksum", (2,)
    ),
    "trace flipped twice": Broken(
        ways((flip, "trace", 0), (flip, "trace", 2)), r"row group 0.*: .*checksum", (0, 2)
    ),
    "trace flipped all over": Broken(
        ways(*((flip, "trace", n) for n in range(3))), r"row group 0.*: .*checksum", (0, 1, 2)
    ),
    "trace header zeroed": Broken(
        lambda path: zero_header(path, "trace", 1), r"row group 1: .*header of the page", (1,)
    ),
    "id flipped": Broken(lambda path: flip(path, "id", 1), r"row group .*: .*checksum", (1,)),
    "id header zeroed": Broken(
        lambda path: zero_header(path, "id", 2), r"row group 2: .*header of the page", (2,)
    ),
    "note flipped": Broken(
        lambda path: flip(path, "note", 1), r"row group 1: .*checksum", (1,), late=(1,)
    ),
    "note flipped twice": Broken(
        ways((flip, "note", 0), (flip, "note", 2)), r"row group 0: ", (0, 2), late=(0, 2)
    ),
    "note flipped all over": Broken(
        ways(*((flip, "note", n) for n in range(3))), r"row group 0: ", (0, 1, 2), late=(0, 1, 2)
    ),
    "note header zeroed": Broken(
        lambda path: zero_header(path, "note", 1), r"row group 1: .*header", (1,), late=(1,)
    ),
    "trace and note": Broken(
        ways((flip, "trace", 0), (flip, "note", 2)), r"row group 0.*: ", (0, 2), late=(2,)
    ),
    "trace and note of one group": Broken(
        ways((flip, "trace", 1), (flip, "note", 1)), r"row group .*: ", (1,)
    ),
}


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
    assert told["counts"] == account.counts
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
        if "ok" in verdicts and len({*verdicts}) == 1:
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


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_ends_a_run_with_one_line(tmp_path, run_here, name):
    broken, out = BROKEN[name], tmp_path / "out"
    path, _ = broken_corpus(tmp_path / "corpus", broken)
    line = only_line(run_here("scan", tmp_path / "corpus", "--out", out, "--id=id", "--keep=true"))
    assert re.match(rf"{path}: .*{broken.message}", line)
    if broken.groups is None:
        assert not out.exists()
    assert not (out / "data").exists() and not (out / "README.md").exists()
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_left_out_counted_and_listed(tmp_path, run_here, name):
    broken, out = BROKEN[name], tmp_path / "out"
    path, account = broken_corpus(tmp_path / "corpus", broken)
    arguments = (tmp_path / "corpus", "--id=id", "--keep=true", "--on-error=quarantine")
    result = run_here("scan", *arguments, "--out", out)
    assert (result.returncode, result.stderr) == (3, "")
    details = check_output(out, account, path, broken.message)
    counts = account.counts
    assert re.search(rf"^rows +{counts['rows']}$", result.stdout, re.MULTILINE)
    assert re.search(rf"^kept +{counts['kept']} ", result.stdout, re.MULTILINE)
    for reason, count in counts["quarantined"].items():
        assert re.search(rf"^quarantined: {reason} +{count} ", result.stdout, re.MULTILINE)
    lost = sum(counts["quarantined"].values())
    assert re.search(rf"^not read: {len(details)} .*, {lost} rows", result.stdout, re.MULTILINE)
    assert result.stdout.isascii() and "\x1b" not in result.stdout
    listed = re.findall(rf"^  \w+: {path}: ", result.stdout, re.MULTILINE)
    assert len(listed) == len(details)

    result = run_here("scan", *arguments, "--out", tmp_path / "json", "--json")
    assert (result.returncode, result.stderr) == (3, "")
    found = json.loads(result.stdout)
    assert {name: found[name] for name in counts} == counts
    check_output(tmp_path / "json", account, path, broken.message)

    before = tree(out)
    result = run_here("scan", *arguments, "--out", out, "--json")
    assert result.returncode == 3
    assert json.loads(result.stdout) | {"seconds": 0} == found | {"out": str(out), "seconds": 0}
    assert tree(out) == before


@pytest.mark.parametrize("name", BROKEN)
def test_a_scan_without_a_selection_accounts_for_what_it_could_not_read(tmp_path, name):
    """Then other columns are not looked at, and schemas need not agree in them."""
    broken, out = BROKEN[name], tmp_path / "out"
    _, account = broken_corpus(tmp_path / "corpus", broken)
    report = curate.scan(tmp_path / "corpus", out=out, id="id", on_error="quarantine")
    features = sidecar(out, "features")
    if name.startswith("other "):
        assert (report.rows, report.kept, report.skipped) == (3 * ROWS, 3 * ROWS, ())
        return
    assert features["verdict"].to_pylist() == list(chain(*account.verdicts))
    assert report.rows == features.num_rows
    early = [one for one in account.skipped if one["stage"] == "scan"]
    assert report.units_skipped == len(report.skipped) == len(early)
    lost = sum(one["rows"] or 0 for one in early)
    assert report.quarantined == ({broken.reason: lost} if lost else {})
    assert report.kept == report.rows - lost
    ok = features.filter(pc.equal(features["verdict"], "ok"))
    assert ok.num_rows == report.kept and min(ok["bytes"].to_pylist()) > 0
    assert not (out / "data").exists() and not (out / "README.md").exists()


@pytest.mark.parametrize("name", BROKEN)
def test_select_goes_on_from_a_quarantined_scan(tmp_path, run_here, name):
    broken, out = BROKEN[name], tmp_path / "out"
    _, account = broken_corpus(tmp_path / "corpus", broken)
    arguments = (tmp_path / "corpus", "--id=id", "--on-error=quarantine", "--json")
    # With a selection, so that also the schemas of other columns are looked at.
    result = run_here("scan", *arguments, "--out", tmp_path / "scan", "--keep=true")
    assert result.returncode == 3
    before = tree(tmp_path / "scan")
    result = run_here(
        "select", tmp_path / "scan", "--out", out, "--keep=true", "--on-error=quarantine", "--json"
    )
    assert (result.returncode, result.stderr) == (3, "")
    counts = account.counts
    found = json.loads(result.stdout)
    assert {name: found[name] for name in counts} == counts
    assert dataset(out).equals(account.rows)
    assert sidecar(out, "selection")["reason"].to_pylist() == account.reasons
    assert [one["row_group"] for one in manifest(out)["skipped"]] == [
        one["row_group"] for one in account.skipped
    ]
    assert tree(tmp_path / "scan") == before


@pytest.mark.parametrize("way", [flip, zero_header])
def test_what_only_a_selection_reads_is_met_by_select(tmp_path, run_here, way):
    tables = corpus_of(tmp_path / "corpus")
    path = tmp_path / "corpus" / "b.parquet"
    way(path, "note", 1)
    assert curate.scan(tmp_path / "corpus", out=tmp_path / "scan", id="id").units_skipped == 0
    line = only_line(run_here("select", tmp_path / "scan", "--out", tmp_path / "o", "--keep=true"))
    assert line.startswith(f"{path}: cannot be read: row group 1: ")
    assert not (tmp_path / "o" / "data").exists()
    report = curate.select(
        tmp_path / "scan", out=tmp_path / "out", keep="true", on_error="quarantine"
    )
    assert (report.kept, report.quarantined) == (3 * ROWS - GROUP, {"unreadable": GROUP})
    account = account_of(tables, Broken(way, "", (1,), late=(1,)))
    assert dataset(tmp_path / "out").equals(account.rows)


# What is odd and yet can be read.

TEXT = [f"{n}\n\nWait, {n}." for n in range(ROWS)]
ODD = {
    "null traces": {"trace": [None if n % 3 else text for n, text in enumerate(TEXT)]},
    "all null traces": {"trace": pa.nulls(ROWS, pa.string())},
    "empty traces": {"trace": [""] * ROWS},
    "large traces": {"trace": pa.array(TEXT, pa.large_string())},
    "binary traces": {"trace": pa.array([text.encode() for text in TEXT])},
    "dictionary traces": {"trace": pa.array(TEXT).dictionary_encode()},
    "traces not UTF-8": {"trace": pa.array([b"\xff\n\n\xfe"] * ROWS).view(pa.string())},
    "notes not UTF-8": {"note": pa.array([b"\xff\n\n\xfe"] * ROWS).view(pa.string())},
    "dictionary notes": {"note": pa.array(["x", "y", None] * (ROWS // 3)).dictionary_encode()},
    "dictionary ids": {"id": pa.array(["x", "y", None] * (ROWS // 3)).dictionary_encode()},
    "list notes": {"note": [[["a"], None, []], None, []] * (ROWS // 3)},
    "struct notes": {"note": [{"x": 1, "y": [{"z": "q"}]}, None, {"x": None}] * (ROWS // 3)},
    "map notes": {
        "note": pa.array([[("k", 1)], None, []] * (ROWS // 3), pa.map_(pa.string(), pa.int64()))
    },
    "null notes": {"note": pa.nulls(ROWS)},
    "no rows": {},
}


@pytest.mark.parametrize("bad", [None, "trace", "note"])
@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_read_and_what_is_broken_in_it_left_out(tmp_path, name, bad):
    """Invalid UTF-8 in a trace is no error: a trace is bytes."""
    tables = {each: rows_of(each, **ODD[name]) for each in NAMES}
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    if name == "no rows":
        tables["a"] = tables["a"].slice(0, 0)
    corpus_of(corpus, **tables)
    options = {"id": "id", "keep": "true", "on_error": "quarantine"}
    expected = Broken(None, "", (), late=())
    if bad is not None:
        # Of a column of nulls there is nothing in a page that could be broken but its header.
        (zero_header if "null" in name or name == "empty traces" else flip)(
            corpus / "b.parquet", bad, 1
        )
        expected = Broken(None, "", (1,), late=(1,) if bad == "note" else ())
    account = account_of(tables, expected)
    report = curate.scan(corpus, out=out, **options)
    found = dataset(out)
    assert found.schema.equals(tables["b"].schema)
    assert found.equals(account.rows)
    assert report.kept == account.rows.num_rows
    assert report.quarantined == ({"unreadable": GROUP} if bad else {})
    features = sidecar(out, "features")
    read = features.filter(pc.equal(features["verdict"], "ok"))
    if bad != "note":
        told = [len(t or "") if isinstance(t, str | None) else len(t) for t in _bytes(account.rows)]
        assert read["bytes"].to_pylist() == told


def _bytes(table):
    column = table["trace"].combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary()).to_pylist()


@pytest.mark.parametrize("groups", [0, 1])
@pytest.mark.parametrize("others", [True, False])
def test_a_shard_of_no_rows_is_sound(tmp_path, groups, others):
    tables = corpus_of(tmp_path / "corpus")
    schema = tables["b"].schema
    with pq.ParquetWriter(tmp_path / "corpus" / "b.parquet", schema) as writer:
        if groups:
            writer.write_table(schema.empty_table())
    assert pq.read_metadata(tmp_path / "corpus" / "b.parquet").num_row_groups == groups
    corpus = tmp_path / "corpus" if others else tmp_path / "corpus" / "b.parquet"
    report = curate.scan(
        corpus, out=tmp_path / "out", id="id", keep="true", on_error="quarantine", max_bad_shards=0
    )
    expected = [tables["a"], tables["c"]] if others else [schema.empty_table()]
    assert dataset(tmp_path / "out").equals(pa.concat_tables(expected))
    assert (report.rows, report.units_skipped) == (2 * ROWS if others else 0, 0)


# Footers that can be parsed and say what cannot be.


def in_footer(path, old, new, which=0):
    """Replace bytes of a footer, where they stand for the nth time in it."""
    data = path.read_bytes()
    at = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for _ in range(which + 1):
        at = data.index(old, at + 1)
    overwrite(path, at, new)


LYING = {
    # A name stands once in the schema, and once in each row group.
    "trace misnamed": (b"\x18\x05trace", b"\x18\x05tr\xe5ce", 0),
    "note misnamed": (b"\x18\x04note", b"\x18\x04n\xffte", 0),
    "trace misnamed in a row group": (b"\x18\x05trace", b"\x18\x05tr\xe5ce", 2),
    "note misnamed in a row group": (b"\x18\x04note", b"\x18\x04n\xffte", 2),
    # The histograms of a column go by what the schema says of its nulls.
    "trace never null": (b"\x25\x02\x18\x05trace", b"\x25\x00", 0),
    "note of no known kind": (b"\x25\x02\x18\x04note", b"\x25\x22", 0),
}


@pytest.mark.parametrize("on_error", ["stop", "quarantine"])
@pytest.mark.parametrize(
    ("name", "keep"), [(name, keep) for name in LYING for keep in (["--keep=true"], [])]
)
def test_a_footer_that_lies_is_an_error_like_any_other(tmp_path, run_here, name, on_error, keep):
    """Where a process may be ended by it, in one of its own."""
    tables, out = corpus_of(tmp_path / "corpus"), tmp_path / "out"
    in_footer(tmp_path / "corpus" / "b.parquet", *LYING[name])
    arguments = (tmp_path / "corpus", "--out", out, "--id=id", "--on-error", on_error, *keep)
    result = (run_here if "misnamed" in name else run)("scan", *arguments, "--json")
    if not keep and name.startswith("note") and result.returncode == 0:
        return  # it was not looked at
    if on_error == "stop":
        assert only_line(result).startswith(f"{tmp_path}/corpus/b.parquet: ")
        return
    assert (result.returncode, result.stderr) == (3, "")
    found = json.loads(result.stdout)
    assert found["rows"] == found["kept"] + sum(found["quarantined"].values())
    assert found["units_skipped"] > 0
    if keep:
        decided = sidecar(out, "selection")
        of_b = decided.filter(pc.equal(decided["shard"], "b.parquet"))
        sound = tables["b"].slice(0, of_b.num_rows).filter(of_b["kept"])
        assert dataset(out).equals(pa.concat_tables([tables["a"], sound, tables["c"]]))


# What changes while a run goes on.


def planned(corpus, out, *, quarantine, keep="true"):
    return plan_scan(
        [str(corpus)],
        out=out,
        columns=Columns(id="id"),
        selection=None if keep is None else Selection(keep=keep),
        on_error=OnError(quarantine=quarantine),
    )


CHANGES = {
    "gone": (lambda path: path.unlink(), r"cannot be read: .*(No such|not found|Failed to open)"),
    "other rows": (lambda path: write(path, rows_of("z")), r"changed since its footer was read"),
    "more rows": (lambda path: write(path, rows_of("z", 40)), r"changed since its footer was read"),
    "other groups": (lambda path: write(path, rows_of("b"), 6), r"changed since its footer"),
    "no Parquet": (put(b"gone"), r"not a Parquet file"),
    "truncated": (cut(-9), r"not a Parquet file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), r"cannot be read"),
}


@pytest.mark.parametrize("stage", ["scan", "emit"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_shard_that_changes_while_a_run_goes_on(tmp_path, name, stage):
    """Before it is measured, and before its rows are copied."""
    change, message = CHANGES[name]
    path = tmp_path / "corpus" / "b.parquet"
    for quarantine in (False, True):
        if path.is_dir():
            path.rmdir()
        tables = corpus_of(tmp_path / "corpus")
        out = tmp_path / f"out-{quarantine}"

        left = [stage]

        @contextmanager
        def watch(what, total, left=left):
            if what in left:  # rows are copied again, without those that could not be read
                left.remove(what)
                change(path)
            yield Silent()

        plan = planned(tmp_path / "corpus", out, quarantine=quarantine)
        running = Running(threads=2, watch=watch)
        if not quarantine:
            with pytest.raises(curate.ShardError, match=rf"^{path}: .*{message}"):
                run_plan(plan, running)
            assert not (out / "data").exists() and not list(out.rglob("*.part"))
            continue
        # As long as the rows are known, which a footer told before.
        report = run_plan(plan, running)
        assert (report.rows, report.kept) == (3 * ROWS, 2 * ROWS)
        assert report.quarantined == {"unreadable": ROWS}
        groups = (0, 1, 2)
        late = groups if stage == "emit" else ()
        account = account_of(tables, Broken(None, message, groups, late=late))
        check_output(out, account, path, message)


@pytest.mark.parametrize("unit_bytes", [1, 300, 1 << 26])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bad", [(0,), (2,), (5,), (2, 3), (0, 2, 5)])
def test_units_are_split_around_what_cannot_be_read(
    tmp_path, monkeypatch, unit_bytes, threads, bad
):
    monkeypatch.setattr("curate.units.UNIT_BYTES", unit_bytes)
    table = rows_of("x", 23)  # the last row group is a short one
    path = write(tmp_path / "x.parquet", table)
    ways(*((flip, "trace", group) for group in bad))(path)
    report = curate.scan(
        path,
        out=tmp_path / "out",
        id="id",
        keep="true",
        steps=True,
        on_error="quarantine",
        threads=threads,
    )
    sound = pa.array([n // GROUP not in bad for n in range(23)])
    assert dataset(tmp_path / "out").equals(table.filter(sound))
    assert [one.row_group for one in report.skipped] == list(bad)
    assert report.quarantined == {"unreadable": 23 - table.filter(sound).num_rows}
    features = sidecar(tmp_path / "out", "features")
    assert features["row"].to_pylist() == list(range(23))
    assert features.filter(sound)["id"].to_pylist() == table.filter(sound)["id"].to_pylist()
    steps = sidecar(tmp_path / "out", "steps")
    assert {*steps["row"].to_pylist()} == {n for n in range(23) if n // GROUP not in bad}


# All of it, and how much of it.


def test_where_no_shard_can_be_read_the_run_ends(tmp_path, run_here):
    corpus_of(tmp_path / "corpus")
    for name in NAMES:
        encrypt(tmp_path / "corpus" / f"{name}.parquet")
    for on_error in ("stop", "quarantine"):
        arguments = (tmp_path / "corpus", "--out", tmp_path / "out", "--on-error", on_error)
        line = only_line(run_here("scan", *arguments, "--keep=true"))
        assert f"{tmp_path}/corpus/a.parquet: its footer is encrypted" in line
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["trace", "note"])
def test_where_no_row_can_be_read_the_dataset_is_empty(tmp_path, column):
    tables = corpus_of(tmp_path / "corpus")
    for name in NAMES:
        ways(*((flip, column, n) for n in range(3)))(tmp_path / "corpus" / f"{name}.parquet")
    report = curate.scan(
        tmp_path / "corpus", out=tmp_path / "out", keep="true", on_error="quarantine"
    )
    assert (report.rows, report.kept, report.units_skipped) == (3 * ROWS, 0, 9)
    assert report.quarantined == {"unreadable": 3 * ROWS}
    assert dataset(tmp_path / "out").equals(tables["a"].slice(0, 0))


BUDGETS = [
    (None, None, None),
    (2, None, None),
    (3, 8, None),
    (2, 8, None),
    (1, None, "--max-bad-shards"),
    (0, None, "--max-bad-shards"),
    (None, 7, "--max-bad-rows"),
    (None, 0, "--max-bad-rows"),
    (2, 7, "--max-bad-rows"),
    (1, 8, "--max-bad-shards"),
]


@pytest.mark.parametrize("column", ["trace", "note"])
@pytest.mark.parametrize(("shards", "rows", "refused"), BUDGETS)
def test_a_run_puts_up_with_no_more_than_its_budget(
    tmp_path, run_here, shards, rows, refused, column
):
    """Two shards are not whole: of one nothing is known, of the other eight rows are gone."""
    corpus_of(tmp_path / "corpus")
    encrypt(tmp_path / "corpus" / "b.parquet")
    ways((flip, column, 0), (flip, column, 2))(tmp_path / "corpus" / "c.parquet")
    budget = [] if shards is None else ["--max-bad-shards", shards]
    budget += [] if rows is None else ["--max-bad-rows", rows]
    result = run_here(
        "scan",
        tmp_path / "corpus",
        "--out",
        tmp_path / "out",
        "--keep=true",
        "--on-error=quarantine",
        "--json",
        *budget,
    )
    if refused is None:
        assert result.returncode == 3
        found = json.loads(result.stdout)
        assert (found["rows"], found["kept"]) == (2 * ROWS, ROWS + GROUP)
        assert (found["quarantined"], found["units_skipped"]) == ({"unreadable": 8}, 3)
        return
    line = only_line(result)
    assert line.startswith(f"{refused}: expected at most {shards if 'shards' in refused else rows}")
    assert ".parquet: " in line
    assert not list(tmp_path.rglob("data/*.parquet"))
    assert not (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize("stopped", ["--max-bad-shards=0", "--max-bad-rows=3"])
def test_a_run_over_its_budget_goes_on_with_a_larger_one(tmp_path, run_here, stopped):
    tables = corpus_of(tmp_path / "corpus")
    flip(tmp_path / "corpus" / "b.parquet", "trace", 1)
    arguments = ("scan", tmp_path / "corpus", "--out", tmp_path / "out", "--id=id", "--keep=true")
    only_line(run_here(*arguments, "--on-error=quarantine", stopped))
    again = run_here(*arguments, "--on-error=quarantine", stopped)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith("error: --max-bad-")
    result = run_here(*arguments, "--on-error=quarantine", "--json", "--max-bad-rows=4")
    assert result.returncode == 3
    account = account_of(tables, Broken(None, "", (1,)))
    check_output(tmp_path / "out", account, tmp_path / "corpus" / "b.parquet", "")


@pytest.mark.parametrize("option", ["--max-bad-shards=1", "--max-bad-rows=1"])
@pytest.mark.parametrize("on_error", [[], ["--on-error=stop"]])
def test_a_budget_takes_a_quarantine(tmp_path, run_here, option, on_error):
    corpus_of(tmp_path / "corpus")
    result = run_here("scan", tmp_path / "corpus", "--out", tmp_path / "out", option, *on_error)
    line = only_line(result)
    assert line == "--max-bad-shards, --max-bad-rows: expected with --on-error quarantine"
    assert not (tmp_path / "out").exists()


# Together with other options.


@pytest.mark.parametrize("column", ["trace", "note"])
@pytest.mark.parametrize("limit", [3, 12, 15, 16, 17, 18, 20, 21, 24, 30])
def test_a_limit_may_cut_through_what_cannot_be_read(tmp_path, limit, column):
    """Row group 1 of the second shard is rows 16 to 20 of the corpus."""
    tables = corpus_of(tmp_path / "corpus")
    flip(tmp_path / "corpus" / "b.parquet", column, 1)
    report = curate.scan(
        tmp_path / "corpus",
        out=tmp_path / "out",
        id="id",
        keep="true",
        limit=limit,
        on_error="quarantine",
    )
    corpus = pa.concat_tables(tables.values()).slice(0, limit)
    sound = pa.array([not 16 <= n < 20 for n in range(limit)])
    lost = limit - corpus.filter(sound).num_rows
    assert dataset(tmp_path / "out").equals(corpus.filter(sound))
    assert (report.rows, report.kept) == (limit, limit - lost)
    assert report.quarantined == ({"unreadable": lost} if lost else {})
    assert report.units_skipped == bool(lost)
    if column == "trace":
        report = curate.scan(
            tmp_path / "corpus", out=tmp_path / "bare", limit=limit, on_error="quarantine"
        )
        assert (report.rows, report.kept) == (limit, limit - lost)
        assert sum(report.quarantined.values()) == lost


@pytest.mark.parametrize("column", ["trace", "note"])
def test_a_budget_counts_the_rows_that_a_limit_leaves(tmp_path, column):
    corpus_of(tmp_path / "corpus")
    flip(tmp_path / "corpus" / "b.parquet", column, 1)
    report = curate.scan(
        tmp_path / "corpus",
        out=tmp_path / "out",
        keep="true",
        limit=18,
        on_error="quarantine",
        max_bad_rows=2,
    )
    assert report.quarantined == {"unreadable": 2}


@pytest.mark.parametrize("keep", ["true", None])
@pytest.mark.parametrize("way", [encrypt, replaced(trace=None), replaced(trace=[1] * ROWS)])
def test_what_is_broken_behind_a_limit_is_not_counted(tmp_path, keep, way):
    tables = corpus_of(tmp_path / "corpus")
    way(tmp_path / "corpus" / "c.parquet")
    report = curate.scan(
        tmp_path / "corpus",
        out=tmp_path / "out",
        keep=keep,
        limit=ROWS + 1,
        on_error="quarantine",
    )
    assert (report.rows, report.kept, report.units_skipped) == (ROWS + 1, ROWS + 1, 0)
    if keep:
        expected = pa.concat_tables(tables.values()).slice(0, ROWS + 1)
        assert dataset(tmp_path / "out").equals(expected)


@pytest.mark.parametrize("column", ["trace", "note"])
@pytest.mark.parametrize("within", [[], ["teacher"]])
def test_rows_that_could_not_be_read_are_in_no_stratum(tmp_path, column, within):
    """The cut is that of a corpus without them."""
    tables = corpus_of(tmp_path / "corpus")
    rule = {"drop_top": "0.3", "rank_by": "branch_steps", "within": within, "id": "id"}
    rule |= {"teacher": "teacher"}
    sound = pa.array([n // GROUP != 1 for n in range(ROWS)])
    corpus_of(tmp_path / "sound", b=tables["b"].filter(sound))
    expected = curate.scan(tmp_path / "sound", out=tmp_path / "expected", **rule)
    flip(tmp_path / "corpus" / "b.parquet", column, 1)
    report = curate.scan(tmp_path / "corpus", out=tmp_path / "out", on_error="quarantine", **rule)
    assert report.strata.equals(expected.strata)
    assert report.strata["rows"].sum() == 3 * ROWS - GROUP
    assert (report.rejected, report.kept) == (expected.rejected, expected.kept)
    assert report.rejected["drop_top"] > 0
    assert report.quarantined == {"unreadable": GROUP}
    assert dataset(tmp_path / "out").equals(dataset(tmp_path / "expected"))
    (group,), (same,) = report.cut.groups, expected.cut.groups
    assert group.table().equals(same.table())


@pytest.mark.parametrize("column", ["trace", "note"])
def test_quarantine_comes_before_every_other_reason(tmp_path, column):
    corpus_of(tmp_path / "corpus")
    flip(tmp_path / "corpus" / "b.parquet", column, 1)
    report = curate.scan(
        tmp_path / "corpus", out=tmp_path / "out", keep="steps > 99", on_error="quarantine"
    )
    assert (report.rows, report.kept) == (3 * ROWS, 0)
    # What is not kept need not be copied, so whether it could be is not found out.
    lost = GROUP if column == "trace" else 0
    assert report.rejected == {"keep": 3 * ROWS - lost}
    assert report.quarantined == ({"unreadable": lost} if lost else {})


@pytest.mark.parametrize("shard_bytes", [1, 300, 2000])
@pytest.mark.parametrize("column", ["trace", "note"])
def test_a_dataset_of_several_files_leaves_out_the_same(tmp_path, shard_bytes, column):
    tables = corpus_of(tmp_path / "corpus")
    ways((flip, column, 0), (flip, column, 2))(tmp_path / "corpus" / "b.parquet")
    curate.scan(
        tmp_path / "corpus",
        out=tmp_path / "out",
        keep="true",
        annotate=["steps"],
        shard_bytes=shard_bytes,
        on_error="quarantine",
    )
    account = account_of(tables, Broken(None, "", (0, 2)))
    found = dataset(tmp_path / "out")
    assert found.drop_columns("curate_steps").equals(account.rows)
    assert None not in found["curate_steps"].to_pylist()
    names = [path.name for path in sorted((tmp_path / "out" / "data").iterdir())]
    assert {name[-14:-8] for name in names} == {f"-{len(names):05d}"}


def test_what_takes_too_much_memory_is_left_out_as_that(tmp_path):
    traces = ["a\n\nb"] * GROUP + ["x" * (200 << 20)] + ["c"] * (GROUP - 1) + ["d"] * GROUP
    path = tmp_path / "a.parquet"
    table = pa.table({"id": list(range(ROWS)), "trace": pa.array(traces, pa.large_string())})
    write(path, table, use_dictionary=False, compression="zstd")
    bound = resident_bytes() + SLACK_BYTES + (200 << 20)
    with pytest.raises(curate.CurateError, match=rf"^{path}: row group 1, rows 4 to .*--memory"):
        curate.scan(path, out=tmp_path / "stopped", keep="true", memory=bound, threads=1)
    bound = resident_bytes() + SLACK_BYTES + (200 << 20)
    report = curate.scan(
        path, out=tmp_path / "out", keep="true", memory=bound, threads=1, on_error="quarantine"
    )
    assert report.quarantined == {"too_large": GROUP}
    assert report.kept == 2 * GROUP
    assert dataset(tmp_path / "out")["trace"].to_pylist() == ["a\n\nb"] * GROUP + ["d"] * GROUP
    verdicts = sidecar(tmp_path / "out", "features")["verdict"].to_pylist()
    assert verdicts == ["ok"] * GROUP + ["too_large"] * GROUP + ["ok"] * GROUP


def test_the_broken_first_shard_sets_no_schema(tmp_path):
    """The others are held against the first that can be read."""
    tables = corpus_of(tmp_path / "corpus")
    encrypt(tmp_path / "corpus" / "a.parquet")
    report = curate.scan(
        tmp_path / "corpus", out=tmp_path / "out", keep="true", on_error="quarantine"
    )
    assert dataset(tmp_path / "out").equals(pa.concat_tables([tables["b"], tables["c"]]))
    assert [(one.shard, one.row_group) for one in report.skipped] == [(0, None)]


def test_a_dry_run_says_what_can_be_read(tmp_path, run_here):
    corpus_of(tmp_path / "corpus")
    encrypt(tmp_path / "corpus" / "b.parquet")
    arguments = ("scan", tmp_path / "corpus", "--out", tmp_path / "out", "--dry-run", "--json")
    only_line(run_here(*arguments))
    result = run_here(*arguments, "--on-error=quarantine")
    assert result.returncode == 0
    assert json.loads(result.stdout)["rows"] == 2 * ROWS
    assert not (tmp_path / "out").exists()
