"""Lexicons: the format and its errors, and the packaged ones."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import lexicon as lexicons
from curate.errors import LexiconError

GOOD = """\
name = "mine"
version = 3
description = "Mine."
source = "Me."

# Comments, "strings" = ['in'] them included, are no part of it.
[category.check]
phrases = ["verify", 'make sure']
start = [
    "wait",  # a comment, "with" quotes ]
]
match = ["Let me verify."]

[category.branch]
phrases = [
    "alternatively",
    "let's try",
    '''another way''',
]
no_match = ["Perhaps."]
"""
HEAD = 'name = "x"\nversion = 1\n'
BRANCH = HEAD + "[category.branch]\n"
X = "phrases = ['x']\n"


def phrases(*texts: str) -> str:
    """A lexicon whose first phrase stands on line 5."""
    return BRANCH + "phrases = [\n" + "".join(f"{text},\n" for text in texts) + "]\n"


def refusal(text: str) -> str:
    """The message with which a text is refused."""
    with pytest.raises(LexiconError) as caught:
        lexicons.parse(text, "f")
    return str(caught.value)


def test_a_lexicon_holds_what_its_file_says():
    lexicon = lexicons.parse(GOOD, "good.toml")
    assert (lexicon.name, lexicon.version) == ("mine", 3)
    assert (lexicon.description, lexicon.source) == ("Mine.", "Me.")
    branch, check = lexicon.categories
    assert [(p.text, p.line, p.at_start) for p in branch.phrases] == [
        ("alternatively", 16, False),
        ("let's try", 17, False),
        ("another way", 18, False),
    ]
    assert [(p.text, p.line, p.at_start) for p in check.phrases] == [
        ("verify", 8, False),
        ("make sure", 8, False),
        ("wait", 10, True),
    ]
    assert [(c.text, c.line) for c in check.match] == [("Let me verify.", 12)]
    assert [(c.text, c.line) for c in branch.no_match] == [("Perhaps.", 20)]


def test_branch_comes_first_and_the_others_as_in_the_file():
    text = HEAD + "".join(f'[category.{n}]\nphrases = ["x"]\n' for n in ("z", "b", "branch", "a"))
    assert lexicons.parse(text, "f").category_names == ("branch", "z", "b", "a")


@pytest.mark.parametrize(
    "text",
    [
        HEAD + 'category.branch.phrases = ["perhaps"]\n',
        HEAD + 'category = { branch = { phrases = ["perhaps"] } }\n',
        HEAD + '[category]\nbranch.phrases = ["perhaps"]\n',
        HEAD + "[ 'category' . \"branch\" ]\nphrases = ['perhaps']\n",
        BRANCH.replace("\n", "\r\n") + 'phrases = ["perhaps"]\r\n',
        phrases('"perhaps"'),
    ],
)
def test_the_same_lexicon_may_be_written_in_many_ways(text):
    assert lexicons.parse(text, "f").patterns() == [(0, b"perhaps", False)]
    bad = refusal(text.replace("perhaps", " "))
    line = 1 + text[: text.index("perhaps")].count("\n")
    assert bad == f'f:{line}: phrase " " is blank: expected something to match'


DEEP = "[" * 100_000
MANY = "".join(f"[category.c{number}]\n{X}" for number in range(20))
BAD = [
    # the file
    ("name = \n", 1, "not TOML: invalid value"),
    ('name = "x"\nversion = 1\nversion = 2\n', 3, "not TOML: cannot overwrite a value"),
    ("# one\n[category.branch\n", 2, "not TOML: expected ']'"),
    ('name = """\n\n\n', 1, "not TOML: "),
    (f"a = {DEEP}", 1, "not TOML: "),
    (f"a = {'9' * 5000}", 1, "not TOML: "),
    ('# \ud800\nname = "x"\n', 1, "expected text that UTF-8 can hold, found U+D800"),
    # keys
    ("", 1, "expected a category branch, found no category"),
    (HEAD + '\nauthor = "me"\n', 4, 'unknown key "author": expected one of name, version,'),
    ('"a\\u001b\\nb" = 1\n', 1, 'unknown key "a\\x1b\\nb"'),
    (BRANCH + "phrase = ['x']\n", 4, 'unknown key "phrase": expected one of phrases, start'),
    (BRANCH.replace("name", "#") + X, 1, "name: expected a string, found nothing"),
    (BRANCH.replace('"x"', "1.5") + X, 1, "name: expected a string, found a float"),
    (BRANCH.replace("1", '"1"') + X, 2, "version: expected an integer, found a string"),
    (BRANCH.replace("1", "true") + X, 2, "version: expected an integer, found a boolean"),
    (HEAD + "source = []\n[category.branch]\n" + X, 3, "source: expected a string, found an a"),
    # categories
    (HEAD + "category = 1979-05-27\n", 3, "category: expected a table, found a date or time"),
    (HEAD + "[[category]]\n", 3, "category: expected a table, found an array"),
    (HEAD + "[category]\nbranch = 1\n", 4, "category.branch: expected a table, found an integer"),
    (HEAD + "[[category.branch]]\n", 3, "category.branch: expected a table, found an array"),
    (HEAD + '\n[category.check]\nphrases=["x"]\n', 4, "expected a category branch, found check"),
    (HEAD + "[category]\n", 3, "expected a category branch, found no category"),
    (HEAD + "[category.Branch]\n", 3, 'category "Branch": expected a name of a-z'),
    (HEAD + "[category.1st]\n", 3, 'category "1st": expected a name'),
    (HEAD + '[category."a\\n"]\n', 3, 'category "a\\n": expected a name'),
    (HEAD + "[category.unique]\n", 3, 'category "unique": expected a name'),
    (BRANCH + "# none\n", 3, "category branch: expected a phrase, found none"),
    (BRANCH + "phrases = []\nstart = []\n", 3, "category branch: expected a phrase, found none"),
    (BRANCH + X + MANY, 35, "expected at most 16 categories, found 21"),
    # phrases
    (BRANCH + "phrases = 'x'\n", 4, "category.branch.phrases: expected an array, found a string"),
    (BRANCH + "start = {}\n", 4, "category.branch.start: expected an array, found a table"),
    (phrases("'x'") + "match = ['y',\n7]\n", 8, "category.branch.match[1]: expected a string"),
    (phrases("'x'", "['y']"), 6, "category.branch.phrases[1]: expected a string, found an array"),
    (phrases("'x'", "''"), 6, 'phrase "" is blank'),
    (phrases("'x'", "'  '"), 6, 'phrase "  " is blank'),
    (phrases("'x'", '"a\\nb"'), 6, 'phrase "a\\nb" holds U+000A: expected no line break'),
    (phrases("'x'", '"""a\n\nb"""'), 6, 'phrase "a\\n\\nb" holds U+000A'),
    (phrases('"""x\\\n\n"""', '"\\u009b"'), 8, 'phrase "\\x9b" holds U+009B'),
    (phrases('"tab\tbed"'), 5, "holds U+0009"),
    (phrases("'x'") + "start = ['y',\n' z']\n", 8, 'phrase " z" begins with a blank'),
    (phrases("'x'", "'y'", "'X'"), 7, 'phrase "X" repeats that of line 5'),
    (phrases("'x'", "'y'") + "start = ['Y']\n", 8, 'phrase "Y" repeats that of line 6'),
    (phrases('"let\'s"', '"LET’S"'), 6, 'phrase "LET’S" repeats that of line 5'),
    (phrases("'re‑do'", "'re-do'"), 6, 'phrase "re-do" repeats that of line 5'),
    (phrases("'a-b-c-d-e-f-g'", "'a-b-c-d-e-f-g-h'"), 6, "holds 7 apostrophes and hyphens: expec"),
    (phrases(f"'{'x' * 129}'"), 5, "is up to 129 bytes long: expected at most 128"),
    (phrases(f"'{'é' * 64}'", f"'-{'x' * 126}'"), 6, "is up to 129 bytes long: expected at most"),
    (phrases(*(f"'p{n}'" for n in range(510))), 505, "expected at most 500 phrases, found 510"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD, ids=[bad[2] for bad in BAD])
def test_a_bad_file_is_refused_with_its_line(text, line, message):
    error = refusal(text)
    assert error.startswith(f"f:{line}: ")
    assert message in error
    assert error.isprintable()


def test_the_limits_themselves_are_allowed():
    head = phrases(*(f"'p{n}'" for n in range(484)), f"'{'x' * 128}'")
    others = "".join(f'[category.c{n}]\nphrases=["a-b-c-d-e-f-g"]\n' for n in range(15))
    lexicon = lexicons.parse(head + others, "f")
    assert len(lexicon.categories) == 16
    assert sum(len(category.phrases) for category in lexicon.categories) == 500
    assert len(lexicon.patterns()) == 485 + 15 * 64


def test_a_phrase_may_end_in_a_space_and_stand_in_two_categories():
    text = phrases("' so '") + "start = ['so ']\n[category.check]\nphrases = ['so']\n"
    assert lexicons.parse(text, "f").patterns() == [
        (0, b" so ", False),
        (0, b"so ", True),
        (1, b"so", False),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wait", ["wait"]),
        ("Let's", ["let's", "let’s"]),
        ("let’s", ["let’s"]),
        ("re-do", ["re-do", "re‑do"]),
        ("re‑do", ["re‑do"]),
        ("É-'", ["É-'", "É-’", "É‑'", "É‑’"]),
        ("稍等", ["稍等"]),
    ],
)
def test_typographic_spellings(text, expected):
    lexicon = lexicons.parse(phrases(f'"{text}"'), "f")
    assert [pattern.decode() for _, pattern, _ in lexicon.patterns()] == expected


@given(st.text("aB'’-‑ é", max_size=12))
def test_spellings_are_every_combination(text):
    expected = {text.replace("B", "b")}
    for plain, typographic in (("'", "’"), ("-", "‑")):
        for place in (i for i, letter in enumerate(text) if letter == plain):
            expected |= {s[:place] + typographic + s[place + 1 :] for s in expected}
    found = lexicons.spellings_of(text)
    assert sorted(found) == sorted(spelling.encode() for spelling in expected)


def test_the_hash_is_of_what_decides_a_match():
    base = phrases("'let us'", "'x-y'") + "start = ['so']\n[category.check]\nphrases = ['z']\n"

    def hash_of(text: str) -> str:
        return lexicons.parse(text, "f").hash

    same = [
        "# a comment\n" + base,
        base.replace('"x"', '"another name"').replace("1", "2"),
        base + "match = ['A z.']\nno_match = ['A y.']\n",
        base.replace("'let us',\n'x-y'", "'x-y',\n'let us'"),
        base.replace("let us", "LET us"),
    ]
    other = [
        base.replace("let us", "let me"),
        base.replace("x-y", "x‑y"),
        base.replace("'let us',", ""),
        base.replace("'let us',", "").replace("['so']", "['so', 'let us']"),
        base.replace("check", "hesitation"),
        base.replace("'z'", "'z', 'let us'"),
        base + "[category.other]\nphrases = ['w']\n",
    ]
    assert {hash_of(text) for text in same} == {hash_of(base)}
    assert len({hash_of(text) for text in [base, *other]}) == 1 + len(other)
    assert re.fullmatch("[0-9a-f]{64}", hash_of(base))


@settings(deadline=None)
@given(st.one_of(st.text(), st.text(st.characters()), st.text("[]{}=.,\"'#\n\\ ab1-_")))
def test_any_text_is_a_lexicon_or_a_lexicon_error(text):
    parses_or_is_refused(text)


TOKENS = ["\n", *"""[ ] [[ ]] { } = . , " ' \\ # 1 ’ x=1""".split(), '"""', "'''"]


@st.composite
def mutations(draw):
    """A good lexicon with a few pieces cut, doubled or put in."""
    text = GOOD
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + draw(st.sampled_from(["", text[start:end] * 2, *TOKENS])) + text[end:]
    return text


@settings(deadline=None, max_examples=300)
@given(mutations())
def test_a_damaged_lexicon_is_a_lexicon_or_a_lexicon_error(text):
    parses_or_is_refused(text)


def parses_or_is_refused(text):
    try:
        lexicon = lexicons.parse(text, "f")
    except LexiconError as error:
        place = re.match(r"f:(\d+): ", str(error))
        assert place
        assert 1 <= int(place[1]) <= text.count("\n") + 1
        assert str(error).isprintable()
    else:
        lexicons.failures(lexicon)
        assert lexicon.category_names[0] == "branch"


def test_packaged_lexicons():
    assert lexicons.names() == ["default", "paper", "seal"]
    order = ("branch", "backtrack", "check", "hesitation", "conclusion")
    assert lexicons.load("default").category_names == order


@pytest.mark.parametrize("name", lexicons.names())
def test_a_packaged_lexicon_passes_its_own_cases(name):
    lexicon = lexicons.load(name)
    assert lexicon.name == name
    assert lexicon.description
    assert lexicon.source
    assert all(category.match and category.no_match for category in lexicon.categories)
    assert lexicons.failures(lexicon) == []


def test_a_file_is_loaded_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(GOOD)
    (tmp_path / "mine").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    expected = lexicons.parse(GOOD, "f")
    for path in ("mine.toml", Path("mine.toml"), Path("mine"), "./mine", str(tmp_path / "mine")):
        assert lexicons.load(path) == expected


def test_what_cannot_be_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b'name = "x"\nsource = "\xff"\n')
    (tmp_path / "folder.toml").mkdir()
    for name, message in {
        "mine": 'no lexicon "mine": known are default, paper, seal; a file ends in .toml',
        "bytes.toml": "bytes.toml:2: expected UTF-8, found byte 0xFF",
        "absent.toml": "absent.toml: expected a readable file, found: no such file or directory",
        "folder.toml": "folder.toml: expected a readable file, found: is a directory",
    }.items():
        with pytest.raises(LexiconError) as caught:
            lexicons.load(name)
        assert str(caught.value) == message
