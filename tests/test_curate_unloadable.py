"""
What is emitted loads: none of the five ways to make a folder that does not load is taken.

tests/test_trainers_load.py shows that each of them does break loading.
"""

import json
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.emit import ROW_GROUP_BYTES
from curate.errors import CurateError
from tests.command_line import tree
from tests.interruptions import end_all, forked
from tests.test_curate_formats import FORMATS, corpus

ALL_FORMATS = ["original", *FORMATS]
TOLD = dict(preset="think", problem="q")


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch, tmp_path):
    """No cache of another test's data, nothing asked of the Hub, and no run goes on."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    yield
    end_all()


def load(out):
    """The dataset; one without rows as a stream, as `datasets` loads none otherwise (5.2)."""
    from datasets import load_dataset

    rows = sum(rows for rows, _ in groups(out))
    return load_dataset(str(out), split="train") if rows else streamed(out)


def streamed(out):
    from datasets import Dataset, load_dataset

    stream = load_dataset(str(out), split="train", streaming=True)
    names = pq.read_schema(next((out / "data").iterdir())).names
    return Dataset.from_dict({name: [row[name] for row in stream] for name in names})


def groups(out):
    """Rows and uncompressed bytes of each row group of a dataset."""
    found = []
    for path in sorted((out / "data").iterdir()):
        metadata = pq.read_metadata(path)
        each = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        found += [(group.num_rows, group.total_byte_size) for group in each]
    return found


def rows_of(count, first=0, size=1):
    numbers = range(first, first + count)
    thought = "step\n\n" * size
    texts = [f"<think>{thought}{n}</think>{n}" for n in numbers]
    return {"response": texts, "q": [f"q{n}" for n in numbers], "n": list(numbers)}


# No row group without rows.

KEPT = {
    "nothing": ("n < 0", 0),
    "one": ("n = 17", 1),
    "a shard": ("n >= 10 AND n < 20", 10),
    "the last": ("n = 29", 1),
    "the last of each": ("n % 10 = 9", 3),
}


@pytest.mark.parametrize("form", ALL_FORMATS)
@pytest.mark.parametrize("what", KEPT)
def test_no_row_group_is_empty(tmp_path, form, what):
    for shard in range(3):
        corpus(tmp_path / f"c/{shard}.parquet", rows_of(10, 10 * shard), group_rows=3)
    keep, count = KEPT[what]
    told = dict(carry="n", keep=keep, format=form, shard_bytes=40, annotate=["steps"])
    curate.scan(tmp_path / "c", out=tmp_path / "out", **TOLD, **told)
    assert 0 not in [rows for rows, _ in groups(tmp_path / "out")]
    loaded = load(tmp_path / "out")
    assert len(loaded) == count
    assert loaded.column_names == pq.read_schema(next((tmp_path / "out/data").iterdir())).names


@pytest.mark.parametrize("form", ALL_FORMATS)
def test_a_corpus_without_rows_loads(tmp_path, form):
    columns = {name: pa.array([], pa.string()) for name in ("response", "q")}
    corpus(tmp_path / "c/0.parquet", columns)
    curate.scan(tmp_path / "c", out=tmp_path / "out", **TOLD, keep="true", format=form)
    assert groups(tmp_path / "out") == []
    assert len(load(tmp_path / "out")) == 0


# No file of another kind.

MOMENTS = [
    ("os.mkdir .curate/data", 1),
    ("os.rename .curate/data/", 1),
    ("os.rename .curate/data/", 3),
    ("os.rename .curate/data data", 1),
    ("open data", 1),
    ("os.rename .curate/.manifest.json.part", 2),
    ("os.rename .README.md.part", 1),
]


def test_the_data_of_a_killed_run_is_not_there_or_whole(tmp_path):
    for shard in range(3):
        corpus(tmp_path / f"c/{shard}.parquet", rows_of(10, 10 * shard), group_rows=3)
    options = ["--preset", "think", "--problem", "q", "--keep", "true", "--format", "messages"]
    scan = ["scan", tmp_path / "c", *options, "--shard-size", 200]
    for number, (before, nth) in enumerate(MOMENTS):
        out = tmp_path / f"out{number}"
        killed = forked(tmp_path / "log", *scan, "--out", out, before=before, nth=nth)
        assert killed.returncode == -signal.SIGKILL, (before, killed.stderr)
        assert (out / "data").exists() == (number > 3)
        if number > 3:
            assert len(load(out)) == 30
            names = [path.name for path in sorted((out / "data").iterdir())]
            assert names == [
                f"train-{n:05d}-of-{len(names):05d}.parquet" for n in range(len(names))
            ]


# No column that other shards lack.


@pytest.mark.parametrize("form", ALL_FORMATS)
def test_annotated_shards_have_the_same_columns(tmp_path, form):
    for shard in range(3):
        corpus(tmp_path / f"c/{shard}.parquet", rows_of(10, 10 * shard), group_rows=3)
    features = ["steps", "first_branch", "unique_steps", "id", "verdict"]
    told = dict(carry="n", keep="n <> 15", annotate=features, shard_bytes=100, format=form)
    curate.scan(tmp_path / "c", out=tmp_path / "out", **TOLD, **told)
    files = sorted((tmp_path / "out/data").iterdir())
    assert len(files) > 3
    assert len({pq.read_schema(file).to_string() for file in files}) == 1
    assert load(tmp_path / "out").column_names[-5:] == [f"curate_{name}" for name in features]


def test_shards_of_other_columns_are_refused(tmp_path):
    corpus(tmp_path / "c/0.parquet", rows_of(3))
    corpus(tmp_path / "c/1.parquet", {**rows_of(3), "more": [1, 2, 3]})
    with pytest.raises(CurateError, match=r"1\.parquet.*more"):
        curate.scan(tmp_path / "c", out=tmp_path / "out", **TOLD, keep="true")
    assert not (tmp_path / "out").exists()


# No column that is of no type in one shard and of some in another.


@pytest.mark.parametrize("form", ALL_FORMATS)
@pytest.mark.parametrize("nulls", ["in one shard", "in all"])
def test_columns_of_nulls_load(tmp_path, form, nulls):
    """Typed null by the corpus; where the shards differ, they are refused."""
    more = pa.nulls(4) if nulls == "in all" else pa.array(["x"] * 4)
    nested = pa.array([{"a": None}] * 4)
    assert pa.types.is_null(nested.type.field(0).type)
    corpus(tmp_path / "c/0.parquet", rows_of(4) | {"v": pa.nulls(4), "s": nested})
    corpus(tmp_path / "c/1.parquet", rows_of(4, 4) | {"v": more, "s": nested})
    told = dict(keep="true", format=form, shard_bytes=100)
    if nulls == "in one shard":
        with pytest.raises(CurateError, match="`v`"):
            curate.scan(tmp_path / "c", out=tmp_path / "out", **TOLD, **told)
        return
    curate.scan(tmp_path / "c", out=tmp_path / "out", **TOLD, **told)
    loaded = load(tmp_path / "out")
    assert loaded["v"][:] == [None] * 8
    assert len(loaded) == 8


@pytest.mark.parametrize("form", FORMATS)
def test_a_system_of_nulls_is_left_out_of_conversations(tmp_path, form):
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "<think>a</think>4"}]
    columns = {"system": pa.array([None] * 4, pa.string()), "conversations": [talk] * 4}
    corpus(tmp_path / "c/0.parquet", columns)
    told = dict(preset="sharegpt", keep="true", format=form, shard_bytes=60)
    curate.scan(tmp_path / "c", out=tmp_path / "out", **told)
    loaded = load(tmp_path / "out")
    assert len(loaded) == 4
    named = "system" if form == "prompt-completion" else "source_system"
    assert loaded[named][:] == [None] * 4
    assert "null" not in str(loaded.features)


@pytest.mark.parametrize("form", ALL_FORMATS)
def test_json_lines_with_a_field_of_nulls_load(tmp_path, form):
    rows = [{"response": "<think>a</think>4", "q": "q", "v": None, "n": n} for n in range(6)]
    (tmp_path / "c").mkdir()
    for shard in range(2):
        lines = (json.dumps(row) + "\n" for row in rows[3 * shard : 3 * shard + 3])
        (tmp_path / f"c/{shard}.jsonl").write_text("".join(lines))
    told = dict(keep="true", format=form, shard_bytes=60)
    curate.scan(tmp_path / "c", out=tmp_path / "out", **TOLD, **told)
    loaded = load(tmp_path / "out")
    assert len(loaded) == 6
    assert "null" not in [
        str(feature.dtype) for feature in loaded.features.values() if hasattr(feature, "dtype")
    ]


# No row group that is too large.


@pytest.mark.parametrize("form", ["messages", "prompt-completion"])
def test_row_groups_of_nested_text_are_bounded(tmp_path, form):
    columns = rows_of(160, size=1 << 17)
    size = sum(map(len, columns["response"]))
    assert size > 2 * ROW_GROUP_BYTES
    corpus(tmp_path / "c/0.parquet", columns, group_rows=160)
    curate.scan(tmp_path / "c", out=tmp_path / "out", **TOLD, keep="true", format=form)
    found = groups(tmp_path / "out")
    assert sum(rows for rows, _ in found) == 160
    assert len(found) >= 3
    assert max(size for _, size in found) <= ROW_GROUP_BYTES
    assert len(load(tmp_path / "out")) == 160


def test_neither_rows_nor_elements_grow_a_row_group(tmp_path):
    """A row group may have many rows: it is bytes that are bounded."""
    texts = [["<think>" + "x" * 1000 + "</think>4"] * 40] * 100
    corpus(tmp_path / "c/0.parquet", {"problem": ["q"] * 100, "generations": texts})
    told = dict(
        preset="openr1",
        keep="true",
        format="messages",
    )
    curate.scan(tmp_path / "c", out=tmp_path / "out", **told)
    assert [rows for rows, _ in groups(tmp_path / "out")] == [4000]
    assert len(tree(tmp_path / "out/data")) == 1
