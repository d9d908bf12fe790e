"""What cannot be told together in the end is refused before anything is scored."""

import json
import shutil

import pytest
from click.testing import CliRunner

from curate.errors import CurateError
from tests.token_losses import TEMPLATE, save_model, write_data

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from curate.commands.losses import losses as command  # noqa: E402
from curate.evaluate.losses import Asked, score_dataset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that are not ours


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("probe"), first=100)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def base(data, model, tmp_path_factory):
    """Base scores of the data alone."""
    out = tmp_path_factory.mktemp("scored") / "base"
    score_dataset(str(model), data, out, Asked(limit=3))
    return out


def run(*arguments):
    options = [*map(str, arguments), "--limit", "3"]
    return CliRunner().invoke(command, options, standalone_mode=False)


@pytest.fixture
def refused(data, model, tmp_path):
    """What the command says; nothing is written."""

    def line(*arguments, of=model):
        told = run("--model", of, "--data", data, "--out", tmp_path / "out", *arguments)
        assert isinstance(told.exception, CurateError), told.exception
        assert not (tmp_path / "out").exists()
        return str(told.exception)

    return line


def test_a_probe_that_is_none(refused, data, tmp_path):
    assert refused("--probe", tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'}: ")
    told = "--probe: expected problems that no model has seen, found the data itself"
    assert refused("--probe", data) == told
    assert refused("--probe", shutil.copytree(data, tmp_path / "copy")) == told


def test_base_scores_that_are_not_whole(refused, base, probe, tmp_path):
    part = shutil.copytree(base, tmp_path / "part")
    record = json.loads((part / "losses.json").read_text())
    (part / "losses.json").write_text(json.dumps({**record, "state": "running"}))
    assert refused("--base", part).startswith(f"{part}: expected scores that are whole, found a")
    (part / "losses.json").write_text(json.dumps(record))
    (part / "tokens/00000.parquet").unlink()
    assert refused("--base", part) == f"{part / 'tokens'}: expected .parquet files, found none"
    told = f"--base {base}: expected scores of the probe too, found none"
    assert refused("--base", base, "--probe", probe) == told


def test_base_scores_of_other_data_or_of_another_probe(refused, base, probe, data, model, tmp_path):
    other = tmp_path / "other"
    score_dataset(str(model), probe, other, Asked(limit=3))
    told = f"--base {other}: expected scores of {data}, found scores of other data ({probe})"
    assert refused("--base", other) == told
    both = shutil.copytree(base, tmp_path / "both")
    shutil.copytree(base, both / "probe")
    assert refused("--base", both, "--probe", probe) == (
        f"--base {both / 'probe'}: expected scores of {probe}, found scores of other data ({data})"
    )


def test_base_scores_of_another_tokenizer_or_template(refused, base, model, data, tmp_path):
    path = tmp_path / "template"
    path.write_text(TEMPLATE.replace("}}<|im_end|>", "}} <|im_end|>"))
    assert refused("--base", base, "--chat-template-path", path) == (
        f"--base {base}: expected scores of the same tokens, found others in row 0, as another "
        "chat template made them"
    )
    other = shutil.copytree(model, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:3]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert refused("--base", base, of=other) == (
        f"--base {base}: expected scores of the same tokens, found others in row 0, as another "
        "tokenizer made them"
    )


def test_a_template_that_makes_the_same_tokens_is_no_other(base, model, data, tmp_path):
    path = tmp_path / "template"
    path.write_text("{# the same #}" + TEMPLATE)
    ours = ["--model", model, "--data", data, "--out", tmp_path / "out", "--base", base]
    told = run(*ours, "--chat-template-path", path)
    assert told.exception is None
