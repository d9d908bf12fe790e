"""What a review found, held to what it is now: stale facts, odd rows, broken pages, bounds."""

import json
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate import journal, manifest
from curate.errors import CurateError
from curate.layout import preset
from curate.traces import TraceReader
from tests.broken_files import flip
from tests.command_line import only_line
from tests.interruptions import forked, outcome, same
from tests.test_curate_formats import COLUMNS, channels, corpus, says

pytestmark = pytest.mark.usefixtures("no_run_is_left")

BOX = "<think>a</think>so \\boxed{{{}}}"

# What a run that goes on must notice.


def test_another_answer_of_a_plain_layout_is_noticed(tmp_path, run_here):
    path = corpus(tmp_path / "c.parquet", {"trace": ["a"], "r": ["4"], "s": ["5"]})
    scan = ["scan", path, "--column", "trace", "--out", tmp_path / "out"]
    assert run_here(*scan, "--answer", "r").returncode == 0
    assert "complete already" in run_here(*scan, "--answer", "r").stderr
    line = only_line(run_here(*scan, "--answer", "s"))
    assert "holds a run with another --answer: was 'r', now 's';" in line
    assert "another --answer: was 'r', now not given;" in only_line(run_here(*scan))


def test_another_covers_of_a_layout_file_is_noticed(tmp_path, run_here):
    columns = {"trace": ["a"], "text": ["a"], "other": ["b"]}
    path, layout = corpus(tmp_path / "c.parquet", columns), tmp_path / "mine.toml"
    layout.write_text('trace = "trace"\ncovers = ["text"]\n')
    scan = ["scan", path, "--layout", layout, "--out", tmp_path / "out"]
    assert run_here(*scan).returncode == 0
    assert "complete already" in run_here(*scan).stderr
    layout.write_text('trace = "trace"\ncovers = ["other"]\n')
    line = only_line(run_here(*scan))
    assert "another layout: was mine.toml (covers: " in line
    assert "other" in line.partition(", now ")[2]


def test_a_selection_notices_other_grades_of_its_scan(tmp_path, run_here):
    columns = {"response": [BOX.format(n) for n in range(4)], "g": [0, 0, 0, 0], "h": [0, 1, 0, 0]}
    path = corpus(tmp_path / "c.parquet", columns)
    scan = ["scan", path, "--preset", "think", "--out", tmp_path / "scan"]
    select = ["select", tmp_path / "scan", "--keep", "correct", "--out", tmp_path / "out"]
    assert run_here(*scan, "--verify", "g").returncode == 0
    assert run_here(*select).returncode == 0
    digests = [manifest.read(tmp_path / "scan")["derived"]["grades"]["sha256"][:12]]
    assert run_here(*scan, "--verify", "h", "--overwrite").returncode == 0
    digests += [manifest.read(tmp_path / "scan")["derived"]["grades"]["sha256"][:12]]
    line = only_line(run_here(*select))
    assert f"file of grades in the scan: was {digests[0]}, now {digests[1]}" in line
    assert run_here(*select, "--overwrite").returncode == 0
    assert pq.read_table(tmp_path / "out/data").num_rows == 2


def test_a_selection_killed_after_deriving_goes_on_with_what_was_derived(tmp_path, run_here):
    columns = {"trace": ["a", "b", "a", "c"] * 5, "n": list(range(20))}
    path = corpus(tmp_path / "c.parquet", columns, group_rows=3)
    scan = ["scan", path, "--column", "trace", "--out", tmp_path / "scan"]
    assert run_here(*scan).returncode == 0
    select = ["select", tmp_path / "scan", "--dedup", "--out"]
    whole = forked(tmp_path / "log", *select, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "out"
    killed = forked(tmp_path / "log", *select, out, before="os.rename .curate/selection/")
    assert killed.returncode == -9
    assert [*journal.read(out).derived] == ["hashes"]
    derived = out / ".curate/derived/hashes.parquet"
    before = derived.stat()
    line = only_line(run_here(*select, out, "--keep", "true"))
    assert "holds a run with another --keep: was not given, now 'true'" in line
    again = forked(tmp_path / "log", *select, out)
    assert again.returncode == 0, again.stderr
    after = derived.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert same(outcome(out), outcome(tmp_path / "whole"))


# Rows that are broken or odd.


def test_a_broken_page_of_golds_beside_lists_closes_the_account(tmp_path, run_here):
    texts = [[BOX.format(4), BOX.format(5)], [BOX.format(4)], [], [BOX.format(6)] * 3] * 2
    columns = {"generations": pa.array(texts, pa.list_(pa.string()))}
    columns |= {"problem": [f"p{n}" for n in range(8)], "gold": ["4"] * 8}
    path = tmp_path / "c.parquet"
    written = {"row_group_size": 4, "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(pa.table(columns), path, **written)
    flip(path, "gold", 1)
    out, options = tmp_path / "out", ["--preset", "openr1", "--verify", "gold", "--keep", "correct"]
    command = ["scan", path, *options, "--on-error", "quarantine", "--json", "--out", out]
    result = run_here(*command)
    assert result.returncode == 3, result.stderr
    told = json.loads(result.stdout)
    assert (told["rows"], told["kept"], told["quarantined"]) == (
        14,
        2,
        {"missing": 1, "unreadable": 7},
    )
    assert told["rejected"] == {"keep": 4}
    locator = ["shard", "row", "item"]
    grades = pq.read_table(out / ".curate/derived/grades.parquet")
    assert grades.select(locator).equals(pq.read_table(out / ".curate/features").select(locator))
    assert grades["grade"].to_pylist()[7:] == [None] * 7
    verified = run_here("verify", out)
    assert verified.returncode == 0, verified.stdout


def test_fields_of_messages_that_a_format_leaves_out_are_told(tmp_path, run_here):
    said = says("q", "<think>a</think>4", tool_calls="f()")
    path = corpus(tmp_path / "c.parquet", {"messages": [said], "n": [1]})
    rule = ["--preset", "messages", "--keep", "true", "--format", "messages"]
    result = run_here("scan", path, *rule, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    told = "note: --format leaves out messages, messages.tool_calls: what conversations are made of"
    assert told in result.stderr.splitlines()
    card = (tmp_path / "out/README.md").read_text()
    assert (
        "columns left out, being part of the conversations: `messages`, `messages.tool_calls`"
        in card
    )
    (row,) = pq.read_table(tmp_path / "out/data").to_pylist()
    assert row == {"messages": says("q", "<think>a</think>4"), "n": 1}


def test_columns_under_another_name_are_told(tmp_path, run_here):
    path = corpus(tmp_path / "c.parquet", {"response": [THOUGHT], "q": ["q"], "labels": [1]})
    rule = ["--preset", "think", "--problem", "q", "--keep", "true", "--format", "messages"]
    result = run_here("scan", path, *rule, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    told = "note: --format: column labels is now source_labels, as trainers take that name for"
    assert any(line.startswith(told) for line in result.stderr.splitlines())


def test_what_the_best_of_were_not_chosen_by_is_told(tmp_path, run_here):
    traces = ["a", "a\n\na", "a", None, "a\n\na"]
    columns = {"trace": traces, "s": ["x", "x", None, "y", None], "r": [1, None, 3, 4, 5]}
    path = corpus(tmp_path / "c.parquet", columns)
    options = ["--best-of", 2, "--rank-by", "r", "--within", "s", "--carry", "s,r"]
    result = run_here("scan", path, *options, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    told = "note: --best-of: nothing says which are correct, so all are ranked"
    assert told in result.stderr.splitlines()
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "2 rows without s, kept" in lines
    assert "1 row without a value to rank by, ranked last" in lines


# How many messages stand around a thought.

THOUGHT = "<think>a</think>4"
USER, THINKS, ANSWERS = (
    ("user", None, "q"),
    ("assistant", "analysis", "a"),
    ("assistant", "final", "4"),
)
SHARES = [{"from": "human", "value": "q"}, {"from": "gpt", "value": THOUGHT}]

AROUND = {
    "messages": (
        "messages",
        [
            (says("q", THOUGHT), 1, 0),
            (None, 0, 0),
            (says("q", "4", "more", THOUGHT, "thanks"), 3, 1),
            (says("q", THOUGHT, "more", "5"), 1, 2),
            ([], 0, 0),
            ([{"role": "assistant", "content": THOUGHT}], 0, 0),
            (says("q"), 1, 0),
            (says("q", THOUGHT, "more", THOUGHT, "thanks", "you"), 3, 2),
        ],
    ),
    "messages-reasoning-content": (
        "messages",
        [
            (says("q", "4", reasoning_content="a"), 1, 0),
            (None, 0, 0),
            (says("q", "4", reasoning_content="a") + says("more", reasoning_content=None), 1, 1),
        ],
    ),
    "sharegpt": (
        "conversations",
        [
            (SHARES, 1, 0),
            (None, 0, 0),
            ([{"from": "system", "value": "s"}, *SHARES, SHARES[0]], 2, 1),
            (SHARES[1:], 0, 0),
        ],
    ),
    "harmony-messages": (
        "messages",
        [
            (channels(USER, THINKS, ANSWERS), 1, 0),
            (None, 0, 0),
            (channels(("developer", None, "s"), USER, THINKS, ANSWERS, USER), 2, 1),
            (channels(USER, THINKS, ANSWERS, USER, THINKS, ANSWERS), 3, 0),
            ([], 0, 0),
            (channels(THINKS, ANSWERS), 0, 0),
            (channels(USER, ANSWERS), 2, 0),
            (channels(USER, THINKS), 1, 0),
        ],
    ),
}


def around(name, batch):
    """What a reader says of a batch: messages before and behind each thought."""
    reader = TraceReader(preset(name))
    _, before, behind = reader.beside(batch, reader.read(batch))
    assert before.type == behind.type == pa.int32()
    return list(zip(before.to_pylist(), behind.to_pylist(), strict=True))


@pytest.mark.parametrize("name", AROUND)
def test_messages_around_a_thought_are_counted(tmp_path, name):
    column, cases = AROUND[name]
    lists, *told = zip(*cases, strict=True)
    expected = list(zip(*told, strict=True))
    batch = pa.record_batch({column: list(lists)})
    assert around(name, batch) == expected
    for first in range(len(lists)):
        for stop in range(first, len(lists) + 1):
            assert around(name, batch.slice(first, stop - first)) == expected[first:stop]
    path = corpus(tmp_path / "c.parquet", {column: list(lists)})
    curate.scan(path, out=tmp_path / "out", preset=name, threads=2)
    features = pq.read_table(tmp_path / "out/.curate/features")
    found = (features[name].to_pylist() for name in ("prompt_messages", "later_messages"))
    assert list(zip(*found, strict=True)) == expected


LATER = {
    "messages": [says("q", THOUGHT, "thanks")],
    "messages-reasoning-content": [
        says("q", "4", reasoning_content="a") + says("thanks", reasoning_content=None)
    ],
    "harmony-messages": [channels(USER, THINKS, ANSWERS, ("user", None, "thanks"))],
}


@pytest.mark.parametrize("form", ["messages", "sharegpt"])
@pytest.mark.parametrize("name", LATER)
def test_messages_behind_an_answer_stay_and_are_verified(tmp_path, run_here, name, form):
    path = corpus(tmp_path / "c.parquet", {"messages": LATER[name]})
    curate.scan(path, out=tmp_path / "out", preset=name, keep="true", format=form)
    (row,) = pq.read_table(tmp_path / "out/data").to_pylist()
    said = [[*message.values()][1] for message in row[COLUMNS[form][0]]]
    joined = THOUGHT if name == "messages" else "<think>\na\n</think>\n\n4"
    assert said == ["q", joined, "thanks"]
    verified = run_here("verify", tmp_path / "out")
    assert verified.returncode == 0, verified.stdout


@pytest.mark.parametrize("name", ["think", "harmony-columns", "nemotron"])
def test_layouts_that_are_not_of_messages_do_not_say(name):
    columns = {
        "think": ["response"],
        "nemotron": ["output"],
        "harmony-columns": ["analysis", "final"],
    }
    batch = pa.record_batch({column: [THOUGHT, None] for column in columns[name]})
    assert around(name, batch) == [(None, None)] * 2


# One line before anything is written.


def test_decontaminate_with_prompts_that_are_messages_is_one_line(tmp_path, run_here):
    (tmp_path / "bench.jsonl").write_text('{"problem": "q"}\n')
    path = corpus(tmp_path / "c.parquet", {"input": [says("q")], "output": [THOUGHT]})
    options = ["--preset", "nemotron", "--decontaminate", tmp_path / "bench.jsonl"]
    line = only_line(run_here("scan", path, *options, "--out", tmp_path / "out"))
    assert line.startswith(
        "--decontaminate: expected --problem, a column of text, found `input` of"
    )
    assert not (tmp_path / "out").exists()


def test_a_stratum_key_given_twice_is_one_line(tmp_path):
    path = corpus(tmp_path / "c.parquet", {"trace": ["a"], "s": ["b"]})
    told = r"--within: expected distinct names, found \['s', 's'\]"
    rule = dict(drop_top="0.1", rank_by="steps", within=["s", "s"])
    with pytest.raises(CurateError, match=told):
        curate.scan(path, out=tmp_path / "out", column="trace", carry=["s"], **rule)
    assert not (tmp_path / "out").exists()


def test_memory_too_small_to_detect_a_layout_names_what_else_to_give(tmp_path, run_here):
    path = tmp_path / "c.parquet"
    text = pa.array(["<think>" + "a" * (1 << 20) + "</think>4"] * 100)
    pq.write_table(pa.table({"text": text, "response": text}), path, use_dictionary=False)
    scan = ["scan", path, "--memory", "1MiB", "--out", tmp_path / "out"]
    line = only_line(run_here(*scan))
    assert line.startswith(f"{path}: to detect the layout takes about --memory ")
    assert line.endswith(", found 1MiB; --preset or --layout say what it is")
    assert not (tmp_path / "out").exists()


# Time and shape.


def test_blanks_without_end_are_no_number_at_once():
    code = "from curate.answers import plain_number; print(plain_number('^' + ' ' * 200_000))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (found.stdout, found.returncode) == ("None\n", 0), found.stderr


def test_derived_columns_of_many_tiny_shards_decide_as_those_of_one_file(tmp_path):
    count = 300
    columns = {
        "response": [BOX.format(n % 7) for n in range(count)],
        "gold": [n % 5 for n in range(count)],
        "n": list(range(count)),
    }
    table = pa.table(columns)
    corpus(tmp_path / "one/c.parquet", columns)
    for n in range(count):
        corpus(tmp_path / f"many/{n:03}.parquet", table.slice(n, 1).to_pydict())
    told = dict(preset="think", verify="gold", keep="correct", dedup=True, annotate=["grade"])
    kept = {}
    for name in ("one", "many"):
        report = curate.scan(tmp_path / name, out=tmp_path / f"out-{name}", threads=2, **told)
        decisions = pq.read_table(tmp_path / f"out-{name}/.curate/selection")
        rows = pq.read_table(tmp_path / f"out-{name}/data").to_pylist()
        kept[name] = (report.rejected, decisions["reason"].to_pylist(), rows)
    assert kept["many"] == kept["one"]
    assert 0 < len(kept["one"][2]) < count


def test_an_interrupt_ends_grading_at_once(tmp_path):
    answers = [f"<think>a</think>\\boxed{{9^{{9^{{9^{{{n}}}}}}}}}" for n in range(2, 62)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"response": answers, "gold": ["7"] * 60}), path)
    options = ["--preset", "think", "--verify", "gold", "--threads", "1"]
    command = [sys.executable, "-m", "curate", "scan", path, "--out", tmp_path / "out", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        journal = tmp_path / "out/.curate/journal.jsonl"
        while not journal.exists() or "measured" not in journal.read_text(encoding="utf-8"):
            time.sleep(0.05)
            assert process.poll() is None
        time.sleep(2)  # into the first of the answers, each of which would take as long
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("error: interrupted ")
