"""The curves of a training run: what is drawn, worked by hand, and pictures that are pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("matplotlib")

from matplotlib import image

from curate.errors import CurateError
from curate.train.curves import KIND, MOST, RATE, RAW, TEACHER, curves_of, draw, draw_together

SCHEMA = {
    "step": pl.Int32,
    "row": pl.Int64,
    "teacher": pl.String,
    "kind": pl.String,
    "tokens": pl.Int32,
    "nll": pl.Float64,
    "entropy": pl.Float64,
    "top1": pl.Int32,
}


def write_run(
    run: Path, logged: Sequence[dict[str, Any]], losses: Sequence[tuple] = (), files: int = 2
) -> Path:
    """A run: the lines that it logged, and (step, teacher, kind, tokens, nll) of token losses."""
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged))
    if losses:
        (run / "token_losses").mkdir()
        rows = [
            (step, 0, teacher, kind, tokens, nll, 1.0, 1)
            for step, teacher, kind, tokens, nll in losses
        ]
        for number in range(files):
            part = pl.DataFrame(rows[number::files], SCHEMA, orient="row")
            part.write_parquet(run / "token_losses" / f"{number:05}.parquet")
    return run


def points(curves: pl.DataFrame, curve: str, column: str = "value") -> dict[Any, float]:
    ours = curves.filter(pl.col("curve") == curve)
    return dict(zip(zip(ours["name"], ours["step"], strict=True), ours[column], strict=True))


def long_run(run: Path, steps: int = 200, teachers: Sequence[str] = ("A", "B")) -> Path:
    logged = [{"step": s, "loss": 1 / s, "learning_rate": 1e-5 * s} for s in range(1, steps + 1)]
    kinds = ("branch", "answer")
    losses = [(s, t, k, 10, 10 / s) for s in range(1, steps + 1) for t in teachers for k in kinds]
    write_run(run, logged, losses)
    (run / "checkpoint-10").mkdir()
    (run / "checkpoint-100").mkdir()
    (run / "checkpoint-new").mkdir()
    return run


def test_curves_worked_by_hand(tmp_path):
    logged = [
        {"step": 2, "loss": 1.0, "learning_rate": 0.2},
        {"step": 1, "loss": 3.0},
        {"step": 2, "grad_norm": 1.0},
        {"step": 3, "loss": None, "train_runtime": 9.5},
    ]
    losses = [(1, "A", "step", 2, 3.0), (1, "B", "step", 6, 1.0), (1, None, "answer", 4, 2.0)]
    losses += [(2, "A", "step", 1, 5.0), (2, "A", "branch", 0, 0.0)]
    curves = curves_of(write_run(tmp_path / "run", logged, losses))
    assert points(curves, RAW) == {(None, 1): 3.0, (None, 2): 1.0}
    assert points(curves, RATE) == {(None, 2): 0.2}
    assert points(curves, KIND) == {("step", 1): 0.5, ("step", 2): 5.0, ("answer", 1): 0.5}
    assert points(curves, KIND, "tokens")["step", 1] == 8
    assert points(curves, TEACHER) == {("A", 1): 1.5, ("A", 2): 5.0, ("B", 1): 1 / 6}


def test_what_was_logged_again_after_a_resume_counts_as_logged_last(tmp_path):
    logged = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 2.0}]
    assert points(curves_of(write_run(tmp_path / "run", logged)), RAW)[None, 2] == 2.0


def test_smoothed_is_a_mean_by_tokens_over_a_sixteenth_to_either_side(tmp_path):
    rng = np.random.default_rng(0)
    tokens, nll = rng.integers(1, 9, 100), rng.random(100)
    loss = rng.random(100)
    loss[50] = np.nan
    logged = [{"step": s + 1, "loss": float(loss[s])} for s in range(100)]
    losses = [(s + 1, "A", "step", int(tokens[s]), float(nll[s])) for s in range(100)]
    curves = curves_of(write_run(tmp_path / "run", logged, losses))
    raw, kind = points(curves, RAW, "smoothed"), points(curves, KIND, "smoothed")
    for at in range(100):
        near = slice(at - at // 16, at + at // 16 + 1)
        assert raw[None, at + 1] == pytest.approx(np.nanmean(loss[near]))
        assert kind["step", at + 1] == pytest.approx(nll[near].sum() / tokens[near].sum())


def test_teachers_of_few_tokens_share_a_line(tmp_path):
    losses = [(1, f"t{n}", "step", 100 - n, 100.0 - n) for n in range(10)]
    curves = curves_of(write_run(tmp_path / "run", [{"step": 1, "loss": 1.0}], losses))
    lines = points(curves, TEACHER, "tokens")
    assert len(lines) == MOST
    assert lines["4 others", 1] == 94 + 93 + 92 + 91 and lines["t5", 1] == 95


@pytest.mark.parametrize("steps", [1, 3, 200])
def test_a_picture_of_a_run(tmp_path, steps):
    out = draw(long_run(tmp_path / "run", steps), tmp_path / "curves.png")
    pixels = image.imread(out)
    assert pixels.shape[0] > 800 and pixels.shape[1] > 1200
    assert len(np.unique((pixels[..., :3] * 255).astype(np.uint8).reshape(-1, 3), axis=0)) > 20


def test_a_run_without_token_losses_has_panels_of_what_it_logged(tmp_path):
    whole = draw(long_run(tmp_path / "whole"), tmp_path / "whole.png")
    logged = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    bare = draw(write_run(tmp_path / "bare", logged), tmp_path / "bare.png")
    assert image.imread(bare).shape[1] < image.imread(whole).shape[1]


def test_arms_in_one_picture(tmp_path):
    runs = [long_run(tmp_path / "a" / "run"), long_run(tmp_path / "b" / "run", 50)]
    assert image.imread(draw_together(runs, tmp_path / "arms.png")).shape[0] > 800
    with pytest.raises(CurateError, match="found one of them twice"):
        draw_together([runs[0], runs[0]], tmp_path / "arms.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"step": 1}\n{"st', "metrics.jsonl: line 2: expected JSON, found '{\"st'"),
        ('{"loss": 1}', "metrics.jsonl: line 1: expected a whole `step`, found None"),
        ("[1]", "metrics.jsonl: line 1: expected a whole `step`, found None"),
        ('{"step": 1, "loss": "x"}', "metrics.jsonl: line 1: expected a number `loss`, found 'x'"),
        ("", "metrics.jsonl: expected steps with a loss, found none"),
    ],
)
def test_metrics_that_are_broken(tmp_path, text, message):
    run = write_run(tmp_path / "run", [])
    (run / "metrics.jsonl").write_text(text)
    with pytest.raises(CurateError) as error:
        draw(run, tmp_path / "curves.png")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_run_without_metrics_or_with_strange_losses_or_no_place_for_a_picture(tmp_path):
    with pytest.raises(CurateError, match="expected the metrics of a training run"):
        curves_of(tmp_path)
    run = write_run(tmp_path / "run", [{"step": 1, "loss": 1.0}])
    with pytest.raises(CurateError, match="expected to write a picture there"):
        draw(run, tmp_path / "none" / "curves.png")
    (run / "token_losses").mkdir()
    pl.DataFrame({"step": [1]}).write_parquet(run / "token_losses" / "0.parquet")
    with pytest.raises(CurateError, match="expected token losses as training records them"):
        curves_of(run)
