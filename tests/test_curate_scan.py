"""Whole scans of real files: features, selection and dataset against a plain Python reading."""

import json
import os
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.lexicon import load
from curate.native import reference
from examples import countdown


def shard(path: Path, traces, row_group_rows=None, **columns) -> Path:
    """A small shard with a trace column and others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = pa.array([f"{path.stem}-{n}" for n in range(len(traces))], pa.string())
    table = pa.table({"id": ids, "trace": traces} | columns)
    pq.write_table(table, path, row_group_size=row_group_rows or max(1, len(traces)))
    return path


def features(out: Path) -> pa.Table:
    files = sorted((out / ".curate" / "features").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def decisions(out: Path) -> pa.Table:
    files = sorted((out / ".curate" / "selection").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def dataset_files(out: Path) -> list[Path]:
    return sorted((out / "data").iterdir())


def dataset(out: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in dataset_files(out)])


def tree(out: Path) -> dict[str, bytes]:
    """Every file of an output but the manifest and the card, which tell of the run."""
    files = (
        p for p in out.rglob("*") if p.is_file() and p.name not in ("manifest.json", "README.md")
    )
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


@pytest.mark.parametrize("every", [97, pytest.param(1, marks=pytest.mark.soak)])
def test_real_traces_are_measured_selected_and_emitted_as_the_definitions_say(
    traces, tmp_path, every
):
    """Every so manyeth trace is measured by the reference; selection and rows are checked whole."""
    out = tmp_path / "out"
    report = curate.scan(
        traces,
        out=out,
        id="id",
        problem="problem_id",
        teacher="source",
        drop_top="0.1",
        rank_by="branch_frac",
        within=["teacher"],
    )
    lexicon = load("default")
    corpus = pq.read_table(traces).to_pylist()
    measured = features(out).to_pylist()
    assert [row["id"] for row in measured] == [row["id"] for row in corpus]
    for row, found in list(zip(corpus, measured, strict=True))[::every]:
        trace = row["trace"].encode()
        lower = trace.lower()  # a phrase that is not in the trace at all cannot be a marker of it
        patterns = [pattern for pattern in lexicon.patterns() if pattern[1] in lower]
        told = reference.measure(trace, patterns, len(lexicon.categories))
        assert found["bytes"] == len(trace)
        for name in ("steps", "branch_steps", "branch_pairs"):
            assert found[name] == told[name]
        assert [found[f"{c}_markers"] for c in lexicon.category_names] == told["markers"]
        assert [found[f"{c}_steps"] for c in lexicon.category_names] == told["category_steps"]

    by_teacher = defaultdict(list)
    for found in measured:
        if found["steps"]:
            by_teacher[found["teacher"]].append(found["branch_steps"] / found["steps"])
    highest = {}
    for teacher, values in by_teacher.items():
        places = int(Fraction("0.1") * len(values))
        left = sorted(set(values), reverse=True)
        while values.count(left[0]) <= places:
            places -= values.count(left.pop(0))
        highest[teacher] = left[0]
    kept = [
        row
        for row, found in zip(corpus, measured, strict=True)
        if not found["steps"] or found["branch_steps"] / found["steps"] <= highest[found["teacher"]]
    ]

    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == kept
    assert report.rows == len(corpus) == report.kept + sum(report.rejected.values())
    assert report.kept == len(kept)
    assert not report.quarantined


def mixed_corpus(folder: Path) -> Path:
    """Shards of many shapes: several row groups, nulls, empties, an empty shard, other columns."""
    texts = [
        "Alternatively, a\n\nb",
        "a\n\nb\n\nWait",
        "",
        None,
        "x\r\n\r\ny",
        "another way\n\n" * 5,
    ]
    for n, rows in enumerate((1, 40, 0, 7, 100)):
        traces = [texts[(n + i) % len(texts)] for i in range(rows)]
        shard(
            folder / "deep" / f"{n:02d}.parquet",
            pa.array(traces, pa.string()),
            row_group_rows=9,
            teacher=pa.array([f"t{i % 3}" for i in range(rows)], pa.string()),
            score=pa.array([i / 7 for i in range(rows)], pa.float64()),
            tags=pa.array([["a", None], None, []] * rows, pa.list_(pa.string()))[:rows],
            nested=pa.array(
                [{"x": i, "y": None} for i in range(rows)], pa.struct({"x": "int32", "y": "string"})
            ),
        )
    return folder


def test_rows_keep_their_order_and_every_value(tmp_path):
    corpus = mixed_corpus(tmp_path / "corpus")
    out = tmp_path / "out"
    curate.scan(corpus, out=out, id="id", teacher="teacher", carry=["score"], keep="steps >= 2")
    source = pa.concat_tables([pq.read_table(p) for p in sorted(corpus.rglob("*.parquet"))])
    told = [len(reference.steps((t or "").encode())) >= 2 for t in source["trace"].to_pylist()]
    assert dataset(out).equals(source.filter(pa.array(told)))
    decided = decisions(out).to_pylist()
    assert [row["kept"] for row in decided] == told
    assert [row["id"] for row in decided] == source["id"].to_pylist()
    short = {None: "missing", "": "empty"}
    assert [row["reason"] for row in decided] == [
        None if kept else short.get(trace, "keep")
        for kept, trace in zip(told, source["trace"].to_pylist(), strict=True)
    ]
    located = features(out).select(["shard", "row", "item"]).to_pylist()
    assert located == [
        {"shard": f"deep/{n:02d}.parquet", "row": row, "item": 0}
        for n, rows in enumerate((1, 40, 0, 7, 100))
        for row in range(rows)
    ]


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_output_does_not_depend_on_threads(tmp_path, threads, monkeypatch):
    # Small units and row groups, so that many threads work on one shard and one output shard.
    monkeypatch.setattr("curate.units.UNIT_BYTES", 200)
    monkeypatch.setattr("curate.sidecars.HELD_BYTES", 50)
    monkeypatch.setattr("curate.emit.ROW_GROUP_BYTES", 300)
    corpus = mixed_corpus(tmp_path / "corpus")
    outs = {}
    for name, count in (("one", 1), ("more", threads)):
        curate.scan(
            corpus,
            out=tmp_path / name,
            steps=True,
            repeats=True,
            keep="steps > 1",
            shard_bytes=900,
            threads=count,
        )
        outs[name] = tree(tmp_path / name)
    assert outs["one"] == outs["more"]
    assert len(dataset_files(tmp_path / "one")) > 2


def test_schema_and_metadata_of_the_corpus_are_untouched(tmp_path):
    schema = pa.schema(
        [
            pa.field("trace", pa.large_string(), nullable=False, metadata={"note": "field"}),
            pa.field("when", pa.timestamp("us", "UTC")),
            pa.field("kind", pa.dictionary(pa.int32(), pa.string())),
            pa.field("price", pa.decimal128(9, 2)),
        ],
        metadata={"huggingface": '{"info": {"features": {}}}', "mine": "kept"},
    )
    values = (["a", "b\n\nc"], [0, None], ["x", "x"], [None, Decimal("1.25")])
    columns = [pa.array(v, f.type) for v, f in zip(values, schema, strict=True)]
    table = pa.Table.from_arrays(columns, schema=schema)
    pq.write_table(table, tmp_path / "a.parquet")
    out = tmp_path / "out"
    curate.scan(tmp_path / "a.parquet", out=out, keep="true")
    emitted = pq.read_table(dataset_files(out)[0])
    assert emitted.schema.equals(pq.read_table(tmp_path / "a.parquet").schema, check_metadata=True)
    assert emitted.equals(pq.read_table(tmp_path / "a.parquet"))


def test_features_stand_beside_the_rows_only_on_request(tmp_path):
    path = shard(tmp_path / "a.parquet", ["Alternatively\n\nb", "c", ""])
    out = tmp_path / "out"
    curate.scan(path, out=out, keep="steps > 0", annotate=["branch_frac", "steps"])
    emitted = dataset(out)
    assert emitted.column_names == ["id", "trace", "curate_branch_frac", "curate_steps"]
    assert emitted["curate_branch_frac"].to_pylist() == [0.5, 0.0]
    assert emitted["curate_steps"].to_pylist() == [2, 1]


def test_an_annotated_dataset_of_datasets_loads(tmp_path):
    made = datasets.Dataset.from_dict({"trace": ["a\n\nb", "c"], "label": [1, 2]})
    made.to_parquet(tmp_path / "a.parquet")
    out = tmp_path / "out"
    curate.scan(tmp_path / "a.parquet", out=out, keep="true", annotate=["steps"])
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == [
        {"trace": "a\n\nb", "label": 1, "curate_steps": 2},
        {"trace": "c", "label": 2, "curate_steps": 1},
    ]


def test_output_shards_are_planned_by_bytes_and_loadable(tmp_path):
    path = shard(tmp_path / "a.parquet", ["word " * 200] * 300, row_group_rows=50)
    out = tmp_path / "out"
    curate.scan(path, out=out, keep="true", shard_bytes=100_000)
    files = dataset_files(out)
    assert [f.name for f in files] == [f"train-0000{n}-of-00004.parquet" for n in range(4)]
    rows = [pq.read_metadata(f).num_rows for f in files]
    assert sum(rows) == 300
    assert max(rows) - min(rows) <= 2
    for file in files:
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            assert metadata.row_group(group).num_rows > 0
            assert metadata.row_group(group).column(1).compression == "ZSTD"
            assert metadata.row_group(group).column(1).has_offset_index
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 300


def test_row_groups_are_48_mib_in_memory(tmp_path):
    path = shard(
        tmp_path / "a.parquet", [os.urandom(500_000).hex() for _ in range(150)], row_group_rows=40
    )
    curate.scan(path, out=tmp_path / "out", keep="true")
    metadata = pq.read_metadata(dataset_files(tmp_path / "out")[0])
    sizes = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert sizes == [50, 50, 50]


def test_nothing_kept_is_a_dataset_of_no_rows(tmp_path):
    path = shard(tmp_path / "a.parquet", ["a", "b"])
    out = tmp_path / "out"
    report = curate.scan(path, out=out, keep="steps > 9")
    assert (report.kept, report.rejected) == (0, {"keep": 2})
    (file,) = dataset_files(out)
    assert pq.read_metadata(file).num_row_groups == 0
    assert pq.read_table(file).equals(pq.read_table(path).slice(0, 0))


def test_a_scan_without_a_selection_only_measures(tmp_path):
    path = shard(tmp_path / "a.parquet", ["a", "b"])
    report = curate.scan(path, out=tmp_path / "out")
    assert (report.rows, report.kept, report.rejected) == (2, 2, {})
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".curate"]


def test_select_gives_what_a_scan_with_the_same_rule_gives(tmp_path):
    corpus = mixed_corpus(tmp_path / "corpus")
    rule = {"keep": "steps > 0", "drop_top": "0.3", "rank_by": "branch_frac", "within": ["teacher"]}
    curate.scan(corpus, out=tmp_path / "scan", id="id", teacher="teacher")
    before = tree(tmp_path / "scan")
    curate.select(tmp_path / "scan", out=tmp_path / "selected", **rule)
    curate.scan(corpus, out=tmp_path / "direct", id="id", teacher="teacher", **rule)
    direct = tree(tmp_path / "direct")
    of_scan = {k: v for k, v in direct.items() if k.split("/")[1] in ("features", "quarantine")}
    assert before == of_scan
    assert tree(tmp_path / "selected") == {k: v for k, v in direct.items() if k not in of_scan}
    assert tree(tmp_path / "scan") == before


def test_select_notices_a_changed_corpus(tmp_path):
    path = shard(tmp_path / "corpus" / "a.parquet", ["a", "b"])
    curate.scan(path, out=tmp_path / "scan")
    shard(path, ["a", "c"], extra=[1, 2])
    with pytest.raises(curate.ShardError, match=r"a\.parquet: changed since the scan"):
        curate.select(tmp_path / "scan", out=tmp_path / "out", keep="true")
    path.unlink()
    with pytest.raises(curate.ShardError, match=r"a\.parquet: no such file"):
        curate.select(tmp_path / "scan", out=tmp_path / "out", keep="true")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", [1, 40, 41, 44, 148, 1000])
def test_a_limit_takes_the_first_rows_of_the_corpus(tmp_path, limit):
    corpus = mixed_corpus(tmp_path / "corpus")
    rule = {"keep": "true", "accept": ["ok", "prefilled", "empty", "missing"]}
    report = curate.scan(corpus, out=tmp_path / "out", id="id", limit=limit, **rule)
    source = pa.concat_tables([pq.read_table(p) for p in sorted(corpus.rglob("*.parquet"))])
    assert report.rows == min(limit, source.num_rows)
    assert dataset(tmp_path / "out").equals(source.slice(0, limit))
    assert features(tmp_path / "out")["id"].to_pylist() == source["id"].to_pylist()[:limit]


def test_steps_are_what_the_reference_cuts(tmp_path):
    corpus = mixed_corpus(tmp_path / "corpus")
    curate.scan(corpus, out=tmp_path / "out", steps=True, repeats=True)
    files = sorted((tmp_path / "out" / ".curate" / "steps").glob("*.parquet"))
    found = pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
    lexicon, expected, told_unique = load("default"), [], []
    for n, path in enumerate(sorted(corpus.rglob("*.parquet"))):
        for row, trace in enumerate(pq.read_table(path)["trace"].to_pylist()):
            told = reference.measure(
                (trace or "").encode(), lexicon.patterns(), len(lexicon.categories)
            )
            told_unique.append(told["unique_steps"])
            for step, ((start, end), markers) in enumerate(
                zip(told["spans"], told["step_markers"], strict=True)
            ):
                where = {"shard": f"deep/{n:02d}.parquet", "row": row, "item": 0}
                span = {"step": step, "start": start, "end": end, "branch": markers[0] > 0}
                named = zip(lexicon.category_names, markers, strict=True)
                expected.append(where | span | {f"{name}_markers": count for name, count in named})
    assert found == expected
    unique = features(tmp_path / "out")["unique_steps"].to_pylist()
    assert unique == told_unique
    assert 1 in unique  # "another way" five times over


def test_the_steps_have_the_types_of_the_contract(tmp_path):
    corpus = mixed_corpus(tmp_path / "corpus")
    curate.scan(corpus, out=tmp_path / "out", steps=True, lexicon="paper")
    schema = pq.read_schema(next((tmp_path / "out" / ".curate" / "steps").glob("*.parquet")))
    names = [f"{name}_markers" for name in load("paper").category_names]
    assert {field.name: str(field.type) for field in schema} == {
        **{"shard": "string", "row": "int64", "item": "int32", "step": "int32"},
        **{"start": "int64", "end": "int64", "branch": "bool"},
        **dict.fromkeys(names, "int32"),
    }


def test_carried_columns_of_every_type_come_back_as_they_were(tmp_path):
    numbers = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    kinds = [*map(pa.type_for_alias, (*numbers, "float32", "float64")), pa.timestamp("us")]
    kinds += [pa.date32(), pa.decimal128(10, 2)]
    columns = {f"c{n}": pa.array([1, 0, None], kind) for n, kind in enumerate(kinds)}
    carried = pa.table(columns | {"half": pa.array(np.array([1, 0, 2], np.float16))})
    path = tmp_path / "a.parquet"
    pq.write_table(carried.append_column("trace", pa.array(["a", "b", "c"])), path)
    curate.scan(path, out=tmp_path / "out", carry=carried.column_names)
    assert features(tmp_path / "out").select(carried.column_names).equals(carried)


def test_the_manifest_tells_what_was_made_from_what(tmp_path):
    corpus = mixed_corpus(tmp_path / "corpus")
    curate.scan(corpus, out=tmp_path / "out", id="id", keep="steps > 1")
    manifest = json.loads((tmp_path / "out" / ".curate" / "manifest.json").read_text())
    assert manifest["state"] == "complete"
    assert [s["rows"] for s in manifest["shards"]] == [1, 40, 0, 7, 100]
    assert manifest["lexicon"]["hash"] == load("default").hash
    assert manifest["counts"]["rows"] == 148
    assert manifest["counts"]["kept"] == dataset(tmp_path / "out").num_rows
    assert list(manifest["data"]) == [f.name for f in dataset_files(tmp_path / "out")]


def test_a_shard_that_breaks_while_it_is_read_leaves_nothing_half_named(tmp_path):
    good = shard(tmp_path / "corpus" / "a.parquet", ["word " * 50] * 500)
    broken = shard(tmp_path / "corpus" / "b.parquet", [os.urandom(2000).hex()] * 200)
    page = pq.read_metadata(broken).row_group(0).column(1).data_page_offset
    data = bytearray(broken.read_bytes())
    data[page : page + 16] = bytes(16)  # a page's header; the footer stays whole
    broken.write_bytes(data)
    with pytest.raises(curate.ShardError, match=r"b\.parquet: cannot be read"):
        curate.scan([good, broken], out=tmp_path / "out", threads=2)
    assert not list((tmp_path / "out").rglob("*.part"))


def test_countdown_traces_are_cut_by_style(tmp_path):
    countdown.write(tmp_path / "corpus", 400, shards=2, levels=(2,), paired=True)
    out = tmp_path / "out"
    report = curate.scan(
        tmp_path / "corpus",
        out=out,
        id="id",
        problem="problem_id",
        teacher="teacher",
        correct="correct",
        drop_top="0.25",
        rank_by="branch_frac",
    )
    table = {value: cut for value, _, _, cut in report.cut.groups[0].table().iter_rows()}
    assert table["divergent"] > 0.4
    assert table["convergent"] < 0.05
    assert pq.read_schema(dataset_files(out)[0]).metadata[b"countdown"]
