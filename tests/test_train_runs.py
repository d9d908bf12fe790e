"""Whole runs of `curate train`: what is read, refused, left and said."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("trl", reason="training needs the extra `train`")

import torch
from transformers import AutoTokenizer

from curate.output import locked
from tests.command_line import only_line, tree
from tests.tiny_models import STRIPS_THOUGHTS
from tests.training_runs import account_of, asked, losses, prepare

LEFT = ["audit.json", "checkpoint-2", "curves.png", "metrics.jsonl", "run.json"]
LEFT += ["token_losses"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("train"))


@pytest.fixture
def train(run_here, ground, tmp_path):
    """A run of two steps in this process, to `tmp_path / "run"`."""

    def train(*more):
        words = asked(ground, "--max_steps", 2, "--output-dir", tmp_path / "run", *more)
        return run_here("train", *words)

    return train


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_stdout_is_data(train, tmp_path):
    done = train()
    run = tmp_path / "run"
    account = account_of(run)
    assert (done.returncode, names(run)) == (0, LEFT)
    assert done.stdout == (
        f"{run}: 2 steps, 0.33 epochs, 8 rows (8 unique), "
        f"{account['seen_trained_tokens']:,} tokens in the loss of {account['seen_tokens']:,}, "
        "checkpoints: 1\n"
    )
    again = train("--json")
    assert json.loads(again.stdout) == account
    assert again.stderr == f"{run}: is whole already; --overwrite starts anew\n"


def test_json_is_one_document(train, tmp_path):
    done = train("--json")
    assert json.loads(done.stdout) | {"format": 1} == account_of(tmp_path / "run")
    assert done.stderr.startswith("24 rows: ")


def test_two_runs_in_one_folder(train, tmp_path):
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        for more in ([], ["--check"]):
            assert only_line(train(*more)) == f"{tmp_path / 'run'}: another run is writing to it"
    assert names(tmp_path / "run") == []
    assert train().returncode == 0


def test_a_check_leaves_its_audit_alone(train, tmp_path):
    done = train("--check")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[0].startswith("24 rows: ")
    assert "in the loss ⟦like this⟧, not like this" in done.stderr
    assert names(tmp_path / "run") == ["audit.json"]
    audit = json.loads((tmp_path / "run/audit.json").read_text())
    assert (audit["rows"], audit["errors"], audit["limit"]) == (24, [], 2048)
    assert train().returncode == 0


def test_a_template_that_strips_thoughts_is_refused(train, tmp_path):
    template = tmp_path / "strips.jinja"
    template.write_text(STRIPS_THOUGHTS)
    for check in ([], ["--check"]):
        done = train("--chat_template_path", template, *check)
        assert (done.returncode, done.stdout) == (1, "")
        assert "error: trace_altered: 24 of 24 rows" in done.stderr
        assert ("error: " in done.stderr.splitlines()[-1]) == (not check)
        assert names(tmp_path / "run") == ["audit.json"]


def test_a_stock_template_that_strips_thoughts_is_refused_with_a_hint(train):
    done = train("--chat_template_path", "deepseek_r1_distill", "--check")
    assert done.returncode == 1
    told = done.stderr.splitlines()
    (at,) = (n for n, line in enumerate(told) if line.startswith("error: trace_altered: 24 of 24"))
    hint = next(line for line in told[at:] if "hint:" in line)
    assert hint.startswith("  hint: --chat_template_path ")
    assert hint.endswith("deepseek_r1_distill_training (TRL's, for training)")


@pytest.fixture(scope="module")
def lengths(ground):
    """Tokens of each row of the dataset, by teacher."""
    from curate.rendering import Renderer
    from curate.samples import open_samples

    samples = list(open_samples(ground / "dataset"))
    rendered = Renderer(AutoTokenizer.from_pretrained(ground / "model")).render(samples)
    return [(s.teacher, len(r.input_ids)) for s, r in zip(samples, rendered, strict=True)]


@pytest.mark.parametrize("what", ["error", "drop", "truncate"])
def test_rows_above_the_limit(train, lengths, tmp_path, what):
    limit = 300
    long = [(teacher, size) for teacher, size in lengths if size > limit]
    assert 3 < len(long) < 12
    by_teacher = {t: sum(t == other for other, _ in long) for t in sorted({t for t, _ in long})}
    done = train("--max_length", limit, "--overlength", what)
    kind = "error" if what == "error" else "note"
    assert f"{kind}: overlength: {len(long)} of 24 rows: longer than the limit\n" in done.stderr
    lost = {
        "error": sum(size - limit for _, size in long),
        "truncate": sum(size - limit for _, size in long),
        "drop": sum(size for _, size in long),
    }[what]
    each = ", ".join(f"{name} {count}" for name, count in by_teacher.items())
    assert f"  {lost:,} tokens too many; rows by teacher: {each}\n" in done.stderr
    assert done.returncode == (1 if what == "error" else 0)
    if what == "error":
        assert names(tmp_path / "run") == ["audit.json"]
        return
    arm = account_of(tmp_path / "run")["arm"]
    assert (arm["overlength"], arm["lost_tokens"]) == (by_teacher, lost)
    assert arm["rows"] == (24 - len(long) if what == "drop" else 24)
    assert arm["tokens"] == sum(size for _, size in lengths) - lost
    assert account_of(tmp_path / "run")["limit"] == limit


def test_no_row_within_the_limit_is_one_line(train, ground, tmp_path):
    done = train("--max_length", 20, "--overlength", "drop")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        f"error: {ground / 'dataset'}: expected rows to train on, all are over the limit"
    )
    assert names(tmp_path / "run") == ["audit.json"]


@pytest.mark.parametrize("what", ["drop", "truncate"])
def test_masked_tokens_are_of_rows_that_are_trained_on(train, tmp_path, what):
    mask = ("--mask", "branch-steps", "--num_train_epochs", 1, "--max_steps", -1)
    done = train("--max_length", 300, "--overlength", what, *mask)
    assert done.returncode == 0, done.stderr
    arm = account_of(tmp_path / "run")["arm"]
    told = losses(tmp_path / "run")
    assert sum(loss["tokens"] for loss in told) == arm["trained_tokens"]
    audited = json.loads((tmp_path / "run/audit.json").read_text())["tokens"]["trained"]
    assert audited - arm["trained_tokens"] == arm["masked_tokens"] > 0


def test_the_limit_is_the_models_own(train, ground, tmp_path):
    config = json.loads((ground / "model/config.json").read_text())
    other = tmp_path / "model"
    other.mkdir()
    for path in (ground / "model").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 250}))
    done = train("--model", other, "--check")
    assert done.returncode == 1
    assert "error: overlength: " in done.stderr
    assert json.loads((tmp_path / "run/audit.json").read_text())["limit"] == 250


FOREIGN = {
    "a file": {"notes.txt": ""},
    "checkpoints of another trainer": {"checkpoint-500/model.safetensors": "", "README.md": ""},
    "a download": {"model.part": ""},
    "an account of something else": {"run.json": "{}", "checkpoint-5/model.safetensors": ""},
}


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_folder_is_refused_and_left_alone(train, tmp_path, name, overwrite):
    for place, text in FOREIGN[name].items():
        path = tmp_path / "run" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = tree(tmp_path / "run")
    for more in (overwrite, ["--check"]):
        line = only_line(train(*more))
        assert str(tmp_path / "run") in line
        assert "expected a new folder, an empty one or a run's" in line or "format 1" in line
        assert tree(tmp_path / "run") == before


def test_a_file_is_no_folder(train, tmp_path):
    (tmp_path / "run").touch()
    assert only_line(train()) == f"{tmp_path / 'run'}: expected a folder, found a file"


def test_a_folder_of_a_run_that_never_began_is_taken(train, tmp_path):
    (tmp_path / "run/.prepared").mkdir(parents=True)
    (tmp_path / "run/.prepared/.tokens.arrow.part").write_text("half")
    (tmp_path / "run/audit.json").write_text("{}")
    (tmp_path / "run/.run.json.part").write_text("{")
    assert train().returncode == 0
    assert [name for name in names(tmp_path / "run") if name[0] != "."] == LEFT


TEXTS = {
    "prompt": [f"What is {n} + 1? " for n in range(8)],
    "completion": [f"<think>\nOne more than {n}.\n</think>\n\n{n + 1}" for n in range(8)],
}


def test_plain_strings_train_without_a_template(train, ground, tmp_path):
    pq.write_table(pa.table(TEXTS), tmp_path / "texts.parquet")
    model = tmp_path / "model"
    AutoTokenizer.from_pretrained(ground / "model").save_pretrained(model)
    (model / "chat_template.jinja").unlink()
    (model / "config.json").write_bytes((ground / "model/config.json").read_bytes())
    done = train("--data", tmp_path / "texts.parquet", "--model", model, "--from_config")
    assert done.returncode == 0, done.stderr
    account = account_of(tmp_path / "run")
    assert (account["arm"]["rows"], account["start"]["random"]) == (8, True)
    assert {loss["kind"] for loss in losses(tmp_path / "run")} == {"thought", "answer", "other"}


def test_messages_train(train, tmp_path):
    messages = [
        [{"role": "user", "content": ask}, {"role": "assistant", "content": said}]
        for ask, said in zip(*TEXTS.values(), strict=True)
    ]
    table = pa.table({"messages": messages, "teacher": ["A", "B"] * 4})
    pq.write_table(table, tmp_path / "talk.parquet")
    done = train("--data", tmp_path / "talk.parquet")
    assert done.returncode == 0, done.stderr
    assert {loss["teacher"] for loss in losses(tmp_path / "run")} == {"A", "B"}
    assert {loss["row"] for loss in losses(tmp_path / "run")} == set(range(8))


def test_token_losses_can_be_left_out(train, tmp_path):
    assert train("--no-token-losses").returncode == 0
    assert names(tmp_path / "run") == LEFT[:-1]


def test_what_is_odd_about_rows_is_told(train, tmp_path):
    user, said = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}
    thought = {"role": "assistant", "content": "<think>\na\n</think>\n\n4"}
    talks = [[user, said, user, thought], [user, thought], [user, said]]
    pq.write_table(pa.table({"messages": talks}), tmp_path / "talks.parquet")
    done = train("--data", tmp_path / "talks.parquet", "--order", "shuffled", "--check")
    assert done.returncode == 0
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: 1 of 3 rows have earlier messages of the assistant: the loss is on the last one "
        "alone",
        "note: 1 of 3 rows have no thought",
        "note: --order shuffled: rows without ids are shuffled by their place, so arms take the "
        "rows they share in different orders; --id names a column of ids",
        "note: no steps are known, so losses are told by thought and answer; `curate scan --steps` "
        "finds them, and --steps-from names a scan that did",
    ]


def test_a_mask_is_told_before_the_first_step(train):
    done = train("--mask", "branch-steps", "--check", "--json")
    assert json.loads(done.stdout)["errors"] == []
    assert "\nmask: " in done.stderr and "⟧" in done.stderr


def test_a_run_stands_outside_of_its_dataset(train, ground):
    inside = ground / "dataset" / "run"
    line = only_line(train("--output-dir", inside))
    assert line == f"{inside}: expected a folder outside of the dataset {ground / 'dataset'}"
    assert not inside.exists()


def test_weights_that_are_not_there_hint_at_a_random_start(train, ground, tmp_path):
    bare = shutil.copytree(ground / "model", tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    done = train("--model", bare, "--no_from_config")
    told = done.stderr.splitlines()[-1]
    assert told.startswith(f"error: --model {bare}: no weights can be loaded: ")
    assert told.endswith("; --from_config starts from random ones")


def test_a_model_with_too_few_embeddings_is_refused_before_the_audit(train, ground, tmp_path):
    small = shutil.copytree(ground / "model", tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"vocab_size": 10}))
    line = only_line(train("--model", small))
    assert line.startswith(f"--model {small}: expected embeddings for all ")
    assert line.endswith(" tokens of the tokenizer, the configuration has 10")
