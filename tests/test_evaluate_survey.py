"""Rows that a template alters, or whose prompts are no prefix, are told before they are scored."""

import pytest

from curate.errors import CurateError
from tests.token_losses import ROWS, TEMPLATE, save_model, write_data

torch = pytest.importorskip("torch")

from curate.evaluate import checkpoint  # noqa: E402
from curate.evaluate.losses import Asked, score_dataset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that are not ours

HALF = ROWS // 2

STRIPS = TEMPLATE.replace(
    "message['content']", "message['content'].split('</think>')[-1].lstrip('\\n')"
)
STRIPS_SOME = TEMPLATE.replace("message['content']", "message['content'].replace('2 × 3', '6')")
PREFILLS = TEMPLATE.replace("assistant\n{% endif %}", "assistant\nWell, {% endif %}")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (STRIPS, "thoughts letter by letter, found the chat template strips or alters those of"),
        (STRIPS_SOME, "thoughts letter by letter, found the chat template strips or alters those"),
        (PREFILLS, "prompts whose tokens begin their rows, found that they do not in"),
    ],
)
def test_what_is_not_rendered_as_it_is_is_an_error(
    data, model, tmp_path, monkeypatch, template, told
):
    monkeypatch.setattr(checkpoint, "load", None)  # is not come to
    with pytest.raises(CurateError) as error:
        score_dataset(str(model), data, tmp_path / "out", Asked(chat_template=template))
    line = str(error.value)
    assert line.startswith(f"{data}: expected {told}")
    assert line.endswith(
        f" {ROWS} rows (A: {HALF}, B: {HALF}), the first is row 0 (r0); "
        "--chat-template-path takes another template"
    )


def test_teachers_that_are_none_are_told_before_scoring(data, model, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", None)
    monkeypatch.setattr("curate.evaluate.tokenarms.MOST_TEACHERS", ROWS - 1)
    with pytest.raises(CurateError, match=rf"^--teacher: expected at most 21 .*, found {ROWS}$"):
        score_dataset(str(model), data, tmp_path / "out", Asked(teacher="id"))
