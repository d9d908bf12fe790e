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

    @property
    def fault(self) -> str | None:
        """Why there is nothing to train on, None where there is."""
        if self.report.errors:
            return "the audit found errors, told above; nothing was trained"
        return None if self.prepared.rows else "expected rows to train on, all are over the limit"


def check(asked: Asked, say: Say) -> Ready:
    """Audit a dataset without training on it. Leaves `audit.json`."""
    asked.options.sft_config(asked.run)  # raises where the options are not all right
    with ExitStack() as until:
        claiming.claim(asked.run, asked.data, until, overwrite=False)
        tokenizer = asked.start.tokenizer()
        asked.start.check(len(tokenizer))
        try:
            found = _ready(asked, asked.samples(), tokenizer, say)
        finally:
            forget_tokens(asked.run)
        claiming.write_audit(asked.run, found.report)
    _tell(found, asked, tokenizer, say)
    return found


def audited(
    asked: Asked, samples: Samples, tokenizer: "PreTrainedTokenizerBase", say: Say
) -> Ready:
    """The dataset made ready; raises CurateError where there is nothing to train on."""
    found = _ready(asked, samples, tokenizer, say)
    claiming.write_audit(asked.run, found.report)
    _tell(found, asked, tokenizer, say)
    if found.fault is not None:
        forget_tokens(asked.run)
        raise CurateError(f"{asked.data}: {found.fault}")
    return found


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


def _tell(found: Ready, asked: Asked, tokenizer: "PreTrainedTokenizerBase", say: Say) -> None:
    """Say what the audit found, and show a row with its loss mask."""
    for line in [*found.samples.notes, *found.report.lines()]:
        say(line)
    known, longest_row = longest(asked.start.config()), found.report.tokens["lengths"]
    if known is not None and longest_row and longest_row["longest"] > known:
        say(
            f"note: the longest row has {longest_row['longest']:,} tokens, and the model's "
            f"configuration tells of {known:,} positions"
        )
    if asked.mask is not None:
        say(f"mask: {found.prepared.masked_tokens:,} tokens of traces are left out of the loss")
    made, rows = found.prepared, f"{found.samples.rows:,} rows"
    if made.earlier_turns:
        say(
            f"note: {made.earlier_turns:,} of {rows} have earlier messages of the assistant: the "
            "loss is on the last one alone"
        )
    if made.thoughtless:
        say(f"note: {made.thoughtless:,} of {rows} have no thought")
    if found.prepared.positional and asked.options.additions.order == "shuffled":
        say(
            "note: --order shuffled: rows without ids are shuffled by their place, so arms take "
            "the rows they share in different orders; --id names a column of ids"
        )
    if not found.samples.has_steps:
        say(
            "note: no steps are known, so losses are told by thought and answer; `curate scan "
            "--steps` finds them, and --steps-from names a scan that did"
        )
    if found.prepared.rows:
        say(_shown(found, asked, tokenizer))


def _shown(found: Ready, asked: Asked, tokenizer: "PreTrainedTokenizerBase") -> Text:
    """The first row that is trained on with its loss mask, in colour."""
    renderer, drops = Renderer(tokenizer), asked.options.additions.overlength == "drop"
    for sample in found.samples:
        (rendered,) = renderer.render([sample])
        if not drops or found.limit is None or len(rendered.input_ids) <= found.limit:
            break
    labels = labels_of(rendered)
    if asked.mask is not None:
        labels[asked.mask.of(sample, rendered, found.limit)] = IGNORED
    return coloured(sample, rendered, labels[: found.limit], tokenizer)


def forget_tokens(run: Path) -> None:
    """Remove the tokens, which are made anew wherever a run goes on."""
    shutil.rmtree((run / TOKENS).parent, ignore_errors=True)
