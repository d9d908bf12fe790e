"""Grading with math-verify: verdicts, and processes that take for ever, die or are left behind."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import psutil
import pytest

from curate.answers import STATUSES
from curate.errors import CurateError
from curate.grading import LONGEST, Grader

if importlib.util.find_spec("math_verify") is None:
    pytest.skip("math-verify is not installed", allow_module_level=True)

FOR_EVER = [
    "10^{10^{10^{10}}}",
    "(10^6)!",
    "(" * 300 + "5" + ")" * 300,
]


@pytest.fixture(scope="module")
def grader():
    with Grader(2) as grader:
        yield grader


def boxed(*answers):
    return [f"so \\boxed{{{answer}}}." for answer in answers]


def grade(grader, answers, golds):
    return grader.grade(answers, golds, [False] * len(golds))


def workers():
    """Worker processes of this process."""
    below = psutil.Process().children(recursive=True)
    return [one for one in below if "curate.grading" in " ".join(one.cmdline())]


def busy_worker():
    """A worker that has been computing for a while, once there is one."""
    while True:
        for worker in workers():
            before = worker.cpu_times().user
            time.sleep(0.3)
            if worker.is_running() and worker.cpu_times().user - before > 0.1:
                return worker


def ends(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("part", "gold", "truncated", "status"),
    [
        (r"\boxed{42}", "42", False, "correct"),
        (r"\boxed{42}", r"it is \boxed{42}", False, "correct"),
        (r"\boxed{41}", "42", False, "wrong"),
        ("it is 42", "42", False, "no_answer"),
        (r"\boxed{42", "42", False, "no_answer"),
        ("", "42", False, "no_answer"),
        (None, "42", False, "no_answer"),
        (r"\boxed{42}", "42", True, "truncated"),
        (None, "42", True, "truncated"),
        (r"\boxed{42}", None, False, None),
        (None, None, True, None),
        (None, " ", True, None),
        (r"\boxed{\frac}", "42", False, "parse_error"),
        (r"\boxed{42}", r"\frac", False, "parse_error"),
        (r"\boxed{x + %s}" % ("1" * LONGEST), "x", False, "parse_error"),
        (r"\boxed{%s}" % ("1" * LONGEST), "1" * LONGEST, False, "correct"),
    ],
)
def test_each_row_has_a_status_or_no_gold(grader, part, gold, truncated, status):
    assert grader.grade([part], [gold], [truncated]) == [status]
    assert status is None or status in STATUSES


EQUAL = [
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\frac{9 \sqrt{23}}{23}", r"\frac{9}{\sqrt{23}}"),
    (r"\frac{14}{3}", r"4\frac{2}{3}"),
    ("204", "m+n=204"),
    ("5225 \\text{ cubic inches}", "5225"),
    ("$5$", "x = 5"),
    ("a=-30.5", "-30.5"),
    ("(0,1)", "( 0 , 1 )"),
    ("0.1", r"10\%"),
    (r"\frac{1}{3}", "0.333333"),
    ("1331, 1728", "1728 and 1331"),
    ("2, 3", r"3 \text{ or } 2"),
    (r"4\sqrt{2}", r"4\sqrt(2)"),
    ("1+1/e", r"1+\frac{1}{\mathrm{e}}"),
    ("1/2^{98}", r"\frac{2}{2^{99}}"),
    ("[2, \\infty)", r"x \ge 2"),
    ("x^2 - 1", "(x-1)(x+1)"),
]
UNEQUAL = [
    ("1331 and 1728", "1728"),
    ("1728", "1331 and 1728"),
    ("4", r"4\sqrt(2)"),
    ("1/2^{98}", "1/2^{99}"),
    (r"\frac{1}{2006!}", r"\frac{1}{2004!}"),
    (r"1+1/\mathrm{e}", r"1-1/\mathrm{e}"),
    ("2", r"2 \text{ or } 3"),
    ("(1, 2)", "(2, 1)"),
    ("(0, 1)", "[0, 1]"),
    ("x=5", "y=5"),
    ("3:4", "4:3"),
    ("5", "no solution"),
    ("12", r"\text{A}"),
]
QUESTIONABLE = [
    # What a person may see otherwise, as it is at present.
    (r"\frac{1}{3}", "0.3333", "wrong"),
    ("204", r"204 \pmod{1000}", "wrong"),
    ("54.55", "54.545454", "wrong"),
    ("5", "5 = x", "wrong"),
    ("x", "x + 0", "wrong"),
    ("1000", "1e3", "wrong"),
    ("1204_9", "1204", "correct"),
    ("no", "on", "correct"),
    ("0.00000001", "0.000000011", "correct"),
    (r"(1/2^{98}, 1)", r"(1/2^{99}, 1)", "correct"),
    (r"(-\infty, 1) \cup (2, \infty)", r"x < 1 \text{ or } x > 2", "wrong"),
]


def test_algebra_says_what_is_equal(grader):
    table = [(*pair, "correct") for pair in EQUAL] + [(*pair, "wrong") for pair in UNEQUAL]
    table += QUESTIONABLE
    golds, answers, statuses = zip(*table, strict=True)
    found = zip(golds, answers, grade(grader, boxed(*answers), golds), strict=True)
    assert list(found) == list(zip(golds, answers, statuses, strict=True))


def test_lenient_grading_takes_bare_answers():
    answers = ["42", "6.0+2.0i", "The answer is $\\frac{1}{2}$.", "yes", ""]
    with Grader(1, lenient=True) as grader:
        golds = ["42", "6.0 + 2.0i", "0.5", "No", "1"]
        assert grade(grader, answers, golds) == ["correct"] * 3 + ["wrong", "no_answer"]


def test_what_takes_no_algebra_starts_no_process():
    with Grader(2) as grader:
        before = len(workers())
        assert grade(grader, boxed(1, 2), ["1", "1"]) == ["correct", "wrong"]
        assert len(workers()) == before


def test_answers_without_end_cost_themselves_only():
    answers = [*FOR_EVER, "x + 1", "x + 2"]
    golds = ["5"] * len(FOR_EVER) + ["1 + x", "1 + x"]
    with Grader(2, seconds=0.2) as grader:
        for _ in range(2):
            statuses = grade(grader, boxed(*answers), golds)
            assert statuses == ["timed_out"] * len(FOR_EVER) + ["correct", "wrong"]
        assert grade(grader, boxed("y + 1"), ["1 + y"]) == ["correct"]


def test_a_worker_that_dies_costs_its_answer_only():
    with Grader(1, seconds=60) as grader, ThreadPoolExecutor(1) as pool:
        assert grade(grader, boxed("x+2"), ["2+x"]) == ["correct"]  # so that it has started
        first = pool.submit(grade, grader, boxed(FOR_EVER[0]), ["5"])
        busy_worker().kill()
        assert first.result() == ["parse_error"]
        assert grade(grader, boxed("x+1"), ["1+x"]) == ["correct"]


def test_a_worker_that_dies_in_between_costs_nothing():
    with Grader(1) as grader:
        before = workers()
        assert grade(grader, boxed("x+1"), ["1+x"]) == ["correct"]
        (mine,) = [one for one in workers() if one not in before]
        mine.kill()
        while not ends(mine):
            time.sleep(0.01)
        assert grade(grader, boxed("x+2"), ["2+x"]) == ["correct"]


def test_many_threads_may_ask(grader):
    def ask(number):
        answers = boxed(*(f"x + {number + each}" for each in range(10)))
        return grade(grader, answers, [f"{number} + x"] * 10)

    with ThreadPoolExecutor(8) as pool:
        for statuses in pool.map(ask, range(16)):
            assert statuses == ["correct"] + ["wrong"] * 9


def test_closing_ends_a_grade_under_way_and_leaves_no_process():
    before = workers()
    with Grader(1, seconds=60) as grader, ThreadPoolExecutor(1) as pool:
        assert grade(grader, boxed("x+2"), ["2+x"]) == ["correct"]
        under_way = pool.submit(grade, grader, boxed(*FOR_EVER), ["5"] * len(FOR_EVER))
        busy_worker()
        grader.close()
        with pytest.raises(CurateError, match="stopped before it was whole"):
            under_way.result()
    assert set(workers()) <= set(before)


PROGRAM = dedent("""
    from curate.grading import Grader
    grader = Grader(2, seconds=60)
    print(grader.grade([r"\\boxed{x+1}"], ["1+x"], [False]), flush=True)
""")


def started(program):
    """A program of its own that has graded one answer, and its workers."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "['correct']\n"
    return process, psutil.Process(process.pid).children(recursive=True)


def all_end(processes):
    return not psutil.wait_procs(processes, timeout=60)[1]


def test_a_program_that_never_closes_its_grader_ends():
    process, below = started(PROGRAM)
    assert process.communicate() == ("", "")
    assert process.returncode == 0
    assert all_end(below)


def test_an_interrupt_ends_everything():
    program = PROGRAM + dedent("""
        with grader:
            print(grader.grade([r"\\boxed{10^{10^{10^{10}}}}"] * 9, list("123456789"), [False] * 9))
    """)
    process, below = started(program)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert out == "" and err.endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT
    assert all_end(below)


def test_workers_do_not_outlive_a_program_that_is_killed():
    """Neither one that waits nor one that computes."""
    program = PROGRAM.replace("60", "2") + dedent("""
        grader.grade([r"\\boxed{10^{10^{10^{10}}}}"], ["1"], [False])
    """)
    process, below = started(program)
    time.sleep(1)
    process.kill()
    process.communicate()
    assert below and all_end(below)


def test_without_math_verify_there_is_no_grader(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(CurateError, match=r"found none: pip install 'curate-cot\[verify\]'"):
        Grader(1)


def test_a_broken_math_verify_is_named(monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Grader(2) as grader:
        assert grade(grader, boxed(1), ["1"]) == ["correct"]
        with pytest.raises(CurateError, match="does not work here: No module named 'no_such_mod"):
            grade(grader, boxed("x+1"), ["1+x"])


@pytest.mark.parametrize(("count", "seconds"), [(0, 2.0), (1, 0), (1, float("nan")), (1, 1e9)])
def test_what_cannot_be_is_refused(count, seconds):
    with pytest.raises(CurateError, match="expected at least one worker"):
        Grader(count, seconds)
