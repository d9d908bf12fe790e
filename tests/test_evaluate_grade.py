"""`curate evaluate grade`: files, going on after a kill, refusals, and what the command says."""

import hashlib
import importlib.util
import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from curate.commands.evaluate_grade import grade
from curate.errors import CurateError, OutputError
from curate.evaluate import evaluation
from curate.evaluate.grading import Asked, gold_reads, grade_tasks
from curate.evaluate.results import results
from tests.graded_folders import add_task

if importlib.util.find_spec("math_verify") is None:
    pytest.skip("math-verify is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[1]
SLOW = "10^{10^{10^{10}}}"

RUN = """
import os, signal, sys
from pathlib import Path
from curate.evaluate.grading import Asked, grade_tasks

out, seconds, named = sys.argv[1:]

def hook(event, arguments):
    if event == "os.rename" and named and os.fspath(arguments[1]).endswith(named):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
grade_tasks(Path(out), Asked(workers=1, seconds=float(seconds)))
"""
"""Is killed just before the file of that name gets it, where one is given."""


KINDS = (r"\boxed{%d}", r"\boxed{%d.0}", "it has to be %d", "<think>%d")
ALGEBRAIC = (r"\boxed{%d}", r"\boxed{x+%d}", r"\boxed{%d+x}", r"\boxed{\frac{%d}{7}}")


def task(folder, problems=510, samples=4):
    """Answers right and wrong; of every 20th problem such as take algebra."""
    texts = [
        [(KINDS if n % 20 else ALGEBRAIC)[(n + s) % 4] % (n + s // 2) for s in range(samples)]
        for n in range(problems)
    ]
    return add_task(folder, "m", "mathematics", [str(n) for n in range(problems)], texts)


def run(folder, *, seconds=2, named=""):
    """A process of its own that grades with one worker."""
    command = [sys.executable, "-c", RUN, str(folder), str(seconds), named]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE)


def wait_for(found, process):
    """What is found once it is there, of a run that must be at work until then."""
    while not (there := found()):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return there


@contextmanager
def at_work(folder):
    """A run that has its first part, and a worker that is over an answer of the second for ever."""
    texts = [[r"\boxed{1+x}"] * 600, [f"\\boxed{{{SLOW}}}", *[r"\boxed{7}"] * 599]]
    add_task(folder, "m", "mathematics", ["x+1", "2"], texts)
    with run(folder, seconds=60) as process:
        wait_for((folder / "m" / ".grading" / "00000.arrow").exists, process)
        (worker,) = psutil.Process(process.pid).children()
        begun = worker.cpu_times().user
        wait_for(lambda: worker.cpu_times().user > begun + 0.3, process)
        yield process, worker


def files(folder):
    """All that is in a task's folder, by name."""
    return {path.name: path.read_bytes() for path in (folder / "m").iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with 2,040 completions, graded in one go."""
    folder = task(tmp_path_factory.mktemp("whole") / "out")
    grade_tasks(folder, Asked(workers=2))
    return folder


def invoke(*arguments):
    return CliRunner().invoke(grade, [str(one) for one in arguments], standalone_mode=False)


def test_rows_are_those_of_the_completions(whole):
    grades = evaluation.read_table(whole, "m", "grades")
    completions = evaluation.read_table(whole, "m", "completions")
    assert grades.schema == evaluation.GRADES
    for name in ("index", "id", "sample"):
        assert grades[name].equals(completions[name])
    record = json.loads((whole / "m" / "grades.json").read_text())
    for name, column in (("strict", "status"), ("lenient", "lenient")):
        found = grades[column].value_counts().to_pylist()
        counts = {one["values"]: one["counts"] for one in found}
        assert counts == {status: n for status, n in record["counts"][name].items() if n}
    assert record["completions"] == evaluation.read_record(whole)["tasks"]["m"]["completions"]
    assert record["scorer"] == "mathematics" and record["settings"] == {"seconds": 2.0}
    assert set(record["versions"]) >= {"curate-cot", "math-verify", "sympy"}
    assert not (whole / "m" / ".grading").exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_byte(whole, tmp_path, workers):
    folder = task(tmp_path / "out")
    grade_tasks(folder, Asked(workers=workers))
    assert files(folder) == files(whole)


def test_kills_change_no_byte(whole, tmp_path):
    folder, work = task(tmp_path / "out"), tmp_path / "out" / "m" / ".grading"
    for named, done in (("00001.arrow", 1), ("grades.json", 3)):
        with run(folder, named=named) as process:
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert len(list(work.glob("[0-9]*"))) == done
    grade_tasks(folder, Asked(workers=2))
    assert files(folder) == files(whole)


def test_a_worker_that_is_killed_costs_its_answer_only(tmp_path):
    with at_work(tmp_path / "out") as (process, worker):
        worker.kill()
        process.communicate()
    assert process.returncode == 0
    found = evaluation.read_table(tmp_path / "out", "m", "grades")["status"].to_pylist()
    assert found == ["correct"] * 600 + ["parse_error"] + ["wrong"] * 599


def test_an_interrupt_leaves_what_is_done(tmp_path):
    folder = tmp_path / "out"
    with at_work(folder) as (process, worker):
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert not worker.is_running()
    assert process.returncode == -signal.SIGINT
    assert {path.name for path in (folder / "m" / ".grading").iterdir()} == {
        "asked.json",
        "00000.arrow",
    }
    assert not list((folder / "m").glob("*grades*"))


def test_a_second_time_nothing_is_done(whole):
    before = {path: path.stat().st_mtime_ns for path in (whole / "m").iterdir()}
    done = invoke(whole)
    assert done.return_value == 0 and done.stderr == "note: m: has been graded so\n"
    assert {path: path.stat().st_mtime_ns for path in (whole / "m").iterdir()} == before


def choices(folder, *golds, **more):
    return add_task(folder, "m", "choice", golds, [["\\boxed{A}"]] * len(golds), **more)


def test_other_settings_or_completions_start_anew_with_a_note(tmp_path):
    assert invoke(choices(tmp_path, "A", "A")).stderr == ""
    assert invoke(tmp_path, "--seconds", 1).stderr == (
        "note: m: grades with other settings: graded anew\n"
    )
    assert invoke(choices(tmp_path, "A", "A", tokens=11), "--seconds", 1).stderr == (
        "note: m: grades with other completions: graded anew\n"
    )
    assert invoke(tmp_path, "--seconds", 1, "--overwrite").stderr == ""
    assert invoke(tmp_path, "--seconds", 1).stderr == "note: m: has been graded so\n"


def test_other_golds_or_prompts_start_anew_with_a_note(tmp_path):
    """The completions stay the same, byte for byte."""
    for golds, prompts, statuses in (
        ("AB", "?", ["correct", "wrong"]),
        ("AA", "?", ["correct", "correct"]),
        ("AA", "?<think>\n", ["no_answer", "no_answer"]),
    ):
        begun = (tmp_path / "m" / "grades.json").exists()
        choices(tmp_path, *golds, prompts=prompts)
        if begun:
            with pytest.raises(OutputError, match=r"found grades by others: run `curate evaluate"):
                results(tmp_path)
        note = "note: m: grades with other problems: graded anew\n" if begun else ""
        assert invoke(tmp_path).stderr == note
        assert evaluation.read_table(tmp_path, "m", "grades")["status"].to_pylist() == statuses


def unfinished(folder):
    """Grade all but what comes last; gives the file of the only part."""
    blocked = choices(folder, "A", "B") / "m" / ".grades.parquet.part"
    blocked.mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        grade_tasks(folder, Asked())
    blocked.rmdir()
    (part,) = (folder / "m" / ".grading").glob("[0-9]*")
    return part


@pytest.mark.parametrize("size", [0, 20, 500])
def test_a_part_that_is_cut_is_refused(tmp_path, size):
    part = unfinished(tmp_path)
    part.write_bytes(part.read_bytes()[:size])
    with pytest.raises(OutputError, match=r"00000.arrow: cannot be read: .*\(--overwrite starts"):
        grade_tasks(tmp_path, Asked())
    grade_tasks(tmp_path, Asked(overwrite=True))
    assert results(tmp_path)[0].accuracy == 0.5


def test_an_unfinished_grading_by_other_golds_is_not_gone_on_with(tmp_path):
    assert unfinished(tmp_path).exists()
    assert invoke(choices(tmp_path, "A", "A")).stderr == (
        "note: m: an unfinished grading with other problems: graded anew\n"
    )
    assert results(tmp_path)[0].accuracy == 1


def test_grades_stay_until_others_are_whole(tmp_path, monkeypatch):
    folder = task(tmp_path, problems=3)
    grade_tasks(folder, Asked())
    before = files(folder)
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(CurateError, match="grading takes math-verify, found none"):
        grade_tasks(folder, Asked(overwrite=True))
    assert files(folder) == before
    assert invoke(folder).stderr == "note: m: has been graded so\n"


def test_the_command_prints_a_table_or_one_document(tmp_path):
    add_task(tmp_path, "m", "mathematics", ["1", "2"], [["\\boxed{1}"] * 2, ["2", "<think>"]])
    add_task(tmp_path, "c", "choice", ["A"], [["\\boxed{A}", "B"]], endings="length")
    done = invoke(tmp_path, "--workers", 1)
    head, *lines = done.stdout.splitlines()
    assert head.split()[:6] == ["task", "asked", "accuracy", "95%", "interval", "lenient"]
    each = [line.split() for line in lines]
    assert [one[:3] + one[6:] for one in each] == [
        "m 4 50.0% 75.0% 0.0% 50.0% 0.0% 0.0% 0.0% 10".split(),
        "c 2 0.0% 50.0% 0.0% 0.0% 100.0% 0.0% 0.0% 10".split(),
    ]
    for one, found in zip(each, results(tmp_path), strict=True):
        low, high = found.interval
        assert one[3:6] == [f"{low:.1%}", "to", f"{high:.1%}"]
    told = json.loads(invoke(tmp_path, "--json").stdout)
    assert told["tasks"]["m"]["counts"]["strict"]["correct"] == 2
    assert told["tasks"]["c"]["mean_tokens"] == 10 and told["running"] == []
    assert json.loads(invoke(tmp_path, "--json", "--task", "c").stdout)["tasks"].keys() == {"c"}


def test_what_could_not_be_judged_is_a_warning_above_one_per_cent(tmp_path):
    texts = [[r"\boxed{4!}" if n < 2 else "2*3*4"] for n in range(199)]
    gold = json.dumps({"numbers": [2, 3, 4], "target": 24})
    add_task(tmp_path, "m", "countdown", [gold] * 199, texts)
    (warning,) = json.loads(invoke(tmp_path, "--json").stdout)["tasks"]["m"]["warnings"]
    assert warning.startswith("the scorer could not judge 1.0 % of samples (parse_error 1.0 %, ")
    assert invoke(tmp_path).stderr.endswith(f"warning: m: {warning}\n")
    add_task(tmp_path, "m", "countdown", [gold] * 200, [*texts, ["2*3*4"]])
    assert json.loads(invoke(tmp_path, "--json").stdout)["tasks"]["m"]["warnings"] == []


def test_wrong_answers_that_were_not_compared_are_a_warning(tmp_path):
    texts = [[rf"\boxed{{x^{{{n}}}}}" for n in range(2, 15)]]
    add_task(tmp_path, "m", "mathematics", ["42"], texts)
    told = json.loads(invoke(tmp_path, "--workers", 1, "--json").stdout)["tasks"]["m"]
    assert told["groups"] == {"compared": 64, "not_compared": 13 * 12 // 2 - 64}
    (warning,) = told["warnings"]
    assert warning.startswith("14 pairs of wrong answers could not be compared, or were too many")
    assert invoke(tmp_path).stderr.endswith(f"warning: m: {warning}\n")
    assert warning in results(tmp_path)[0].warnings


def changed(folder, **more):
    record = evaluation.read_record(folder)
    record["tasks"]["m"] |= more
    evaluation.write_record(folder, record)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"samples": 3}, r"expected 9 completions \(problems x samples\), found 12"),
        ({"problems": 4}, "expected problems 0 to 3 in order, found 3 rows"),
        ({"state": "running"}, "expected a whole task, found m under way"),
        ({"completions": "0"}, "expected what the record says, found other completions"),
        ({"scorer": "taste"}, "scorer: expected what this tool writes, found 'taste'"),
        ({"scorer": "choice"}, "problem m-0: expected a gold for choice, found '0'"),
        ({"scorer": "countdown"}, "problem m-0: expected a gold for countdown, found '0'"),
        ({"scorer": "instructions"}, "problem m-0: expected a gold for instructions, found '0'"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, more, said):
    task(tmp_path, problems=3)
    changed(tmp_path, **more)
    with pytest.raises(CurateError, match=said):
        grade_tasks(tmp_path, Asked())
    assert not (tmp_path / "m" / "grades.json").exists()


def test_other_refusals(tmp_path):
    with pytest.raises(OutputError, match="expected the record of an evaluation"):
        grade_tasks(tmp_path, Asked())
    folder = task(tmp_path, problems=3)
    with pytest.raises(CurateError, match=r"--task n: .* has m"):
        grade_tasks(folder, Asked(tasks=("n",)))
    evaluation.table_of(folder, "m", "completions").unlink()
    with pytest.raises(OutputError, match="expected the task's completions, found none"):
        grade_tasks(folder, Asked())


def test_a_task_under_way_is_told_of_and_left(tmp_path):
    add_task(tmp_path, "c", "choice", ["A"], [["\\boxed{A}"]])
    task(tmp_path, problems=3)
    changed(tmp_path, state="running", completions=None)
    done = invoke(tmp_path)
    assert done.stderr == "note: m: under way, not graded\n" and "\nc " in done.stdout
    with pytest.raises(CurateError, match="expected a whole task, found m under way"):
        grade_tasks(tmp_path, Asked(tasks=("m",)))


def test_rows_out_of_order_are_refused(tmp_path):
    folder = task(tmp_path, problems=3)
    table = evaluation.read_table(folder, "m", "completions").take([0, 1, 2, 4, 3, *range(5, 12)])
    evaluation.write_table(folder, "m", "completions", table)
    path = evaluation.table_of(folder, "m", "completions")
    changed(folder, completions=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(
        OutputError, match=r"row 3: expected problem and sample \(0, 3\), found \(1, 0"
    ):
        grade_tasks(folder, Asked())


@pytest.mark.parametrize(
    ("scorer", "gold", "reads"),
    [
        ("mathematics", r"\frac{1}{2}", True),
        ("mathematics", " ", False),
        ("mathematics", None, False),
        ("choice", "(B)", True),
        ("choice", "K", False),
        ("countdown", '{"numbers": [1], "target": 1}', True),
        ("countdown", '{"numbers": ["1"], "target": 1}', False),
        ("countdown", '{"target": 1}', False),
        ("instructions", '{"prompt": "", "instruction_id_list": [], "kwargs": []}', True),
        ("instructions", '{"prompt": "", "instruction_id_list": ["a"], "kwargs": []}', False),
        ("instructions", "[]", False),
    ],
)
def test_golds(scorer, gold, reads):
    assert gold_reads(scorer, gold) is reads
