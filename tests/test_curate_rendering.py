"""Samples as tokens: the same as TRL makes of them, and which part of a sample each belongs to."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402

from curate.errors import CurateError  # noqa: E402
from curate.rendering import Renderer, common_prefix  # noqa: E402
from curate.samples import Sample, StepSpans  # noqa: E402
from curate.tokenkinds import KINDS, in_spans, token_kinds, trace_start  # noqa: E402

TEMPLATES = Path(trl.__file__).parent / "chat_templates"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ["Let me see.\n\nWait, é 漢字 🙂 is it?\n\nSo 4.", "<think>\n", "\n</think>\n\n", " the 12"]


def tokenizer(template=CHATML, *, bos=False):
    """A byte-level BPE of some hundred tokens; `bos`: with a token that it adds by itself."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<s>", "<|im_start|>", "<|im_end|>"]
    made.train_from_iterator(
        WORDS * 3,
        trainers.BpeTrainer(
            vocab_size=340,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=template,
    )


def chat(trace, answer="It is 4.", *, index=0, prompt="2 + 2?", **fields):
    content = answer if trace is None else f"<think>\n{trace}\n</think>\n\n{answer}"
    return sample(
        [{"role": "user", "content": prompt}],
        [{"role": "assistant", "content": content}],
        trace=trace,
        answer=answer,
        index=index,
        **fields,
    )


def sample(prompt, completion, *, trace=None, answer="", index=0, id="a", steps=None):
    return Sample(
        index=index,
        key=f"#{index}",
        id=id,
        teacher=None,
        prompt=prompt,
        completion=completion,
        trace=trace,
        answer=answer,
        steps=steps,
        spans=None,
    )


def by_trl(samples, tokenizer):
    """What TRL's trainer prepares of the same rows: tokens, and where the completion begins."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer.__new__(SFTTrainer)  # preparing rows takes no model
    trainer._tokenizer, trainer.chat_template = tokenizer, None
    trainer._is_vlm = trainer._is_vision_dataset = False
    trainer.completion_only_loss = True
    arguments = SFTConfig(
        output_dir="unused",
        max_length=None,
        report_to=[],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=None,
        activation_checkpointing=False,
    )
    rows = Dataset.from_list(
        [{"prompt": one.prompt, "completion": one.completion} for one in samples]
    )
    made = trainer._prepare_dataset(rows, tokenizer, arguments, False, None, "train")
    return [
        (row["input_ids"], sum(label == -100 for label in row["labels"])) for row in made.to_list()
    ]


def ours(samples, tokenizer):
    made = Renderer(tokenizer).render(samples)
    return [(one.input_ids.tolist(), one.prompt_tokens) for one in made]


@pytest.fixture(scope="module", autouse=True)
def no_cache(tmp_path_factory):
    import datasets

    datasets.disable_progress_bars()
    datasets.disable_caching()


STRINGS = [
    sample("2 + 2? ", "<think>\nhm\n</think>\n\n4", trace="hm", answer="4"),
    sample("2 + 2?", " 4<|im_end|>", answer="4"),
    sample("", "漢字", answer="漢字"),
    sample("2 + 2?<think>\n", "\nhm\n</think>\n\n4", trace="\nhm\n", answer="4"),
]


@pytest.mark.parametrize("bos", [False, True])
def test_plain_text_is_what_trl_makes_of_it(bos):
    tok = tokenizer(bos=bos)
    assert ours(STRINGS, tok) == by_trl(STRINGS, tok)
    made = Renderer(tok).render(STRINGS)
    assert [one.input_ids[-1] for one in made] == [tok.eos_token_id] * len(STRINGS)
    assert [one.text.count("<|im_end|>") for one in made] == [1] * len(STRINGS)
    assert (
        made[0].input_ids[0] == tok.bos_token_id if bos else made[0].offsets[0].tolist() != [0, 0]
    )


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.jinja")), ids=lambda path: path.stem)
def test_every_template_of_trl_gives_what_trl_makes_of_it(template):
    samples = [chat(WORDS[0]), chat("\nhm é\n", "漢", index=1), chat(None, index=2)]
    tok = tokenizer(template.read_text(encoding="utf-8"))
    try:
        expected = by_trl(samples, tok)
    except Exception as complaint:
        with pytest.raises(CurateError, match=r"^row 0 \(a\): the chat template refuses it: "):
            ours(samples, tok)
        assert "llava" in template.stem, complaint
    else:
        assert ours(samples, tok) == expected


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(*[st.lists(st.sampled_from([*"aé漢🙂 \n.", *WORDS])).map("".join)] * 3),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_any_text_is_what_trl_makes_of_it(texts, plain):
    tok = tokenizer((TEMPLATES / "qwen3.jinja").read_text(encoding="utf-8"))
    if plain:
        samples = [sample(ask, trace + answer) for ask, trace, answer in texts]
    else:
        samples = [chat(trace, answer, prompt=ask) for ask, trace, answer in texts]
    assert ours(samples, tok) == by_trl(samples, tok)


def test_the_prompt_alone_is_what_rows_are_held_against():
    renderer = Renderer(tokenizer())
    made = renderer.render([chat("hm"), STRINGS[0]])
    for one, row in zip(made, (chat("hm"), STRINGS[0]), strict=True):
        text, ids = renderer.prompt(row.prompt)
        assert (ids == one.prompt_ids).all() and text == one.prompt_text
        assert (
            one.prompt_tokens == len(one.prompt_ids) == common_prefix(one.prompt_ids, one.input_ids)
        )
        assert one.prompt_text == one.text[: one.completion_start]
        assert one.input_ids.dtype == one.offsets.dtype == one.prompt_ids.dtype == np.int32


REFUSED = [
    ("{{ raise_exception('roles\nmust alternate') }}", "refuses it: roles must alternate"),
    ("{{ messages[0].content + 1 }}", "refuses it: can only concatenate str"),
    ("{{ messages[7].role.x }}", "refuses it: "),
    ("{% if %}", "refuses it: "),
]


@pytest.mark.parametrize(("template", "words"), REFUSED)
def test_a_template_that_raises_is_one_line_with_the_sample_and_what_it_says(template, words):
    with pytest.raises(CurateError) as refused:
        Renderer(tokenizer(template)).render([chat("hm", index=6)])
    assert str(refused.value).startswith("row 6 (a): the chat template ")
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_what_cannot_be_rendered_is_one_line():
    with pytest.raises(CurateError, match=r"expected a chat template, .* --chat_template_path"):
        Renderer(tokenizer(None)).render([chat("hm")])
    no_eos = tokenizer()
    no_eos.eos_token = None
    with pytest.raises(CurateError, match="expected an EOS token to end plain text with"):
        Renderer(no_eos).render([STRINGS[0]])
    with pytest.raises(CurateError, match=r"row 0 .*found text and messages"):
        Renderer(tokenizer()).render([sample("2?", [{"role": "assistant", "content": "4"}])])
    slow = transformers.CanineTokenizer()
    with pytest.raises(CurateError, match=r"expected a fast tokenizer.*found CanineTokenizer"):
        Renderer(slow)


def test_megabytes_are_rendered_and_cut_into_kinds():
    trace = "Let me see. é 漢字\n\n" * 60_000
    row = chat(trace, steps=StepSpans(*np.array([[0], [8]]), np.array([True])))
    (made,) = Renderer(tokenizer()).render([row])
    kinds = token_kinds(made, row)
    assert len(made.text) > 1_000_000 and len(kinds) == len(made.input_ids)
    assert set(kinds.tolist()) == {0, 2, 3, 4}


TRACE = "Hm é.\n\n  Wait, 漢字🙂!\n\nSo 4."
STEPS = [(0, 6), (8, 27), (29, 34)]
BRANCHES = [False, True, False]


def stepped(template=CHATML, trace=TRACE):
    starts, ends = np.array(STEPS, np.int64).T
    row = chat(trace, steps=StepSpans(starts, ends, np.array(BRANCHES)))
    (made,) = Renderer(tokenizer(template)).render([row])
    return row, made


def test_steps_of_the_test_are_where_they_should_be():
    each = [TRACE.encode()[start:end].decode() for start, end in STEPS]
    assert each == ["Hm é.", "  Wait, 漢字🙂!", "So 4."]


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1_distill_training", "glm4moe", "qwen3_8"])
def test_tokens_have_the_kind_of_their_first_character_that_is_no_blank(name):
    row, made = stepped((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"))
    kinds, begin = token_kinds(made, row), trace_start(made, row)
    assert made.text.startswith(TRACE, begin)
    answer = made.text.index("It is 4.", begin)
    kind_of = {}
    for (start, end), branch in zip(STEPS, BRANCHES, strict=True):
        first = len(TRACE.encode()[:start].decode())
        last = len(TRACE.encode()[:end].decode())
        kind_of.update({begin + at: not branch for at in range(first, last)})
    for token, (start, end) in enumerate(made.offsets.tolist()):
        solid = [at for at in range(start, end) if made.text[at] not in " \n"]
        at = solid[0] if solid else start
        if token < made.prompt_tokens or at < begin:
            expected = 4
        elif at < begin + len(TRACE):
            expected = int(kind_of.get(at, 2))
        else:
            expected = 3 if answer <= at < answer + len("It is 4.") else 4
        assert KINDS[kinds[token]] == KINDS[expected], (token, made.text[start:end])
    assert {KINDS[kind] for kind in kinds} >= {"branch", "step", "answer", "other"}


def test_tokens_that_split_a_character_are_of_one_kind():
    row, made = stepped()
    at = made.text.index("🙂")
    of_it = [n for n, span in enumerate(made.offsets.tolist()) if span == [at, at + 1]]
    assert len(of_it) > 1
    assert {KINDS[kind] for kind in token_kinds(made, row)[of_it]} == {"branch"}


def test_without_steps_the_trace_is_thought_and_without_a_trace_there_is_only_an_answer():
    for row, kinds in ((chat(TRACE), {2, 3, 4}), (chat(None, TRACE), {3, 4})):
        (made,) = Renderer(tokenizer()).render([row])
        found = token_kinds(made, row)
        assert set(found.tolist()) == kinds
        assert set(found[: made.prompt_tokens].tolist()) == {4}


@pytest.mark.parametrize("text", ["t", "think", ">", "<think>", "e", "|", "assistant"])
def test_short_traces_and_answers_are_not_found_in_tags(text):
    row = chat(text, text)
    (made,) = Renderer(tokenizer()).render([row])
    kinds = token_kinds(made, row)
    begin = trace_start(made, row)
    assert made.text[:begin].endswith("assistant\n<think>\n")
    thought, answer = (made.offsets[kinds == kind] for kind in (2, 3))
    assert thought[0, 0] == begin
    assert answer[0, 0] == begin + len(text + "\n</think>\n\n")


def test_a_trace_whose_blanks_the_template_trims_keeps_its_bytes():
    qwen = (TEMPLATES / "qwen3.jinja").read_text(encoding="utf-8")
    row, made = stepped(qwen, trace="\n\n" + TRACE)
    begin = trace_start(made, row)
    assert made.text.startswith(TRACE, begin + 2) and not made.text.startswith(row.trace, begin)
    assert (
        in_spans(made, row, [2], [2 + 6]).sum()
        == in_spans(*reversed(stepped(qwen)), [0], [6]).sum()
    )


def test_a_stripped_trace_has_no_place():
    stock = (TEMPLATES / "deepseek_r1_distill.jinja").read_text(encoding="utf-8")
    row, made = stepped(stock)
    assert trace_start(made, row) is None
    assert not in_spans(made, row, [0], [6]).any()
    assert {KINDS[kind] for kind in token_kinds(made, row)} == {"answer", "other"}


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (5, 4), (0, 35)])
def test_spans_outside_of_the_trace_are_refused(start, end):
    row, made = stepped()
    with pytest.raises(
        CurateError, match=r"row 0: expected spans within the 34 bytes of its trace"
    ):
        in_spans(made, row, [start], [end])


@given(st.lists(st.tuples(st.integers(0, 34), st.integers(0, 34)).map(sorted)))
def test_a_character_is_in_a_span_that_holds_its_first_byte(spans):
    row, made = stepped()
    found = in_spans(made, row, [start for start, _ in spans], [end for _, end in spans])
    begin = trace_start(made, row)
    for token, (start, end) in enumerate(made.offsets.tolist()):
        solid = [at for at in range(start, end) if made.text[at] not in " \n"]
        at = (solid[0] if solid else start) - begin
        inside = 0 <= at < len(TRACE) and any(
            first <= len(TRACE[:at].encode()) < last for first, last in spans
        )
        assert found[token] == inside
