"""`curate show`: finding a trace, and what is printed of it."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import curate
from curate.__main__ import cli
from curate.errors import CurateError, OutputError, ShardError

LEXICON = """\
name = "small"
version = 1
[category.branch]
phrases = ["alternatively", "another way"]
[category.check]
phrases = ["let me check"]
"""

TRACE = """\
First, count.


Alternatively, let me check
another way.
 \t
So 4."""

MARKED_BRANCH, MARKED_CHECK = "\x1b[1;30;43m{}\x1b[0m", "\x1b[1;37;41m{}\x1b[0m"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scan and two selections of it; shards have odd names, ids are not all distinct."""
    place = tmp_path_factory.mktemp("show")
    (place / "small.toml").write_text(LEXICON)
    write(
        place / "corpus/a.parquet",
        id=["one", "two", "twice", None, "b:c.parquet:1"],
        trace=[TRACE, "Plain.", "", None, "Alternatively.\n\nAnother way.\n\nx"],
        score=[1.5, 2.5, 3.5, None, 4.5],
    )
    write(
        place / "corpus/sub/b:c.parquet",
        id=["twice", "six", None],
        trace=["Let me check.", "Alternatively.\n\nAlternatively.", "Plain."],
        score=[0.5, 9.0, None],
    )
    curate.scan(
        place / "corpus",
        out=place / "scan",
        id="id",
        carry=["score"],
        lexicon=str(place / "small.toml"),
    )
    curate.select(
        place / "scan",
        out=place / "cut",
        keep="score > 1",
        drop_top="0.4",
        rank_by="branch_frac",
        within=["shard"],
        accept=["ok", "empty"],
    )
    curate.select(place / "scan", out=place / "all", keep="true")
    return place


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)


def show(folder, row, **environment):
    """What is printed; a CurateError of the command is raised."""
    arguments = ["show", str(folder), "--", str(row)]
    result = CliRunner().invoke(cli, arguments, env={"NO_COLOR": None} | environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refusal(folder, row, error=CurateError):
    with pytest.raises(error) as caught:
        show(folder, row)
    return str(caught.value)


def test_a_trace_is_shown_with_its_facts_and_its_steps_numbered(place):
    assert show(place / "scan", "one") == (
        "a.parquet:0\n"
        "id: one\n"
        "score: 1.5\n"
        "bytes 65, steps 3, branch_steps 1, branch_markers 2, check_markers 1, check_steps 1\n"
        "branch_frac 0.333333\n"
        "\n"
        "markers:  branch   check  \n"
        "\n"
        "   0   First, count.\n"
        "\n"
        "   1 B Alternatively, let me check\n"
        "another way.\n"
        "\n"
        "   2   So 4.\n"
        "\n"
    )


def test_markers_are_coloured_where_colours_are_seen(place):
    shown = show(place / "scan", "one", FORCE_COLOR="1")
    assert MARKED_BRANCH.format("Alternatively") in shown
    assert MARKED_BRANCH.format("another way") in shown
    assert MARKED_CHECK.format("let me check") in shown
    assert MARKED_BRANCH.format(" branch ") + " " + MARKED_CHECK.format(" check ") in shown
    assert "\x1b[2m   1 B \x1b[0m" in shown
    assert "\x1b" not in show(place / "scan", "one")


@pytest.mark.parametrize(
    ("row", "first"),
    [
        ("one", "a.parquet:0"),
        ("six", "sub/b:c.parquet:1"),
        ("a.parquet:1", "a.parquet:1"),
        ("a.parquet:2", "a.parquet:2"),
        ("a.parquet:4:0", "a.parquet:4"),
        ("sub/b:c.parquet:0", "sub/b:c.parquet:0"),
        ("b:c.parquet:1", "a.parquet:4"),  # an id; the shard is called sub/b:c.parquet
    ],
)
def test_a_row_is_an_id_or_a_shard_and_a_position(place, row, first):
    assert show(place / "scan", row).splitlines()[0] == first
    assert show(place / "all", row).splitlines()[0] == first


def test_an_empty_trace_has_no_steps(place):
    shown = show(place / "scan", "a.parquet:2")
    assert shown.startswith("a.parquet:2\nverdict: empty\nid: twice\n")
    assert "\nbytes 0, steps 0, " in shown
    assert shown.endswith("markers:  branch   check  \n\n")


@pytest.mark.parametrize("folder", ["scan", "cut", "all"])
def test_a_row_without_a_trace_says_so(place, folder):
    shown = show(place / folder, "a.parquet:3")
    assert shown.startswith("a.parquet:3\nverdict: missing\n")
    assert ("quarantined: missing" in shown) == (folder != "scan")
    assert shown.endswith("markers:  branch   check  \n\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("twice", "twice: 2 rows have this id, among them a.parquet:2, sub/b:c.parquet:0"),
        ("nine", "nine: no row has this id; a row is an id or SHARD:ROW, as a.parquet:0"),
        ("", ": no row has this id; a row is an id or SHARD:ROW, as a.parquet:0"),
        ("a.parquet", "a.parquet: no row has this id; a row is an id or SHARD:ROW, as a.parquet:0"),
        (
            "a.parquet:-1",
            "a.parquet:-1: no row has this id; a row is an id or SHARD:ROW, as a.parquet:0",
        ),
        (
            "gone.parquet:0",
            "gone.parquet:0: no row has this id; a row is an id or SHARD:ROW, as a.parquet:0",
        ),
        ("a.parquet:5", "a.parquet:5: shard a.parquet has 5 traces, counted from 0"),
        ("a.parquet:0:1", "a.parquet:0:1: shard a.parquet has 5 traces, counted from 0"),
        (
            "sub/b:c.parquet:3",
            "sub/b:c.parquet:3: shard sub/b:c.parquet has 3 traces, counted from 0",
        ),
    ],
)
def test_a_row_that_is_not_there_is_refused(place, row, message):
    assert refusal(place / "scan", row) == message


def test_many_rows_of_one_id_are_not_all_listed(tmp_path):
    write(tmp_path / "a.parquet", id=["x"] * 1200, trace=["t"] * 1200)
    curate.scan(tmp_path / "a.parquet", out=tmp_path / "scan", id="id")
    listed = ", ".join(f"a.parquet:{row}" for row in range(5))
    assert refusal(tmp_path / "scan", "x") == f"x: 1,200 rows have this id, among them {listed}"


@pytest.mark.parametrize(
    ("ids", "row", "position"),
    [
        (pa.array([7, -8, 2**62]), "-8", 1),
        (pa.array([7, 2**64 - 1], pa.uint64()), "18446744073709551615", 1),
        (pa.array(["a", "b"]).dictionary_encode(), "b", 1),
        (pa.array(["a", "b"], pa.large_string()), "b", 1),
        (pa.array(["é:0", "[bold]x[/]"]), "[bold]x[/]", 1),
    ],
)
def test_ids_may_be_of_any_type(tmp_path, ids, row, position):
    write(tmp_path / "a.parquet", id=ids, trace=["t"] * len(ids))
    curate.scan(tmp_path / "a.parquet", out=tmp_path / "scan", id="id")
    assert show(tmp_path / "scan", row).splitlines()[:2] == [f"a.parquet:{position}", f"id: {row}"]


def test_ids_may_be_bytes_that_are_no_text(tmp_path):
    write(tmp_path / "a.parquet", id=[b"a", b"\xff"], trace=["s", "t"])
    curate.scan(tmp_path / "a.parquet", out=tmp_path / "scan", id="id")
    assert show(tmp_path / "scan", "a").startswith("a.parquet:0\n")


def test_a_scan_without_ids_is_shown_by_position(tmp_path):
    write(tmp_path / "a.parquet", trace=["s", "t"])
    curate.scan(tmp_path / "a.parquet", out=tmp_path / "scan")
    assert show(tmp_path / "scan", "a.parquet:1").startswith("a.parquet:1\nbytes 1, steps 1, ")
    assert "no row has this id" in refusal(tmp_path / "scan", "t")


def test_a_limited_scan_has_the_rows_that_it_took(tmp_path):
    write(tmp_path / "a.parquet", trace=list("stuv"))
    curate.scan(tmp_path / "a.parquet", out=tmp_path / "scan", limit=3)
    assert "   0   u\n" in show(tmp_path / "scan", "a.parquet:2")
    assert "shard a.parquet has 3 traces" in refusal(tmp_path / "scan", "a.parquet:3")


def decision(place, row):
    """The line on which a selection says what became of a row, after its branch fraction."""
    lines = show(place / "cut", row).splitlines()
    return next(line for line in lines if line.startswith(("kept", "rejected")))


def test_the_decision_is_told_with_its_numbers(place):
    assert decision(place, "two") == "kept"
    assert decision(place, "a.parquet:4") == (
        "rejected: drop_top, branch_frac 0.666667 is above 0.333333, the highest kept of 3 rows "
        "where shard = a.parquet (--drop-top 0.4, 1 dropped)"
    )
    assert decision(place, "sub/b:c.parquet:0") == (
        "rejected: keep, --keep 'score > 1' is not true where score = 0.5"
    )
    assert decision(place, "sub/b:c.parquet:2") == (
        "rejected: keep_null, --keep 'score > 1' is null where score = None"
    )


def test_a_row_without_a_value_to_rank_by_is_kept(place):
    assert decision(place, "a.parquet:2") == "kept"


def test_a_row_whose_verdict_is_not_accepted_is_told_so(place):
    assert "\nrejected: empty\n" in show(place / "all", "a.parquet:2")


def test_a_cut_over_all_rows_names_no_stratum(tmp_path):
    write(tmp_path / "a.parquet", trace=["x", "x\n\ny", "x\n\ny\n\nz", "w"])
    rule = {"drop_top": "0.25", "rank_by": "steps"}
    curate.scan(tmp_path / "a.parquet", out=tmp_path / "out", **rule)
    assert (
        "rejected: drop_top, steps 3 is above 2, the highest kept of 4 rows "
        "(--drop-top 0.25, 1 dropped)\n"
    ) in show(tmp_path / "out", "a.parquet:2")


def test_a_scan_without_a_selection_tells_of_no_decision(place):
    shown = show(place / "scan", "a.parquet:4")
    assert "kept" not in shown and "rejected" not in shown


def test_steps_are_cut_by_the_delimiter_of_the_scan(tmp_path):
    write(tmp_path / "a.parquet", trace=["one\ntwo\n\nthree"])
    curate.scan(tmp_path / "a.parquet", out=tmp_path / "scan", delimiter="line")
    shown = show(tmp_path / "scan", "a.parquet:0")
    assert shown.endswith("   0   one\n\n   1   two\n\n   2   three\n\n")


def test_bytes_that_are_no_text_are_escaped(tmp_path):
    data = b"ok \xff\xfe end" + b"caf\xc3" + b"\xed\xa0\x80" + b"a\x00b"
    ends = (0, 9, 13, 16, 19)
    offsets = pa.array(ends, pa.int32()).buffers()[1]
    traces = pa.Array.from_buffers(pa.string(), 4, [None, offsets, pa.py_buffer(data)])
    write(tmp_path / "a.parquet", trace=traces)
    curate.scan(tmp_path / "a.parquet", out=tmp_path / "scan")
    for row, told in enumerate([r"ok \xff\xfe end", r"caf\xc3", r"\xed\xa0\x80", r"a\x00b"]):
        shown = show(tmp_path / "scan", f"a.parquet:{row}")
        assert f"verdict: {'not_text' if row == 3 else 'invalid_utf8'}\n" in shown
        assert f"   0   {told}\n" in shown


EVIL = "\x1b]0;title\x07\x1b[31mred\u202e\u200b\r\x00\x9b"
TAMED = "\\x1b]0;title\\x07\\x1b[31mred\\u202e\\u200b\\r\\x00\\x9b"

# A trace with a NUL is no text, and no file's name has one.
SPOKEN, TAMED_SPOKEN = EVIL.replace("\x00", ""), TAMED.replace("\\x00", "")


@pytest.fixture
def evil(tmp_path):
    """A scan whose every text holds what would act on a terminal."""
    trace = f"x{SPOKEN}\n\nalternatively{SPOKEN} and [bold]on[/bold]"
    write(
        tmp_path / f"corpus/{SPOKEN}.parquet",
        id=["x" + EVIL, "y"],
        teacher=["t" + EVIL, "u"],
        problem=["p" + EVIL, "p"],
        trace=[trace, "x"],
        size=[2, 1],
    )
    columns = {"id": "id", "teacher": "teacher", "problem": "problem", "carry": ["size"]}
    curate.scan(tmp_path / "corpus", out=tmp_path / "scan", **columns)
    return tmp_path


def acting(shown):
    """The characters that would act on a terminal."""
    return {c for c in shown if not c.isprintable() and c != "\n"}


def test_nothing_in_a_trace_or_its_columns_acts_on_the_terminal(evil):
    shown = show(evil / "scan", "x" + EVIL)
    assert acting(shown) == set()
    assert f"\nid: x{TAMED}\nproblem: p{TAMED}\nteacher: t{TAMED}\n" in shown
    assert f"   0   x{TAMED_SPOKEN}\n" in shown
    assert f"   1 B alternatively{TAMED_SPOKEN} and [bold]on[/bold]\n" in shown
    assert shown.startswith(f"{TAMED_SPOKEN}.parquet:0\n")


def test_a_value_in_a_reason_does_not_act_on_the_terminal(evil):
    rule = {"drop_top": "0.5", "rank_by": "size", "within": ["verdict"]}
    curate.select(evil / "scan", out=evil / "cut", **rule)
    assert "\nrejected: drop_top, size 2 is above 1, " in show(evil / "cut", "x" + EVIL)
    curate.select(evil / "scan", out=evil / "kept", keep="teacher = 'u'")
    shown = show(evil / "kept", "y")
    assert acting(shown) == set()


def test_a_value_that_keep_looked_at_does_not_act_on_the_terminal(evil):
    curate.select(evil / "scan", out=evil / "kept", keep="teacher = 'u'")
    shown = show(evil / "kept", "x" + EVIL)
    assert "rejected: keep" in shown
    assert acting(shown) == set()


def test_the_name_of_a_column_does_not_act_on_the_terminal(tmp_path):
    name = "size\x1b[31m"
    write(tmp_path / "a.parquet", trace=["x"], **{name: [1]})
    curate.scan(tmp_path / "a.parquet", out=tmp_path / "scan", carry=[name])
    assert acting(show(tmp_path / "scan", "a.parquet:0")) == set()


def test_a_corpus_that_changed_since_is_refused(tmp_path):
    corpus = tmp_path / "corpus/a.parquet"
    write(corpus, id=["a", "b"], trace=["x", "y"])
    curate.scan(tmp_path / "corpus", out=tmp_path / "scan", id="id")
    write(corpus, id=["a", "b"], trace=["x", "z"])
    for row in ("a", "a.parquet:1"):
        assert refusal(tmp_path / "scan", row, ShardError) == (
            f"{corpus}: changed since the scan; scan it again"
        )
    corpus.unlink()
    assert refusal(tmp_path / "scan", "a", ShardError) == (
        f"{corpus}: no such file; it was there when it was scanned"
    )


def test_a_folder_that_is_no_scan_is_refused(tmp_path):
    expected = "expected the output of `curate scan`, found no manifest"
    assert refusal(tmp_path, "a", OutputError) == f"{tmp_path}: {expected}"
    assert refusal(tmp_path / "gone", "a", OutputError) == f"{tmp_path}/gone: {expected}"


@pytest.mark.parametrize("row", ["one", "a.parquet:0"])
def test_a_selection_whose_scan_is_gone_says_so(place, tmp_path, row):
    shutil.copytree(place / "scan", tmp_path / "scan")
    curate.select(tmp_path / "scan", out=tmp_path / "cut", keep="true")
    shutil.rmtree(tmp_path / "scan")
    assert f"{tmp_path}/scan" in refusal(tmp_path / "cut", row)
