"""Rows, tokenizers and audits of them, as tests of the audit build them."""

import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("trl")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors  # noqa: E402

from curate.rendering import Renderer  # noqa: E402
from curate.samples import Sample  # noqa: E402
from curate.train.audit import Audit  # noqa: E402

BEGIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
CONTENT = "{{ m.content }}"
END = "<|im_end|>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = BEGIN + CONTENT + END + ASK
STRIPS = "{{ m.content.split('</think>')[-1] }}"
TRACE = "Let me see, é 漢字.\n\nWait, is it 5?\n\nNo, it is 4."


def tokenizer(template=CHATML, *, normalizer=None, model=None, bos=False, **special):
    """Bytes as tokens, or another `model`; `bos`: one that the tokenizer adds by itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(model or models.BPE({byte: n for n, byte in enumerate(alphabet)}, []))
    if model is None:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    made.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>", "<|end|>", "<|pad|>"])
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
        )
    tokens = {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>", **special}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        extra_special_tokens=["<|im_start|>", "<|im_end|>", "<|end|>"],
        chat_template=template,
        **tokens,
    )


def row(trace=TRACE, answer="It is 4.", *, index=0, teacher="t", prompt="2 + 2?"):
    content = answer if trace is None else f"<think>\n{trace}\n</think>\n\n{answer}"
    plain = isinstance(prompt, str) and prompt.startswith("plain")
    return Sample(
        index=index,
        key=f"#{index}",
        id=f"id{index}",
        teacher=teacher,
        prompt=prompt if plain else [{"role": "user", "content": prompt}],
        completion=content if plain else [{"role": "assistant", "content": content}],
        trace=trace,
        answer=answer,
        steps=None,
        spans=None,
    )


def labelled(tok, sample):
    (rendered,) = Renderer(tok).render([sample])
    labels = rendered.input_ids.copy()
    labels[: rendered.prompt_tokens] = -100
    return rendered, labels


def audited(tok, samples=None, *, change=None, **options):
    audit = Audit(tok, **options)
    for sample in samples if samples is not None else [row()]:
        rendered, labels = labelled(tok, sample)
        audit.see(sample, rendered, labels if change is None else change(rendered, labels))
    return audit.report()


def found(report):
    """The only finding of a report, and what it says of its first row, if of rows."""
    (finding,) = report.errors + report.notes
    return finding.check, finding.examples[0].found if finding.examples else None
