"""
A run of `curate train`, from a dataset to checkpoints: the main path.

    dataset -> rendered, audited, masked -> tokens.arrow -> TRL -> checkpoints, losses, account

    RUN/
      run.json               what was asked, what it is of, what it has trained on
      audit.json             what the audit found
      checkpoint-10/ ...     ordinary checkpoints; the newest can be gone on from
      metrics.jsonl          what was logged, a line each time
      token_losses/          by optimizer step, row and kind of token
      curves.png             at the end
      .prepared/             the tokens, mapped into memory
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils.logging import disable_progress_bar

from curate.errors import CurateError
from curate.rendering import Renderer
from curate.samples import Samples, open_samples
from curate.stepsbeside import has_steps
from curate.train import account, checkpoints, claiming
from curate.train.account import Account
from curate.train.audit import Audit, AuditReport, coloured
from curate.train.collating import Collator
from curate.train.faults import IGNORED
from curate.train.masks import Mask, mask_of
from curate.train.model import Start, longest
from curate.train.options import Options
from curate.train.ordering import Order
from curate.train.preparing import Plan, Prepared, labels_of, prepare
from curate.train.processes import is_main, on_main
from curate.train.recording import Recorder, forget_after
from curate.train.trainer import ArmTrainer, Metrics, Schedule, forget_metrics_after
from curate.train.watching import Watch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

TOKENS = Path(".prepared") / "tokens.arrow"
METRICS, TOKEN_LOSSES = "metrics.jsonl", "token_losses"

Say = Callable[[str | Text], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is trained on what, and where it goes; all else is in `options`."""

    data: Path
    model: str
    run: Path
    options: Options
    teacher: str | None = None
    id: str | None = None
    steps_from: Path | None = None
    like: Path | None = None
    token_losses: bool = True
    overwrite: bool = False

    @property
    def start(self) -> Start:
        """What training starts from."""
        return Start(self.model, self.options, self.options.seed)

    def settings(self) -> dict[str, Any]:
        """What a run's result depends on, by the options' names."""
        names = ("data", "model", "teacher", "id", "steps_from", "token_losses")
        own = {name: getattr(self, name) for name in names}
        return {
            **self.options.values,
            **{n: str(v) if isinstance(v, Path) else v for n, v in own.items()},
        }


@dataclass(frozen=True, slots=True)
class Ready:
    """A dataset that has been through the audit, and its tokens."""

    samples: Samples
    report: AuditReport
    prepared: Prepared
    limit: int | None


def check(asked: Asked, say: Say) -> bool:
    """Audit a dataset without training on it; whether it may be trained on. Leaves `audit.json`."""
    tokenizer = asked.start.tokenizer()
    found = _ready(asked, _samples(asked), tokenizer)
    shutil.rmtree((asked.run / TOKENS).parent)
    claiming.write_audit(asked.run, found.report)
    _tell(found, tokenizer, _mask(asked), say)
    return not found.report.errors


def train(asked: Asked, say: Say) -> Account:
    """Train an arm, or go on with one that was stopped; gives its account."""
    began = time.monotonic()
    disable_progress_bar()  # of files that transformers writes
    args = asked.options.sft_config(asked.run, padding_free=asked.options.packing)
    _ = args.device  # from here on processes know of each other
    begun = on_main(lambda: claiming.claim(asked.run, overwrite=asked.overwrite))
    samples = _samples(asked)
    told = _identity(asked, samples)
    if begun is not None:
        account.check_same(asked.run, begun, told)
        if begun["state"] == "complete":
            say(f"{asked.run}: is whole already; --overwrite starts anew")
            return begun
    tokenizer = asked.start.tokenizer()
    found = on_main(lambda: _ready(asked, samples, tokenizer))
    if is_main():
        claiming.write_audit(asked.run, found.report)
        _tell(found, tokenizer, _mask(asked), say)
    if found.report.errors:
        raise CurateError(f"{asked.data}: the audit found errors, told above; nothing was trained")
    told |= {"limit": found.limit, "arm": _arm(found.prepared)}
    trainer = _trainer(asked, args, tokenizer, found, told)
    if asked.like is not None and is_main():
        _compare(asked.like, told, say)
    on_main(lambda: account.write(asked.run, told))
    _go(trainer, asked.run, say)
    told |= {"state": "complete", "seconds": round(time.monotonic() - began, 1)}
    told |= _trained(asked.run, found)
    on_main(lambda: _finish(asked.run, told, say))
    return told


def _samples(asked: Asked) -> Samples:
    """The dataset, with its steps if they are known or a mask needs them."""
    mask = _mask(asked)
    steps = asked.steps_from is not None or has_steps(asked.data)
    return open_samples(
        asked.data,
        teacher=asked.teacher,
        id=asked.id,
        steps=steps or (mask is not None and not mask.spans),
        steps_from=asked.steps_from,
        spans=asked.options.additions.mask_spans,
    )


def _mask(asked: Asked) -> Mask | None:
    ours = asked.options.additions
    return mask_of(ours.mask, ours.mask_spans, asked.options.seed)


def _ready(asked: Asked, samples: Samples, tokenizer: "PreTrainedTokenizerBase") -> Ready:
    """Render, audit and mask the dataset, and write its tokens; what is found is judged later."""
    ours, options = asked.options.additions, asked.options
    limit = options.max_length or longest(asked.start.config())
    audit = Audit(tokenizer, limit=limit, overlength=ours.overlength)
    plan = Plan(
        limit=limit,
        overlength=ours.overlength,
        packing=options.packing,
        order=ours.order,
        seed=asked.options.seed,
        mask=_mask(asked),
    )
    made = prepare(samples, Renderer(tokenizer), audit, plan, asked.run / TOKENS)
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


def _identity(asked: Asked, samples: Samples) -> Account:
    """What makes a run this one: asked of what, with which versions."""
    return {
        "state": "running",
        "settings": asked.settings(),
        "asked_by": asked.options.as_json(),
        "data": {"digest": samples.digest, "rows": samples.rows},
        "versions": account.versions(),
        "seed": asked.options.seed,
    }


def _arm(made: Prepared) -> dict[str, Any]:
    """What an epoch of the arm holds."""
    return {
        "rows": made.rows,
        "records": len(made.keys),
        "tokens": made.tokens,
        "trained_tokens": made.trained_tokens,
        "masked_tokens": made.masked_tokens,
        "overlength": dict(made.overlength),
        "lost_tokens": made.lost_tokens,
    }


def _trainer(
    asked: Asked,
    args: "SFTConfig",
    tokenizer: "PreTrainedTokenizerBase",
    found: Ready,
    told: Account,
) -> ArmTrainer:
    """The trainer; notes in the account how many steps it takes and where checkpoints are."""
    options, made = asked.options, found.prepared
    model = asked.start.load(len(tokenizer))
    pad = tokenizer.pad_token_id
    recorder = Recorder(asked.run / TOKEN_LOSSES, made.teachers, args.process_index)
    trainer = ArmTrainer(
        model=model,
        args=args,
        train_dataset=made.dataset(),
        processing_class=tokenizer,
        peft_config=options.peft(),
        data_collator=Collator(pad, options.packing, args.pad_to_multiple_of),
        order=Order(made.keys, args.seed, shuffle=_reshuffles(options)),
        recorder=recorder if asked.token_losses else None,
        sample=options.additions.reduction == "sample",
        tied_to={"data": told["data"], "seed": args.seed},
    )
    *_, last = trainer.set_initial_training_values(args, trainer.get_train_dataloader())
    steps = checkpoints.schedule(last, options.additions.checkpoints)
    told |= {"steps": last, "checkpoints_at": steps, "start": asked.start.told(trainer.model)}
    parallelism = trainer.accelerator.parallelism_config
    if options.packing and parallelism is not None and parallelism.cp_enabled:
        raise CurateError("--packing: expected without context parallelism, which joins documents")
    trainer.remove_callback(PrinterCallback)  # both write to stdout
    trainer.remove_callback(ProgressCallback)
    for callback in (Schedule(steps), Metrics(asked.run / METRICS), Watch()):
        trainer.add_callback(callback)
    return trainer


def _reshuffles(options: Options) -> bool:
    """Blocks of packed rows are shuffled once, before they are packed."""
    return options.additions.order == "shuffled" and not options.packing


def _go(trainer: ArmTrainer, run: Path, say: Say) -> None:
    """Train to the end, from the newest whole checkpoint if there is one."""
    whole = checkpoints.newest(run)
    step = 0 if whole is None else int(checkpoints.read_mark(whole)["step"])
    on_main(lambda: _forget_after(run, step))
    if whole is not None:
        say(f"going on: {step:,} steps are trained")
        trainer.go_on_from(checkpoints.read_mark(whole))
    try:
        trainer.train(resume_from_checkpoint=None if whole is None else str(whole))
    except BaseException as error:
        error.add_note("before the run was whole; the same command goes on from here")
        raise


def _forget_after(run: Path, step: int) -> None:
    """Remove what a stopped run left of steps that will be trained again."""
    checkpoints.remove_broken(run, step)
    forget_after(run / TOKEN_LOSSES, step)
    forget_metrics_after(run / METRICS, step)


def _compare(like: Path, told: Account, say: Say) -> None:
    """Hold an arm against another: as many steps, and no setting different that need not be."""
    other = account.read(like, "--like")
    if other["steps"] != told["steps"]:
        raise CurateError(
            f"--like {like}: expected as many optimizer steps, {other['steps']:,}, found "
            f"{told['steps']:,}; --max_steps {other['steps']} sets them"
        )
    for name, (theirs, ours) in account.differences(other, told).items():
        say(f"note: {name} differs from {like}: {theirs!r} there, {ours!r} here")


def _trained(run: Path, found: Ready) -> Account:
    """What an arm has trained on, at its end and at each checkpoint."""
    marks = [checkpoints.read_mark(checkpoints.path_of(run, s)) for s in checkpoints.steps_of(run)]
    rows = found.prepared.rows
    each = [mark | {"unique_rows": min(mark["rows"], rows)} for mark in marks]
    last = {f"seen_{name}": each[-1][name] for name in ("rows", "unique_rows", "tokens")}
    last |= {"seen_trained_tokens": each[-1]["trained_tokens"], "epochs": each[-1]["epoch"]}
    return {"checkpoints": each, **last}


def _finish(run: Path, told: Account, say: Say) -> None:
    from curate.train.curves import draw

    account.write(run, told)
    shutil.rmtree((run / TOKENS).parent)
    draw(run, run / "curves.png")
