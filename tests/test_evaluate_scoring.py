"""Scorers: what of a completion is graded, how it fares by each kind of task, and groups."""

import importlib.util
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import answers
from curate.evaluate import choices, expressions, groups
from curate.evaluate.answerparts import answer_part, opens_thought, without_specials
from curate.evaluate.scoring import Completion, grades_of, scorer_of

if importlib.util.find_spec("math_verify") is None:
    pytest.skip("math-verify is not installed", allow_module_level=True)

COUNTDOWN = json.dumps({"numbers": [2, 3, 4], "target": 24})
GOLDS = {"mathematics": "42", "choice": "B", "countdown": COUNTDOWN}


@pytest.fixture(scope="module")
def scorers():
    made = {name: scorer_of(name, 2, 2.0) for name in GOLDS}
    yield made
    for scorer in made.values():
        scorer.close()


def grades(scorers, name, texts, *, ending="eos", opened=False, gold=None):
    """Of one problem."""
    rows = [Completion(0, text, ending, opened, gold or GOLDS[name]) for text in texts]
    return grades_of(rows, scorers[name], 2)


def statuses(scorers, name, text, **more):
    (found,), _ = grades(scorers, name, [text], **more)
    return found.status, found.lenient


R, W, N, T = "correct", "wrong", "no_answer", "truncated"


@pytest.mark.parametrize(
    ("text", "opened", "ending", "expected"),
    [
        # A thought that is closed, opened by the text, by the prompt, or by neither.
        (r"<think>x</think>\boxed{42}", False, "eos", (R, R)),
        (r"x</think>\boxed{42}", True, "eos", (R, R)),
        (r"\boxed{7}</think>\boxed{42}", False, "unknown", (R, R)),
        (r"<think>a</think>b</think>\boxed{42}", False, "eos", (R, R)),
        (r"\boxed{42}", False, "eos", (R, R)),
        (r"\boxed{42}", False, "unknown", (R, R)),
        # Cut at the limit: never right strictly.
        (r"<think>x</think>\boxed{42}", False, "length", (T, R)),
        (r"<think>x</think>\boxed{41} and", False, "length", (T, W)),
        (r"\boxed{42}", False, "length", (T, R)),
        ("<think>x</think>\n", False, "length", (T, T)),
        ("<think>x</think>So it comes to 42 in", False, "length", (T, R)),
        # A thought that is never closed has no answer, wherever a box is.
        (r"<think>\boxed{42}", False, "eos", (N, N)),
        (r"<think>\boxed{42}", False, "length", (T, T)),
        (r"<think>\boxed{42}", False, "unknown", (T, T)),
        (r"\boxed{42}", True, "eos", (N, N)),
        (r"\boxed{42}", True, "length", (T, T)),
        (r"\boxed{42}", True, "unknown", (T, T)),
        ("<think>x</think>\n<think>" + r"\boxed{42}", False, "eos", (N, N)),
        ("x</think>\n\n<think>" + r"\boxed{42}", True, "length", (T, T)),
        (r"<think>a</think> <think>b</think>\boxed{42}", False, "eos", (R, R)),
        # Behind an answer that has begun, the tag is a word of it.
        (r"<think>x</think>Behind `<think>` it is \boxed{42}", False, "eos", (R, R)),
        (r"x</think>\boxed{42}, as in <think>", True, "unknown", (R, R)),
        (r"<think>x</think>Behind `<think>` it is \boxed{42}", False, "length", (T, R)),
        (r"Behind `<think>` it is \boxed{42}", False, "eos", (N, N)),
        ("", True, "unknown", (T, T)),
        # No answer, and answers out of no box.
        ("<think>x</think>", False, "eos", (N, N)),
        ("<think>x</think>The answer is $42$.", False, "eos", (N, R)),
        ("42", False, "eos", (N, R)),
        (r"</think>\boxed{42", False, "eos", (N, N)),
        # Special tokens.
        (r"<think>x</think>\boxed{42}<|im_end|>", False, "eos", (R, R)),
        ("</think>42<|im_end|>\n<|endoftext|>", False, "eos", (N, R)),
        ("</think>42<｜end▁of▁sentence｜>", False, "eos", (N, R)),
        ("</think>42</s>", False, "eos", (N, R)),
        ("</think>So it has to be 42 <b>", False, "eos", (N, R)),
    ],
)
def test_what_is_graded_and_what_it_is_called(scorers, text, opened, ending, expected):
    assert statuses(scorers, "mathematics", text, opened=opened, ending=ending) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{B}", (R, R)),
        (r"\boxed{\text{(B)}}", (R, R)),
        (r"\boxed{(B) 12}", (R, R)),
        (r"\boxed{\textbf{B.}}", (R, R)),
        (r"\boxed{\mathrm{B}}", (R, R)),
        (r"\boxed{b}", (R, R)),
        (r"\boxed{(b)}", (R, R)),
        (r"\boxed{\text{b.}}", (R, R)),
        (r"\boxed{\text{Option B}}", (R, R)),
        (r"\boxed{Choice (b)}", (R, R)),
        (r"\boxed{option B: 12}", (R, R)),
        (r"\boxed{A}", (W, W)),
        (r"\boxed{a}", (W, W)),
        (r"\boxed{12}", (W, W)),
        (r"\boxed{b and c}", (W, W)),
        (r"\boxed{Option B or C}", (W, W)),
        (r"\boxed{Optional B}", (W, W)),
        (r"\boxed{ab}", (W, W)),
        (r"\boxed{A and B}", (W, W)),
        (r"\boxed{(B) or (C)}", (W, W)),
        ("Answer: B", (N, R)),
        ("The answer is (B).", (N, R)),
        (r"The answer is $\text{B}$, as 12 is even.", (N, R)),
        ("**Answer: C**", (N, W)),
        ("The answer is A. No: the answer is **B**", (N, R)),
        ("(B) 12", (N, R)),
        ("It must be even.\n\n**B**", (N, R)),
        ("B", (N, R)),
        ("The answer is B\nas 12 is even", (N, R)),
        ("The answer is B because 12 is even", (N, R)),
        ("The answer is B - 12", (N, R)),
        ("I am sure. The answer is I believe B", (N, N)),
        ("The answer is A good one, so C", (N, N)),
        ("The answer is A-level stuff", (N, N)),
        ("The answer is I'm sure B", (N, N)),
        ("The answer is I", (N, W)),
        ("The answer is B or C", (N, N)),
        ("The answer is Bob", (N, N)),
        ("Both seem fine to me", (N, N)),
    ],
)
def test_choices(scorers, text, expected):
    assert statuses(scorers, "choice", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{2 * 3 * 4}", (R, R)),
        (r"\boxed{2 \times 3 \times 4}", (R, R)),
        (r"\boxed{2 \cdot \left(3 \cdot 4\right) = 24}", (R, R)),
        (r"\boxed{\frac{3}{2} * 4 = 24}", (W, W)),
        (r"\boxed{2 * 3 * 4 = 25}", (W, W)),
        (r"\boxed{4! * 3 / 3}", ("parse_error", "parse_error")),
        (r"\boxed{8 * 3}", (W, W)),
        (r"\boxed{6 * 4}", (W, W)),
        ("2*3*4", (R, R)),
        ("  (4*3) * 2\n", (R, R)),
        ("2 × 3 × 4", (R, R)),
        ("So:\n\n2 * 3 * 4", (N, R)),
        ("<answer>2*3*4</answer>", (N, R)),
        ("The expression is 2*3*4. Done", (N, R)),
        ("I give up", (N, N)),
        ("24", (W, W)),
        ("2*3*" + "(" * 150, (W, W)),
        ("2*3*" + "(" * 900, (N, N)),
        ("9" * 5000, (N, N)),
    ],
)
def test_countdown(scorers, text, expected):
    assert statuses(scorers, "countdown", text) == expected


def test_countdown_may_leave_numbers_out_where_the_gold_says_so(scorers):
    gold = json.dumps({"numbers": [2, 3, 4, 9], "target": 24})
    assert statuses(scorers, "countdown", "2*3*4", gold=gold) == (W, W)
    gold = json.dumps({"numbers": [2, 3, 4, 9], "target": 24, "all": False})
    assert statuses(scorers, "countdown", "2*3*4", gold=gold) == (R, R)


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [("q<think>\n", True), ("q<think>", True), ("<think>\n\n</think>\n\n", False), (None, False)],
)
def test_a_prompt_may_open_the_thought(prompt, opened):
    assert opens_thought(prompt) is opened


def test_groups_are_of_equivalent_answers(scorers):
    boxes = [
        "42",
        "x+1",
        "1+x",
        None,
        "7",
        "42.0",
        "07",
        "2x",
        r"\frac",
        r"\frac{x+1}{1}",
        r"\frac",
    ]
    texts = ["" if box is None else rf"\boxed{{{box}}}" for box in boxes]
    found, compared = grades(scorers, "mathematics", texts)
    assert [each.group for each in found] == [0, 1, 1, None, 2, 0, 2, 3, 4, 1, 4]
    # x+1 with 1+x; 7 with x+1; 2x with x+1 and 7; (x+1)/1 with x+1 and, at the same time, 7.
    assert compared == groups.Compared(told=6)


def test_pairs_that_are_compared_are_bounded(scorers):
    texts = [rf"\boxed{{x^{{{n}}}}}" for n in range(2, 16)]
    found, compared = grades(scorers, "mathematics", texts)
    assert [each.group for each in found] == list(range(14))
    assert compared == groups.Compared(told=groups.PAIRS, unasked=14 * 13 // 2 - groups.PAIRS)


@pytest.mark.parametrize("workers", [1, 2])
def test_pairs_that_never_end_hold_up_no_problem_for_long(workers):
    """Each answer is told from the gold, an interval, in no time; two of them take for ever."""
    texts = [rf"\boxed{{(x+1)^{{{n}}}+{n}}}" for n in range(1001, 1007)]
    scorer = scorer_of("mathematics", workers, 0.5)
    rows = [Completion(0, text, "eos", False, "(1,2)") for text in texts]
    found, compared = grades_of(rows, scorer, workers)
    scorer.close()
    assert [each.group for each in found] == list(range(6))
    assert compared == groups.Compared(untold=2, unasked=6 * 5 // 2 - 2)


def test_choices_and_expressions_have_groups_too(scorers):
    found, _ = grades(scorers, "choice", [r"\boxed{A}", r"\boxed{\text{(a)}}", r"\boxed{C}", "B"])
    assert [each.group for each in found] == [0, 0, 1, None]
    found, _ = grades(scorers, "countdown", ["2 * 3", "2*3", "2*3*4", "4*3*2", "3*2"])
    assert [each.group for each in found] == [0, 0, 1, 1, 2]


def test_a_group_holds_for_each_problem_alone(scorers):
    rows = [Completion(n // 2, rf"\boxed{{{n}}}", "eos", False, "1") for n in range(6)]
    found, _ = grades_of(rows, scorers["mathematics"], 2)
    assert [each.group for each in found] == [0, 1] * 3


def test_what_a_grade_shows(scorers):
    long = "1" * 1500
    texts = [rf"\boxed{{{long}}}", "the answer is $7$", "\\boxed{\ud800}", "<think>"]
    found, _ = grades(scorers, "mathematics", texts)
    assert found[0].answer == long[:1000] and json.loads(found[0].detail) == {"characters": 1500}
    assert found[1].answer is None and json.loads(found[1].detail) == {"lenient_answer": "$7$"}
    assert found[2].answer == "?" and found[2].status == "parse_error"
    assert found[3] == ("no_answer", "no_answer", None, None, None)


PIECES = st.sampled_from(
    [r"\boxed{", r"\boxed {", r"\fbox{", "{", "}", r"\}", "\\", "5", " ", "x", r"\text{a}", "\n"]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_the_short_way_to_a_box_is_the_long_way(part):
    begin, end = answers._any_box(part)
    assert answers.last_box(part) == (part[begin:end].strip() or None)


@given(st.text(alphabet="<>|/s ainm_ed\n｜", max_size=40))
def test_only_what_ends_a_text_is_taken_for_special(text):
    bare = without_specials(text)
    assert text.startswith(bare)
    assert without_specials(bare + "<|im_end|>\n</s>") == bare or bare.rstrip().endswith(">")


TAGGED = st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n"]), max_size=8)


@given(TAGGED.map("".join), st.booleans())
def test_an_answer_part_is_behind_all_thoughts(text, opened):
    part = answer_part(text, opened=opened)
    if part is None:
        assert opened or "<think>" in text
    else:
        assert text.endswith(part) and "</think>" not in part
        assert not part.startswith("<think>")
        assert "</think>" in text or not (opened or "<think>" in text)


@given(st.text(max_size=300))
def test_any_text_has_an_answer_or_none(text):
    for lenient in (False, True):
        for module, gold in ((choices, "B"), (expressions, COUNTDOWN)):
            answer = module.answer_of(text, lenient=lenient)
            assert answer is None or module.verdict(answer, gold) in answers.STATUSES
