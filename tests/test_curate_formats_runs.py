"""Runs that convert: what they refuse and rename, and that nothing else changes what comes out."""

import json
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.errors import CurateError
from tests.command_line import invoke, only_line, tree
from tests.interruptions import alter, end_all, forked, outcome, same
from tests.test_curate_formats import COLUMNS, FORMATS, Q, corpus, emitted

THINK = {"response": ["<think>a</think>4"], "q": ["q"]}
SHARDS, ROWS = 3, 24


@pytest.fixture(autouse=True)
def no_run_is_left():
    yield
    end_all()


# What is refused, before anything is written unless a row is at fault.

REFUSED = {
    "no prompt": (THINK, ["--preset", "think"], "--format messages: expected --problem"),
    "no answer": (
        {"trace": ["a"], "q": ["q"]},
        ["--column", "trace", "--problem", "q"],
        "--format messages: expected --answer",
    ),
    "a number as a prompt": (
        THINK | {"q": [1]},
        ["--preset", "think", "--problem", "q"],
        "column `q` is no prompt: expected text or messages, found int64",
    ),
    "lists of texts as prompts": (
        THINK | {"q": [["q"]]},
        ["--preset", "think", "--problem", "q"],
        "is no",
    ),
    "thoughts stripped of nothing": (
        THINK,
        ["--preset", "think", "--problem", "q", "--format", "original", "--thinking", "strip"],
        "--thinking strip: expected with another --format than original",
    ),
    "thoughts stripped of rows with several": (
        THINK,
        ["--preset", "think", "--problem", "q", "--thinking", "strip", "--accept", "several"],
        "--thinking strip: expected without --accept several, of which some stay",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_one_line_before_anything_is_written(tmp_path, run_here, what):
    columns, options, told = REFUSED[what]
    path = corpus(tmp_path / "corpus.parquet", columns)
    rule = ["--format", "messages", *options, "--keep", "true"]
    line = only_line(run_here("scan", path, "--out", tmp_path / "out", *rule))
    assert told in line
    assert not (tmp_path / "out").exists()


def test_a_format_without_a_selection_is_refused(tmp_path, run_here):
    path = corpus(tmp_path / "corpus.parquet", THINK)
    options = ["--preset", "think", "--problem", "q", "--format", "messages"]
    line = only_line(run_here("scan", path, "--out", tmp_path / "out", *options))
    assert "expected together with a selection" in line


PROMPTS = {
    "a null list": [[dict(role="user", content="q")], None],
    "an empty list": [[dict(role="user", content="q")], []],
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", PROMPTS)
def test_a_row_without_a_prompt_ends_the_run_and_is_named(tmp_path, what, form):
    columns = {"input": PROMPTS[what], "output": ["<think>a</think>4"] * 2}
    path = corpus(tmp_path / "corpus.parquet", columns, group_rows=1)
    with pytest.raises(CurateError, match=r"corpus\.parquet: row 1: no prompt"):
        curate.scan(path, out=tmp_path / "out", preset="nemotron", keep="true", format=form)
    assert not (tmp_path / "out/data").exists()


SAID = [dict(role="user", content="q"), dict(role="assistant", content="<think>a</think>4")]
THANKS = dict(role="user", content="Thanks.")


@pytest.mark.parametrize("form", ["original", *FORMATS])
def test_rows_without_a_message_before_or_with_one_behind_are_rejected(tmp_path, form):
    columns = {"messages": [SAID, SAID[1:], [*SAID, THANKS], [SAID[1], THANKS], None, []]}
    path = corpus(tmp_path / "corpus.parquet", columns, group_rows=4)
    out = tmp_path / "out"
    report = curate.scan(path, out=out, preset="messages", keep="true", format=form)
    rejected = {} if form == "original" else {"no_prompt": 2}
    if form == "prompt-completion":
        rejected["later_messages"] = 1
    assert (report.rejected, report.quarantined) == (rejected, {"missing": 2})
    kept = {"original": [2, 1, 3, 2], "prompt-completion": [1]}.get(form, [2, 3])
    name = COLUMNS.get(form, ["messages"])[0]
    assert [len(row[name]) for row in emitted(out)] == kept
    assert ": sound: " in invoke("verify", out)


@pytest.mark.parametrize("told", [{}, {"problem": "problem"}], ids=["layout", "option"])
def test_rows_whose_prompt_is_null_are_rejected(tmp_path, told):
    columns = {"problem": ["q", None], "generation": ["<think>a</think>4"] * 2}
    path = corpus(tmp_path / "corpus.parquet", columns)
    told = dict(preset="nemo-skills", keep="true", **told)
    report = curate.scan(path, out=tmp_path / "out", format="messages", **told)
    assert (report.kept, report.rejected) == (1, {"no_prompt": 1})
    assert curate.scan(path, out=tmp_path / "all", **told).kept == 2


# What columns are called.

VIEW = pa.array(["v"], pa.string_view())

RENAMED = ["source_source_labels", "source_labels", "source_messages", "source_conversations"]
OTHERS = ["source_prompt", "source_completion", "text"]

BESIDE = {
    "reserved": (
        {"labels": [1], "source_labels": [2], "messages": ["m"], "conversations": ["c"]},
        {"sharegpt": ["labels", "source_labels", "messages", "source_conversations"]},
        RENAMED,
    ),
    "of other formats": (
        {"prompt": ["p"], "completion": ["c"], "text": ["t"]},
        {"sharegpt": ["prompt", "completion", "text"]},
        OTHERS,
    ),
    "views of text": ({"v": VIEW}, {}, ["v"]),
    "nested": ({"v": [{"a": [1, None]}]}, {}, ["v"]),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", BESIDE)
def test_other_columns_stay_and_reserved_names_are_changed(tmp_path, what, form):
    more, of_format, usual = BESIDE[what]
    names = of_format.get(form, usual)
    path = corpus(tmp_path / "corpus.parquet", THINK | more)
    told = dict(preset="think", problem="q", keep="true", format=form, annotate=["steps"])
    curate.scan(path, out=tmp_path / "out", **told)
    (row,) = emitted(tmp_path / "out")
    assert list(row) == [*COLUMNS[form], "q", *names, "curate_steps"]
    values = [pq.read_table(path)[name][0].as_py() for name in more]
    assert [row[name] for name in names] == values
    assert row["curate_steps"] == 1


@pytest.mark.parametrize("form", FORMATS)
def test_ids_are_found_again_under_another_name(tmp_path, run_here, form):
    path = corpus(tmp_path / "corpus.parquet", THINK | {COLUMNS[form][0]: ["i"]})
    told = dict(preset="think", problem="q", keep="true", format=form, id=COLUMNS[form][0])
    curate.scan(path, out=tmp_path / "out", **told)
    assert run_here("verify", tmp_path / "out").returncode == 0


def test_a_column_of_views_may_stand_beside_elements(tmp_path):
    columns = {"problem": ["q"], "generations": [["<think>a</think>4"]], "v": VIEW}
    path = corpus(tmp_path / "corpus.parquet", columns)
    curate.scan(path, out=tmp_path / "out", preset="openr1", keep="true")
    assert pq.read_table(tmp_path / "out/data").equals(pq.read_table(path))


@pytest.mark.parametrize("kind", ["large_string", "dictionary", "binary", "string_view"])
def test_prompts_and_traces_of_any_text_type(tmp_path, kind):
    def made(text):
        array = pa.array([text])
        return array.dictionary_encode() if kind == "dictionary" else array.cast(kind)

    columns = {"response": made("<think>a</think>4"), "q": made("q")}
    path = corpus(tmp_path / "corpus.parquet", columns)
    told = dict(preset="think", problem="q", keep="true", format="messages")
    curate.scan(path, out=tmp_path / "out", **told)
    (row,) = emitted(tmp_path / "out")
    said = [(message["role"], message["content"]) for message in row["messages"]]
    assert said == [Q, ("assistant", "<think>a</think>4")]


def test_a_prompt_in_parts_is_refused_in_one_line(tmp_path, run_here):
    prompt = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]
    columns = {"input": [prompt], "output": ["<think>a</think>4"]}
    path = corpus(tmp_path / "corpus.parquet", columns)
    options = ["--preset", "nemotron", "--keep", "true", "--format", "messages"]
    line = only_line(run_here("scan", path, "--out", tmp_path / "out", *options))
    assert "input" in line


# The same, however it is gone about.


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Shards of several row groups, with what each fact looks at, and the options that ask."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    ground, thought = tmp_path_factory.mktemp("runs"), "\n\nAlternatively x."
    for shard in range(SHARDS):
        numbers = [shard * ROWS + n for n in range(ROWS)]
        corpus(
            ground / f"corpus/{shard}.parquet",
            {
                "id": [f"r{n}" for n in numbers],
                "problem": [f"p{n % 7} " + "one two three four five six seven" for n in numbers],
                "gold": [n % 5 for n in numbers],
                "response": [
                    f"<think>Wait {n % 11}.{thought * (n % 13)}</think>\\boxed{{{n % 4}}}"
                    for n in numbers
                ],
            },
            group_rows=7,
        )
    bench = [{"id": "b", "problem": "p3 one two three four five six seven"}]
    (ground / "bench.jsonl").write_text("\n".join(map(json.dumps, bench)))
    tokenizer = Tokenizer(models.BPE({c: n for n, c in enumerate("abc")}, [], unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(ground / "tokenizer.json"))
    return ground


def asked(ground, form):
    facts = ["--tokenizer", ground / "tokenizer.json", "--verify", "gold", "--dedup"]
    facts += ["--decontaminate", ground / "bench.jsonl", "--annotate", "tokens,grade"]
    return [*facts, "--keep", "tokens > 4", "--format", form, "--shard-size", "2KB"]


MEASURED = ["--preset", "think", "--problem", "problem", "--id", "id"]


@pytest.mark.parametrize("form", FORMATS)
def test_neither_threads_nor_shards_nor_select_change_a_row(ground, tmp_path, run_here, form):
    scan = ["scan", ground / "corpus", *MEASURED, *asked(ground, form)]
    assert run_here(*scan, "--threads", 1, "--out", tmp_path / "one").returncode == 0
    assert run_here(*scan, "--threads", 4, "--out", tmp_path / "four").returncode == 0
    assert same(outcome(tmp_path / "four"), outcome(tmp_path / "one"))
    more = [*scan, "--shard-size", "1GB", "--out", tmp_path / "large"]
    assert run_here(*more).returncode == 0
    assert len(list((tmp_path / "one/data").iterdir())) > 2
    assert len(list((tmp_path / "large/data").iterdir())) == 1
    assert emitted(tmp_path / "large") == emitted(tmp_path / "one")
    assert 0 < len(emitted(tmp_path / "one")) < SHARDS * ROWS
    # And of one scan, of whatever format it was.
    other = asked(ground, form)
    select = ["select", tmp_path / "large", *other, "--out", tmp_path / "selected"]
    assert run_here(*select).returncode == 0
    assert tree(tmp_path / "selected/data") == tree(tmp_path / "one/data")
    assert tree(tmp_path / "selected/.curate/derived") == tree(tmp_path / "one/.curate/derived")
    assert run_here("verify", tmp_path / "selected").returncode == 0


@pytest.mark.parametrize("form", ["original", *FORMATS])
def test_every_format_from_a_scan_without_a_selection(ground, tmp_path, run_here, form):
    scan = ["scan", ground / "corpus", *MEASURED]
    assert run_here(*scan, "--out", tmp_path / "scan").returncode == 0
    rule = ["--keep", "steps > 1", "--format", form]
    assert run_here("select", tmp_path / "scan", *rule, "--out", tmp_path / "a").returncode == 0
    assert run_here(*scan, *rule, "--out", tmp_path / "b").returncode == 0
    assert tree(tmp_path / "a/data") == tree(tmp_path / "b/data")
    for place in (tmp_path / "a", tmp_path / "b"):
        assert run_here("verify", place).returncode == 0


def test_verify_finds_what_was_tampered_with(ground, tmp_path, run_here):
    scan = ["scan", ground / "corpus", *MEASURED, *asked(ground, "messages")]
    assert run_here(*scan, "--out", tmp_path / "out").returncode == 0
    places = [place for place in sorted(tree(tmp_path / "out")) if place.endswith(".parquet")]
    assert any("derived/hashes" in place for place in places)
    for place in places:
        whole = (tmp_path / "out" / place).read_bytes()
        alter(tmp_path / "out" / place)
        found = run_here("verify", tmp_path / "out")
        assert found.returncode == 1
        assert place in found.stdout
        (tmp_path / "out" / place).unlink()
        found = run_here("verify", tmp_path / "out")
        assert found.returncode == 1
        assert place in found.stdout
        (tmp_path / "out" / place).write_bytes(whole)
    assert run_here("verify", tmp_path / "out").returncode == 0


KILLS = [
    ("os.rename .curate/features/", 2),
    ("os.rename .curate/derived/", 1),
    ("os.rename .curate/derived/", 4),
    ("os.rename .curate/selection/", 2),
    ("os.rename .curate/data/", 1),
    ("os.rename .curate/data/", 3),
    ("os.rename .curate/data data", 1),
]


def test_a_killed_run_that_converts_goes_on_to_the_same_bytes(ground, tmp_path):
    scan = ["scan", ground / "corpus", *MEASURED, *asked(ground, "prompt-completion")]
    whole = forked(tmp_path / "log", *scan, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    for number, (before, nth) in enumerate(KILLS):
        out = tmp_path / f"killed{number}"
        killed = forked(tmp_path / "log", *scan, "--out", out, before=before, nth=nth)
        assert killed.returncode == -signal.SIGKILL, before
        assert not (out / "data").exists()
        again = forked(tmp_path / "log", *scan, "--out", out)
        assert again.returncode == 0, again.stderr
        assert same(outcome(out), outcome(tmp_path / "whole"))
