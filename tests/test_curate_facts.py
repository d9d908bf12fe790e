"""Facts computed beside the features: tokens, grades, overlap with benchmarks, duplicates."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curate
from tests.broken_files import flip
from tests.command_line import only_line, tree
from tests.interruptions import edit

LOCATOR = ["shard", "row", "item"]


def corpus(path, group_rows=None, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group_rows)
    return path


def derived(out, name):
    """The values of a fact, whose locators must be those of the features."""
    table = pq.read_table(out / f".curate/derived/{name}.parquet")
    features = pq.read_table(out / ".curate/features")
    assert table.select(LOCATOR).equals(features.select(LOCATOR))
    return table.drop_columns(LOCATOR).to_pydict()


def reasons(out):
    return pq.read_table(out / ".curate/selection")["reason"].to_pylist()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A small tokenizer, as a file."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(["Wait, let me think.\n\nAlternatively x = 12."] * 3, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


def library_counts(tokenizer, texts):
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    return [len(loaded.encode(text or "", add_special_tokens=False).ids) for text in texts]


# Tokens.

TEXTS = st.lists(
    st.none() | st.text(max_size=30) | st.just("Wait, let me think.\n\nAlternatively x = 12."),
    min_size=1,
    max_size=20,
)


@settings(max_examples=20)
@given(TEXTS, st.integers(1, 5), st.sampled_from([1, 3]))
def test_tokens_are_those_of_the_library(tmp_path_factory, tokenizer, texts, group_rows, threads):
    place = tmp_path_factory.mktemp("tokens")
    whole = [None if text is None else f"<think>{text}</think>4" for text in texts]
    path = corpus(place / "c.parquet", group_rows, response=pa.array(whole, pa.string()))
    out = place / "out"
    curate.scan(path, out=out, preset="think", tokenizer=tokenizer, threads=threads)
    assert not (out / "data").exists()
    sizes = pq.read_table(out / ".curate/features")["bytes"].to_pylist()
    told = [text if size else "" for text, size in zip(texts, sizes, strict=True)]
    assert derived(out, "tokens")["tokens"] == library_counts(tokenizer, told)


def test_tokens_of_real_traces(traces, tmp_path, tokenizer):
    out = tmp_path / "out"
    report = curate.scan(traces, out=out, tokenizer=tokenizer, limit=40, keep="tokens <= 8000")
    layout = json.loads((out / ".curate/manifest.json").read_text())["config"]["layout"]
    assert layout["name"] == "plain"
    texts = pq.ParquetFile(traces).read_row_group(0, columns=[layout["trace"]]).column(0)[:40]
    counts = library_counts(tokenizer, texts.to_pylist())
    assert derived(out, "tokens")["tokens"] == counts
    assert report.kept == sum(count <= 8000 for count in counts) < 40
    assert reasons(out) == [None if count <= 8000 else "keep" for count in counts]


# Grades.

BOX = "<think>a</think>so \\boxed{{{}}}"

GRADES = [
    ("correct", BOX.format("4"), "4"),
    ("correct", BOX.format("4.0"), "4"),
    ("correct", BOX.format("\\frac{1}{2}"), "0.5"),
    ("wrong", BOX.format("5"), "4"),
    ("no_answer", "<think>a</think>the answer is 4", "4"),
    ("no_answer", "<think>a</think>", "4"),
    ("no_answer", "\n", "4"),
    ("truncated", "<think>a \\boxed{4}", "4"),
    (None, BOX.format("4"), None),
    (None, BOX.format("4"), " "),
]


def test_what_a_grade_may_be(tmp_path):
    statuses, texts, golds = map(list, zip(*GRADES, strict=True))
    path = corpus(tmp_path / "c.parquet", 3, response=texts, gold=golds)
    out = tmp_path / "out"
    report = curate.scan(path, out=out, preset="think", verify="gold", keep="correct", threads=2)
    assert derived(out, "grades")["grade"] == statuses
    kept = [reason is None for reason in reasons(out)]
    assert kept == [status == "correct" for status in statuses]
    assert report.rejected["keep_null"] == 2
    rows = pq.read_table(out / "data").to_pylist()
    assert [row["response"] for row in rows] == [text for s, text, _ in GRADES if s == "correct"]


@pytest.mark.parametrize(
    "golds",
    [
        pa.array([4, None, 5], pa.int64()),
        pa.array([4, None, 5], pa.int8()),
        pa.array([4.0, None, 5.5]),
        pa.array(["4", None, "5"]).dictionary_encode(),
        pa.array(["4", None, "5"], pa.string_view()),
        pa.array(["4", None, "5"], pa.large_string()),
        pa.array([b"4", None, b"5"]),
        pa.array(["\\boxed{4}", "", "$5$"]),
    ],
    ids=lambda golds: str(golds.type),
)
def test_golds_of_any_type(tmp_path, golds):
    path = corpus(tmp_path / "c.parquet", response=[BOX.format(4)] * 3, gold=golds)
    curate.scan(path, out=tmp_path / "out", preset="think", verify="gold")
    assert derived(tmp_path / "out", "grades")["grade"] == ["correct", None, "wrong"]


def test_lenient_also_takes_answers_that_are_not_in_a_box(tmp_path):
    path = corpus(tmp_path / "c.parquet", response=["<think>a</think>The answer is 4."], gold=[4])
    for lenient, grade in ((False, "no_answer"), (True, "correct")):
        out = tmp_path / str(lenient)
        curate.scan(path, out=out, preset="think", verify="gold", lenient=lenient)
        assert derived(out, "grades")["grade"] == [grade]


def test_every_element_is_graded(tmp_path):
    texts = [[BOX.format(4), BOX.format(5)], [], None, [BOX.format(6)]]
    kind = pa.list_(pa.string())
    told = dict(
        problem=["p"] * 4,
        gold=[4, 1, 2, 6],
        correctness_math_verify=[[False] * 2, [], None, [False]],
    )
    path = corpus(tmp_path / "c.parquet", generations=pa.array(texts, kind), **told)
    out = tmp_path / "out"
    curate.scan(path, out=out, preset="openr1", verify="gold", keep="correct", annotate=["grade"])
    assert derived(out, "grades")["grade"] == [
        "correct",
        "wrong",
        "no_answer",
        "no_answer",
        "correct",
    ]
    rows = pq.read_table(out / "data").to_pylist()
    assert [row["generations"] for row in rows] == [[BOX.format(4)], [BOX.format(6)]]
    assert [row["curate_grade"] for row in rows] == ["correct"] * 2


@pytest.mark.parametrize("known", ["--correct", None])
def test_a_grade_counts_before_what_the_corpus_says(tmp_path, run_here, known):
    columns = dict(response=[BOX.format(4), BOX.format(5)], gold=[4, 4], said=["no", "yes"])
    path = corpus(tmp_path / "c.parquet", **columns)
    options = ["--preset", "think", "--verify", "gold", *([known, "said"] if known else [])]
    rule = ["--best-of", 1, "--rank-by", "steps", "--within", "verdict", "--annotate", "correct"]
    result = run_here("scan", path, "--out", tmp_path / "out", *options, *rule)
    assert result.returncode == 0, result.stderr
    assert reasons(tmp_path / "out") == [None, "not_correct"]
    assert pq.read_table(tmp_path / "out/data")["curate_correct"].to_pylist() == [True]


def test_without_math_verify_it_says_what_to_install(tmp_path, run_here, monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    path = corpus(tmp_path / "c.parquet", response=[BOX.format(4)], gold=[4])
    options = ["--preset", "think", "--verify", "gold"]
    line = only_line(run_here("scan", path, "--out", tmp_path / "out", *options))
    assert "pip install 'curate-cot[verify]'" in line


# Overlap with benchmarks.

PROBLEM = "Find the sum of all positive integers n such that n squared divides twelve factorial"


@pytest.fixture
def bench(tmp_path):
    path = tmp_path / "bench.jsonl"
    items = [{"id": "zero", "problem": "unlike anything else"}, {"id": "one", "problem": PROBLEM}]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def test_contaminated_rows_go_and_the_item_is_named(tmp_path, run_here, bench):
    problems = ["Something of its own", PROBLEM.upper() + "!", None, f"Please: {PROBLEM}. Thanks."]
    path = corpus(tmp_path / "c.parquet", 2, trace=list("abcd"), q=problems)
    options = ["--column", "trace", "--problem", "q", "--decontaminate", bench]
    result = run_here("scan", path, "--out", tmp_path / "out", *options)
    assert result.returncode == 0, result.stderr
    assert reasons(tmp_path / "out") == [None, "contaminated", None, "contaminated"]
    found = derived(tmp_path / "out", "contamination")
    assert found["contamination"][:3] == [0, 1, None]
    assert found["contamination"][3] >= 0.5
    told = f"{bench}[1] (one): {PROBLEM}"[:60]
    assert [(by or "")[:60] for by in found["contaminated_by"]] == ["", told, "", told]
    assert "(one)" in result.stdout
    assert "contaminated" in result.stdout
    assert "1 kept row without a problem to compare with benchmarks" in result.stdout


# What stands of them, and where else they count.


@pytest.fixture
def scanned(tmp_path, tokenizer):
    """A scan with tokens and grades, without a selection."""
    texts = [BOX.format(n) for n in range(4)] * 2
    path = corpus(tmp_path / "c.parquet", 3, response=texts, gold=[0, 2] * 4, q=["q"] * 8)
    out = tmp_path / "scan"
    told = dict(preset="think", problem="q", tokenizer=tokenizer, verify="gold")
    curate.scan(path, out=out, **told)
    return out


def test_select_uses_the_facts_of_a_scan_and_adds_its_own(tmp_path, scanned, bench, run_here):
    before = tree(scanned)
    report = curate.select(
        *[scanned], out=tmp_path / "out", keep="correct AND tokens > 0", dedup=True
    )
    assert (report.kept, report.rejected) == (1, {"duplicate": 1, "keep": 6})
    assert sorted(tree(tmp_path / "out/.curate/derived")) == ["hashes.parquet"]
    told = ["--annotate", "tokens,grade,contamination", "--decontaminate", bench, "--keep", "true"]
    out = tmp_path / "more"
    assert run_here("select", scanned, "--out", out, *told).returncode == 0
    names = ["curate_tokens", "curate_grade", "curate_contamination"]
    assert pq.read_table(out / "data").column_names[-3:] == names
    for folder in (scanned, out, tmp_path / "out"):
        assert run_here("verify", folder).returncode == 0
    assert tree(scanned) == before


def test_a_selections_own_fact_counts_before_the_scans(tmp_path, scanned):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({"a": 0}, [], unk_token="a")).save(str(tmp_path / "other.json"))
    told = dict(tokenizer=tmp_path / "other.json", annotate=["tokens"], keep="tokens = 1")
    curate.select(scanned, out=tmp_path / "out", **told)
    assert pq.read_table(tmp_path / "out/data")["curate_tokens"].to_pylist() == [1] * 8


def test_changed_contents_are_named_when_a_run_goes_on(tmp_path, run_here, tokenizer, bench):
    path = corpus(tmp_path / "c.parquet", trace=["a"], q=["q"])
    mine = tmp_path / "tokenizer.json"
    mine.write_bytes(tokenizer.read_bytes())
    options = ["--column", "trace", "--problem", "q", "--tokenizer", mine, "--decontaminate", bench]
    scan = ["scan", path, "--out", tmp_path / "out", *options]
    assert run_here(*scan).returncode == 0
    assert run_here(*scan).returncode == 0
    edit(bench, "unlike", "quite unlike")
    line = only_line(run_here(*scan))
    assert "another content of --decontaminate" in line
    edit(bench, "quite unlike", "unlike")
    edit(mine, '"add_prefix_space": false', '"add_prefix_space": true')
    line = only_line(run_here(*scan))
    assert "another tokenizer" in line


def test_facts_stand_beside_their_rows_a_few_at_a_time(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr("curate.featurefiles.CHUNK_ROWS", 5)
    monkeypatch.setattr("curate.featurefiles.TEXT_ROWS", 3)
    monkeypatch.setattr("curate.deriving.FLUSH_ROWS", 2)
    monkeypatch.setattr("curate.units.UNIT_BYTES", 60)
    texts = ["Wait " * (n % 9) + str(n) for n in range(40)]
    for shard in range(3):
        part = texts[shard * 11 : shard * 11 + 11 + 7 * (shard == 2)]
        corpus(tmp_path / f"c/{shard}.parquet", 4, trace=part, id=[f"i{text}" for text in part])
    counts = library_counts(tokenizer, texts)
    told = dict(id="id", tokenizer=tokenizer, keep="tokens % 2 = 0 AND id <> ''", dedup=True)
    curate.scan(tmp_path / "c", out=tmp_path / "out", threads=3, **told, annotate=["tokens"])
    assert derived(tmp_path / "out", "tokens")["tokens"] == counts
    rows = pq.read_table(tmp_path / "out/data").to_pylist()
    found = [(row["trace"], row["curate_tokens"]) for row in rows]
    each = zip(texts, counts, strict=True)
    assert found == [(text, count) for text, count in each if count % 2 == 0]


UNREAD = ["gold", "q"]


@pytest.mark.parametrize("column", UNREAD)
def test_a_column_that_only_a_fact_reads_may_be_broken(tmp_path, bench, column):
    """Row groups of which it cannot be read are left out, counted, as others are."""
    columns = dict(response=[BOX.format(4)] * 8, gold=["4"] * 8, q=["q"] * 8)
    path = tmp_path / "c.parquet"
    options = {"row_group_size": 4, "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(pa.table(columns), path, **options)
    flip(path, column, 1)
    fact = {"gold": {"verify": "gold"}, "q": {"decontaminate": bench, "problem": "q"}}[column]
    told = dict(preset="think", keep="true", on_error="quarantine")
    report = curate.scan(path, out=tmp_path / "out", **told, **fact)
    assert (report.kept, report.quarantined) == (4, {"unreadable": 4})


MISUSED = {
    "tokens of nothing": (["--tokenizer", "/nowhere/x.json"], "/nowhere/x.json"),
    "no column of golds": (["--verify", "gold"], "no column `gold`"),
    "no answers": (["--verify", "q"], "--verify: expected --answer"),
    "lenient alone": (["--lenient"], "--lenient: expected together with --verify"),
    "no benchmark": (["--decontaminate", "none.jsonl"], "none.jsonl"),
    "no tokens counted": (["--keep", "tokens > 1"], "tokens"),
}


@pytest.mark.parametrize("what", MISUSED)
def test_what_is_missing_is_one_line(tmp_path, run_here, what):
    options, told = MISUSED[what]
    path = corpus(tmp_path / "c.parquet", trace=["a"], q=["q"])
    line = only_line(run_here("scan", path, "--out", tmp_path / "o", "--column", "trace", *options))
    assert told in line
    assert not (tmp_path / "o").exists()


def test_decontaminate_without_problems_is_one_line(tmp_path, run_here, bench):
    path = corpus(tmp_path / "c.parquet", trace=["a"])
    options = ["--column", "trace", "--decontaminate", bench]
    line = only_line(run_here("scan", path, "--out", tmp_path / "o", *options))
    assert "--decontaminate: expected --problem" in line


def test_facts_of_nothing(tmp_path, tokenizer, bench):
    path = corpus(
        tmp_path / "c.parquet", trace=pa.array([], pa.string()), q=pa.array([], pa.string())
    )
    told = dict(column="trace", problem="q", tokenizer=tokenizer, dedup=True, decontaminate=bench)
    report = curate.scan(path, out=tmp_path / "out", **told)
    assert (report.rows, report.kept) == (0, 0)
    assert derived(tmp_path / "out", "tokens") == {"tokens": []}
