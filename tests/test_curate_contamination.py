"""Overlap with benchmarks: the kernel against the definition, files in, messages out."""

import gzip
import hashlib
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curate.contamination import CONTAMINATED, Benchmarks, Item, coverage, grams, words
from curate.errors import CurateError, SchemaError

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
ELEVEN = " ".join(LONG.split()[:11])

WORDS = [
    ("Find $x_1^{2}+\\frac{3}{4}$.", ["find", "x", "1", "2", "frac", "3", "4"]),
    ("Été À LA Café, naïve", ["été", "à", "la", "café", "naïve"]),
    ("e\u0301te\u0301", ["e", "te"]),  # an accent of its own is no letter
    ("设集合A={1，2}，求和。", ["设集合a", "1", "2", "求和"]),
    ("ΛΟΓΟΣ İI ẞ", ["λογος", "i", "i", "ß"]),  # İ in lower case is an i and a dot
    ("x² ½ Ⅷ ٣", ["x²", "½", "ⅷ", "٣"]),
    ("𝑥 and 𐐀", ["𝑥", "and", "𐐨"]),
    ("don't re-do a\u00a0b\u3000c\0d", ["don", "t", "re", "do", "a", "b", "c", "d"]),
    (" \n$$ {}…", []),
    ("", []),
]


def made(*texts: str) -> Benchmarks:
    """Benchmarks of these texts."""
    return Benchmarks([Item("b.txt", index, None, text) for index, text in enumerate(texts)])


def best_of(text: str, items: list[str]) -> tuple[float, int]:
    """The highest coverage and the first item that has it, by the definition."""
    each = [coverage(text, item) for item in items]
    best = max(each, default=0.0)
    return (float(np.float32(best)), each.index(best)) if best > 0 else (0.0, -1)


def found(benchmarks: Benchmarks, problems: pa.Array) -> list[tuple[float, int]]:
    """What `overlap` gives, pair by pair."""
    covered, items = benchmarks.overlap(problems)
    assert (covered.dtype, items.dtype) == (np.float32, np.int32)
    return [*zip(covered.tolist(), items.tolist(), strict=True)]


@pytest.mark.parametrize(("text", "expected"), WORDS)
def test_words(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "number"), [("", 0), ("!?", 0), ("a b", 1), (LONG, 8), (ELEVEN, 4), ("a " * 99, 1)]
)
def test_grams_are_distinct_runs_of_eight_words_or_all_of_fewer(text, number):
    assert len(grams(text)) == number


COVERAGES = [
    ("the same words", LONG, LONG.upper().replace(" ", ", "), 1),
    ("inside a longer prompt", f"Solve: {LONG} Reason step by step and box the answer.", LONG, 1),
    ("an item that goes on", LONG, f"{LONG} draw a figure of it " * 3, 1),
    ("half of a text, 8 grams", f"{LONG} a b c d e f g h", f"{LONG} i j k l m n o p q r", 0.5),
    ("less than half", f"{LONG} a b c d e f g h i", f"{LONG} i j k l m n o p q r", 8 / 17),
    ("half, but 7 grams", f"{LONG[:-8]} a b c d e f g", f"{LONG[:-8]} h i j k l m n", 0),
    ("11 words inside", f"Compute {ELEVEN} please", ELEVEN, 1),
    ("10 words inside", "Compute " + ELEVEN[:-7], ELEVEN[:-7], 0),
    ("10 words, alone", ELEVEN[:-7], ELEVEN[:-7] + "!", 1),
    ("fewer than 8 words, alone", "Compute $2^{10}$.", "compute 2 10", 1),
    ("fewer than 8 words inside", "Compute 2^10. Then stop.", "Compute 2^10.", 0),
    ("nothing in common", LONG, "a b c d e f g h i j k l m n o p", 0),
    ("no words", "!", "?", 0),
]


@pytest.mark.parametrize(("text", "item", "expected"), [case[1:] for case in COVERAGES])
def test_coverage(text, item, expected):
    assert coverage(text, item) == coverage(item, text) == expected
    assert found(made("other", item), pa.array([text])) == [
        (float(np.float32(expected)), 1 if expected else -1)
    ]


few = st.sampled_from(("a", "b", "A", "é", "É", "数", "1"))
prose = st.lists(few, max_size=40).map(" ".join)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Items, and problems that are parts and joins of them."""
    items = draw(st.lists(prose, max_size=5))
    piece = st.sampled_from([*items, "", "Σ", "x " * 9]) | prose
    part = st.tuples(piece, st.integers(0, 9), st.integers(0, 9))
    parts = part.map(lambda cut: cut[0][2 * cut[1] : len(cut[0]) - 2 * cut[2]])
    return items, draw(st.lists(st.lists(parts, max_size=3).map(" ".join), max_size=6))


@given(pairs())
def test_overlap_is_the_definition_applied_to_every_pair(drawn):
    items, problems = drawn
    benchmarks = made(*items)
    expected = [best_of(problem, items) for problem in problems]
    assert found(benchmarks, pa.array(problems, pa.string())) == expected


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=5))
@example(["ΑΣ ΑΣΑ ΑΣ.Σ", "Σ", "aΣ\nΣa"])
@example([text for text, _ in WORDS])
@example(["x", "État", "État", "É"])
@example(["".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))])
def test_the_kernel_cuts_any_text_into_the_same_words(texts):
    plain = [" ".join(words(text)) for text in texts]
    problems = pa.array([text for text, kept in zip(texts, plain, strict=True) if kept])
    expected = [plain.index(kept) for kept in plain if kept]
    covered, items = made(*plain).overlap(problems.cast(pa.string()))
    assert (covered == 1).all()
    assert [plain[item] for item in items] == [plain[item] for item in expected]


def test_nulls_and_texts_without_words_are_covered_by_nothing():
    problems = pa.array([None, "", "?!", LONG, None], pa.string())
    nothing = (0.0, -1)
    assert found(made("!", "", LONG), problems) == [nothing, nothing, nothing, (1.0, 2), nothing]
    assert found(made(LONG), problems.slice(0, 0)) == []
    assert found(made(), problems) == [nothing] * 5


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.binary(), pa.string_view(), pa.binary_view()),
        *(pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_binary())),
    ],
    ids=str,
)
def test_every_kind_of_text_and_any_slice_of_it(kind):
    texts = ["x", LONG, None, "été " + LONG, LONG, "y"]
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    problems = pa.array(texts).cast(value)
    problems = problems if value == kind else problems.dictionary_encode().cast(kind)
    expected = [(0.0, -1), (1.0, 0), (0.0, -1), (1.0, 0), (1.0, 0), (0.0, -1)]
    assert found(made(LONG), problems) == expected
    assert found(made(LONG), problems.slice(1, 4)) == expected[1:5]


def test_a_dictionary_may_hold_nulls_doubles_and_what_no_row_has():
    values = pa.array([LONG, "x", None, LONG])
    problems = pa.DictionaryArray.from_arrays(pa.array([3, 2, None, 0], pa.int8()), values)
    assert found(made(LONG), problems) == [(1.0, 0), (0.0, -1), (0.0, -1), (1.0, 0)]


def test_bytes_that_are_no_utf8_are_no_words():
    broken = [b"\xff" + LONG.encode() + b"\xe2\x80", b"\xc3\xa9t\xff\xc3\xa9", b"\xff"]
    raw = pa.array(broken, pa.binary())
    unchecked = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    for problems in (raw, unchecked):
        assert found(made(LONG, "ét é"), problems) == [(1.0, 0), (1.0, 1), (0.0, -1)]


def test_problems_that_are_no_text_are_named():
    with pytest.raises(
        SchemaError, match="--decontaminate: expected problems as text, found int64"
    ):
        made(LONG).overlap(pa.array([1]))


def test_of_items_that_cover_a_problem_alike_the_first_is_given():
    other = LONG.replace("e", "a")
    items = [other, LONG, other, LONG]
    benchmarks = made(*items)
    joined = [f"{LONG} {other}", f"{other} {LONG}", LONG, other]
    assert found(benchmarks, pa.array(joined)) == [best_of(text, items) for text in joined]
    assert benchmarks.overlap(pa.array(joined))[1].tolist() == [0, 0, 1, 0]


def test_equal_hashes_of_other_words_contaminate_nothing():
    benchmarks = made(LONG)
    benchmarks._index = made(LONG.replace("nine", "neun"))._index  # as if their hashes were equal
    assert found(benchmarks, pa.array([LONG.replace("nine", "neun")])) == [(0.0, 0)]


def test_threads_and_later_batches_get_the_same_answers():
    benchmarks = made(*(f"{n} {LONG}" for n in range(20)))
    problems = pa.array([f"{n} {LONG}" for n in range(30)])
    once = found(benchmarks, problems)
    assert [item for _, item in once] == [*range(20), *[0] * 10]
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(lambda _: found(benchmarks, problems), range(20))] == [once] * 20


ITEMS = [{"id": 7, "question": "What is é?", "answer": "1"}, {"id": 8, "question": "And\nb"}]
LINES = "\n".join(map(json.dumps, ITEMS)) + "\n\n"
CSV = 'ID,Question,Best Answer\n7,What is é?,x\n8,"And\nb",y\n'


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("a.jsonl", LINES, ["7", "8"]),
        ("a.jsonl.gz", LINES, ["7", "8"]),
        ("a.json", json.dumps(ITEMS, indent=1, ensure_ascii=False), ["7", "8"]),
        ("a.ndjson", "\ufeff" + LINES, ["7", "8"]),
        ("a.csv", CSV.replace("\n", "\r\n").replace("And\r\n", "And\n"), ["7", "8"]),
        ("a.csv.gz", CSV, ["7", "8"]),
        ("a.txt", "What is é?\r\n\n \nAnd b", [None, None]),
        ("a.parquet", None, ["7", "8"]),
    ],
)
def test_files_are_read_alike(tmp_path, name, content, ids):
    path = tmp_path / name
    if content is None:
        pq.write_table(pa.Table.from_pylist(ITEMS), path)
    else:
        raw = content.encode()
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    items = Benchmarks.load([str(path)]).items
    assert [words(item.text) for item in items] == [["what", "is", "é"], ["and", "b"]]
    assert [(item.file, item.index) for item in items] == [(str(path), 0), (str(path), 1)]
    assert [item.id for item in items] == ids


@pytest.mark.parametrize(
    ("row", "column", "text"),
    [
        ({"answer": "a", "prompt": "p", "question": "q", "problem": "x"}, None, "x"),
        ({"Question": "q", "prompt": "p"}, None, "q"),
        ({"content": "c", "goal": "g", "target": "t"}, None, "g"),
        ({"problem": "x", "target": "t"}, "target", "t"),
        ({"problem": "x", "a:b": "t"}, "problem", "x"),
        ({"problem": "half \ud800 of a sign"}, None, "half ? of a sign"),
    ],
)
def test_the_column_of_text(tmp_path, row, column, text):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row))
    named = f"{path}:{column}" if column else str(path)
    assert [item.text for item in Benchmarks.load([named]).items] == [text]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.jsonl", None, r"gone\.jsonl: not a readable benchmark: .*No such file"),
        ("x.xlsx", "x", r"x\.xlsx: expected a benchmark as \.jsonl.*, found \.xlsx"),
        ("x", "x", "x: expected a benchmark as .*, found a name without a suffix"),
        ("x.jsonl", "", r"x\.jsonl: expected a benchmark with items, found none"),
        ("x.jsonl", '{"problem": "a"}\n{', r"x\.jsonl: line 2: expected JSON: "),
        ("x.json", "[1]", r"x\.json: item 0: expected a JSON object, found 1"),
        ("x.json", "[{]", r"x\.json: not a readable benchmark: Expecting property name"),
        ("x.json", "[" * 100_000, r"x\.json: not a readable benchmark: "),
        ("x.jsonl", '{"a": 1, "b": 2}', r"text, one of problem, .*FILE:COLUMN, found a, b"),
        ("x.jsonl", '{"text": "a"}\n{}', r"item 1: expected text with words in `text`, found None"),
        ("x.jsonl", '{"text": ["a"]}', r"expected text with words in `text`, found \['a'\]"),
        ("x.jsonl", '{"text": "?"}', r"expected text with words in `text`, found '\?'"),
        ("x.csv", "problem,b\na\n", r"x\.csv: line 2: expected 2 cells .*, found fewer"),
        ("x.csv", "problem,b\na,b,c\n", r"x\.csv: line 2: expected 2 cells .*, found more"),
        ("x.csv", 'problem\n"a', r"x\.csv: not a readable benchmark: unexpected end of data"),
        ("x.csv", "problem\n", r"x\.csv: expected a benchmark with items, found none"),
        ("x.txt", "\n \n", r"x\.txt: expected a benchmark with items, found none"),
        ("x.txt.gz", "x", r"x\.txt\.gz: not a readable benchmark: Not a gzipped file"),
        ("x.txt", b"\xff", r"x\.txt: not a readable benchmark: 'utf-8' codec"),
        ("x.parquet", "x", r"x\.parquet: not a readable benchmark: "),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CurateError, match=message) as error:
        Benchmarks.load([str(path)])
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "has"), [("x.jsonl", "problem"), ("x.parquet", "problem"), ("x.txt", "text")]
)
def test_a_column_that_a_file_lacks(tmp_path, name, has):
    path = tmp_path / name
    path.write_text('{"problem": "a"}')
    if name == "x.parquet":
        pq.write_table(pa.table({"problem": ["a"]}), path)
    with pytest.raises(CurateError, match=rf"expected a column of text, `body`, found {has}$"):
        Benchmarks.load([f"{path}:body"])


def test_an_item_is_described_on_one_line():
    begin = "a \x1b[31m b\n\n" + "c" * 100
    benchmarks = Benchmarks([Item("d/x.csv", 3, "id-9", begin), Item("y", 0, None, "é")])
    assert benchmarks.describe(0) == "d/x.csv[3] (id-9): a \\x1b[31m b " + "c" * 69 + "…"
    assert benchmarks.describe(1) == "y[0]: é"


def test_the_digest_is_of_texts_and_ids_in_their_order():
    assert made("a", "bc").digest() == made("a", "bc").digest()
    assert len({made(*texts).digest() for texts in ["", "a", "ab", "ba", ("ab",), ("a", "")]}) == 6
    sizes = [size.to_bytes(8, "little") for size in (1, 2)]
    plain = hashlib.sha256(sizes[0] + b"a" + sizes[1] + b"id").hexdigest()
    assert Benchmarks([Item("elsewhere", 5, "id", "a")]).digest() == plain
    assert Benchmarks([Item("x", 0, "id", "a")]).digest() == plain != made("a").digest()


@pytest.fixture(scope="module")
def benchmark_folder(traces):
    """The folder of benchmark sets."""
    folder = traces.parents[1] / "benchmarks"
    if not folder.is_dir():
        pytest.skip(f"no benchmark sets: {folder} is no folder")
    return folder


def test_real_problems_are_found_in_real_benchmarks(traces, benchmark_folder):
    names = ("aime24.jsonl", "aime25.jsonl", "math500.jsonl", "gsm8k_test.jsonl")
    names = (*names, "livecodebench_o1.parquet", "TruthfulQA.csv", "HumanEval.jsonl.gz")
    files = [str(benchmark_folder / name) for name in names]
    benchmarks = Benchmarks.load(files)
    assert len(benchmarks.items) == 30 + 30 + 500 + 1319 + 880 + 817 + 164
    problems = pq.read_table(traces, columns=["problem"])["problem"].combine_chunks().unique()
    covered, items = benchmarks.overlap(problems)
    hit = Counter(benchmarks.items[item].file for item in items[covered >= CONTAMINATED])
    assert hit == {files[0]: 24, files[2]: 14, files[3]: 1}
    for row in np.flatnonzero(covered > 0):
        text, item = problems[int(row)].as_py(), benchmarks.items[items[row]].text
        assert covered[row] == np.float32(coverage(text, item))
