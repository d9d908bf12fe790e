"""What the audit says of each chat template that TRL ships, of a row with a thought."""

import re
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
pytest.importorskip("torch")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

from curate.errors import CurateError  # noqa: E402
from curate.rendering import Renderer  # noqa: E402
from curate.samples import Sample  # noqa: E402
from curate.train.audit import Audit  # noqa: E402
from curate.train.templates import hint_for, load_chat_template, shipped, training_twin  # noqa: E402

FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.jinja"))

TRACE = "Let me see.\n\nIt is 2 + 2.\n\nSo 4."
ANSWER = "It is 4."

TURN_ENDS = {
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "deepseek": "<｜end▁of▁sentence｜>",
    "diffusion_gemma": "<turn|>",
    "gemma4": "<turn|>",
    "gemma": "<end_of_turn>",
    "glm4moe": "<|user|>",
    "gptoss": "<|return|>",
    "idefics3": "<end_of_utterance>",
    "smolvlm": "<end_of_utterance>",
    "llama3": "<|eot_id|>",
    "llava": "</s>",
    "muse_glimmer": "<|eot|>",
    "phi3": "<|end|>",
    "": "<|im_end|>",
}
"""The token that ends a turn, by how a template's name begins; the first that fits."""

FOUND = {
    # `content.split('</think>')[-1]`, of TRL's own template for training of V3 too; the generation
    # prompt opens a thought that the row then lacks
    "deepseek_r1_distill": {"trace_altered", "prompt_not_prefix"},
    "deepseekv3": {"trace_altered", "prompt_not_prefix"},
    "deepseekv3_training": {"trace_altered", "prompt_not_prefix"},
    # nothing at all stands behind the last answer; the template for training adds <|user|>
    "glm4moe": {"eos_missing"},
    # contents have to be lists of parts: a text is rendered as nothing
    "idefics3": {"trace_altered"},
    "idefics3_training": {"trace_altered"},
    "smolvlm": {"trace_altered"},
    "smolvlm_training": {"trace_altered"},
    # the generation prompt holds an empty thought: `enable_thinking` is off unless asked for
    "qwen3_5_nothink": {"prompt_not_prefix"},
    "qwen3_5_nothink_training": {"prompt_not_prefix"},
    # an empty thought is rendered before the one in the content
    "qwen3_8": {"thought_opened_twice"},
    "qwen3_8_training": {"thought_opened_twice"},
}
"""The templates that are not clean, and the checks that rows fail under them."""

REFUSED = {
    name: "the chat template refuses it: 'str object' has no attribute 'text'"
    for name in ("llava_next", "llava_next_training")
}
"""Templates that take contents as lists of parts only, and say so."""


def row(content=f"<think>\n{TRACE}\n</think>\n\n{ANSWER}", **fields):
    return Sample(
        index=0,
        key="#0",
        id="a",
        teacher=None,
        prompt=[{"role": "user", "content": "What is 2 + 2?"}],
        completion=[{"role": "assistant", "content": content, **fields}],
        trace=TRACE,
        answer=ANSWER,
        steps=None,
        spans=None,
    )


def end_of_turn(name):
    return next(token for begin, token in TURN_ENDS.items() if name.startswith(begin))


def tokenizer(name, eos=None):
    """Bytes as tokens, and as special ones all that the template writes as such."""
    template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({byte: n for n, byte in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = set(re.findall(r"<[|｜][^<>\s'\"]+?>|<[a-z_]+\|>", template))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<|bos|>",
        eos_token=eos or end_of_turn(name),
        pad_token="<|pad|>",
        extra_special_tokens=sorted(special | {end_of_turn(name)}),
        chat_template=template,
    )


def audited(name, sample, eos=None):
    tok = tokenizer(name, eos)
    (rendered,) = Renderer(tok).render([sample])
    labels = rendered.input_ids.copy()
    labels[: rendered.prompt_tokens] = -100
    audit = Audit(tok)
    audit.see(sample, rendered, labels)
    return audit.report()


def test_the_table_is_of_templates_that_are_there():
    assert {*FOUND, *REFUSED} <= {*TEMPLATES}
    assert len(TEMPLATES) > 60


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_row_with_a_thought_is_clean_but_under_these(name):
    if name in REFUSED:
        with pytest.raises(CurateError) as refused:
            audited(name, row())
        assert str(refused.value) == f"row 0 (a): {REFUSED[name]}"
        return
    report = audited(name, row())
    assert {finding.check for finding in report.errors} == FOUND.get(name, set())
    assert report.notes == []


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in REFUSED])
def test_with_another_eos_it_is_missed_and_what_ends_the_turn_is_named(name):
    report = audited(name, row(), eos="<|another|>")
    missing = [one for one in report.errors if one.check == "eos_missing"]
    if name.startswith("phi3"):  # these end with the tokenizer's EOS, whatever it is
        assert missing == []
        return
    (found,) = (example.found for example in missing[0].examples)
    if name == "glm4moe":
        assert found == "the turn ends with the answer, no <|another|> behind it"
    else:
        assert found.endswith(f"not with <|another|> (--eos_token '{end_of_turn(name)}'?)")


def test_what_is_missing_is_said():
    stock = audited("deepseek_r1_distill", row())
    told = {finding.check: finding for finding in stock.errors}
    assert told["trace_altered"].examples[0].found == (
        'thought stripped: of its 32 characters nothing is left in "\\n\\nIt is 4.'
        '<｜end▁of▁sentence｜>"'
    )
    assert told["prompt_not_prefix"].examples[0].found == (
        'at token 17 evaluation\'s prompt ends with "<think>\\n", training goes on with '
        '"\\n\\nIt is 4.<｜end▁of▁sentence｜>"'
    )
    (twice,) = audited("qwen3_8", row()).errors
    assert twice.examples[0].found == ('"<think>\\n\\n</think>\\n\\n<think>\\n" stands before it')
    (thinking,) = audited("qwen3_5_nothink", row()).errors
    assert 'ends with "\\n</think>\\n\\n", training goes on with "Let me see.' in (
        thinking.examples[0].found
    )


@pytest.mark.parametrize(("name", "twin"), [("deepseek_r1_distill", True), ("deepseekv3", False)])
def test_a_template_for_training_is_named_where_it_helps(name, twin):
    hints = {finding.check: finding.hint for finding in audited(name, row()).errors}
    expected = f"--chat_template_path {name}_training (TRL's, for training)"
    assert hints["trace_altered"] == hints["prompt_not_prefix"] == (expected if twin else None)


def test_templates_are_known_by_their_text():
    stock = (FOLDER / "qwen3.jinja").read_text(encoding="utf-8")
    assert training_twin(stock) == "qwen3_training"
    assert hint_for(stock) == "--chat_template_path qwen3_training (TRL's, for training)"
    assert hint_for(stock + " ") is None and training_twin("") is None
    trained = (FOLDER / "qwen3_training.jinja").read_text(encoding="utf-8")
    assert load_chat_template("qwen3_training") == shipped()["qwen3_training"] == trained
    twins = {training_twin(text) for text in shipped().values()} - {None}
    assert twins == {name for name in TEMPLATES if name.endswith("_training")}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("qwen3", set()),
        ("qwen3_8", set()),
        ("gptoss", set()),  # reads `thinking`, which transformers gives it
        ("muse_glimmer", set()),  # these three name channels, which are no other text
        ("gemma4_v5", set()),
        ("nemotron_3_nano", set()),
        ("llama3", {"trace_altered"}),
    ],
)
def test_thoughts_beside_the_content_are_rendered_by_some(name, found):
    report = audited(name, row(ANSWER, reasoning_content=TRACE))
    assert {finding.check for finding in report.errors} == found
    assert report.notes == []
