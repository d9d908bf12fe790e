"""Records that are not as this tool writes them are told in a line, by every stage."""

import json

import pytest

from curate.evaluate.evaluation import OF_TASK, WHOLE
from tests.evaluations import write_evaluation

STAGES = {
    "grade": lambda out: ["evaluate", "grade", out],
    "report": lambda out: ["evaluate", "report", out, "--page", out.parent / "page.html"],
    "compare": lambda out: ["evaluate", "compare", out.parent / "other", out],
    "power": lambda out: ["evaluate", "power", out, "--difference", "0.1"],
}
WRONG = [
    ((), key, value)
    for key in WHOLE
    for value in (..., 3.5)
    if not (key == "model" and value is ...)
] + [(("tasks", "t"), key, value) for key in OF_TASK for value in (..., 3.5)]


@pytest.mark.parametrize(("path", "key", "value"), WRONG, ids=str)
def test_a_record_that_was_edited_is_told(tmp_path, run_here, path, key, value):
    for name in ("out", "other"):
        write_evaluation(tmp_path / name, "t", ["cw", "cc"])
    file = tmp_path / "out" / "evaluation.json"
    record = json.loads(file.read_text())
    place = record
    for name in path:
        place = place[name]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    file.write_text(json.dumps(record))
    for stage in STAGES.values():
        done = run_here(*stage(tmp_path / "out"))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {file}") and f": {key}: expected what this tool" in line


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"format": 2}', "\udcff"])
def test_what_is_no_record_is_told(tmp_path, run_here, text):
    for name in ("out", "other"):
        write_evaluation(tmp_path / name, "t", ["cw", "cc"])
    file = tmp_path / "out" / "evaluation.json"
    file.write_text(text, errors="surrogateescape")
    for stage in STAGES.values():
        done = run_here(*stage(tmp_path / "out"))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {file}: expected the record of an evaluation")
