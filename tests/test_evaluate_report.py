"""The page of evaluations: its bytes, what it counts, and what it refuses. No browser is needed."""

import base64
import gzip
import html
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from curate.commands.evaluate_report import report as command
from curate.errors import CurateError
from curate.evaluate.evaluation import read_record, table_of, write_record
from curate.evaluate.passages import left_out, parted, passage, place_of
from curate.evaluate.results import results
from curate.page import escaped, packed, page, write_page
from tests.evaluations import write_evaluation

HOSTILE = "</script><script>alert(1)</script><!-- <b>&amp;\x00\x1b[31m\u202egnp\u2028 \U0001d54f"


@pytest.fixture
def outs(tmp_path):
    """Two models on one task, and another task of the first."""
    first = write_evaluation(tmp_path / "runs/a", "math", ["cwwt", "ccnn", "cccc"], model="org/one")
    write_evaluation(first, "choice", ["cw", "cc"], scorer="choice", title="Choices")
    sampling = {"max_new_tokens": 512}
    second = tmp_path / "runs/b"
    write_evaluation(second, "math", ["wwpt", "cwnn", "cccs"], model="org/two", sampling=sampling)
    return [first, second]


def run(*arguments):
    """The command's exit status, stdout and stderr; a CurateError of it is raised."""
    done = CliRunner().invoke(command, [*map(str, arguments)])
    if isinstance(done.exception, CurateError):
        raise done.exception
    return done


def blocks(text):
    """The data of a page by the id of their block."""
    found = re.findall(r'<script type="application/octet-stream" id="([^"]+)">([^<]*)<', text)
    return {name: json.loads(gzip.decompress(base64.b64decode(block))) for name, block in found}


def rows_of(text):
    """The completions on a page, each with its model and task."""
    held = blocks(text)
    return [
        {"model": block["model"], "task": block["task"], **row}
        for block in held["contents"]["blocks"]
        for row in held[block["id"]]["rows"]
    ]


def plain(passage):
    """A passage that is whole as the text it is of."""
    return "".join(piece if isinstance(piece, str) else piece[0] for piece in passage)


def test_the_page_holds_the_results_and_every_completion(outs, tmp_path):
    done = run(*outs, "--page", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert done.exit_code == 0
    assert "completions: 28 of 28" in done.stdout
    assert len(rows_of(text)) == 28
    assert blocks(text)["contents"]["models"] == ["one", "two"]
    assert blocks(text)["contents"]["tasks"] == {"math": "math", "choice": "Choices"}
    for out in outs:
        for result in results(out):
            told = " to ".join(f"{100 * end:.1f}" for end in result.interval)
            assert f">{100 * result.accuracy:.1f}<" in text
            assert f"<td>{told}</td>" in text


def test_accuracy_never_stands_without_what_belongs_to_it(outs, tmp_path):
    run(*outs, "--page", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    table = text[text.index("<table") : text.index("</table>")]
    heads = re.findall(r'<th [^>]*scope="col"[^>]*>(.*?)</th>', table, re.DOTALL)
    assert len(heads) == 14
    assert {"truncated", "no answer", "wrong", "parse error", "timed out", "lenient"} <= {*heads}
    assert "Mean<br>tokens" in heads
    lines = [line for line in table.splitlines() if 'scope="row"' in line]
    assert [line.count("<td>") for line in lines] == [13] * 3


def test_warnings_and_differences_are_on_the_page_and_on_stderr(outs, tmp_path):
    done = run(*outs, "--page", tmp_path / "page.html")
    text = html.unescape((tmp_path / "page.html").read_text(encoding="utf-8"))
    expected = "math: models differ in max_new_tokens: one 4096, two 512"
    for line in (expected, "math, two: the scorer could not judge 16.7"):
        assert line in text
        assert f"warning: {line}" in done.stderr


def test_what_is_on_record_of_a_model_is_a_warning(tmp_path):
    note = "generation_config.json of the checkpoint: top_k 20; not followed"
    out = write_evaluation(tmp_path / "out", "math", ["cw"], model="org/one", notes=[note])
    done = run(out, "--page", tmp_path / "page.html")
    assert f"warning: one: {note}" in done.stderr
    assert f"<li>one: {note}</li>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_same_folders_give_the_same_bytes(outs, tmp_path):
    for name in ("a.html", "b.html"):
        run(*outs, "--page", tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_what_is_left_out_is_counted(tmp_path):
    out = write_evaluation(
        tmp_path / "out", "math", ["cccwwt"] * 40, lenient=[["correct"] * 6] * 40
    )
    done = run(out, "--page", tmp_path / "page.html", "--completions", 7, "--json")
    told = json.loads(done.stdout)
    assert (told["completions"], told["shown"]) == (240, 21)
    assert [(one["status"], one["completions"], one["shown"]) for one in told["left_out"]] == [
        ("correct", 120, 7),
        ("wrong", 80, 7),
        ("truncated", 40, 7),
    ]
    assert done.stderr.count("7 of ") == 3
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "21 of 240 completions are on this page" in text
    assert "tiny, math, wrong: 7 of 80" in text


def test_strict_and_lenient_are_drawn_apart(tmp_path):
    """The one completion whose lenient status differs is on the page, however many do not."""
    lenient = [["wrong"] * 4 for _ in range(50)]
    lenient[33][2] = "correct"
    out = write_evaluation(tmp_path / "out", "math", ["wwww"] * 50, lenient=lenient)
    run(out, "--page", tmp_path / "page.html", "--completions", 1)
    rows = rows_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [(row["index"], row["sample"]) for row in rows if row["lenient"] == "correct"] == [
        (33, 2)
    ]
    assert len(rows) == 2


def test_models_that_fare_alike_show_the_same_completions(tmp_path):
    for name in ("a", "b"):
        write_evaluation(tmp_path / name, "math", ["cw"] * 60, model=name)
    run(tmp_path / "a", tmp_path / "b", "--page", tmp_path / "p.html", "--completions", 5)
    rows = rows_of((tmp_path / "p.html").read_text(encoding="utf-8"))
    drawn = [[(r["index"], r["sample"]) for r in rows if r["model"] == name] for name in ("a", "b")]
    assert drawn[0] == drawn[1]
    assert drawn[0] != [(n, s) for n in range(5) for s in (0, 1)]  # not the first ones


def test_a_long_text_is_cut_where_it_says_so(tmp_path):
    texts = [["a" * 900 + "</think>" + "b" * 50 + r"\boxed{1}", "c" * 100 + "</think>no"]]
    out = write_evaluation(tmp_path / "out", "math", ["cn"], texts=texts)
    done = run(out, "--page", tmp_path / "page.html", "--characters", 200)
    assert "note: 1 completions are cut on the page" in done.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    cut, whole = rows_of(text)
    assert cut["thought"] == ["a" * 100, 708, "a" * 92 + "</think>"]
    assert cut["text"] == ["b" * 50 + r"\boxed{", ["1"], "}"]
    assert whole["thought"] == ["c" * 100 + "</think>"]
    assert "1 of these are cut: of a text of more than 200 characters the middle" in text


def test_labels_tell_models_apart(tmp_path):
    same = [tmp_path / "x/out", tmp_path / "y/out"]
    for out in same:
        write_evaluation(out, "math", ["cw"], model="org/model")
    other = write_evaluation(tmp_path / "step-10", "math", ["cw"], model=None)
    run(*same, other, "--page", tmp_path / "page.html")
    models = blocks((tmp_path / "page.html").read_text(encoding="utf-8"))["contents"]["models"]
    assert models == ["model (x/out)", "model (y/out)", "step-10"]


def test_hostile_texts_and_names_stay_text(tmp_path):
    out = write_evaluation(
        tmp_path / "out",
        "math",
        ["cw"],
        ids=[HOSTILE],
        problems=[HOSTILE],
        golds=[HOSTILE],
        texts=[[HOSTILE, HOSTILE * 2]],
        model=HOSTILE,
        title=HOSTILE,
    )
    record = read_record(out)
    record["settings"] = {HOSTILE: {"half": "\ud800"}}
    record["tasks"]["math"]["notes"] = [HOSTILE]
    write_record(out, record)
    run(out, "--page", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    assert text.count("<script") == 1 + len(blocks(text))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u2028\u202e]", text)
    thoughts = [row["thought"] for row in rows_of(text)]
    assert [plain(each) for each in thoughts] == [HOSTILE, HOSTILE * 2]


@given(st.text(st.characters(exclude_categories=())))
def test_escaped_text_is_printable_and_holds_no_markup(text):
    shown = escaped(text)
    assert shown.isprintable()
    assert not re.search("[<>\"']", shown)
    shown.encode("utf-8")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(st.characters(exclude_categories=())), st.lists
    )
)
def test_packed_values_are_ascii_that_unpacks(value):
    assert re.fullmatch("[A-Za-z0-9+/=]*", packed(value))
    assert json.loads(gzip.decompress(base64.b64decode(packed(value)))) == value


@given(st.text(), st.integers(1, 50), st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_a_passage_is_the_text_but_for_what_it_counts(text, limit, ends):
    begin, end = sorted(min(at, len(text)) for at in ends)
    pieces = passage(text, limit, (begin, end))
    shown = sum(
        len(piece if isinstance(piece, str) else piece[0])
        for piece in pieces
        if not isinstance(piece, int)
    )
    assert shown + left_out(pieces) == len(text)
    assert shown == min(limit, len(text))
    marked = [piece[0] for piece in pieces if isinstance(piece, list)]
    assert marked in ([], [text[begin:end]])
    if len(text) <= limit:
        assert bool(marked) == (begin < end)


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("a</think>\n\nb<|im_end|>", False, ("a</think>\n\n", "b<|im_end|>")),
        ("a</think>b</think>c", True, ("a</think>b</think>", "c")),
        ("a</think>", True, ("a</think>", "")),
        ("a</think><think>b", True, ("a</think><think>b", None)),
        ("still at it", True, ("still at it", None)),
        ("<think>still", False, ("<think>still", None)),
        ("plain answer", False, (None, "plain answer")),
        ("", False, (None, "")),
    ],
)
def test_thought_and_answer_are_told_apart(text, opened, expected):
    assert parted(text, opened=opened) == expected


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("5", r"5 and \boxed{5}, so 5", "before:5 and \\boxed{"),
        ("5", r"\boxed{5} or \boxed{ 5 }", "before:\\boxed{5} or \\boxed{ "),
        ("B", "(B) it is B.", "before:(B) it is "),
        ("5", "15 and 51", None),
        (r"\frac{1}{2}", r"\boxed{\frac{1}{2}}", r"before:\boxed{"),
        ("7", "none", None),
        ("", "none", None),
    ],
)
def test_an_answer_is_found_where_it_was_given(answer, text, expected):
    place = place_of(answer, text)
    if expected is None:
        assert place is None
    else:
        assert text[slice(*place)] == answer
        assert f"before:{text[: place[0]]}" == expected


def test_the_policy_names_the_only_script_and_style():
    text = page("t", "<p>b</p>", styles=["p { color: red }"], scripts=["1;"], data={"x": packed(1)})
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"\b(?:src|href|action)=\"(?!data:,)", text)
    assert "http" not in text.replace("http-equiv", "")


def refused(outs, place):
    with pytest.raises(CurateError) as error:
        run(*outs, "--page", place)
    return str(error.value)


def test_folders_that_are_not_graded_are_refused(outs, tmp_path):
    place = tmp_path / "page.html"
    table_of(outs[1], "math", "grades").unlink()
    assert refused(outs, place).startswith(f"{table_of(outs[1], 'math', 'grades')}: expected")
    record = read_record(outs[0])
    record["tasks"]["choice"]["state"] = "running"
    write_record(outs[0], record)
    assert "expected a complete task" in refused(outs[:1], place)
    assert "expected the record of an evaluation" in refused([tmp_path], place)
    assert not place.exists()


def test_the_same_folder_twice_is_refused(outs, tmp_path):
    again = [outs[0], outs[0] / "math" / ".."]
    assert "found it twice" in refused(again, tmp_path / "page.html")


def test_only_a_page_of_ours_is_replaced(outs, tmp_path):
    other = tmp_path / "other.html"
    other.write_text("<!doctype html>\n<p>mine")
    assert "expected nothing there or a page of curate" in refused(outs, other)
    assert other.read_text() == "<!doctype html>\n<p>mine"
    assert "found another" in refused(outs, tmp_path)
    assert "expected a folder to write into" in refused(outs, tmp_path / "no/page.html")
    ours = tmp_path / "ours.html"
    assert write_page(ours, page("t", "")) == ours.stat().st_size
    run(*outs, "--page", ours)
    assert len(rows_of(ours.read_text(encoding="utf-8"))) == 28
    assert [path.name for path in Path(tmp_path).glob(".*")] == []
