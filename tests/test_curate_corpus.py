"""Which files a corpus is, in which order, under which names."""

import json
import os
import re
import subprocess
import sys
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from curate.corpus import find_corpus, reopen
from curate.errors import ShardError


@pytest.fixture
def lay(tmp_path):
    """Make files; those that end in .parquet hold one trace, the others a line."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".parquet"):
                pq.write_table(pa.table({"trace": [name]}), path)
            else:
                path.write_text("not a shard\n")
        return tmp_path

    return make


def names(*corpora, split=None):
    """The names of the shards of corpora."""
    return [shard.name for shard in find_corpus([str(c) for c in corpora], split=split).shards]


def refusal(*corpora, split=None):
    """The message with which corpora are refused."""
    with pytest.raises(ShardError) as caught:
        find_corpus([str(corpus) for corpus in corpora], split=split)
    return str(caught.value)


def test_a_file_is_a_shard_whatever_its_name(lay):
    place = lay("traces.bin", "a.parquet")
    (shard,) = find_corpus([str(place / "traces.bin")]).shards
    assert (shard.name, shard.path) == ("traces.bin", str(place / "traces.bin"))
    assert shard.size == len("not a shard\n")
    assert names(place / "a.parquet") == ["a.parquet"]


def test_a_folder_is_read_recursively_in_the_order_of_bytes(lay):
    place = lay(
        "b.parquet", "a/z.parquet", "a-b.parquet", "B.parquet", "é.parquet", "a/é/c.parquet"
    )
    expected = [
        "B.parquet",
        "a-b.parquet",
        "a/z.parquet",
        "a/é/c.parquet",
        "b.parquet",
        "é.parquet",
    ]
    assert expected == sorted(expected, key=os.fsencode)
    assert names(place) == expected
    assert names(f"{place}/") == expected


def test_names_that_begin_with_a_dot_are_skipped_in_a_folder(lay):
    place = lay("a.parquet", ".b.parquet", ".git/c.parquet", "d/.e/f.parquet", "d/g.parquet")
    assert names(place) == ["a.parquet", "d/g.parquet"]
    assert names(place / ".git") == ["c.parquet"]
    assert names(place / ".b.parquet") == [".b.parquet"]
    assert names(f"{place}/**/*.parquet") == ["a.parquet", "d/g.parquet"]


def test_other_files_of_a_folder_are_counted(lay):
    place = lay("a.parquet", "README.md", "sub/notes.txt", ".hidden", "b.PARQUET", "c.parquet.tmp")
    found = find_corpus([str(place)])
    assert [shard.name for shard in found.shards] == ["a.parquet"]
    assert found.other_files == 4


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.parquet", ["a.parquet", "b.parquet"]),
        ("?.parquet", ["a.parquet", "b.parquet"]),
        ("[b-z].parquet", ["b.parquet"]),
        ("[!a].parquet", ["b.parquet"]),
        ("x/*", ["a.parquet", "cc.parquet"]),
        ("*/a.parquet", ["x/a.parquet"]),
        ("**/a.parquet", ["a.parquet", "x/a.parquet", "x/y/a.parquet"]),
        ("**/[ab].parquet", ["a.parquet", "b.parquet", "x/a.parquet", "x/y/a.parquet"]),
        ("x/**", ["a.parquet", "cc.parquet", "y/a.parquet"]),
        ("x/**/a.parquet", ["a.parquet", "y/a.parquet"]),
        ("**/y/*", ["x/y/a.parquet"]),
    ],
)
def test_a_glob_matches_part_by_part(lay, pattern, expected):
    place = lay("a.parquet", "b.parquet", "x/a.parquet", "x/cc.parquet", "x/y/a.parquet", "x/n.md")
    assert names(place / pattern) == expected


def test_a_path_that_exists_is_no_glob(lay):
    place = lay("part[1].parquet", "part1.parquet", "run[2]/x.parquet", "odd*.parquet")
    assert names(place / "part[1].parquet") == ["part[1].parquet"]
    assert names(place / "run[2]") == ["x.parquet"]
    assert names(place / "odd*.parquet") == ["odd*.parquet"]
    assert names(place / "part[[]1].parquet") == ["part[1].parquet"]


def test_corpora_stand_in_the_order_given_and_are_named_from_their_common_parent(lay):
    place = lay("old/b.parquet", "old/a.parquet", "new/deep/c.parquet", "one.parquet")
    assert names(place / "old", place / "new") == [
        "old/a.parquet",
        "old/b.parquet",
        "new/deep/c.parquet",
    ]
    assert names(place / "new/deep", place / "one.parquet", place / "old/b.parquet") == [
        "new/deep/c.parquet",
        "one.parquet",
        "old/b.parquet",
    ]
    assert names(place / "old/b.parquet", place / "old/a.parquet") == ["b.parquet", "a.parquet"]


def test_a_relative_path_is_found_again_from_elsewhere(lay, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(lay("sub/a.parquet"))
    (shard,) = find_corpus(["sub"]).shards
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert reopen(shard.name, shard.path) == shard


def test_a_shard_that_is_gone_is_named(lay):
    place = lay("a.parquet")
    (shard,) = find_corpus([str(place)]).shards
    os.unlink(shard.path)
    with pytest.raises(
        ShardError, match=r"a\.parquet: no such file; it was there when it was scan"
    ):
        reopen(shard.name, shard.path)


def test_a_local_name_may_hold_a_question_mark(lay):
    place = lay("why?.parquet")
    (shard,) = find_corpus([str(place)]).shards
    assert reopen(shard.name, shard.path) == shard


def test_a_shard_given_twice_is_refused(lay):
    place = lay("a.parquet", "b.parquet")
    twice = f"{place}/a.parquet: given twice"
    assert refusal(place / "a.parquet", place / "a.parquet") == twice
    assert refusal(place, place / "a.parquet") == twice
    assert refusal(place / "*.parquet", f"{place}/../{place.name}/a.parquet") == twice


def test_a_shard_given_twice_is_refused_also_as_a_url(lay):
    place = lay("a.parquet")
    assert "given twice" in refusal(place / "a.parquet", f"file://{place}/a.parquet")


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("missing", "missing: no such file or folder"),
        ("missing/deep.parquet", "missing/deep.parquet: no such file or folder"),
        ("empty", "empty: expected .parquet or .jsonl files, found 0 files"),
        ("others", "others: expected .parquet or .jsonl files, found 2 files"),
        ("other", "other: expected .parquet or .jsonl files, found 1 file"),
        ("*.json", "*.json: expected .parquet or .jsonl files, found 0 files"),
        ("gone/*.parquet", "gone/*.parquet: expected .parquet or .jsonl files, found 0 files"),
    ],
)
def test_a_corpus_without_shards_is_refused(lay, corpus, message):
    place = lay("others/a.json", "others/b.csv", "other/a.json")
    (place / "empty").mkdir()
    assert refusal(place / corpus) == f"{place}/{message}"


def test_a_scheme_that_nobody_knows_is_refused():
    assert refusal("nope://bucket/x").startswith("nope://bucket/x: cannot be listed: ")


def test_links_to_files_and_folders_are_followed(lay, tmp_path_factory):
    place, real = lay("a.parquet"), tmp_path_factory.mktemp("real")
    pq.write_table(pa.table({"trace": ["x"]}), real / "x.parquet")
    (place / "b.parquet").symlink_to(real / "x.parquet")
    (place / "sub").symlink_to(real)
    assert names(place) == ["a.parquet", "b.parquet", "sub/x.parquet"]


def test_a_link_to_nothing_is_not_passed_over(lay):
    place = lay("a.parquet")
    (place / "b.parquet").symlink_to(place / "nothing")
    assert "b.parquet" in refusal(place)


TRAIN_AND_TEST = ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (TRAIN_AND_TEST, "test (1 file), train (1 file)"),
        (["train.parquet", "test.parquet"], "test (1 file), train (1 file)"),
        (["data/training_0.parquet", "data/eval_0.parquet"], "test (1 file), train (1 file)"),
        (["train/a.parquet", "val/b.parquet"], "train (1 file), validation (1 file)"),
        (
            ["train/a.parquet", "valid/b.parquet", "dev.parquet", "validation-1.parquet"],
            "train (1 file), validation (3 files)",
        ),
        (["train/a/b/c.parquet", "testing/x.parquet"], "test (1 file), train (1 file)"),
        (["en-00000-of-00001.parquet", "zh-00000-of-00001.parquet"], "en (1 file), zh (1 file)"),
        (["train-a.parquet", "evaluation.x.parquet", "b.parquet"], "test (1 file), train (1 file)"),
    ],
)
def test_a_folder_of_several_splits_asks_which(lay, files, found):
    place = lay(*files)
    expected = f"{place}: holds several splits: {found}; choose with --split"
    assert refusal(place) == expected
    assert refusal(f"{place}/**") == f"{place}/**{expected.removeprefix(str(place))}"


@pytest.mark.parametrize(
    "files",
    [
        ["trainer.parquet", "latest.parquet", "test.parquet"],
        ["tested.parquet", "valuable.parquet", "device/a.parquet", "train.parquet"],
        ["attestation/a.parquet", "contest.parquet", "evaluate.parquet"],
        ["a.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["val/a.parquet", "dev/b.parquet", "validation.parquet"],
    ],
)
def test_one_split_or_none_is_read_whole(lay, files):
    assert sorted(names(lay(*files))) == sorted(files)


@pytest.mark.parametrize(
    "files",
    [
        ["gsm_train.parquet", "gsm_test.parquet"],
        ["math.train.parquet", "math.test.parquet"],
        ["2024-train/a.parquet", "2024-test/a.parquet"],
        ["train0.parquet", "test0.parquet"],
    ],
)
def test_a_split_is_seen_wherever_the_hugging_face_loaders_see_it(lay, files):
    assert "holds several splits: test (1 file), train (1 file)" in refusal(lay(*files))


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", ["train/a.parquet", "train/b.parquet"]),
        ("training", ["train/a.parquet", "train/b.parquet"]),
        ("validation", ["dev-1.parquet", "val/c.parquet"]),
        ("dev", ["dev-1.parquet", "val/c.parquet"]),
        ("test", ["eval.parquet"]),
        ("en", ["en-00000-of-00002.parquet", "en-00001-of-00002.parquet"]),
    ],
)
def test_a_split_is_chosen_by_its_name_or_another_word_for_it(lay, split, expected):
    place = lay(
        "train/a.parquet",
        "train/b.parquet",
        "val/c.parquet",
        "dev-1.parquet",
        "eval.parquet",
        "en-00000-of-00002.parquet",
        "en-00001-of-00002.parquet",
        "notes.parquet",
    )
    assert names(place, split=split) == expected


def test_a_split_that_is_absent_is_refused_with_those_there(lay):
    place = lay("train/a.parquet", "dev/b.parquet", "c.parquet")
    assert refusal(place, split="test") == (
        f"{place}: no files of split `test`, found train, validation"
    )
    assert refusal(place / "train", split="train").endswith(
        "no files of split `train`, found no named split"
    )


def test_files_given_one_by_one_have_no_splits(lay):
    place = lay(*TRAIN_AND_TEST)
    assert names(*(place / name for name in TRAIN_AND_TEST)) == TRAIN_AND_TEST
    assert names(*(place / name for name in TRAIN_AND_TEST), split="train") == TRAIN_AND_TEST


@pytest.mark.parametrize("name", ["a.parquet", "a b.parquet", "50%.parquet", "é.parquet", "c:d#1"])
def test_a_file_url_is_read_and_found_again(lay, name):
    place = lay(f"sub/{name}")
    for given in (f"{place}/sub/{name}", f"{place}/sub"):
        if given.endswith("/sub") and not name.endswith(".parquet"):
            continue
        (shard,) = find_corpus([f"file://{quote(given)}"]).shards
        assert shard.name == name
        assert shard.path == f"file://{place}/sub/{name}"
        assert reopen(shard.name, shard.path) == shard


# Against a real server on this machine, as only one shows what pyarrow makes of a URL.


@pytest.fixture(scope="module")
def bucket():
    """What follows the `?` of a URL into the bucket `traces`; its access key is `key`, `secret`."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "{}:{}".format(*server.get_host_and_port())
    filesystem = pafs.S3FileSystem(
        access_key="key",
        secret_key="secret",
        scheme="http",
        endpoint_override=endpoint,
        allow_bucket_creation=True,
    )
    filesystem.create_dir("traces")
    for name in ("train/1.parquet", "train/0.parquet", "other/x y.parquet"):
        table = pa.table({"id": [f"{name}:{n}" for n in range(3)], "trace": ["a\n\nWait, b"] * 3})
        with filesystem.open_output_stream(f"traces/deep/{name}") as sink:
            pq.write_table(table, sink)
    yield f"scheme=http&endpoint_override={endpoint}"
    server.stop()


def curate(*arguments, **environment):
    """Run the command line in a process of its own; what it printed."""
    command = [sys.executable, "-m", "curate", *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(command, capture_output=True, text=True, env=clean | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def test_a_scan_of_s3_is_selected_and_shown_from_its_manifest(bucket, tmp_path):
    url, scan, out = f"s3://traces/deep?{bucket}", tmp_path / "scan", tmp_path / "out"
    curate("scan", url, "--id", "id", "--out", scan, **KEYS)
    manifest = json.loads((scan / ".curate/manifest.json").read_text())
    assert [shard["name"] for shard in manifest["shards"]] == [
        "other/x y.parquet",
        "train/0.parquet",
        "train/1.parquet",
    ]
    assert manifest["shards"][1]["path"] == f"s3://traces/deep/train/0.parquet?{bucket}"
    curate("select", scan, "--keep", "shard LIKE 'train/%'", "--out", out, **KEYS)
    kept = pq.read_table(out / "data/train-00000-of-00001.parquet")["id"].to_pylist()
    assert kept == [f"train/{file}.parquet:{n}" for file in "01" for n in range(3)]
    shown = curate("show", out, "train/1.parquet:2", **KEYS)
    assert shown.startswith("train/1.parquet:2\nid: train/1.parquet:2\n")
    assert "   1   Wait, b\n" in shown


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("deep/train/1.parquet", ["1.parquet"]),
        ("deep/train/*.parquet", ["0.parquet", "1.parquet"]),
        ("deep/**/[ax]*.parquet", ["other/x y.parquet"]),
    ],
)
def test_a_url_may_hold_its_keys_and_a_glob(bucket, path, expected):
    path = quote(path, safe="/*")
    assert names(f"s3://key:secret@traces/{path}?{bucket}") == expected


def test_the_keys_of_a_url_are_not_written_down(bucket, tmp_path):
    out = tmp_path / "out"
    curate("scan", f"s3://key:secret@traces/deep?{bucket}", "--out", out)
    holding = [p.name for p in out.rglob("*") if p.is_file() and b"key:secret" in p.read_bytes()]
    assert holding == []


def test_the_keys_of_a_url_are_in_no_message(bucket):
    assert "secret" not in refusal(f"s3://key:secret@traces/nothing?{bucket}")


def test_what_is_not_there_is_named(bucket):
    assert re.search(
        r"traces/nothing\?\S+: no such file", refusal(f"s3://key:secret@traces/nothing?{bucket}")
    )


def test_local_and_remote_corpora_can_be_read_together(bucket, lay):
    place = lay("a.parquet")
    remote = f"s3://key:secret@traces/deep/train?{bucket}"
    assert len(names(place, remote)) == 3
