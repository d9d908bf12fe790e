"""`curate lexicon`: what it prints, and its exit code."""

import json
import re

from click.testing import CliRunner

from curate import lexicon as lexicons
from curate.commands.lexicon import lexicon as command
from curate.errors import LexiconError

FAILING = """\
name = "x"
version = 1
[category.branch]
phrases = ["so \\u202e", "wait"]
match = ["\\u200b"]
no_match = [
    "Oh, Wait.",
]
"""


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == code, result.output
    assert result.stderr == ""
    return result.stdout


def test_list():
    lines = run("list").splitlines()
    assert lines[0].split() == ["name", "version", "phrases", "categories"]
    assert lines[2].split() == ["paper", "1", "3", "branch", "3"]
    rows = json.loads(run("list", "--json"))
    assert rows[1] == {"name": "paper", "version": 1, "phrases": {"branch": 3}}


def test_show(tmp_path):
    shown = run("show", "seal")
    assert "\nbranch\n" in shown
    assert "\n  another way\n" in shown
    assert "\n  alternatively  (at the start of a step)\n" in shown
    file = tmp_path / "x.toml"
    file.write_text(FAILING)
    assert "\n  so \\u202e\n" in run("show", str(file))


def test_the_cases_of_all_packaged_lexicons_pass():
    lines = run("test").splitlines()
    assert [re.sub(r"\d+", "N", line) for line in lines] == [
        f"{name}: N of N cases pass" for name in lexicons.names()
    ]


def test_a_failing_case_is_named_with_its_line(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text(FAILING)
    assert run("test", "paper", str(file), code=1).splitlines()[1:] == [
        f'{file}:5: category branch must match "\\u200b" but does not',
        f'{file}:7: category branch must not match "Oh, Wait." but finds "Wait"',
        "x: 0 of 2 cases pass",
    ]
    result = json.loads(run("test", "--json", str(file), code=1))
    assert result[0]["cases"] == 2
    assert result[0]["failures"][1] == {
        "category": "branch",
        "line": 7,
        "text": "Oh, Wait.",
        "kind": "no_match",
        "found": "Wait",
    }


def test_an_unknown_lexicon_is_an_error_of_ours():
    result = CliRunner().invoke(command, ["test", "mine"])
    assert isinstance(result.exception, LexiconError)
