"""Completions are written once, and the same whatever happens on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from tests.evaluated_tasks import tables, write_small_model, write_task

QUICK = ["--max-new-tokens", "24", "--samples", "3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    write_small_model(folder)
    write_task(folder)
    write_task(folder, "more", 5, first=40)
    return folder


@pytest.fixture
def generate(place, run_here):
    def run(out, *options, tasks=("sums",)):
        named = [word for name in tasks for word in ("--task", place / f"{name}.toml")]
        return run_here(
            "evaluate", "generate", "--model", place / "model", *named, "--out", out, *options
        )  # fmt: skip

    return run


def rows(out, task="sums"):
    return pq.read_table(out / task / "completions.parquet").to_pylist()


def test_tables_hold_what_was_asked(place, generate, tmp_path):
    done = generate(tmp_path / "out", *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/out: sums: 6 problems x 3 samples = 18 completions\n"
    found = rows(tmp_path / "out")
    assert [(row["index"], row["sample"]) for row in found] == [
        (n, s) for n in range(6) for s in range(3)
    ]
    assert len({row["key"] for row in found}) == 18
    for row in found:
        assert row["tokens"] == len(row["token_ids"]) <= 24
        assert row["ending"] == ("length" if row["token_ids"][-1] != 2 else "eos")
        assert row["ending"] == "eos" or row["tokens"] == 24
        assert "<|im_end|>" not in row["text"]
    problems = pq.read_table(tmp_path / "out" / "sums" / "problems.parquet").to_pylist()
    assert problems[1]["problem"] == "What is 1 + 1?\nPut your final answer within \\boxed{}."
    assert problems[1]["prompt"] == (
        f"<|im_start|>user\n{problems[1]['problem']}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert problems[1]["gold"] == "2"
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["tasks"]["sums"]["state"] == "complete"
    assert record["settings"]["sampling"]["max_new_tokens"] == 24
    assert {*(path.name for path in (tmp_path / "out").iterdir())} == {"evaluation.json", "sums"}


@pytest.mark.parametrize("batch", [1, 4, 64])
@pytest.mark.parametrize("sampling", [[], ["--temperature", "0", "--samples", "1"]])
def test_batches_and_orders_give_the_same_bytes(generate, tmp_path, batch, sampling):
    both = ("sums", "more")
    generate(tmp_path / "a", *QUICK, *sampling, tasks=both)
    generate(tmp_path / "b", *QUICK, *sampling, "--batch-size", batch, tasks=both[::-1])
    assert tables(tmp_path / "a") == tables(tmp_path / "b")


def test_lengths_of_another_evaluation_change_the_order_alone(generate, tmp_path):
    generate(tmp_path / "a", *QUICK)
    done = generate(tmp_path / "b", *QUICK, "--lengths-from", tmp_path / "a")
    assert done.returncode == 0
    assert tables(tmp_path / "a") == tables(tmp_path / "b")


def test_samples_of_another_seed_are_others(generate, tmp_path):
    generate(tmp_path / "a", *QUICK)
    generate(tmp_path / "b", *QUICK, "--seed", "1")
    texts = [[row["text"] for row in rows(tmp_path / name)] for name in "ab"]
    assert not {*texts[0]} & {*texts[1]}


def test_what_is_there_is_not_written_again(generate, tmp_path):
    out = tmp_path / "out"
    generate(out, *QUICK)
    before = {row["key"]: row for row in rows(out)}
    done = generate(out, *QUICK)
    assert done.stderr.count("going on: 18 completions are there, 0 are missing") == 1
    done = generate(out, "--max-new-tokens", "24", "--samples", "5", tasks=("sums", "more"))
    assert done.returncode == 0
    assert "going on: 18 completions are there, 37 are missing" in done.stderr
    after = {row["key"]: row for row in rows(out)}
    assert all(after[key] == row for key, row in before.items())
    generate(tmp_path / "anew", "--max-new-tokens", "24", "--samples", "5", tasks=("more", "sums"))
    assert tables(out) == tables(tmp_path / "anew")


def test_what_takes_several_row_groups_grows_the_same(generate, tmp_path):
    """1,080 completions, then 1,260, of which the most are taken from the table."""
    short = ["--max-new-tokens", "1", "--samples"]
    assert generate(tmp_path / "out", *short, "180").returncode == 0
    table = pq.ParquetFile(tmp_path / "out" / "sums" / "completions.parquet")
    assert table.num_row_groups == 2
    done = generate(tmp_path / "out", *short, "210")
    assert "going on: 1,080 completions are there, 180 are missing" in done.stderr
    generate(tmp_path / "anew", *short, "210")
    assert tables(tmp_path / "out") == tables(tmp_path / "anew")


def test_two_tasks_that_ask_the_same_share_completions(place, generate, tmp_path):
    write_task(place, "again", 6)
    done = generate(tmp_path / "out", *QUICK, tasks=("sums", "again"))
    assert done.returncode == 0
    texts = [[row["text"] for row in rows(tmp_path / "out", name)] for name in ("sums", "again")]
    assert texts[0] == texts[1]
    done = generate(tmp_path / "later", *QUICK)
    done = generate(tmp_path / "later", *QUICK, tasks=("sums", "again"))
    assert "18 completions are there, 0 are missing" in done.stderr
    assert tables(tmp_path / "later") == tables(tmp_path / "out")


def start(place, out, *options):
    """The command in a process of its own, on one core, slow enough to be killed half-way."""
    command = [sys.executable, "-m", "curate", "evaluate", "generate", "--model", place / "model"]
    command += ["--task", place / "sums.toml", "--out", out, "--max-new-tokens", "60"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*map(str, command), *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_a_run_that_is_killed_at_any_time_ends_with_the_same_bytes(place, generate, tmp_path):
    options = ["--samples", "40", "--batch-size", "16"]
    journal = tmp_path / "killed" / "completions.jsonl"
    kills = 0
    for until in (1, 100):
        process = start(place, tmp_path / "killed", *options)
        while process.poll() is None:
            if journal.exists() and journal.read_bytes().count(b"\n") >= until:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.wait()
        process.stderr.close()
    assert kills == 2
    done = generate(tmp_path / "killed", "--max-new-tokens", "60", *options)
    assert done.returncode == 0, done.stderr
    assert "going on: 1" in done.stderr
    generate(tmp_path / "straight", "--max-new-tokens", "60", "--samples", "40")
    assert tables(tmp_path / "killed") == tables(tmp_path / "straight")
    assert not journal.exists()


def test_an_interrupt_ends_it_and_keeps_what_is_done(place, tmp_path):
    process = start(place, tmp_path / "out", "--samples", "200")
    journal = tmp_path / "out" / "completions.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.decode().splitlines()[-1].startswith("error: interrupted")
    assert b"Traceback" not in said
    assert journal.read_bytes().count(b"\n") > 3


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    process = start(place, out, *QUICK)
    process.communicate()
    assert process.returncode == 0
    return out


def half_done(whole, out):
    """A folder as a run leaves it that was killed behind eight completions."""
    shutil.copytree(whole, out)
    found = rows(out)[:8]
    stored = ("key", "text", "token_ids", "tokens", "ending")
    lines = [json.dumps({name: row[name] for name in stored}) + "\n" for row in found]
    (out / "completions.jsonl").write_text("".join(lines))
    (out / "sums" / "completions.parquet").unlink()
    record = json.loads((out / "evaluation.json").read_text())
    record["tasks"]["sums"] |= {"state": "running", "completions": None}
    (out / "evaluation.json").write_text(json.dumps(record))
    return out / "completions.jsonl"


@pytest.mark.parametrize("cut", [0, 1, 5, 60, 300])
def test_a_journal_that_was_cut_off_goes_on_before_the_cut(whole, generate, tmp_path, cut):
    journal = half_done(whole, tmp_path / "out")
    left = journal.read_bytes()[: -cut or None]
    journal.write_bytes(left)
    done = generate(tmp_path / "out", *QUICK)
    there = left.count(b"\n")
    assert f"going on: {there} completions are there, {18 - there} are missing" in done.stderr
    assert tables(tmp_path / "out") == tables(whole)
    assert not journal.exists()


def test_another_task_leaves_what_a_killed_run_left(whole, generate, tmp_path):
    half_done(whole, tmp_path / "out")
    assert generate(tmp_path / "out", *QUICK, tasks=("more",)).returncode == 0
    done = generate(tmp_path / "out", *QUICK)
    assert "going on: 8 completions are there, 10 are missing" in done.stderr
    assert rows(tmp_path / "out") == rows(whole)


CHANGES = {
    "wording": ("sums.toml", "Put", "Write", "18 completions that are there are of prompts"),
    "problem": ("sums.jsonl", "is 1 + 1", "is 1+1", "3 completions that are there are of prompts"),
    "gold": ("sums.jsonl", '"answer": 2}', '"answer": 3}', None),
    "title": ("sums.toml", "Sums", "Additions", None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_task_that_has_changed_keeps_its_completions(place, whole, run_here, tmp_path, change):
    """A gold costs none; where prompts are others, nothing is dropped unless one says so."""
    name, old, new, refused = CHANGES[change]
    shutil.copytree(whole, tmp_path / "out")
    path = write_task(tmp_path)
    (tmp_path / name).write_text((tmp_path / name).read_text().replace(old, new))
    asked = ["evaluate", "generate", "--model", place / "model", "--task", path, *QUICK]
    done = run_here(*asked, "--out", tmp_path / "out")
    assert done.returncode == (refused is not None)
    if refused:
        assert refused in done.stderr.splitlines()[-1]
        assert tables(tmp_path / "out") == tables(whole)
        return
    assert "task sums has another" in done.stderr and "0 are missing" in done.stderr
    assert rows(tmp_path / "out") == rows(whole)
    golds = pq.read_table(tmp_path / "out" / "sums" / "problems.parquet")["gold"].to_pylist()
    assert golds[1] == ("3" if change == "gold" else "2")


def test_a_table_that_is_gone_is_written_again(whole, generate, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    (tmp_path / "out" / "sums" / "completions.parquet").unlink()
    assert generate(tmp_path / "out", *QUICK).returncode == 0
    assert tables(tmp_path / "out") == tables(whole)


DAMAGES = [
    b"nothing\n",
    b"[1]\n",
    b"[" * 100_000 + b"\n",
    b'{"key": "k", "text": "t", "token_ids": [1], "tokens": "x", "ending": "eos"}\n',
    b'{"key": "k", "text": "t", "token_ids": [1], "tokens": 1, "ending": "zzz"}\n',
    b'{"key": "k", "token_ids": [1], "tokens": 1, "ending": "eos"}\n',
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: str(one[:70]))
def test_a_journal_that_is_damaged_inside_is_told(whole, generate, tmp_path, damage):
    journal = half_done(whole, tmp_path / "out")
    journal.write_bytes(damage + journal.read_bytes())
    done = generate(tmp_path / "out", *QUICK)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: {journal}: byte 0: expected a completion, found something else "
        "(--overwrite starts anew)"
    )
    assert generate(tmp_path / "out", *QUICK, "--overwrite").returncode == 0
    assert tables(tmp_path / "out") == tables(whole)


OTHER_SETTINGS = [
    (["--temperature", "0.7"], "sampling was"),
    (["--max-new-tokens", "25"], "sampling was"),
    (["--seed", "2"], "sampling was"),
    (["--prompts", "text"], 'prompts was "chat", now "text"'),
    (["--system", "Be brief."], 'system was null, now "Be brief."'),
    (["--backend", "continuous"], 'backend was "loop", now "continuous"'),
    (["--dtype", "bfloat16"], 'dtype was "float32", now "bfloat16"'),
    (["--samples", "2"], "task sums has 6 problems and 3 samples of each, found 6 and 2 asked"),
    (["--limit", "2"], "task sums has 6 problems and 3 samples of each, found 2 and 3 asked"),
]


@pytest.mark.parametrize(("options", "said"), OTHER_SETTINGS, ids=lambda one: str(one))
def test_completions_of_other_settings_are_not_mixed(generate, whole, options, said):
    before = tables(whole)
    done = generate(whole, *QUICK, *options)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {whole}: ") and said in last
    assert last.endswith("(--overwrite starts anew)")
    assert tables(whole) == before


REFUSED = [
    (["--task", "nothing"], 1, "--task nothing: expected a task or a TOML file, found neither"),
    (["--task", "sums.toml"], 1, "--task: expected tasks that differ, found sums, sums"),
    (["--samples", "2", "--temperature", "0"], 1, "--samples 2: greedy completions of a prompt"),
    (["--benchmarks", "nowhere"], 1, "nowhere/sums.jsonl: expected a file of problems, found none"),
    (["--chat-template-path", "no"], 1, "--chat-template-path no: expected a file of a chat"),
    (["--prompts", "text", "--system", "x"], 1, "--system: expected chat prompts, found prompts"),
    (["--top-p", "0"], 2, "Invalid value for '--top-p'"),
    (["--samples", "0"], 2, "Invalid value for '--samples'"),
    (["--lengths-from", "no"], 1, "no/evaluation.json: expected the record of an evaluation"),
    (["--device", "abacus"], 1, "--device: cannot use abacus"),
]


@pytest.mark.parametrize(("options", "code", "said"), REFUSED, ids=lambda one: str(one))
def test_misuse_is_told_in_a_line(place, generate, tmp_path, monkeypatch, options, code, said):
    monkeypatch.chdir(place)
    done = generate(tmp_path / "out", *options)
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "sums").exists() or said.startswith("no/")


def test_folders_of_others_are_left_alone(generate, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    done = generate(tmp_path / "out", *QUICK)
    assert done.returncode == 1
    assert "expected an empty or new folder, or an evaluation, found mine.txt" in done.stderr
    done = generate(tmp_path / "out", *QUICK, "--overwrite")
    assert done.returncode == 1
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_overwriting_leaves_what_others_put_there(generate, tmp_path):
    out = tmp_path / "out"
    generate(out, *QUICK, tasks=("sums", "more"))
    (out / "sums" / "mine.txt").write_text("mine")
    assert generate(out, *QUICK, "--seed", "3", "--overwrite", tasks=("more",)).returncode == 0
    assert (out / "sums" / "mine.txt").read_text() == "mine"
    assert not (out / "sums" / "completions.parquet").exists()
    assert len(rows(out, "more")) == 15


def test_continuous_batching_fills_the_same_tables(generate, tmp_path, monkeypatch):
    from curate.evaluate import continuous

    made = continuous.ContinuousBatchingConfig
    monkeypatch.setattr(  # or it takes most of the machine's memory
        continuous,
        "ContinuousBatchingConfig",
        lambda **told: made(num_blocks=32, max_batch_tokens=256, **told),
    )
    greedy = ["--preset", "greedy", "--max-new-tokens", "16"]
    done = generate(tmp_path / "a", *greedy, "--backend", "continuous")
    assert done.returncode == 0, done.stderr
    generate(tmp_path / "b", *greedy)
    shown = ("index", "sample", "text", "token_ids", "tokens", "ending")
    found = [[{k: row[k] for k in shown} for row in rows(tmp_path / name)] for name in "ab"]
    assert found[0] == found[1]
