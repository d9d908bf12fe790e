"""The dataset card: read by the Hub and by `datasets`, honest, and the same bytes every time."""

import os
import re

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate import card, manifest
from curate.distributions import QUANTILES
from curate.featurefiles import FeatureFiles, feature_files
from curate.markdown import cell, code
from curate.selection import Selection, bind, exact
from curate.summary import new_cut
from curate.thresholds import with_thresholds
from curate.trainers import COLUMNS, FORMATS

ROWS = 40
EVIL = "a|b`c`<img src=x>\n| d \\| [x](y)\x1b"


def corpus(folder, teachers=("A", "B"), shards=2, **more):
    """Traces of two teachers on the same problems, one of whom branches; of growing length."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        numbers = range(shard * ROWS // shards, (shard + 1) * ROWS // shards)
        branch = "\n\nAlternatively, another."
        table = {
            "id": [f"r{n}" for n in numbers],
            "problem": [f"What is {n // 2}?" for n in numbers],
            "teacher": [teachers[n % 2] for n in numbers],
            "correct": [n % 5 > 0 for n in numbers],
            "answer": [f"It is {n}." for n in numbers],
            "trace": ["First." + "\n\nThen." * 8 + branch * (n % 2) * (n // 4) for n in numbers],
        }
        table |= {name: [values[n] for n in numbers] for name, values in more.items()}
        pq.write_table(pa.table(table), folder / f"{shard}.parquet", row_group_size=7)
    return folder


NAMED = {"column": "trace", "answer": "answer", "id": "id", "problem": "problem"}
NAMED |= {"teacher": "teacher", "correct": "correct"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("cards") / "corpus")


def scan(place, out, **options):
    """The card of a scan."""
    curate.scan(place, out=out, **NAMED | options)
    return (out / "README.md").read_text()


def section(text, title):
    return re.split(r"\n## ", text.split(f"\n## {title}\n")[1])[0]


def lines(text, begin):
    return [line for line in text.splitlines() if line.startswith(begin)]


# What the Hub and `datasets` read.


@pytest.fixture
def load(monkeypatch, tmp_path):
    """`datasets.load_dataset` of a folder, with a cache of its own for each time."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    caches = (tmp_path / f"cache{n}" for n in range(9))

    def load_one(folder):
        return datasets.load_dataset(str(folder), split="train", cache_dir=str(next(caches)))

    return load_one


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.filterwarnings("ignore")  # of libraries that are not ours
def test_datasets_takes_the_card_and_holds_the_rows_against_it(tmp_path, place, load, format):
    from datasets.exceptions import NonMatchingSplitsSizesError
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCard

    out = tmp_path / "out"
    curate.scan(place, out=out, **NAMED, keep="correct", format=format, shard_bytes=2000)
    readme = out / "README.md"
    told = DatasetCard.load(readme).data
    assert told.size_categories == ["n<1K"]
    assert told.task_categories == ["text-generation"]
    info = DatasetInfosDict.from_dataset_card_data(told)["default"]
    assert info.splits["train"].num_examples == 32
    files = sorted((out / "data").iterdir())
    assert len(files) > 1
    loaded = load(out)
    assert len(loaded) == 32
    assert set(COLUMNS[format]) <= {*loaded.column_names}
    assert info.download_size == loaded.download_size == sum(map(os.path.getsize, files))
    readme.write_text(readme.read_text().replace("num_examples: 32", "num_examples: 33"))
    with pytest.raises(NonMatchingSplitsSizesError):
        load(out)
    readme.write_text(readme.read_text().replace("num_examples: 33", "num_examples: 32"))
    files[-1].unlink()
    with pytest.raises(NonMatchingSplitsSizesError):
        load(out)


@pytest.mark.filterwarnings("ignore")
def test_the_features_of_a_corpus_stay(tmp_path, load):
    datasets = pytest.importorskip("datasets")
    features = {"trace": datasets.Value("string"), "kind": datasets.ClassLabel(names=["x", "y"])}
    made = datasets.Dataset.from_dict(
        {"trace": ["One."] * 6, "kind": [0, 1] * 3}, features=datasets.Features(features)
    )
    made.to_parquet(tmp_path / "a.parquet")
    out = tmp_path / "out"
    curate.scan(tmp_path / "a.parquet", out=out, column="trace", keep="true")
    loaded = load(out)
    assert len(loaded) == 6
    assert loaded.features["kind"] == features["kind"]


def test_a_dataset_of_no_rows_has_a_card(tmp_path, place):
    text = scan(place, tmp_path / "out", keep="steps < 0", carry=["answer"])
    assert "num_examples: 0\n" in text
    assert "| kept | 0 |" in text
    assert "| `steps`, kept | 0 |  |  |  |  |  |  |" in text
    assert "and none of those kept" in text
    assert "of kept rows" in text and "unknown (there are none)" in text


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (99_999, "10K<n<100K"),
        (10**6, "1M<n<10M"),
        (10**9 - 1, "100M<n<1B"),
        (10**9, "1B<n<10B"),
        (10**12 - 1, "100B<n<1T"),
        (10**12, "n>1T"),
    ],
)
def test_size_categories_are_those_of_the_hub(rows, told):
    assert card.size_category(rows) == told


# What a person reads.

RULES = [
    (
        {"keep": "correct"},
        [
            "- of the verdicts `ok`, `prefilled` (`--accept`)",
            "- kept where `correct` (`--keep`); where that is null it is rejected",
        ],
    ),
    (
        {"drop_top": "0.25", "rank_by": "branch_frac", "within": ["teacher"]},
        [
            "- not in the top `0.25` (`--drop-top`) by `branch_frac` (`--rank-by`) within "
            "`teacher` (`--within`); whole groups of equal values go or stay",
        ],
    ),
    (
        {
            "best_of": 1,
            "rank_by": "bytes",
            "within": ["problem"],
            "seed": 7,
            "accept": ["ok", "empty"],
        },
        [
            "- of the verdicts `ok`, `empty` (`--accept`)",
            "- known to be correct by the column `correct`, which `--best-of` asks for where it "
            "is known",
            "- among the 1 (`--best-of`) with the least `bytes` (`--rank-by`) within `problem` "
            "(`--within`); ties are broken by a draw of seed 7 (`--seed`)",
        ],
    ),
    (
        {"dedup": True, "format": "messages", "thinking": "strip"},
        [
            "- with a prompt and an answer, as conversations need both (`--format`)",
            "- the first with its trace, byte for byte (`--dedup`)",
        ],
    ),
]


@pytest.mark.parametrize(("rule", "expected"), RULES)
def test_each_rule_is_told_in_words_with_its_option(tmp_path, place, rule, expected):
    told = section(scan(place, tmp_path / "out", **rule), "Selection")
    rules = lines(told, "- ")
    assert [line for line in rules if line in expected] == expected
    assert ("Nothing was drawn" in told) == ("best_of" not in rule)
    first = [] if "accept" in rule else ["- of the verdicts `ok`, `prefilled` (`--accept`)"]
    assert len({*first, *expected}) == len(rules)


def test_benchmarks_are_named_with_what_they_held(tmp_path, place):
    file = tmp_path / "items.jsonl"
    file.write_text('{"problem": "What is 7?"}\n')
    text = scan(place, tmp_path / "out", decontaminate=[file])
    digest = manifest.read(tmp_path / "out")["config"]["facts"]["benchmarks_digest"]
    assert f"- its problem covered by less than 50% by each item of `{file}` (`--de" in text
    assert f"SHA-256 of the items `{digest}`" in text
    assert "| rejected: contaminated | 2 |" in text


def test_rows_add_up_by_reason_verdict_and_teacher(tmp_path, place):
    text = scan(place, tmp_path / "out", drop_top="0.2", rank_by="branch_frac")
    counts = dict(re.findall(r"^\| ([\w: ]+) \| ([\d,]+) \|$", text, re.MULTILINE))
    assert counts == {"read": "40", "kept": "32", "rejected: drop_top": "8", "verdict: ok": "40"}
    assert "| `A` | 20 | 20 | 100.0 % |\n| `B` | 20 | 12 | 60.0 % |" in text


def test_what_converts_rows_and_adds_columns_is_told(tmp_path):
    place = corpus(tmp_path / "corpus", labels=["x"] * ROWS, prompt=["p"] * ROWS)
    text = scan(
        place, tmp_path / "out", keep="true", format="messages", annotate=["steps"], limit=11
    )
    assert "`--format messages --thinking keep`" in text
    told = section(text, "Provenance")
    assert "- columns left out, being part of the conversations: `answer`, `trace`" in told
    assert "`labels` is now `source_labels`" in told
    assert "- columns added: `curate_steps` (`--annotate`)" in told
    assert "- corpus: the first 11 rows of 1 shard of" in told
    assert str(tmp_path) not in text


def test_provenance_names_the_shards_the_layout_and_the_lexicon(tmp_path):
    text = scan(corpus(tmp_path / "corpus", shards=20), tmp_path / "a", keep="true")
    assert "`9.parquet` (sizes" in section(text, "Provenance")
    place = corpus(tmp_path / "more", shards=40)
    told = section(scan(place, tmp_path / "b", keep="true", lexicon="paper"), "Provenance")
    assert "- corpus: 40 shards of " in told and " and 20 more (sizes" in told
    assert len(re.findall(r"`\d+\.parquet`", told)) == 20
    record = manifest.read(tmp_path / "b")
    assert f"- tool: curate {record['version']}, " in told
    assert f"- lexicon: `paper`, version `1`, SHA-256 `{record['lexicon']['hash']}`" in told
    assert "- layout: `plain`: traces are in `trace`, answer in `answer`" in told
    assert "- steps: cut by `blank-line`" in told
    assert "teacher in `teacher`" in told


# Distributions.


def test_the_distributions_are_those_of_the_rows(tmp_path, place):
    text = scan(place, tmp_path / "out", drop_top="0.2", rank_by="branch_frac")
    found = features(tmp_path / "out")
    kept = pl.read_parquet(tmp_path / "out/.curate/selection/*.parquet")["kept"]
    for what, rows in (("read", found), ("kept", found.filter(kept))):
        for name in ("steps", "branch_steps", "bytes"):
            ordered = np.sort(rows[name].to_numpy())
            at = [ordered[-(-len(ordered) * percent // 100) - 1] for percent in QUANTILES]
            told = [f"{len(ordered)}", f"{ordered.mean():.1f}", *map(str, at)]
            assert f"| `{name}`, {what} | {' | '.join(told)} |" in text
    assert "| `tokens, estimated`, read | 40 |" in text
    assert "bytes / 3.45" in text
    fractions = found["branch_steps"] / found["steps"]
    edge = np.sort(fractions.to_numpy())[35]
    assert f"nine in ten rows read ({edge:.3g}), are 4 (10.0 %) of the rows read" in text
    assert "and 0 (0.0 %) of those kept." in text


def test_counted_tokens_take_the_place_of_estimated_ones(tmp_path, place):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"x": 0}, unk_token="x")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    file = tmp_path / "tokenizer.json"
    curate.scan(place, out=tmp_path / "scan", tokenizer=file, **NAMED)
    digest = manifest.read(tmp_path / "scan")["config"]["facts"]["tokenizer_digest"]
    curate.select(tmp_path / "scan", out=tmp_path / "out", keep="correct")
    text = (tmp_path / "out/README.md").read_text()
    assert "| `tokens`, kept | 32 |" in text
    assert "estimated" not in text
    assert f"- tokens: counted by `{file}`, SHA-256 `{digest}` (`--tokenizer`)" in text


# Claims.


def test_claims_tell_what_was_cut_besides_and_what_is_missing(tmp_path, place):
    told = section(scan(place, tmp_path / "out", drop_top="0.2", rank_by="branch_frac"), "Claims")
    assert told.strip().startswith("No training run is recorded here")
    found = features(tmp_path / "out")
    kept = pl.read_parquet(tmp_path / "out/.curate/selection/*.parquet")["kept"]
    medians = [
        np.sort(found.filter(rows)["bytes"])[half] for rows, half in ((kept, 15), (~kept, 3))
    ]
    assert f"`bytes` is {medians[0]} of kept rows and {medians[1]} of dropped ones" in told
    assert "- teacher: from 60.0 % of `B` to 100.0 % of `A` was kept, of 2 teachers" in told
    assert "% of the variance of `branch_frac` lies between problems (intraclass" in told
    controls = lines(told, "| ")[1:]
    assert len(controls) == 9
    assert all(" | missing | " in line and "arXiv 260" in line for line in controls)
    for control in ("random drop", "matched in length", "problem", "teacher", "optimizer", "seeds"):
        assert any(control in line.split("|")[1] for line in controls), control


COVERED = [
    ({"within": ["problem"]}, "| within the problem | covered by `--within problem` |"),
    ({"within": ["teacher"]}, "| within the teacher | covered by `--within teacher` |"),
    (
        {"within": ["teacher"], "keep": "correct"},
        "| within the teacher | covered for the 8 rows cut by rank, by `--within teacher`; not for "
        "the 8 rejected otherwise |",
    ),
    ({"keep": "correct"}, "| only correct traces on both sides | as far as `--keep` asks"),
]


@pytest.mark.parametrize(("rule", "line"), COVERED)
def test_what_the_rule_covers_is_told_as_covered(tmp_path, place, rule, line):
    options = {"drop_top": "0.5", "rank_by": "branch_frac"} | rule
    told = section(scan(place, tmp_path / "out", **options), "Claims")
    assert line in told
    missing = sum(" | missing | " in one for one in lines(told, "| "))
    assert missing == 9 - len(rule)


def test_what_was_not_measured_is_not_claimed(tmp_path, place):
    curate.scan(place, out=tmp_path / "out", column="trace", keep="steps > 12")
    told = section((tmp_path / "out/README.md").read_text(), "Claims")
    assert "- topic: not measured, as no column of problems was given (`--problem`)" in told
    assert "- teacher: not measured, as no column of teachers was given (`--teacher`)" in told


# Nothing of the data acts, and nothing of the run shows.


@pytest.mark.parametrize("text", [EVIL, "", "`", "|", "\\|", "a" * 500, "\ud800", "---\n# x"])
def test_a_value_stays_in_its_cell(text):
    shown = cell(text)
    assert "\n" not in shown and "|" not in shown and shown.isprintable()
    ticks = re.match("`+", shown).group()
    inside = shown.removeprefix(ticks).split(" ... (")[0].removesuffix(ticks)
    assert ticks not in re.findall("`+", inside)
    assert code(text)


def test_names_and_values_of_the_data_break_nothing(tmp_path):
    yaml = pytest.importorskip("yaml")
    place = corpus(tmp_path / "corpus", teachers=(EVIL, None), **{EVIL: ["x", EVIL] * 20})
    text = scan(place, tmp_path / "out", keep="true", carry=[EVIL])
    assert "\x1b" not in text
    assert "<img" not in re.sub(r"(`+).+?\1", "", text)
    tables = [len(line.split("|")) for line in lines(section(text, "Selection"), "| ")]
    assert tables == [6] * 6
    assert "| null | 20 | 20 | 100.0 % |" in text
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["dataset_info"]["splits"][0]["num_examples"] == ROWS
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]


OPTIONS = {"drop_top": "0.2", "rank_by": "branch_frac", "within": ["teacher"], "carry": ["answer"]}


def test_a_card_is_the_same_whatever_the_threads_and_when_it_is_written_again(tmp_path, place):
    one = scan(place, tmp_path / "one", threads=1, **OPTIONS)
    assert scan(place, tmp_path / "four", threads=4, **OPTIONS) == one
    (tmp_path / "one/README.md").unlink()
    assert scan(place, tmp_path / "one", threads=2, **OPTIONS) == one


def features(out, *more):
    return pl.concat([*FeatureFiles(feature_files(out, 2)).all_chunks([*READ, *more])])


READ = ["problem", "teacher", "bytes", "steps", "branch_steps"]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_card_is_the_same_however_features_are_read(tmp_path, place, size):
    out = tmp_path / "out"
    written = scan(place, out, **OPTIONS)
    rows = features(out, "answer")
    rule = Selection(drop_top="0.2", rank_by="branch_frac", within=("teacher",))
    schema = rows.schema | {"branch_frac": pl.Float32()}
    decider = with_thresholds(bind(rule, schema), FeatureFiles(feature_files(out, 2)))
    cut, walk = new_cut(["teacher", "answer"], "branch_frac", with_problem=True), decider.new_pass()
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        cut.add(chunk, exact(chunk), walk.decide(chunk))
    card.write(out, manifest.read(out), cut, None)
    assert (out / "README.md").read_text() == written
