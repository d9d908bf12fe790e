"""
Datasets in each format load and train: with datasets, DuckDB, polars, pandas and TRL for real, and
as the sources of axolotl, LLaMA-Factory and verl demand. And the five ways to make a folder that
does not load do break loading.
"""

import json
import os
import re
import runpy
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.trainerfiles import configurations, write_configuration
from curate.trainers import COLUMNS, FIELDS, RESERVED, ROLES, misreaders
from tests.tiny_models import train_tokenizer

FORMATS = list(FIELDS)
ROWS = 6
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---
"""
IGNORED = -100  # of labels that are not trained on

KEEPS_THOUGHTS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def said(number):
    thought = f"First I add {number}.\n\nWait, let me check {number}."
    return f"<think>\n{thought}\n</think>\n\nThe answer is {number}."


def messages(format, number):
    role, content = FIELDS[format]
    texts = ("Be brief.", f"What is {number}?", said(number))
    return [{role: who, content: text} for who, text in zip(ROLES[format], texts, strict=True)]


def table(format, **more):
    kind = pa.list_(pa.struct([(name, pa.string()) for name in FIELDS[format]]))
    rows = [messages(format, number) for number in range(ROWS)]
    if format == "prompt-completion":
        parts = {"prompt": [row[:-1] for row in rows], "completion": [row[-1:] for row in rows]}
    else:
        parts = {COLUMNS[format][0]: rows}
    columns = {name: pa.array(values, kind) for name, values in parts.items()}
    return pa.table({**columns, "id": [f"r{n}" for n in range(ROWS)], **more})


def write(folder, format, **more):
    """A dataset folder as it is emitted, two shards of it."""
    (folder / "data").mkdir(parents=True)
    (folder / ".curate").mkdir()
    (folder / ".curate/manifest.json").write_text("{}")
    whole = table(format, **more)
    for shard in range(2):
        path = folder / f"data/train-{shard:05d}-of-00002.parquet"
        pq.write_table(whole.slice(shard * ROWS // 2, ROWS // 2), path, compression="zstd")
    write_configuration(folder, format, thinking=True)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module", params=FORMATS)
def emitted(request, tmp_path_factory):
    """A dataset of each format, and the format."""
    format = request.param
    return write(tmp_path_factory.mktemp("emitted") / format, format), format


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """No cache of another test's data, and nothing asked of the Hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def load(folder):
    from datasets import load_dataset

    return load_dataset(str(folder), split="train")


# Readers.


def test_datasets_loads_it(emitted):
    folder, format = emitted
    loaded = load(folder)
    assert loaded.column_names == [*COLUMNS[format], "id"]
    row = loaded[ROWS - 1]
    talk = [message for name in COLUMNS[format] for message in row[name]]
    assert talk == messages(format, ROWS - 1)
    assert loaded["id"][:] == [f"r{n}" for n in range(ROWS)]


def test_duckdb_polars_and_pandas_load_it(emitted):
    folder, format = emitted
    duckdb = pytest.importorskip("duckdb")
    pandas = pytest.importorskip("pandas")
    import polars

    files = str(folder / "data/*.parquet")
    name, (_, content) = COLUMNS[format][-1], FIELDS[format]
    rows = duckdb.sql(f"SELECT {name} FROM '{files}' ORDER BY id").fetchall()
    assert rows[3][0][-1][content] == said(3)
    assert polars.read_parquet(files)[name][3][-1][content] == said(3)
    assert pandas.read_parquet(folder / "data")[name][3][-1][content] == said(3)


# TRL.


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tiny model and its tokenizer, whose chat template keeps thoughts."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    fast = train_tokenizer(map(said, range(20)), KEEPS_THOUGHTS, 320)
    config = Qwen3Config(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    place = tmp_path_factory.mktemp("model")
    Qwen3ForCausalLM(config).save_pretrained(place)
    fast.save_pretrained(place)
    return place


def sft_trainer(folder, model, out, **options):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        output_dir=str(out),
        max_steps=1,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        gradient_checkpointing=False,
        max_length=None,
        **options,
    )
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=arguments,
        train_dataset=load(folder),
        processing_class=AutoTokenizer.from_pretrained(model),
    )


quiet = pytest.mark.filterwarnings("ignore")  # of libraries that are not ours


@quiet
@pytest.mark.parametrize(
    ("format", "loss"),
    [("prompt-completion", "completion_only_loss"), ("messages", "assistant_only_loss")],
)
def test_trl_trains_on_the_thought_and_the_answer(tmp_path, model, format, loss):
    assert f"{loss}=True" in configurations(format, thinking=True)["trainers/trl_sft.py"]
    trainer = sft_trainer(write(tmp_path / "out", format), model, tmp_path, **{loss: True})
    rows = trainer.train_dataset
    assert len(rows) == ROWS
    for number, row in enumerate(rows):
        trained = [token for token in row["labels"] if token != IGNORED]
        text = trainer.processing_class.decode(trained)
        assert text.rstrip("\n") == f"{said(number)}<|im_end|>"
        assert len(trained) < len(row["input_ids"])
    result = trainer.train()
    assert result.global_step == 1
    assert result.training_loss > 0


@quiet
def test_trl_does_not_load_sharegpt(tmp_path, model):
    """It keeps the roles `human` and `gpt`, which templates do not know."""
    assert "trainers/trl_sft.py" not in configurations("sharegpt", thinking=True)
    trainer = sft_trainer(write(tmp_path / "out", "sharegpt"), model, tmp_path)
    text = trainer.processing_class.decode(trainer.train_dataset[0]["input_ids"])
    assert "<|im_start|>gpt\n" in text
    assert "<|im_start|>assistant\n" not in text


MISREAD = {
    "input_ids": [[1, 2]] * ROWS,
    "labels": [[1, 2]] * ROWS,
    "assistant_masks": [[0]] * ROWS,
    "images": ["x"] * ROWS,
    "prompt": ["x"] * ROWS,
    "conversations": [[{"from": "human", "value": "x"}]] * ROWS,
    "chat_template_kwargs": ["x"] * ROWS,
    "tools": ["x"] * ROWS,
}


@quiet
@pytest.mark.parametrize("name", MISREAD)
def test_trl_misreads_reserved_names(tmp_path, model, name):
    format = "messages" if name in ("prompt", "conversations") else "prompt-completion"
    assert "TRL" in misreaders(name, format)
    folder = write(tmp_path / "out", format, **{name: MISREAD[name]})
    try:
        row = sft_trainer(folder, model, tmp_path).train_dataset[0]
    except Exception:  # as it does for most of them, of various kinds
        return
    assert len([token for token in row["labels"] if token != IGNORED]) < 10


@quiet
def test_trl_reads_nothing_of_other_names(tmp_path, model):
    others = {name: ["x"] * ROWS for name in ("text", "label", "problem", "question", "teacher")}
    assert not set(others) & set(RESERVED)
    folder = write(tmp_path / "out", "messages", **others)
    trainer = sft_trainer(folder, model, tmp_path, assistant_only_loss=True)
    trained = [token for token in trainer.train_dataset[0]["labels"] if token != IGNORED]
    assert trainer.processing_class.decode(trained).startswith(said(0))


@quiet
def test_the_script_for_trl_runs_and_refuses_what_is_too_long(tmp_path, model, monkeypatch):
    folder = write(tmp_path / "out", "prompt-completion")
    script = folder / "trainers/trl_sft.py"
    # As it is on a machine with accelerators, and one step instead of three times all rows.
    here = "output_dir=out, use_cpu=True, bf16=False, report_to='none', max_steps=1"
    script.write_text(script.read_text().replace("output_dir=out", here))
    monkeypatch.setattr(sys, "argv", [str(script), str(model), str(tmp_path / "trained")])
    runpy.run_path(str(script), run_name="__main__")
    assert (tmp_path / "trained/model.safetensors").is_file()
    script.write_text(re.sub(r"MAX_LENGTH = \d+", "MAX_LENGTH = 20", script.read_text()))
    with pytest.raises(SystemExit, match=r"^6 rows have over 20 tokens, the longest \d+$"):
        runpy.run_path(str(script), run_name="__main__")


# What the sources of the others demand.


@pytest.mark.parametrize("format", ["messages", "sharegpt"])
def test_llama_factory_finds_its_files_columns_and_roles(tmp_path, format):
    """llamafactory/data/loader.py and converter.py: SharegptDatasetConverter."""
    folder = write(tmp_path / "out", format)
    (entry,) = json.loads((folder / "dataset_info.json").read_text()).values()
    files = os.listdir(folder / entry["file_name"])
    assert {os.path.splitext(name)[-1] for name in files} == {".parquet"}
    tags = entry["tags"]
    for row in load(folder):
        talk = row[entry["columns"]["messages"]]
        if talk[0][tags["role_tag"]] == tags["system_tag"]:
            talk = talk[1:]
        roles = [message[tags["role_tag"]] for message in talk]
        assert roles == [tags["user_tag"], tags["assistant_tag"]] * (len(talk) // 2)
        assert talk[-1][tags["content_tag"]].startswith("<think>")


@pytest.mark.parametrize("format", ["messages", "sharegpt"])
def test_axolotl_finds_its_files_and_messages(tmp_path, format):
    """axolotl/utils/data/shared.py (_load_from_local_path), prompt_strategies/chat_template.py."""
    yaml = pytest.importorskip("yaml")
    from datasets import load_dataset

    folder = write(tmp_path / "out", format)
    (dataset,) = yaml.safe_load((folder / "trainers/axolotl.yaml").read_text())["datasets"]
    assert (folder / dataset["path"]).is_dir()
    files = str(folder / dataset["data_files"])
    loaded = load_dataset(dataset["ds_type"], data_files=files, split=dataset["split"])
    assert len(loaded) == ROWS
    mapped = dataset["message_property_mappings"]
    known = {"human": "user", "gpt": "assistant"}
    for number, row in enumerate(loaded):
        talk = row[dataset["field_messages"]]
        roles = [message[mapped["role"]] for message in talk]
        assert [known.get(role, role) for role in roles] == ["system", "user", "assistant"]
        assert talk[-1][mapped["content"]] == said(number)


def test_verl_finds_its_messages(tmp_path):
    """verl/utils/dataset/multiturn_sft_dataset.py (_read_files_and_process)."""
    pandas = pytest.importorskip("pandas")
    folder = write(tmp_path / "out", "messages")
    frame = pandas.read_parquet(folder / "data", dtype_backend="pyarrow")
    assert not {"images", "videos", "tools", "enable_thinking"} & set(frame.columns)
    for number, talk in enumerate(frame["messages"]):
        assert [set(message) for message in talk] == [{"role", "content"}] * 3
        assert talk[-1]["content"] == said(number)


# Five ways to make a folder that does not load; tests/test_curate_check.py shows that each is
# named.


def empty_group(folder):
    path = folder / "data/train-00001-of-00002.parquet"
    whole = pq.read_table(path)
    with pq.ParquetWriter(path, whole.schema) as writer:
        writer.write_table(whole.slice(0, 0))
        writer.write_table(whole)


def leftover(folder):
    (folder / "data/train-00001-of-00002.parquet.tmp").write_bytes(b"half a file")


def another_column(folder):
    path = folder / "data/train-00001-of-00002.parquet"
    whole = pq.read_table(path)
    pq.write_table(whole.append_column("more", pa.array([1] * len(whole))), path)


def null_column(folder):
    path = folder / "data/train-00000-of-00002.parquet"
    whole = pq.read_table(path)
    at = whole.schema.get_field_index("id")
    pq.write_table(whole.set_column(at, "id", pa.nulls(len(whole))), path)


def huge_group(folder):
    """Both shards become one of 2.2 GB of nested text in a row group."""
    row = {"role": "assistant", "content": "x" * (1 << 20)}
    kind = table("messages").schema.field("messages").type
    batch = pa.record_batch({"messages": pa.array([[row]] * 32, kind), "id": ["a"] * 32})
    whole = pa.Table.from_batches([batch] * 65)
    for path in (folder / "data").iterdir():
        path.unlink()
    path = folder / "data/train-00000-of-00001.parquet"
    pq.write_table(whole, path, row_group_size=1 << 20, use_dictionary=False)


HUGE = pytest.param(huge_group, marks=pytest.mark.soak)  # takes 20 s and 5 GB


@quiet
@pytest.mark.parametrize("harm", [empty_group, leftover, another_column, null_column, HUGE])
def test_what_check_names_does_not_load(tmp_path, harm):
    from datasets.exceptions import DatasetGenerationError

    folder = write(tmp_path / "out", "messages")
    harm(folder)
    with pytest.raises((DatasetGenerationError, pa.ArrowException, ValueError)):
        load(folder)


def test_a_later_row_group_without_rows_does_not_stream_apart(tmp_path):
    from datasets import load_dataset

    folder = write(tmp_path / "out", "messages")
    path = folder / "data/train-00001-of-00002.parquet"
    whole = pq.read_table(path)
    with pq.ParquetWriter(path, whole.schema) as writer:
        for rows in (3, 0, 3):
            writer.write_table(whole.slice(0, rows))
    assert len(load(folder)) == ROWS + 3
    streamed = load_dataset(str(folder), split="train", streaming=True)
    with pytest.raises(pa.ArrowInvalid, match="BatchSize must be greater than 0"):
        list(streamed.reshard())
