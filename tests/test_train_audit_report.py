"""What an audit reports of many rows, and how it shows one."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")

from curate.train.audit import CHECKS, Audit, coloured  # noqa: E402
from tests.audited_rows import (  # noqa: E402
    ASK,
    BEGIN,
    END,
    STRIPS,
    audited,
    found,
    labelled,
    row,
    tokenizer,
)

DATA = Path(os.environ.get("CURATE_DATA") or Path(__file__).parents[2] / "shared" / "data")
STOCK = Path(trl.__file__).parent / "chat_templates"

SIZES = [len(labelled(tokenizer(), row("x" * size))[1]) for size in (10, 30, 50)]


def three():
    return [row("x" * size, index=n, teacher=f"t{n % 2}") for n, size in enumerate((10, 30, 50))]


def test_rows_over_the_limit_are_counted_by_teacher():
    report = audited(tokenizer(), three(), limit=SIZES[0])
    (finding,) = report.errors
    assert report.notes == []
    assert (finding.check, finding.rows, finding.tokens_lost) == ("overlength", 2, 20 + 40)
    assert finding.by_teacher == {"t0": 1, "t1": 1}
    assert finding.examples[0].line() == (
        f"row 1 (id1, teacher t1): {SIZES[1]:,} tokens, {SIZES[0]:,} would be kept"
    )
    assert audited(tokenizer(), three(), limit=SIZES[2]).errors == []


@pytest.mark.parametrize(
    ("overlength", "lost", "rows", "total"),
    [
        ("drop", SIZES[1] + SIZES[2], 1, SIZES[0]),
        ("truncate", 20 + 40, 3, 3 * SIZES[0]),
    ],
)
def test_rows_that_are_dropped_or_cut_on_purpose_are_a_note(overlength, lost, rows, total):
    report = audited(tokenizer(), three(), limit=SIZES[0], overlength=overlength)
    (finding,) = report.notes
    assert report.errors == []
    assert (finding.check, finding.rows, finding.tokens_lost) == ("overlength", 2, lost)
    assert (report.rows, report.tokens["rows"], report.tokens["total"]) == (3, rows, total)


def test_a_length_cut_that_nobody_asked_for_is_caught():
    def cut(rendered, labels):
        return labels[:60]

    report = audited(tokenizer(), change=cut)
    assert found(report) == ("overlength", "106 tokens, 60 would be kept")
    assert report.errors and report.errors[0].tokens_lost == 46
    nothing = audited(tokenizer(), limit=20, overlength="truncate")
    assert [finding.check for finding in nothing.errors] == ["fully_masked"]


def test_rows_that_a_mask_leaves_nothing_of_are_counted_and_named():
    audit, tok = Audit(tokenizer(), limit=60, overlength="truncate"), tokenizer()
    for sample, all_of_it in zip(three(), (False, True, True), strict=True):
        rendered, labels = labelled(tok, sample)
        hidden = np.full(len(labels), all_of_it)
        hidden[60:] = False  # what is cut is not trained on anyway
        audit.see(sample, rendered, labels, hidden)
    report = audit.report()
    (finding,) = report.errors
    assert (finding.check, finding.rows, finding.by_teacher) == (
        "fully_masked",
        2,
        {"t0": 1, "t1": 1},
    )
    assert finding.examples[0].line() == (
        "row 1 (id1, teacher t1): the mask takes all of the 35 tokens that were in the loss"
    )
    assert report.tokens["trained"] == 3 * 35  # as without the mask


def test_the_report_counts_rows_and_tokens_and_names_three_examples():
    template = BEGIN + STRIPS + END + ASK
    report = audited(tokenizer(template), [row(index=n, teacher=f"t{n % 2}") for n in range(5)])
    (finding,) = report.errors
    assert finding.rows == 5 and finding.by_teacher == {"t0": 3, "t1": 2}
    assert [(one.row, one.id, one.teacher) for one in finding.examples] == [
        (0, "id0", "t0"),
        (1, "id1", "t1"),
        (2, "id2", "t0"),
    ]
    size, trained = 37, 12
    assert report.tokens == {
        "rows": 5,
        "total": 5 * size,
        "trained": 5 * trained,
        "lengths": {"median": size, "p90": size, "p99": size, "longest": size},
    }
    assert {name: each["rows"] for name, each in report.by_teacher.items()} == {"t0": 3, "t1": 2}
    lines = report.lines()
    assert lines[0] == (
        f"5 rows: {5 * size} tokens, {5 * trained} in the loss; "
        f"length: median {size}, p90 {size}, p99 {size}, longest {size}"
    )
    assert lines[3] == f"error: trace_altered: 5 of 5 rows: {CHECKS['trace_altered']}"
    assert lines[4].startswith("  row 0 (id0, teacher t0): thought stripped")
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
    assert Audit(tokenizer()).report().lines() == ["0 rows: 0 tokens, 0 in the loss"]


def test_what_a_run_as_a_whole_lacks_has_a_hint():
    for pad, words in ((None, "TRL takes EOS for it; --pad_token"), ("<|im_end|>", "--pad_token")):
        (finding,) = audited(tokenizer(pad_token=pad), [row(index=n) for n in range(2)]).errors
        assert finding.rows == 0 and words in finding.hint
    no_eos = audited(tokenizer(eos_token=None))
    assert found(no_eos) == ("eos_missing", "the tokenizer has no EOS token")


def shown(sample, tok, labels=None):
    rendered, plain = labelled(tok, sample)
    text = coloured(sample, rendered, plain if labels is None else plain[:labels], tok)
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    return text.plain, styles


def test_a_sample_is_shown_with_what_is_in_the_loss_in_colour():
    text, styles = shown(row("é 漢🙂\x1b[31m", teacher=None), tokenizer())
    assert text == (
        "row 0 (id0): in the loss ⟦like this⟧, not like this\n<|im_start|>user\n2 + 2?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\né 漢🙂\\x1b[31m\n</think>\n\nIt is 4.<|im_end|>\n⟧"
    )
    assert styles["<think>\né 漢🙂\\x1b[31m\n</think>\n\nIt is 4.<|im_end|>\n"] == "bold green"
    assert styles[text[text.index("<|im_start|>") : text.index("⟦<think>")]] == "dim"


def test_of_long_parts_the_middle_is_left_out_and_its_length_said():
    text, _ = shown(row("a" * 50 + "b" * 5000 + "c" * 50), tokenizer(bos=True))
    left_out = 8 + 5100 + 11 + 8 + 2 - 80
    assert f"aaa\n[… {left_out:,} tokens …]\nccc" in text
    assert text.count("a") < 60 and text.endswith("It is 4.<|im_end|>\n⟧")
    cut, styles = shown(row(), tokenizer(), 60)
    assert cut.endswith("⟧\n[46 tokens cut off]")
    assert styles["\n[46 tokens cut off]"] == "bold red"
    plain, _ = shown(row(prompt="plain: ?"), tokenizer(bos=True))
    assert "like this\n<s>plain: ?⟦<think>" in plain


def qwen():
    folder = DATA / "tokenizers" / "qwen2"
    if not folder.is_dir():
        pytest.skip(f"no tokenizer: {folder} is no folder; CURATE_DATA names that of data sets")
    return transformers.AutoTokenizer.from_pretrained(str(folder))


def test_real_traces_are_clean_under_the_template_of_qwen3(traces):
    tok = qwen()
    tok.chat_template = (STOCK / "qwen3.jinja").read_text(encoding="utf-8")
    table = pq.read_table(traces).to_pylist()[:: 3530 // 50]
    rows = [
        row(
            one["trace"],
            (one["answer"] or "").strip(),
            index=n,
            teacher=one["source"],
            prompt=one["problem"],
        )
        for n, one in enumerate(table)
    ]
    report = audited(tok, rows)
    assert report.errors == []
    assert report.rows == len(rows) >= 50 and len(report.by_teacher) > 5
    assert {finding.check for finding in report.notes} <= {"trace_trimmed"}
    tok.chat_template = (STOCK / "deepseek_r1_distill.jinja").read_text(encoding="utf-8")
    told = {finding.check: finding.rows for finding in audited(tok, rows).errors}
    assert told["trace_altered"] == len(rows)
