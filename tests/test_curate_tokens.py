"""Token counts: those of the library, whatever is cut, and only where that can be shown."""

import os
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import tokens
from curate.errors import CurateError, TooLargeError
from curate.tokencuts import COMPOSES, GPT2_REGEX, cut_table
from curate.tokens import QWEN2_REGEX, TokenCounter, estimate_tokens, load_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="the library tokenizers is not installed")

PIECES = (
    *(
        " ",
        "  ",
        " " * 30,
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\t",
        "\v",
        "\x1c",
        "\x85",
        "\xa0",
        "\u3000",
    ),
    *("a", "E", "s", "'s", "'S", "’s", "ſ", "'ll", "word", " word", "1", "23", "456", "٣", "²"),
    *(".", ",", "...", "!", "-", "<", ">", "=", "/", "{", ")", '"', "_", "|", "\0", "\x7f"),
    *("e\u0301", "\u0301", "\u0338", "=\u0338", "1\ufe0f\u20e3", "한", "ᄒ", "ᅡ", "ᆫ", "ﬁ", "ﷺ"),
    *(
        "中",
        "文",
        "。",
        "，",
        "🙂",
        "👩\u200d👩",
        "\u200b",
        "\ufffd",
        "<think>",
        "</think>",
        "<mask>",
    ),
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "|||IP_ADDRESS|||", "<|padding|>", "<|im"),
)

TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join)

LLAMA3 = QWEN2_REGEX.replace(r"\p{N}|", r"\p{N}{1,3}|")
WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lo}\p{M}]*[\p{Ll}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = rf"{WORD}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def bytewise(*regexes, added=(), normalizer=None, prefix=False):
    """A tokenizer of single bytes and a few pairs of them, which splits by these regexes."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "Ġ"), ("Ġ", "a"), (".", "Ċ"), ("1", "1"), ("e", "Ì"), ("Ġ", "Ġ"), (".", ",")]
    words = [*alphabet, *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, merges))
    splits = [pre_tokenizers.Split(Regex(regex), "isolated") for regex in regexes]
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, last])
    tokenizer.normalizer = normalizer
    tokenizer.add_tokens([tokenizers.AddedToken(**token) for token in added])
    return tokenizer


def whole(tokenizer, texts):
    return [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts]


@pytest.fixture(scope="module", params=("qwen2", "gpt2-neo"))
def real(request, traces):
    """A real vocabulary: the counter, and the same tokenizer to count whole texts."""
    folder = str(traces.parents[1] / "tokenizers" / request.param)
    return load_tokenizer(folder), load_tokenizer(folder).tokenizer


@settings(max_examples=200)
@given(texts=st.lists(TEXTS | st.none(), min_size=1, max_size=4))
def test_pieces_add_up_to_the_whole(real, texts):
    counter, tokenizer = real
    assert counter.cuts
    assert counter.count(pa.array(texts, pa.string())).tolist() == [
        0 if text is None else whole(tokenizer, [text])[0] for text in texts
    ]


ADDED = [
    {"content": "<think>", "special": True, "normalized": False},
    {"content": "</think>\n"},
    {"content": "<mask>", "lstrip": True},
    {"content": "word", "rstrip": True},
    {"content": "!", "rstrip": True},
    {"content": "=", "single_word": True},
    {"content": " 1", "single_word": True},
    {"content": ". "},
    {"content": "é"},
]
REGEXES = {
    "qwen2": [QWEN2_REGEX],
    "gpt2": [GPT2_REGEX],
    "llama3": [LLAMA3],
    "o200k": [O200K],
    "digits first": [r"\p{N}{1,3}", "[一-龥]+", QWEN2_REGEX],
    "odd": [r"a.b|\s|[^\s]"],
}


@settings(max_examples=25)
@given(data=st.data())
@pytest.mark.parametrize("name", REGEXES)
@pytest.mark.parametrize("normalizer", ["NFC", "NFKD", None])
def test_pieces_add_up_for_other_regexes_and_added_tokens(name, normalizer, data):
    added = data.draw(st.lists(st.sampled_from(ADDED), max_size=3, unique_by=str))
    normal = getattr(tokenizers.normalizers, normalizer)() if normalizer else None
    make = {"added": added, "normalizer": normal, "prefix": data.draw(st.booleans())}
    counter = TokenCounter(name, bytewise(*REGEXES[name], **make))
    texts = data.draw(st.lists(TEXTS, min_size=1, max_size=8))
    expected = whole(bytewise(*REGEXES[name], **make), texts)
    assert counter.count(pa.array(texts)).tolist() == expected


@pytest.mark.parametrize(
    "regex",
    [
        r"(?<=a) b|\s+|\S",  # looks behind
        r"\S+(?= )|\s+|\S",  # looks ahead
        r"\b\S+|\s+",
        r"^\S|\s+|\S+",
        r"(?:a b)+|\s+|\S+",  # a group that is repeated
        r"(a) \1|\s+|\S+",
        r"\d*|\s+|\S+",  # may match nothing
        r"(?i:'s)?|\s+|\S+",
        r"(?:a(?:b|c)?)?|\s+|\S+",
        r".+",
        r"[\s\S]+",
        r"\S+",  # leaves spaces to whatever comes next
        r"\S+ ?|\s+(?!\S)",
        r"\S+| (?!\S)",  # may fail at a space
        r"\s?+ |\S+",
    ],
)
def test_nothing_is_cut_at_a_space_where_it_cannot_be_shown(regex):
    assert not cut_table(bytewise(regex))[:, ord(" ")].any()


def pairs(table):
    return {bytes([a, b]) for a, b in np.argwhere(table)}


def one_added(content, **how):
    return {"added": [{"content": content, **how}]}


@pytest.mark.parametrize(
    ("regex", "how", "cut", "kept"),
    [
        (QWEN2_REGEX, {}, "a |. |a\n|a,|11|a1|1,", ".\n|.,|aa|  | a"),
        (GPT2_REGEX, {}, "a |. |.\n|a,|a1", "11|.,|aa| \n|\n\n| a"),
        (LLAMA3, {}, "a |a\n|a1", "11|.\n|\n1|'s|1a|1="),
        (O200K, {}, "a |a\n|a1", "11|.\n|./|a'|'s"),
        (r"ab(?!\S)|\S|\s", {}, "c1", "b1"),
        (r"(?i:s1)|\S|\s", {}, "T1", "S1|s1"),
        (LLAMA3, {"prefix": True}, "a |. ", "a\n|a1"),
        (LLAMA3, one_added("a 1"), "b |a\n", "a "),
        (LLAMA3, one_added("</a>\n"), "> ", ">\n"),
        (LLAMA3, one_added("!", rstrip=True), ". ", "! "),
        (LLAMA3, one_added("ab", single_word=True), "a1", "b |b1"),
        (LLAMA3, one_added("1b", single_word=True), "a2", "a1"),
    ],
)
def test_what_is_cut(regex, how, cut, kept):
    found = {chr(a) + chr(b) for a, b in np.argwhere(cut_table(bytewise(regex, **how)))}
    assert found >= set(cut.split("|"))
    assert not found & set(kept.split("|"))
    assert all(33 <= ord(a) < 127 and not b.isalpha() and b not in "<=>" for a, b in found)


def shuffled():
    """A tokenizer that splits once characters stand for bytes, so that a space is a letter."""
    tokenizer = bytewise(GPT2_REGEX)
    split, last = tokenizer.pre_tokenizer
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([last, split])
    return tokenizer


@pytest.mark.parametrize(
    "make",
    [
        bytewise,
        shuffled,
        lambda: bytewise(LLAMA3, normalizer=tokenizers.normalizers.Lowercase()),
        lambda: bytewise(LLAMA3, normalizer=tokenizers.normalizers.Replace(" ", "_")),
        lambda: tokenizers.Tokenizer(tokenizers.models.BPE()),
    ],
)
def test_texts_are_counted_whole_where_nothing_can_be_shown(make):
    tokenizer = make()
    counter = TokenCounter("x", make())
    assert not counter.cuts
    texts = ["Wait, a b. " * 9, "", "1 2"]
    assert counter.count(pa.array(texts)).tolist() == whole(tokenizer, texts)


def test_no_composition_begins_with_what_may_follow_a_cut():
    begins = {
        unicodedata.normalize("NFD", char)[0]
        for char in map(chr, range(sys.maxunicode + 1))
        if len(unicodedata.normalize("NFD", char)) > 1
    }
    assert {char for char in begins if char.isascii()} <= {chr(n) for n in np.flatnonzero(COMPOSES)}


def test_real_traces_count_as_in_the_library(real, traces):
    counter, tokenizer = real
    column = pq.read_table(traces, columns=["trace"])["trace"].combine_chunks()[::40]
    expected = whole(tokenizer, column.to_pylist())
    assert counter.count(column).tolist() == expected
    assert counter.count(column.cast(pa.large_string())).tolist() == expected
    assert counter.count(column[5:]).tolist() == expected[5:]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(counter.count, [column] * 8):
            assert found.tolist() == expected


def test_qwen2_from_its_parts_is_that_of_transformers(traces):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = str(traces.parents[1] / "tokenizers" / "qwen2")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    texts = pq.read_table(traces, columns=["trace"])["trace"].to_pylist()[::200]
    texts += [
        "<|im_start|>user\nhi<|im_end|>\n",
        "<think>\nWait",
        "<|endoftext|>",
        "e\u0301 ſ's\r\n",
    ]
    expected = [len(theirs(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert load_tokenizer(folder).count(pa.array(texts)).tolist() == expected


def test_long_texts_are_cut_across_windows(real, monkeypatch):
    counter, tokenizer = real
    monkeypatch.setattr(tokens, "WINDOW", 7)
    texts = ["", "Wait, is 1234 + 1 prime?\n\n  No.\r\n" * 9, None, "中文" * 20 + " a", "", "a"]
    expected = [0 if text is None else whole(tokenizer, [text])[0] for text in texts]
    assert counter.count(pa.array(texts)).tolist() == expected


def test_a_text_that_cannot_be_cut_is_encoded_up_to_a_bound(real, monkeypatch):
    counter, tokenizer = real
    monkeypatch.setattr(tokens, "WINDOW", 64)
    monkeypatch.setattr(tokens, "MAX_PIECE", 1000)
    assert counter.count(pa.array(["x" * 1000])).tolist() == whole(tokenizer, ["x" * 1000])
    with pytest.raises(TooLargeError, match=r"at most 1,000 bytes .* found at least 1,0"):
        counter.count(pa.array(["a b", "x" * 5000]))


@pytest.mark.parametrize("junk", [b"\xff", b"a \xe2\x80 b", b"\xed\xa0\x80 x", b"\xf0\x9f a\xe2"])
def test_bytes_that_are_not_utf8_count_as_replacement_characters(real, junk):
    counter, tokenizer = real
    array = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.int32([0, len(junk)])), pa.py_buffer(junk)]
    )
    assert counter.count(array).tolist() == whole(tokenizer, [junk.decode("utf-8", "replace")])


def test_what_is_remembered_is_bounded(real, monkeypatch):
    counter, tokenizer = real
    monkeypatch.setattr(tokens, "KNOWN_PIECES", 50)
    for turn in range(20):
        texts = [f"w{turn}{n} " * 3 for n in range(30)] + ["y" * 100]
        assert counter.count(pa.array(texts)).tolist() == whole(tokenizer, texts)
        assert len(counter._known) <= 50
        assert all(len(piece) <= tokens.KNOWN_BYTES for piece in counter._known)


def test_a_tokenizer_that_would_cut_or_pad_does_not(tmp_path):
    tokenizer = bytewise(LLAMA3)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50, pad_token=".")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    counter = load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert counter.count(pa.array(["xyzxyz", "", "x"])).tolist() == [6, 0, 1]
    assert load_tokenizer(str(tmp_path)).digest == counter.digest
    assert load_tokenizer(str(tmp_path)).digest != TokenCounter("x", bytewise(O200K)).digest


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "expected a tokenizer.json, or a folder with one"),
        ({"vocab.json": "{}", "merges.txt": ""}, "found none of them"),
        (
            {
                "vocab.json": "{}",
                "merges.txt": "",
                "tokenizer_config.json": '{"tokenizer_class": "GPT2Tokenizer"}',
            },
            "found none of them",
        ),
        ({"tokenizer.json": "{}"}, "expected a tokenizer that can be loaded"),
        ({"tokenizer.json": ""}, "expected a tokenizer that can be loaded"),
        ({"tokenizer_config.json": "{"}, "expected a tokenizer that can be loaded"),
    ],
)
def test_a_folder_that_holds_no_tokenizer_is_one_line(tmp_path, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CurateError, match=said) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_tokenizer_with_dropout_is_refused():
    tokenizer = bytewise(LLAMA3)
    tokenizer.model.dropout = 0.5
    with pytest.raises(CurateError, match=r"found dropout 0\.5"):
        TokenCounter("x", tokenizer)


def test_a_text_that_the_library_gives_up_on_is_one_line():
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="?"))
    with pytest.raises(CurateError, match="--tokenizer x: expected one that takes any text"):
        TokenCounter("x", tokenizer).count(pa.array(["b"]))


SCRIPTS = {
    "no Hub": (
        "from curate.tokens import load_tokenizer; load_tokenizer('no-one/nothing')",
        "the Hub did not give it",
    ),
    "no library": (
        "import sys; sys.modules['tokenizers'] = None\n"
        "from curate.tokens import load_tokenizer; load_tokenizer('no-one/nothing')",
        "pip install tokenizers",
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_the_hub_or_the_library_it_says_so(name):
    script, said = SCRIPTS[name]
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    last = ran.stderr.strip().splitlines()[-1]
    assert ran.returncode == 1
    assert last.startswith("curate.errors.CurateError: --tokenizer no-one/nothing: expected")
    assert said in last


def test_counting_starts_no_threads_and_a_fork_says_nothing(tmp_path):
    bytewise(LLAMA3).save(str(tmp_path / "tokenizer.json"))
    script = (
        "import os, sys, pyarrow as pa\n"
        "from curate.tokens import load_tokenizer\n"
        "counter = load_tokenizer(sys.argv[1])\n"
        "texts = pa.array([f'a {n}' for n in range(1000)])\n"
        "texts.dictionary_encode()\n"
        "tasks = lambda: len(os.listdir('/proc/self/task')) if sys.platform == 'linux' else 0\n"
        "before = tasks()\n"
        "counter.count(texts)\n"
        "assert tasks() <= before\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(int((counter.count(pa.array(['new ' * 9])) != 36).any()))\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environ = {n: v for n, v in os.environ.items() if n != "TOKENIZERS_PARALLELISM"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("num_bytes", "expected"), [([], []), ([0, 1, 2, 345], [0, 0, 1, 100]), ([69], [20])]
)
def test_the_estimate_is_bytes_over_a_constant(num_bytes, expected):
    found = estimate_tokens(np.array(num_bytes, np.int64))
    assert found.dtype == np.int64 and found.tolist() == expected
    assert estimate_tokens(np.array([8]), bytes_per_token=4).tolist() == [2]
