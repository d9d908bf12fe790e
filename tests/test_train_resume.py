"""Runs that are stopped go on, and end as if they had never been; whole ones stay as they are."""

import json
import shutil
import signal

import pytest

pytest.importorskip("trl", reason="training needs the extra `train`")

from tests.command_line import only_line, tree
from tests.tiny_models import STRIPS_THOUGHTS
from tests.training_runs import Runs, account_of, asked, check_same, outcome, prepare


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """With dropout, so that the state of random numbers matters."""
    return prepare(tmp_path_factory.mktemp("train"), attention_dropout=0.2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    served = Runs(tmp_path_factory.mktemp("runs"))
    yield served
    served.end()


WAYS = {
    "shuffled": (
        "--max_steps 9 --checkpoints 2,4,6 --order shuffled --gradient_accumulation_steps 2 "
        "--per_device_train_batch_size 3",
        [
            ("os.rename .run.json.part", 1, 0),  # before its account is there
            ("open checkpoint-2/trainer_state.json", 1, 0),
            ("os.rename checkpoint-2/.curate.json.part", 1, 0),
            ("open metrics.jsonl", 3, 0),  # the first behind a checkpoint
            ("os.rename checkpoint-2/.curate.json.part", 1, 2),  # a newer one is whole
            ("os.remove checkpoint-4/optimizer.pt", 1, 4),
            ("os.remove checkpoint-6/optimizer.pt", 1, 6),
            ("os.rename .run.json.part", 2, 9),  # all is trained
        ],
    ),
    "packed": (
        "--max_steps 12 --checkpoints 4,9 --packing --max_length 700 --order shuffled "
        "--per_device_train_batch_size 1",
        [
            ("open metrics.jsonl", 2, 0),
            ("os.rename token_losses/.00000005", 1, 0),
            ("open metrics.jsonl", 2, 4),
        ],
    ),
    "adapters": (
        "--recipe lora --max_steps 5 --checkpoints 2 "
        "--gradient_accumulation_steps 1 --order shuffled",
        [("open metrics.jsonl", 1, 0), ("open metrics.jsonl", 4, 0)],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(ground, runs, tmp_path, way):
    words, moments = WAYS[way]
    options = [*asked(ground), *words.split()]
    whole = runs(tmp_path / "a", *options)
    assert whole.returncode == 0, whole.stderr
    for before, nth, trained in moments:
        killed = runs(tmp_path / "b", *options, before=before, nth=nth)
        assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, ""), killed.stderr
        assert (f"going on: {trained} steps are trained\n" in killed.stderr) == bool(trained)
    done = runs(tmp_path / "b", *options)
    assert done.stdout == whole.stdout.replace("/a: ", "/b: "), done.stderr
    assert json.loads((tmp_path / "b/metrics.jsonl").read_text().splitlines()[-1])["epoch"] > 0
    check_same(outcome(tmp_path / "b"), outcome(tmp_path / "a"))
    assert not list(tmp_path.rglob("*.part"))
    if way == "adapters":
        assert (tmp_path / "b/checkpoint-5/adapter_model.safetensors").exists()
        assert not (tmp_path / "b/checkpoint-5/model.safetensors").exists()
        start = account_of(tmp_path / "b")["start"]
        assert 0 < start["trained_parameters"] < start["parameters"]


@pytest.fixture(scope="module")
def whole(ground, runs, tmp_path_factory):
    """A run of three steps, to be copied."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = runs(run, *asked(ground), "--max_steps", 3)
    assert done.returncode == 0, done.stderr
    return run, done


@pytest.mark.parametrize(
    ("number", "code", "said"), [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")]
)
def test_a_signal_ends_a_run_with_one_line(ground, runs, whole, tmp_path, number, code, said):
    number = signal.Signals[number]
    options = [*asked(ground), "--max_steps", 3]
    run = tmp_path / "run"
    stopped = runs(run, *options, before="open metrics.jsonl", nth=2, number=number)
    assert (stopped.returncode, stopped.stdout) == (code, "")
    told = [line for line in stopped.stderr.splitlines() if "error" in line or "Trace" in line]
    assert told == [f"error: {said} before the run was whole; the same command goes on from here"]
    assert stopped.stderr.endswith(told[0] + "\n")
    assert account_of(run)["state"] == "running"
    assert runs(run, *options).returncode == 0
    check_same(outcome(run), outcome(whole[0]))


def test_a_whole_run_says_so_and_stays_as_it_is(ground, runs, whole):
    run, done = whole
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    again = runs(run, *asked(ground), "--max_steps", 3)
    assert again.returncode == 0
    assert again.stdout == done.stdout
    assert again.stderr == f"{run}: is whole already; --overwrite starts anew\n"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--max_steps", 4], "settings differ: max_steps was 3 and is now 4"),
        (
            ["--max_steps", 3, "--learning_rate", 1e-3],
            "settings differ: learning_rate was None and is now 0.001",
        ),
        (["--max_steps", 3, "--seed", 1], "settings differ: seed was None and is now 1"),
        (
            ["--max_steps", 3, "--no-token-losses"],
            "settings differ: token_losses was True and is now False",
        ),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(ground, runs, whole, more, said):
    run, _ = whole
    before = tree(run)
    line = only_line(runs(run, *asked(ground), *more))
    assert line == f"{run}: {said}; --overwrite starts anew"
    assert tree(run) == before


def test_a_run_does_not_go_on_with_other_data_versions_or_processes(ground, runs, whole, tmp_path):
    run = tmp_path / "run"
    for part, name, was in (
        ("data", "sha256", "0"),
        ("versions", "torch", "1.0"),
        ("settings", "processes", 2),
    ):
        shutil.copytree(whole[0], run, dirs_exist_ok=True)
        account = account_of(run)
        now, account[part][name] = account[part][name], was
        (run / "run.json").write_text(json.dumps(account))
        line = only_line(runs(run, *asked(ground), "--max_steps", 3))
        assert line == (
            f"{run}: {part} differ: {name} was {was!r} and is now {now!r}; --overwrite starts anew"
        )


def test_a_run_does_not_go_on_with_rows_rendered_otherwise(ground, runs, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text(STRIPS_THOUGHTS.replace(".split('</think>')[-1]", ""))
    options = [*asked(ground), "--max_steps", 3, "--chat_template_path", template]
    run = tmp_path / "run"
    assert runs(run, *options, before="open metrics.jsonl").returncode == -signal.SIGKILL
    was = account_of(run)["arm"]["tokens"]
    template.write_text(template.read_text().replace("}}<|im_end|>", "}} <|im_end|>"))
    told = runs(run, *options).stderr.splitlines()[-1]
    now = was + 2 * 24  # a blank behind each turn
    assert (
        told
        == f"error: {run}: arm differ: tokens was {was} and is now {now}; --overwrite starts anew"
    )


def test_overwrite_starts_anew(ground, runs, whole, tmp_path):
    run = shutil.copytree(whole[0], tmp_path / "run")
    (run / "checkpoint-77").mkdir()
    done = runs(run, *asked(ground), "--max_steps", 2, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in run.iterdir()) == [
        *("audit.json", "checkpoint-2", "curves.png", "metrics.jsonl", "run.json"),
        "token_losses",
    ]
    assert account_of(run)["steps"] == 2
