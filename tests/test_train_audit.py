"""The audit before training: each planted defect is caught, and nothing else is reported."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("trl")

from tokenizers import normalizers

from tests.audited_rows import (
    ASK,
    BEGIN,
    CHATML,
    CONTENT,
    END,
    STRIPS,
    TRACE,
    audited,
    found,
    row,
    tokenizer,
)

ROWS = [
    row(),
    row(None),
    row("\n" + TRACE + "\n"),
    row("x"),
    row("", answer="4"),
    row("  \n"),
    row(answer=""),
    row(TRACE, "<think>"),
    row("a </think> b", "a </think> b"),
    row(TRACE, TRACE),
    row(prompt="plain: 2 + 2?"),
    row(None, prompt="plain: 2 + 2?"),
]


OPENED = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")


@pytest.mark.parametrize("sample", ROWS)
@pytest.mark.parametrize("template", [CHATML, OPENED])
def test_a_clean_row_is_clean(sample, template):
    report = audited(tokenizer(template), [sample])
    if template == OPENED and sample.trace is None and isinstance(sample.prompt, list):
        assert found(report)[0] == "prompt_not_prefix"  # asked for a thought, it has none
    else:
        assert (report.errors, report.notes) == ([], [])


@given(st.tuples(*[st.text(st.sampled_from("a<think>/ \n.é漢🙂5"))] * 3))
def test_any_row_is_clean_where_the_template_copies_it(texts):
    trace, answer, prompt = texts
    report = audited(tokenizer(), [row(trace, answer.strip(), prompt=prompt)])
    assert (report.errors, report.notes) == ([], [])


def leak(rendered, labels):
    return np.concatenate(
        [rendered.input_ids[: rendered.prompt_tokens], labels[rendered.prompt_tokens :]]
    )


def hide(start, end):
    def change(rendered, labels):
        labels = labels.copy()
        labels[start:end] = -100
        return labels

    return change


def other(at):
    def change(rendered, labels):
        labels = labels.copy()
        labels[at] += 1
        return labels

    return change


PLANTED = {
    "a template that strips thinking": (
        {"template": BEGIN + STRIPS + END + ASK},
        None,
        (
            "trace_altered",
            "thought stripped: of its 47 characters nothing is left in "
            '"\\n\\nIt is 4.<|im_end|>\\n"',
        ),
    ),
    "a template that cuts the thought": (
        {"template": BEGIN + "{{ m.content.replace(' is it 5?\n\nNo,', '') }}" + END + ASK},
        None,
        (
            "trace_altered",
            'thought altered at character 26: "s it 5?\\n\\nNo, it " became "t is 4.\\n</think>"',
        ),
    ),
    "a template that writes HTML": (
        {"template": BEGIN + "{{ m.content.replace('4.', '4&#46;') }}" + END + ASK},
        None,
        ("trace_altered", 'thought altered at character 46: "." became "&#46;\\n</think>\\n\\n"'),
    ),
    "a template that alters the begin": (
        {"template": BEGIN + "{{ m.content.replace('Let', 'let') }}" + END + ASK},
        None,
        ("trace_altered", 'thought altered within its first 16 characters: "Let me see, é 漢字"'),
    ),
    "a template that alters the answer": (
        {"template": BEGIN + "{{ m.content.replace('It is', 'Is') }}" + END + ASK},
        None,
        (
            "trace_altered",
            'answer missing: "It is 4." is not in "\\n</think>\\n\\nIs 4.<|im_end|>\\n"',
        ),
    ),
    "no EOS": (
        {"template": BEGIN + CONTENT + "{{ '\n' }}{% endfor %}" + ASK},
        None,
        ("eos_missing", 'the turn ends with "\\n", not with <|im_end|>'),
    ),
    "nothing behind the answer": (
        {"template": BEGIN + CONTENT + "{% if m.role == 'user' %}\n{% endif %}{% endfor %}" + ASK},
        None,
        ("eos_missing", "the turn ends with the answer, no <|im_end|> behind it"),
    ),
    "another EOS": (
        {"template": BEGIN + CONTENT + "<|end|>\n{% endfor %}" + ASK},
        None,
        (
            "eos_missing",
            "the turn ends with \"<|end|>\\n\", not with <|im_end|> (--eos_token '<|end|>'?)",
        ),
    ),
    "EOS out of the loss": (
        {},
        hide(-2, None),
        ("eos_missing", "<|im_end|> is there, but not in the loss"),
    ),
    "a think prefill that the row lacks": (
        {
            "template": BEGIN
            + "{{ m.content.replace('<think>\n', '') }}"
            + END
            + ASK[:-11]
            + "<think>\n{% endif %}"
        },
        None,
        (
            "prompt_not_prefix",
            'at token 25 evaluation\'s prompt ends with "<think>\\n", training '
            'goes on with "Let me see, é 漢字.\\n\\nWait, is it 5?\\n\\n…"',
        ),
    ),
    "no generation prompt": (
        {
            "template": BEGIN
            + CONTENT
            + END
            + "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
        },
        None,
        (
            "prompt_not_prefix",
            'at token 15 evaluation\'s prompt ends with "model\\n", training '
            'goes on with "assistant\\n<think>\\nLet me see, é 漢字.…"',
        ),
    ),
    "a prompt in the loss": (
        {},
        leak,
        (
            "prompt_in_loss",
            '25 of 25 tokens of the prompt, "<|im_start|>user\\n2 + 2?<|im_end|>\\n<|im_s…"',
        ),
    ),
    "a row without a label": (
        {},
        hide(0, None),
        ("fully_masked", "none of its 106 tokens is in the loss"),
    ),
    "a label of another token": (
        {},
        other(60),
        ("trace_altered", 'thought not in the loss: 1 of 52 tokens, "t"'),
    ),
    "a part of the thought out of the loss": (
        {},
        hide(60, 70),
        ("trace_altered", 'thought not in the loss: 10 of 52 tokens, "t, is it 5"'),
    ),
    "a part of the answer out of the loss": (
        {},
        hide(-5, -2),
        ("trace_altered", 'answer not in the loss: 3 of 8 tokens, " 4."'),
    ),
    "pad is EOS": ({"pad_token": "<|im_end|>"}, None, ("pad_is_eos", None)),
    "no pad": ({"pad_token": None}, None, ("pad_is_eos", None)),
    "two BOS": (
        {"template": "<s><s>" + CHATML},
        None,
        ("bos_doubled", 'it begins with "<s><s>"'),
    ),
    "a thought opened twice": (
        {
            "template": BEGIN
            + "{% if m.role == 'assistant' %}<think>\n{% endif %}"
            + CONTENT
            + END
            + ASK[:-11]
            + "<think>\n{% endif %}"
        },
        None,
        ("thought_opened_twice", '"<think>\\n<think>\\n" stands before it'),
    ),
    "a lossy tokenizer": (
        {"normalizer": normalizers.Lowercase()},
        None,
        ("trace_altered", 'the tokenizer turns "Let me see, é 漢字" into "let me see, é 漢字"'),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_caught_and_nothing_else_is_reported(name):
    options, change, expected = PLANTED[name]
    report = audited(tokenizer(**options), change=change)
    assert found(report) == expected


ENDS = "The token <|im_end|> ends a turn."
NO_EOS = BEGIN + CONTENT + "{{ '\n' }}{% endfor %}" + ASK


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        (row(ENDS), '1 time before the answer ends, first behind "<think>\\nThe token "'),
        (row(ENDS, ""), '1 time before the answer ends, first behind "<think>\\nThe token "'),
        (row(answer=ENDS), '\\n</think>\\n\\nThe token "'),
        (row(None, ENDS), '1 time before the answer ends, first behind "The token "'),
        (row(ENDS, ENDS), '2 times before the answer ends, first behind "<think>\\nThe token "'),
        (row(ENDS, prompt="plain: ?"), 'first behind "<think>\\nThe token "'),
    ],
)
def test_a_quoted_eos_would_teach_to_stop_there(sample, told):
    report = audited(tokenizer(), [sample])
    assert report.notes == []
    check, words = found(report)
    assert check == "eos_inside"
    assert words.startswith("<|im_end|> is in the loss ") and words.endswith(told), words


def test_an_eos_that_is_not_learned_or_ends_the_answer_is_none_inside():
    def hidden(rendered, labels):
        return np.where(np.arange(len(labels)) == first_end(rendered), -100, labels)

    def first_end(rendered):
        ends = np.flatnonzero(rendered.input_ids == rendered.input_ids[-2])
        return int(ends[ends >= rendered.prompt_tokens][0])

    masked = audited(tokenizer(), [row(ENDS)], change=hidden)
    assert found(masked)[0] == "trace_altered"  # only that a token of it is not learned
    for plain in ("plain: ?", "2 + 2?"):
        sample = row(answer="It is 4.<|im_end|>", prompt=plain)
        assert audited(tokenizer(), [sample]).errors == []
    asked = row(prompt="What is <|im_end|> for?")
    assert audited(tokenizer(), [asked]).errors == []


@pytest.mark.parametrize("trace", [ENDS, "x", "", None])
def test_without_an_answer_eos_is_searched_behind_the_trace(trace):
    missing = audited(tokenizer(NO_EOS), [row(trace, "")])
    told = {finding.check for finding in missing.errors}
    assert told == {"eos_missing"} | ({"eos_inside"} if trace == ENDS else set())


def test_a_thought_that_runs_into_the_answer_is_a_note():
    unclosed = BEGIN + "{{ m.content.replace('</think>', '') }}" + END + ASK
    report = audited(tokenizer(unclosed))
    assert report.errors == []
    assert found(report) == (
        "thought_not_closed",
        'nothing but "\\n\\n\\n" stands between thought and answer',
    )
    for sample in (row(None), row(answer=""), row("", "4")):
        assert audited(tokenizer(unclosed), [sample]).notes == []
    bracketed = BEGIN + "{{ m.content.replace('</think>', '[end]') }}" + END + ASK
    assert audited(tokenizer(bracketed)).notes == []


TWICE = (
    "{% set parts = m.content.split('</think>') %}{{ parts[0] }}</think>{{ parts[0] + parts[-1] }}"
)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (TWICE, '"Let me see, é 漢字.\\n\\nWait, is it 5?\\n\\nNo, i…"'),
        (CONTENT + "{{ ' Thanks!' if m.role == 'assistant' }}", '"Thanks!"'),
        ("{{ m.content.replace('</think>', '</think>\n**Answer:** ') }}", '"**Answer:**"'),
        ("{{ m.content.replace('<think>', 'Well. <think>') }}", '"Well."'),
        (CONTENT + "{% if m.role == 'assistant' %}<|im_end|>\nNow you.{% endif %}", '"Now you."'),
    ],
)
def test_what_else_is_in_the_loss_is_a_note(content, told):
    report = audited(tokenizer(BEGIN + content + END + ASK))
    assert report.errors == []
    assert found(report) == ("other_in_loss", told)


def test_what_names_a_channel_is_no_other_text():
    """A word or two beside a special token, in front of thought or answer."""
    said = (
        "{{ m.content.replace('<think>', ' to=self<|end|>').replace('</think>', '<|end|>final') }}"
    )
    report = audited(tokenizer(BEGIN + said + END + ASK))
    assert (report.errors, report.notes) == ([], [])


def test_blanks_that_the_template_trims_are_a_note():
    template = BEGIN + "{{ m.content.replace('>\n', '>').replace('\n<', '<') }}" + END + ASK
    for trace, said in (
        ("hm\n", '"\\n" at its end'),
        ("\n\nhm", '"\\n\\n" at its begin'),
        ("\n\nhm\n\n", '"\\n\\n" at its begin and "\\n\\n" at its end'),
    ):
        trimmed = template.replace("m.content", "m.content.replace('\n\n', '\n')")
        report = audited(tokenizer(trimmed), [row(trace)])
        assert report.errors == []
        assert found(report) == ("trace_trimmed", said)
    assert audited(tokenizer(template), [row("hm")]).notes == []


def test_another_form_of_unicode_is_a_note():
    report = audited(tokenizer(normalizer=normalizers.NFC()), [row("cafe\u0301 is it")])
    assert report.errors == []
    assert found(report)[0] == "trace_normalised"
    assert found(report)[1].startswith('the tokenizer turns "e')
    lossy = audited(tokenizer(normalizer=normalizers.NFKC()), [row("x² is it")])
    assert found(lossy)[0] == "trace_altered"
