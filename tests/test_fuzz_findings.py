"""Inputs that fuzzing found, each given to its target again."""

import json
import tracemalloc
from dataclasses import replace
from functools import cache

import pyarrow as pa
import pytest

from curate import lexicon
from curate.errors import LexiconError, ShardError
from curate.pages import read_pages
from curate.rawfooter import read_footer
from tests.fuzzing import TARGETS, shard_of, write_parquet


def finding(target, change, reason):
    """A row of the table below."""
    return pytest.param(target, change, id=f"{target}: {reason}")


def bytes_of(data):
    """An input that has nothing of the seeds."""
    return lambda seeds: data


def with_value(path, value):
    """The first seed, which is JSON, with another value at a place."""

    def change(seeds):
        document = json.loads(seeds[0])
        *above, last = path.split(".")
        held = document
        for key in above:
            held = held[key]
        held[last] = value
        return json.dumps(document).encode()

    return change


SKIPPED = {"stage": "emit", "row_group": 0, "first_row": 0, "rows": 1, "reason": "x", "detail": "x"}
LISTS = b"\x19" * 3000
HUGE = b"\x80" * 9 + b"\1"  # 2^62 as a number of Thrift
LARGE = b"\x15\x80\x80\x80\2\x15\x10"  # 2 MiB in 8 bytes
DIGITS = b"0" * 4000


def line(told):
    """A journal of one line."""
    return bytes_of(json.dumps(told).encode() + b"\n")


FINDINGS = [
    finding("thrift", bytes_of(LISTS), "lists in lists without end"),
    finding("thrift", bytes_of(b"\x1b" + b"\x01\xbb" * 3000), "maps in maps"),
    finding("pages", bytes_of(b"\0" + LISTS), "a header of lists in lists"),
    finding(
        "pages",
        bytes_of(b"\1\x15\0\x15%b\x15\x10\x2c\x15\x0c\x15\0\x15\6\x15\6\0\0\4\0\0\0abcd" % HUGE),
        "a page of 2^62 bytes, which six times is less than nothing",
    ),
    finding(
        "pages",
        bytes_of(
            b"\1\x15\6%b\x5c\x15\x0c\x15\0\x15\x0c\x15\0\x15\x80\2\x15\0\x11\0\0\4\0\0\0abcd"
            % LARGE
        ),
        "levels that are longer than their page",
    ),
    finding(
        "lexicon",
        bytes_of(b'name="a"\nversion=0x1%b\n[category.branch]\nphrases=["x"]' % DIGITS),
        "a version of more digits than a manifest can hold",
    ),
    *(
        finding("manifest", with_value(f"lexicon.{name}", value), reason)
        for name, value, reason in [
            ("patterns", [[]], "a pattern of no parts"),
            ("patterns", [[0, 1, False]], "a pattern that is no text"),
            ("patterns", [[99, "x", False]], "a pattern of no category"),
            ("patterns", [[0, "\ud800", False]], "a pattern of half a letter"),
            ("patterns", [[0, "\udc80", False]], "a pattern of a byte that is no text"),
            ("categories", [], "no category"),
            ("categories", ["\ud800"] * 16, "a category of half a letter"),
        ]
    ),
    finding(
        "manifest",
        with_value("config.delimiter", "\ud800"),
        "a delimiter of half a letter",
    ),
    finding("journal", bytes_of(b"[" * 3000 + b"\n"), "lists in lists"),
    finding("journal", line({"begun": 10**400}), "a time of 400 digits"),
    finding(
        "journal",
        line({"measured": float("inf"), "files": {}}),
        "a shard that has no number",
    ),
    finding(
        "journal",
        line({"emitted": "x", "file": {"rows": "x", "bytes": 1, "sha256": "x"}}),
        "rows that are no number",
    ),
    finding(
        "journal",
        line({"skipped": SKIPPED | {"shard": [0]}}),
        "what was left out of a list",
    ),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Seeds and what is called on an input, by target."""
    return cache(lambda name: TARGETS[name].make(tmp_path_factory.mktemp(name)))


@pytest.mark.parametrize(("target", "change"), FINDINGS)
def test_what_was_found_is_mended(made, target, change):
    seeds, run = made(target)
    run(change(seeds))


def test_a_chunk_of_many_dictionaries_is_refused(tmp_path):
    path = write_parquet(tmp_path / "0.parquet")
    chunk = read_footer(shard_of(path.read_bytes())).groups[0].chunks[1]
    dictionary = b"\x15\4\x15\x10\x15\x10\x4c\x15\2\x15\0\0\0\4\0\0\0abcd"
    page = b"\x15\0\x15\x10\x15\x10\x2c\x15\x0c\x15\x10\x15\6\x15\6\0\0abcdefgh"
    data = b"PAR1" + 3 * dictionary + page
    with pytest.raises(ShardError):
        read_pages(pa.BufferReader(data), replace(chunk, begin=4, stored=len(data) - 4), 64)


def test_a_key_of_many_parts_takes_little_memory():
    tracemalloc.start()
    try:
        with pytest.raises(LexiconError):
            lexicon.parse(".".join(["a"] * 4000) + " = 1", "x.toml")
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
