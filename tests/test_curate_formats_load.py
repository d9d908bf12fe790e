"""Emitted folders of every format in what reads them: datasets, DuckDB, polars, pandas and TRL."""

import pyarrow.parquet as pq
import pytest

import curate
from curate.trainers import COLUMNS, FIELDS
from tests import test_trainers_load as trainers
from tests.test_curate_formats import FORMATS, corpus

own_cache, model = trainers.own_cache, trainers.model

ROWS = 9
ALL_FORMATS = ["original", *FORMATS]
CORPORA = {
    "think": {
        "response": [
            f"<think>\nI add {n}.\n\nWait, é.\n</think>\n\nIt is {n}." for n in range(ROWS)
        ],
        "q": [f"What is {n}?" for n in range(ROWS)],
        "teacher": ["A", "B", None] * (ROWS // 3),
    },
    "openr1": {
        "generations": [[f"<think>{n}</think>a", f"<think>{n}+</think>b"] for n in range(ROWS)],
        "correctness_math_verify": [[True, False]] * ROWS,
        "problem": ["p"] * ROWS,
        "messages": [[{"role": "user", "content": "p"}]] * ROWS,
    },
    "messages-reasoning-content": {
        "messages": [
            [
                {"role": "system", "content": "s", "reasoning_content": None},
                {"role": "user", "content": f"q{n}", "reasoning_content": None},
                {"role": "assistant", "content": f"{n}", "reasoning_content": f"is {n}"},
            ]
            for n in range(ROWS)
        ],
        "n": list(range(ROWS)),
    },
}


def emit(place, preset, form, *, thinking="keep"):
    """A folder of several shards, and how many rows it has."""
    path = corpus(place / "corpus.parquet", CORPORA[preset])
    problem = {"think": "q"}.get(preset)
    told = dict(preset=preset, problem=problem, keep="true", format=form, thinking=thinking)
    report = curate.scan(path, out=place / "out", shard_bytes=200, annotate=["steps"], **told)
    assert len(list((place / "out/data").iterdir())) > 1
    assert report.kept == ROWS * (2 if preset == "openr1" else 1)
    return place / "out", report.kept


def plain(value):
    """Values of pandas as those of Python: lists are arrays there, and nulls no numbers."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [plain(one) for one in value]
    if value != value:
        return None
    return {name: plain(one) for name, one in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("form", ALL_FORMATS)
@pytest.mark.parametrize("preset", CORPORA)
def test_every_reader_has_the_same_rows(tmp_path, preset, form):
    import pandas
    import polars

    duckdb = pytest.importorskip("duckdb")
    out, count = emit(tmp_path, preset, form)
    files = str(out / "data/*.parquet")
    expected = pq.read_table(out / "data").to_pylist()
    assert len(expected) == count
    assert list(trainers.load(out)) == expected
    assert polars.read_parquet(files).to_dicts() == expected
    found = duckdb.sql(f"SELECT * FROM read_parquet('{files}')")
    names = [column[0] for column in found.description]
    assert [dict(zip(names, row, strict=True)) for row in found.fetchall()] == expected
    frame = pandas.read_parquet(out / "data").to_dict("records")
    assert [plain(row) for row in frame] == expected


@trainers.quiet
@pytest.mark.parametrize("thinking", ["keep", "strip"])
@pytest.mark.parametrize("preset", CORPORA)
@pytest.mark.parametrize(
    ("form", "loss"),
    [("prompt-completion", "completion_only_loss"), ("messages", "assistant_only_loss")],
)
def test_trl_trains_on_what_was_emitted(tmp_path, model, preset, form, loss, thinking):
    out, count = emit(tmp_path, preset, form, thinking=thinking)
    trainer = trainers.sft_trainer(out, model, tmp_path, **{loss: True})
    name, (_, content) = COLUMNS[form][-1], FIELDS[form]
    rows = pq.read_table(out / "data").to_pylist()
    assert len(trainer.train_dataset) == count
    for row, tokens in zip(rows, trainer.train_dataset, strict=True):
        said = row[name][-1][content]
        assert ("<think>" in said) == (thinking == "keep")
        trained = [token for token in tokens["labels"] if token != trainers.IGNORED]
        text = trainer.processing_class.decode(trained)
        assert text.rstrip("\n") == f"{said}<|im_end|>"
        assert len(trained) < len(tokens["input_ids"])
    result = trainer.train()
    assert result.global_step == 1
    assert result.training_loss > 0
