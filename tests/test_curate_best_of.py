"""`--best-of` against a slow and obvious reference; the draws that break ties."""

import hashlib
from random import Random

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curate
from curate.drawing import draws
from tests.command_line import only_line, tree

INF = float("inf")
ROW = st.fixed_dictionaries(
    {
        "problem": st.sampled_from(["p", "q", "r", None]),
        "teacher": st.sampled_from(["A", "B", None]),
        "correct": st.sampled_from([True, True, False, None]),
        "rank": st.sampled_from([0.0, 0.25, 0.25, 1.0, INF, -INF, float("nan"), None]),
        "stay": st.sampled_from([True, True, True, False]),
        "trace": st.sampled_from(["a", "b", "c", "d\n\nWait", "e", ""]),
    }
)
KINDS = {"problem": pa.string(), "teacher": pa.string(), "correct": pa.bool_()}
KINDS |= {"rank": pa.float64(), "stay": pa.bool_(), "trace": pa.string()}
SHARDS = st.lists(st.lists(ROW, max_size=14), min_size=1, max_size=3).filter(any)


def write(place, shards, group_rows=3):
    place.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shards):
        schema = pa.schema(list(KINDS.items()))
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, place / f"{number}.parquet", row_group_size=group_rows)
    return place


def reasons(out):
    return pq.read_table(out / ".curate/selection")["reason"].to_pylist()


# The draws, from the definition: SplitMix64 of row and item, started from a hash.

ALL = (1 << 64) - 1


def drawn(seed, shard, row, item=0):
    state = int.from_bytes(hashlib.sha256(f"{seed}:{shard}".encode()).digest()[:8], "little")
    for part in (row, item):
        state = (state + part + 0x9E3779B97F4A7C15) & ALL
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & ALL
        state = (state ^ state >> 27) * 0x94D049BB133111EB & ALL
        state ^= state >> 31
    return state


ROWS = st.lists(st.tuples(st.integers(0, 1 << 62), st.integers(0, 1 << 30)), max_size=20)


@given(st.integers(-(1 << 70), 1 << 70), st.text(max_size=5), ROWS, st.integers(0, 20))
def test_draws_are_as_defined_and_alike_in_any_chunks(seed, shard, places, cut):
    rows = np.array([row for row, _ in places], np.int64)
    items = np.array([item for _, item in places], np.int32)
    found = draws(seed, shard, rows, items)
    assert found.dtype == np.uint64
    assert found.tolist() == [drawn(seed, shard, *place) for place in places]
    parts = [draws(seed, shard, rows[part], items[part]) for part in (slice(cut), slice(cut, None))]
    assert np.concatenate(parts).tolist() == found.tolist()


def test_draws_are_about_uniform_and_change_with_seed_shard_row_and_item():
    rows, items = np.arange(100_000), np.zeros(100_000, np.int32)
    of = [draws(0, "s", rows, items), draws(1, "s", rows, items), draws(0, "t", rows, items)]
    of.append(draws(0, "s", rows, items + 1))
    for found in of:
        counts = np.bincount((found >> np.uint64(56)).astype(int), minlength=256)
        squares = ((counts - 390.625) ** 2 / 390.625).sum()
        assert 150 < squares < 400  # chi squared of 255 degrees: mean 255, deviation 23
        bits = np.unpackbits(found.view(np.uint8)).mean()
        assert abs(bits - 0.5) < 0.001
    for n, one in enumerate(of):
        for other in of[n + 1 :]:
            assert not (one == other).any()
            assert abs(np.corrcoef(one.astype(float), other.astype(float))[0, 1]) < 0.02


# The rule.


def expected(shards, best_of, within, *, known, dedup, seed):
    """The reason of each row, told by going through all of them again for each rule."""
    rows = [
        (row, drawn(seed, f"{number}.parquet", at))
        for number, shard in enumerate(shards)
        for at, row in enumerate(shard)
    ]
    reasons, seen, groups = [], set(), {}
    for row, draw in rows:
        reason = None
        if not row["trace"]:
            reason = "empty"
        elif not row["stay"]:
            reason = "keep"
        elif known and not row["correct"]:
            reason = "not_correct"
        elif dedup and row["trace"] in seen:
            reason = "duplicate"
        else:
            seen.add(row["trace"])
            key = tuple(row[name] for name in within)
            if None not in key:
                rank = row["rank"]
                last = rank is None or rank != rank
                groups.setdefault(key, []).append((last, 0 if last else rank, draw, len(reasons)))
        reasons.append(reason)
    for group in groups.values():
        for *_, place in sorted(group)[best_of:]:
            reasons[place] = "best_of"
    return reasons


@settings(max_examples=40)
@given(
    shards=SHARDS,
    best_of=st.integers(1, 4),
    within=st.sampled_from([("problem",), ("teacher",), ("problem", "teacher")]),
    known=st.booleans(),
    dedup=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
    threads=st.sampled_from([1, 3]),
)
def test_the_rule_is_its_reference(
    tmp_path_factory, shards, best_of, within, known, dedup, seed, threads
):
    place = tmp_path_factory.mktemp("best")
    columns = {"column": "trace", "problem": "problem", "teacher": "teacher"}
    columns |= {"carry": ["rank", "stay"], "correct": "correct" if known else None}
    rule = dict(best_of=best_of, rank_by="rank", within=within, keep="stay", dedup=dedup)
    corpus = write(place / "c", shards)
    report = curate.scan(corpus, out=place / "out", threads=threads, seed=seed, **columns, **rule)
    found = reasons(place / "out")
    names = [f"{number}.parquet" for number in range(len(shards))]
    told = pq.read_table(place / "out/.curate/selection")["shard"].to_pylist()
    assert told == [name for name, rows in zip(names, shards, strict=True) for _ in rows]
    given = dict(known=known, dedup=dedup, seed=seed)
    assert found == expected(shards, best_of, within, **given)
    counts = {reason: found.count(reason) for reason in {*found} - {None}}
    assert report.rejected == counts
    assert report.kept == found.count(None) == pq.read_table(place / "out/data").num_rows
    strata = pl.read_parquet(place / "out/.curate/strata.parquet")
    assert strata["dropped"].sum() == counts.get("best_of", 0)


@pytest.mark.parametrize("seed", range(4))
def test_the_rule_is_its_reference_when_few_rows_are_held(tmp_path, monkeypatch, seed):
    monkeypatch.setattr("curate.thresholds.COMPACT_ROWS", 5)
    monkeypatch.setattr("curate.featurefiles.CHUNK_ROWS", 7)
    monkeypatch.setattr("curate.featurefiles.TEXT_ROWS", 7)
    random = Random(seed)

    def row():
        told = dict(problem=random.choice("pqrstuvw"), teacher="A", trace=f"t{random.random():.2f}")
        return told | dict(correct=random.random() < 0.8, rank=random.randrange(3), stay=True)

    shards = [[row() for _ in range(random.randrange(1, 90))] for _ in range(3)]
    columns = dict(column="trace", problem="problem", correct="correct", carry=["rank"])
    rule = dict(best_of=3, rank_by="rank", within=("problem",), dedup=True, seed=seed)
    curate.scan(write(tmp_path / "c", shards), out=tmp_path / "out", **columns, **rule)
    told = expected(shards, 3, ("problem",), known=True, dedup=True, seed=seed)
    assert reasons(tmp_path / "out") == told
    assert told.count("best_of") > 3


def test_without_a_rank_is_behind_any_rank(tmp_path):
    told = dict(problem="p", teacher="A", correct=True, stay=True, trace="a")
    rows = [told | {"rank": rank} for rank in [None, float("nan"), INF] * 8]
    columns = dict(problem="problem", carry="rank")
    rule = dict(best_of=8, rank_by="rank", within="problem")
    curate.scan(write(tmp_path / "c", [rows]), out=tmp_path / "out", **columns, **rule)
    assert reasons(tmp_path / "out") == ["best_of", "best_of", None] * 8


def test_by_branching_within_problems(tmp_path):
    traces = ["a\n\nb", "a\n\nAlternatively, b", "Alternatively, a\n\nAlternatively, b", ""]
    shard = {"trace": traces * 2, "problem": ["p"] * 4 + ["q"] * 4, "ok": [True] * 5 + [False] * 3}
    (tmp_path / "c").mkdir()
    pq.write_table(pa.table(shard), tmp_path / "c/0.parquet")
    rule = dict(best_of=1, rank_by="branch_frac", within="problem", accept=["ok", "empty"])
    curate.scan(tmp_path / "c", out=tmp_path / "a", problem="problem", **rule)
    assert reasons(tmp_path / "a") == [None, *["best_of"] * 3] * 2
    curate.scan(tmp_path / "c", out=tmp_path / "b", problem="problem", correct="ok", **rule)
    told = [None, *["best_of"] * 3, None, *["not_correct"] * 3]
    assert reasons(tmp_path / "b") == told
    more = dict(correct="ok", **rule | {"best_of": 9})
    curate.scan(tmp_path / "c", out=tmp_path / "d", problem="problem", **more)
    assert reasons(tmp_path / "d") == [None] * 5 + ["not_correct"] * 3


def test_ties_hang_on_the_seed_alone(tmp_path):
    rows = [dict(problem="p", teacher="A", correct=True, rank=0, stay=True, trace="a")] * 50
    corpus = write(tmp_path / "c", [rows] * 2)
    told = dict(problem="problem", correct="correct", best_of=5, rank_by="steps", within="problem")
    for name, more in {"0": {}, "1": {"seed": 1}, "again": {"threads": 4}}.items():
        curate.scan(corpus, out=tmp_path / name, **told, **more)
    assert tree(tmp_path / "0/data") == tree(tmp_path / "again/data")
    assert reasons(tmp_path / "0") != reasons(tmp_path / "1")
    curate.select(
        tmp_path / "1",
        out=tmp_path / "selected",
        seed=0,
        **{name: told[name] for name in ("best_of", "rank_by", "within")},
    )
    assert reasons(tmp_path / "selected") == reasons(tmp_path / "0")


RANKED = ["--best-of", "1", "--rank-by", "steps"]

REFUSED = {
    "with a cut": ([*RANKED, "--within", "problem", "--drop-top", "0.1"], "without --drop-top"),
    "within nothing": (RANKED, "expected --within"),
    "by nothing": (["--best-of", "1", "--within", "problem"], "expected --rank-by"),
    "ranked without": (["--keep", "true", "--rank-by", "steps"], "--rank-by: expected together"),
    "by a text": (["--best-of", "1", "--rank-by", "id", "--within", "problem"], "is not a number"),
    "within what is not there": ([*RANKED, "--within", "nobody"], "nobody"),
    "not known to be correct": (
        [*RANKED, "--within", "problem", "--correct", "teacher"],
        "`correct` is not true or false",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_contradicts_itself_is_one_line(tmp_path, run_here, what):
    options, told = REFUSED[what]
    rows = [dict(problem="p", teacher="A", correct=True, rank=0, stay=True, trace="a")]
    columns = ["--problem", "problem", "--id", "teacher"]
    corpus = write(tmp_path / "c", [rows])
    line = only_line(run_here("scan", corpus, "--out", tmp_path / "o", *columns, *options))
    assert told in line
    assert not (tmp_path / "o").exists()


def test_none_is_no_number_of_best(tmp_path, run_here):
    corpus = write(tmp_path / "c", [[]])
    options = ["--best-of", "0", "--rank-by", "steps", "--within", "problem"]
    assert run_here("scan", corpus, "--out", tmp_path / "o", *options).returncode == 2


@pytest.mark.parametrize("name", ["draw_threshold", "threshold", "rows", "key0", "rank", "draw"])
def test_strata_of_any_name(tmp_path, run_here, name):
    """Or it is said in a line that it cannot be."""
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"trace": ["a", "b", "c"], name: [1, 1, 2]}), path)
    options = [*RANKED, "--within", name, "--carry", name]
    result = run_here("scan", path, "--out", tmp_path / "o", *options)
    if result.returncode:
        assert f"`{name}`" in only_line(result)
        return
    found = reasons(tmp_path / "o")
    assert (found.count("best_of"), found.count(None), found[2]) == (1, 2, None)
