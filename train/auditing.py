"""A dataset through the audit, its tokens put on disk: what comes first, and all of `--check`."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from curate.errors import CurateError
from curate.rendering import Renderer
from curate.samples import Samples
from curate.train import claiming
from curate.train.asking import Asked
from curate.train.audit import Audit, AuditReport, coloured
from curate.train.faults import IGNORED
from curate.train.masks import Mask
from curate.train.model import longest
from curate.train.preparing import Plan, Prepared, labels_of, prepare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS = Path(".prepared") / "tokens.arrow"
"""In the folder of a run."""

Say = Callable[[str | Text], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """A dataset that has been through the audit, and its tokens."""

    samples: Samples
    report: AuditReport
    prepared: Prepared
    limit: int | None


def check(asked: Asked, say: Say) -> bool:
    """Audit a dataset without training on it; whether it may be trained on. Leaves `audit.json`."""
    with ExitStack() as until:
        claiming.claim(asked.run, until, overwrite=False)
        tokenizer = asked.start.tokenizer()
        try:
            found = _ready(asked, asked.samples(), tokenizer, say)
        finally:
            forget_tokens(asked.run)
        claiming.write_audit(asked.run, found.report)
    _tell(found, tokenizer, asked.mask, say)
    return not found.report.errors


def audited(
    asked: Asked, samples: Samples, tokenizer: "PreTrainedTokenizerBase", say: Say
) -> Ready:
    """The dataset made ready, if the audit finds no error."""
    found = _ready(asked, samples, tokenizer, say)
    claiming.write_audit(asked.run, found.report)
    _tell(found, tokenizer, asked.mask, say)
    if not found.report.errors and found.prepared.rows:
        return found
    forget_tokens(asked.run)
    if found.report.errors:
        raise CurateError(f"{asked.data}: the audit found errors, told above; nothing was trained")
    raise CurateError(f"{asked.data}: expected rows to train on, found none within the limit")


def _ready(asked: Asked, samples: Samples, tokenizer: "PreTrainedTokenizerBase", say: Say) -> Ready:
    """Render, audit and mask the dataset, and write its tokens; what is found is judged later."""
    ours, options = asked.options.additions, asked.options
    limit = options.max_length or longest(asked.start.config())
    audit = Audit(tokenizer, limit=limit, overlength=ours.overlength)
    plan = Plan(
        limit=limit,
        overlength=ours.overlength,
        packing=options.packing,
        order=ours.order,
        seed=options.seed,
        mask=asked.mask,
    )
    made = prepare(samples, Renderer(tokenizer), audit, plan, asked.run / TOKENS, say)
    return Ready(samples, audit.report(), made, limit)


def _tell(found: Ready, tokenizer: "PreTrainedTokenizerBase", mask: Mask | None, say: Say) -> None:
    """Say what the audit found, and show the first row with its loss mask."""
    for line in [*found.samples.notes, *found.report.lines()]:
        say(line)
    say(_shown(found, tokenizer, mask))


def _shown(found: Ready, tokenizer: "PreTrainedTokenizerBase", mask: Mask | None) -> Text:
    """The first row with its loss mask, in colour."""
    sample = next(iter(found.samples))
    (rendered,) = Renderer(tokenizer).render([sample])
    labels = labels_of(rendered)
    if mask is not None:
        labels[mask.of(sample, rendered)] = IGNORED
    return coloured(sample, rendered, labels[: found.limit], tokenizer)


def forget_tokens(run: Path) -> None:
    """Remove the tokens, which are made anew wherever a run goes on."""
    shutil.rmtree((run / TOKENS).parent, ignore_errors=True)
