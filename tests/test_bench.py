"""Every bench once, on next to nothing: its cases run, and their answers hold."""

import json
from dataclasses import replace

import pytest

from bench import patterns, report
from bench.__main__ import BENCHES, main
from bench.answers import check
from bench.counting import kernels
from bench.runs import BenchError, Ran

pytest.importorskip("duckdb", reason="the bench extra is not installed")
pytest.importorskip("hyperscan", reason="the bench extra is not installed")

LONG = ("kernel", "layouts", "train", "generate", "grade", "audit")
"""Two minutes together, of which most is starting processes."""

CASES = {"scan": 10, "emit": 4, "memory": 8, "select": 2, "start": 5, "layouts": 15, "tokens": 5}
CASES |= {"train": 3, "generate": 2, "grade": 5, "audit": 3}
CASES["kernel"] = 10 + len(kernels(threads=1)["names"])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.mark.parametrize(
    "bench",
    [pytest.param(n, marks=pytest.mark.soak) if n in LONG else n for n in BENCHES],
)
def test_every_case_runs_and_its_answer_holds(bench, cache, capsys, monkeypatch, request):
    if bench == "audit":  # of real completions
        request.getfixturevalue("traces")
    else:  # without real traces, Countdown ones are made
        monkeypatch.setenv("CURATE_DATA", str(cache))
    assert main([bench, "--quick", "--cache", str(cache)]) == 0
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    assert [row["what"] for row in result["rows"]] == [
        line.split("  ")[0] for line in printed[1 : 1 + CASES[bench]]
    ]
    assert all(row["shows"] and row["seconds"] for row in result["rows"])
    assert {"machine", "commit", "versions", "facts"} <= result.keys()


@pytest.mark.parametrize("answers", [{"steps": 2}, {"steps": 3, "bytes": 9}, {}])
def test_a_wrong_answer_is_an_error(answers):
    with pytest.raises(BenchError, match="wrong answer"):
        check("one", answers, {"steps": 3, "bytes": 8})


def test_every_engine_counts_as_the_reference_does():
    import polars as pl
    import pyarrow as pa

    from bench.contenders import _hyperscan_counts, _re_counts, joined
    from curate.lexicon import load
    from curate.native import reference

    lexicon = load("default")
    tricky = [
        "Wait. \u017fwait _wait wait_ await wait, chec\u212a again, \u017fanity check, 2wait",
        "let\u2019s re\u2011derive. LET'S RE-DERIVE, let\u2019s restart",
        "  The answer is 5.\r\n \t\r\n\x0bAnswer: 5, the answer is 5. the answer is",
        "\n\n answer: so the answer is the correct answer",
        "The answer is the correct answer. double-check again, let me check again",
        "so, the answer\n\nso answer \\boxed{1}\\boxed ",
    ]
    regexes = patterns.category_regexes(lexicon)
    column = pl.Series("trace", tricky)
    for n, text in enumerate(tricky):
        counts = reference.measure(text.encode(), lexicon.patterns(), len(lexicon.categories))
        names = [f"{name}_markers" for name in lexicon.category_names]
        markers = dict(zip(names, counts["markers"], strict=True))
        steps = {"steps": counts["steps"], "branch_steps": counts["branch_steps"]}
        assert _hyperscan_counts(joined(pa.array([text]))) == markers
        assert _re_counts(text) == steps | markers
        assert markers == {
            f"{name}_markers": column.str.count_matches(patterns.rust(regex))[n]
            for name, regex in regexes.items()
        }


def test_results_hold_the_newest_of_each_title(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "RESULTS.md")
    for title, seconds in (("b", 1.0), ("a", 2.0), ("b", 3.25)):
        row = report.row("run", "something", [Ran(seconds, 0.5, 0, {})])
        result = report.Result(bench="x", title=title, facts={"n": 1}, rows=[row], targets=[])
        report.write_section(result, "python -m bench x")
    text = report.RESULTS.read_text()
    assert text.count("\n## ") == 2 and text.index("## a") < text.index("## b")
    assert "| run | 3.25 | 3.25 | 1 |" in text and "| run | 1 |" not in text


def test_drawn_phrases_stand_in_the_text(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bench import lexicons
    from curate.lexicon import first_marker, load

    texts = ["Wait, let\u2019s see it.", "WAIT\nfor x_1 or 2nd, a to z", "let's see", *[""] * 17]
    pq.write_table(pa.table({"trace": texts}), tmp_path / "shard.parquet")
    drawn = lexicons.draw(str(tmp_path / "shard.parquet"), len(texts), str(tmp_path), threads=1)
    for file in drawn.values():
        phrases = {}
        for category in load(file).categories:
            for phrase in category.phrases:
                alone = replace(category, phrases=(phrase,))
                phrases[phrase.text] = any(first_marker(alone, text) for text in texts)
        assert all(phrases.values())
    assert {"wait", "see", "let's see", "let's see it", "a to z"} <= phrases.keys()
