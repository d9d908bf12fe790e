"""Final answers: where they are found, and what is settled without a library."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.answers import answer_part, as_latex, final_answer, last_box, plain_number, settled

BALANCED = st.recursive(
    st.sampled_from(["x", " ", r"\frac", r"\{", r"\}", "\n", "é", "$"]),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: "{" + "".join(parts) + "}"),
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>\n\nb", "\n\nb"),
        ("a</think>b</think>c", "c"),
        ("a</think>", ""),
        ("<think>a \\boxed{1}", None),
        ("", None),
    ],
)
def test_the_answer_part_is_behind_the_last_closing_tag(text, part):
    assert answer_part(text) == part


@pytest.mark.parametrize(
    ("part", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed {42}", "42"),
        (r"\fbox{42}", "42"),
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{x = \fbox{3}}", "3"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ 1 \right.} or {", r"\left\{ 1 \right."),
        (r"\boxed{4} ... \boxed{5", "4"),
        (r"\boxed{a} {\boxed{b} \boxed{c", "b"),
        (r"\boxed{4", None),
        (r"\boxed{{4}", None),
        (r"\boxed{}", None),
        (r"\boxed{ }", None),
        (r"\boxed42", None),
        ("the answer is 42", None),
        ("42", None),
        ("", None),
    ],
)
def test_the_answer_is_in_the_last_balanced_box(part, answer):
    assert final_answer(part) == answer
    if r"\boxed" in part:
        assert final_answer(part, lenient=True) == answer or r"\boxed4" in part


@given(st.text(), BALANCED, st.text(alphabet="ab {$"))
def test_any_balanced_box_is_found_whatever_is_around_it(before, inside, after):
    assert last_box(f"{before} \\boxed{{{inside}}}{after}") == (inside.strip() or None)


@pytest.mark.parametrize(
    ("part", "answer"),
    [
        ("42", "42"),
        ("  42.\n", "42"),
        ("**42**", "42"),
        ("x = 3", "x = 3"),
        ("(0, 1)", "(0, 1)"),
        ("42 apples", "42 apples"),
        ("David is a fool, and Jacob is a sage.", "David is a fool, and Jacob is a sage"),
        ('{"n": 10}', '{"n": 10}'),
        ("2 1\n1 2", "2 1\n1 2"),
        ("x + 1 = 3\nx = 2", "2"),
        ("So he is left with 42 apples in all.", "42"),
        ("The answer is 42.", "42"),
        ("The answer is 1.5. That is all.", "1.5"),
        ("First 7.\n\nThe final answer is:\n**42**\n\nI hope so.", "42"),
        ("**Final Answer:** 42 of the residents own all 4 items.", "42"),
        ("The answer is $\\frac{1}{2}$, as 3 is odd", r"\frac{1}{2}"),
        ("Answer: (B)", "(B)"),
        ("long\nreasoning\n<answer>1 2\n2 1</answer>\nDone with 5.", "1 2\n2 1"),
        ("<answer>The answer is 5</answer>", "5"),
        ("a\nb\nThus it is \\( 2 + 1 = 3\\sqrt{13} \\).", r"3\sqrt{13}"),
        ("a\nb\nThus 196 has $d$ of them: 9.", "9"),
        ("a\nb\nThus 196 has 1,234 of them.", "1,234"),
        ("no\nnumbers\nat all", None),
        ("  ", None),
        ("", None),
    ],
)
def test_without_a_box_a_lenient_answer_is_the_last_thing_said(part, answer):
    assert final_answer(part) is None
    assert final_answer(part, lenient=True) == answer


SAME = [
    ("42", "42"),
    (" 42 ", "$42$"),
    ("073", "73"),
    ("+5", "5"),
    ("-0", "0"),
    ("−7", "-7"),
    ("42.", "42"),
    ("204.0", "204"),
    (".50", "0.5"),
    ("1,234,567", "1234567"),
    ("1{,}000", "1000"),
    (r"1\,000", "1000"),
    (r"20,\!000", "20000"),
    ("1 000", "1000"),
    (r"\$5", "5"),
    ("$1,080", "1080"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90"),
    ("90°", "90"),
    (r"10\%", "10"),
    (r"54.55\%", "54.55"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\dfrac{2469}{20000}", r"\dfrac{2469}{20,\!000}"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    ("p - q", "p-q"),
    (r"\( x^2 \)", "x^2"),
    ("1204_{9}", "1204_9"),
    (r"\text{Evelyn}", "Evelyn"),
    ("yes", "Yes"),
    (r"\text{left right}", "left  right"),
    ("(B)", "B"),
    (r"\textbf{(B) } 12", "B"),
    ("B. 12", r"\text{(B)}"),
    ("1 2\n2 1 ", "1 2\n2 1"),
    ("9" * 5000, "0" + "9" * 5000),
]
DIFFERENT = [
    ("42", "43"),
    ("-42", "42"),
    ("1.5", "1.50001"),
    ("204.5", "204"),
    ("100,200", "200,100"),
    ("silent", "listen"),
    ("left right", "right left"),
    ("Navin", r"\text{Evelyn}"),
    ("(A)", "B"),
    ("A) 12", "B"),
    ("1204_8", "1204_9"),
    ("1 2 2 1", "2 1 1 2"),
    ("1 2", "3"),
    (".", "."),
]
OPEN = [
    (r"\frac{1}{2}", "0.5"),
    (r"100\%", "1"),
    ("0.3333333", "0.33333333"),
    ("11/2", "1 1/2"),
    ("5 cm", "5"),
    ("x=5", "5"),
    ("1728", "1331 and 1728"),
    ("(A) and (C)", "A"),
    ("12", "A"),
    ("ab", "ba"),
    ("1204", "1204_9"),
]


@pytest.mark.parametrize(
    ("answer", "gold", "verdict"),
    [
        (answer, gold, verdict)
        for table, verdict in ((SAME, True), (DIFFERENT, False), (OPEN, None))
        for answer, gold in table
    ],
)
def test_what_takes_no_algebra_is_settled_at_once(answer, gold, verdict):
    assert settled(answer, gold) is verdict


@given(st.integers(), st.integers(-9, 9), st.sampled_from(["{}", "{:,}", "${}$", "{}.", "{}.00"]))
def test_plain_integers_compare_as_numbers(number, apart, form):
    assert settled(form.format(number), str(number + apart)) is (apart == 0)


@given(st.decimals(places=4, allow_nan=False, allow_infinity=False), st.sampled_from("0 00"))
def test_a_plain_number_has_one_form(number, zeros):
    text = f"{number:f}"
    assert plain_number(text + zeros.strip()) == plain_number(text)
    assert plain_number(plain_number(text)) == plain_number(text)


@given(st.lists(st.sampled_from([*"01aA,. \\{}$^_()%\n−", r"\text{", r"\frac"])).map("".join))
def test_any_text_is_itself_or_is_nothing(text):
    assert settled(text, text) in (True, False)
    assert isinstance(as_latex(text), str)
    final_answer(text, lenient=True)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("5", "$5$"),
        (" 5.\n", "$5$"),
        ("$5$", "$5$"),
        (r"\(5\) and \(6\)", r"\(5\) and \(6\)"),
        (r"\$5", "$5$"),
        ("$5 a day", "$5 a day$"),
        (r"4\sqrt(2)", r"$4\sqrt{2}$"),
        (r"1+1/\mathrm{e}", "$1+1/e$"),
        (r"\frac{1}{20,\!000}", r"$\frac{1}{20000}$"),
        ("90°", r"$90^\circ $"),
        ("1\n2", "$1 2$"),
    ],
)
def test_what_math_verify_is_given_is_between_dollars(text, latex):
    assert as_latex(text) == latex


@pytest.mark.parametrize("piece", [r"\boxed{", r"\text{", "<answer>", r"\(", "$$", "1,", "0", "^ "])
def test_text_made_to_be_slow_is_not(piece):
    """Anything quadratic would take minutes of these; what is found does not matter."""
    text = piece * 100_000
    final_answer(text, lenient=True)
    assert settled(text + "1x", text) is not True


def test_importing_is_light():
    program = (
        "import sys, curate.grading; print({'sympy', 'math_verify', 'polars'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"
