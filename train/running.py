"""
A run of `curate train`, from a dataset to checkpoints: the main path.

    dataset -> rendered, audited, masked -> tokens.arrow -> TRL -> checkpoints, losses, account

    RUN/
      run.json               what was asked, what it is of, what it has trained on
      audit.json             what the audit found
      checkpoint-10/ ...     ordinary checkpoints; the newest can be gone on from
      metrics.jsonl          what was logged, a line each time
      token_losses/          by optimizer step, row and kind of token
      curves.png             at the end; with --like arms.png, of both
      .prepared/             the tokens, mapped into memory
"""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from safetensors import SafetensorError
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils.logging import disable_progress_bar

from curate.errors import CurateError, OutputError
from curate.rawfooter import first_line
from curate.samples import Samples
from curate.train import account, checkpoints, claiming
from curate.train.account import Account
from curate.train.asking import Asked
from curate.train.auditing import Ready, Say, audited, forget_tokens
from curate.train.collating import Collator
from curate.train.options import Options
from curate.train.ordering import Order
from curate.train.packs import check_apart
from curate.train.preparing import Prepared
from curate.train.processes import is_main, on_main
from curate.train.recording import Recorder, forget_after
from curate.train.trainer import ArmTrainer, Metrics, Schedule, forget_metrics_after
from curate.train.watching import Watch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

METRICS, TOKEN_LOSSES = "metrics.jsonl", "token_losses"


def train(asked: Asked, say: Say) -> Account:
    """Train an arm, or go on with one that was stopped; gives its account."""
    disable_progress_bar()  # of files that transformers writes
    args = asked.options.sft_config(asked.run)
    _ = args.device  # from here on processes know of each other
    say = say if is_main() else lambda _: None
    if asked.like is not None:
        account.read(asked.like, "--like")  # before a long audit
    with ExitStack() as until:
        begun = on_main(
            lambda: claiming.claim(asked.run, asked.data, until, overwrite=asked.overwrite)
        )
        return _train(asked, args, begun, say)


def _train(asked: Asked, args: "SFTConfig", begun: Account | None, say: Say) -> Account:
    began = time.monotonic()
    samples = asked.samples()
    told = _identity(asked, args, samples)
    if begun is not None:
        account.check_same(asked.run, begun, told)
        if begun["state"] == "complete":
            say(f"{asked.run}: is whole already; --overwrite starts anew")
            return begun
    tokenizer = asked.start.tokenizer()
    asked.start.check(len(tokenizer))
    found = on_main(lambda: audited(asked, samples, tokenizer, say))
    told |= {"limit": found.limit, "arm": _arm(found.prepared)}
    if begun is not None:
        account.check_same(asked.run, begun, told)
    trainer = _trainer(asked, args, tokenizer, found, told)
    on_main(lambda: _compare(asked, told, say))
    on_main(lambda: account.write(asked.run, told))
    _go(trainer, asked.run, told["steps"], say)
    told |= {"state": "complete", "seconds": round(time.monotonic() - began, 1)}
    told |= _trained(asked.run)
    on_main(lambda: _finish(asked, told, say))
    return told


def _identity(asked: Asked, args: "SFTConfig", samples: Samples) -> Account:
    """What makes a run this one: asked of what, with which versions."""
    return {
        "state": "running",
        "settings": asked.settings()
        | {
            "bf16": args.bf16,
            "device": args.device.type,
            "processes": PartialState().num_processes,
        },
        "asked_by": asked.options.as_json(),
        "data": _data(samples),
        "versions": account.versions(),
        "seed": asked.options.seed,
    }


def _data(samples: Samples) -> dict[str, Any]:
    """What a dataset is, and by which rule it was selected."""
    of = ".curate/manifest.json" if samples.manifest else "the files' names, sizes and footers"
    rule = samples.manifest["rule"] if samples.manifest else None
    return {"rows": samples.rows, "sha256": samples.digest, "of": of, "selection": rule}


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
    collator = Collator(tokenizer.pad_token_id, options.packing, args.pad_to_multiple_of)
    recorder = Recorder(asked.run / TOKEN_LOSSES, made.teachers, args.process_index)
    trainer = ArmTrainer(
        model=model,
        args=args,
        train_dataset=made.dataset(),
        processing_class=tokenizer,
        peft_config=options.peft(),
        data_collator=collator,
        order=Order(made.keys, args.seed, shuffle=_reshuffles(options)),
        recorder=recorder if asked.token_losses else None,
        sample=options.additions.reduction == "sample",
        rows=made.rows,
        tied_to={name: told[name] for name in ("data", "settings", "versions", "seed")},
    )
    *_, last = trainer.set_initial_training_values(args, trainer.get_train_dataloader())
    steps = checkpoints.schedule(last, options.additions.checkpoints)
    told |= {"steps": last, "checkpoints_at": steps, "start": asked.start.told(trainer.model)}
    parallelism = trainer.accelerator.parallelism_config
    if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
        raise CurateError("expected no context or sequence parallelism, which cuts rows up")
    told |= _repeated(trainer, len(made.keys))
    if options.packing and not trainer.is_deepspeed_enabled:  # which holds the weights in parts
        check_apart(trainer.model, collator, len(tokenizer))
    trainer.remove_callback(PrinterCallback)  # both write to stdout
    trainer.remove_callback(ProgressCallback)
    for callback in (Schedule(steps), Metrics(asked.run / METRICS)):
        trainer.add_callback(callback)
    return trainer


def _repeated(trainer: ArmTrainer, records: int) -> Account:
    """Records that an epoch takes twice, so that all processes have batches of the same size."""
    at_once = trainer.args.train_batch_size * PartialState().num_processes
    alone = PartialState().num_processes == 1
    return {"repeated_an_epoch": 0 if alone else -records % at_once}


def _reshuffles(options: Options) -> bool:
    """Blocks of packed rows are shuffled once, before they are packed."""
    return options.additions.order == "shuffled" and not options.packing


def _go(trainer: ArmTrainer, run: Path, last: int, say: Say) -> None:
    """Train to the last step, from the newest whole checkpoint if there is one."""
    whole = checkpoints.newest(run)
    if whole is None and (left := checkpoints.steps_of(run)):
        raise OutputError(
            f"{run}: expected a checkpoint with its state to go on from, found weights alone at "
            f"{', '.join(map(str, left))}; --overwrite starts anew"
        )
    step = 0 if whole is None else int(checkpoints.read_mark(whole)["step"])
    on_main(lambda: _forget_after(run, step))
    if whole is not None:
        say(f"going on: {step:,} steps are trained")
        mark = checkpoints.read_mark(whole)
        trainer.go_on_from(mark)
        # Accelerate tells it no epoch where batches are skipped and shared out to processes.
        trainer.order.set_epoch(int(mark["epoch"]))
    if step == last:  # Trainer would take one step more
        return
    watch = Watch()
    trainer.add_callback(watch)
    try:
        trainer.train(resume_from_checkpoint=None if whole is None else str(whole))
    except (OSError, SafetensorError) as error:
        why = f"{run}: cannot be written: {first_line(error)}"
        raise OutputError(f"{why}; with room the same command goes on from here") from error
    except BaseException as error:
        error.add_note("before the run was whole; the same command goes on from here")
        raise
    finally:
        watch.stop()


def _forget_after(run: Path, step: int) -> None:
    """Remove what a stopped run left of steps that will be trained again."""
    checkpoints.remove_broken(run, step)
    checkpoints.reduce_before(run, step)
    forget_after(run / TOKEN_LOSSES, step)
    forget_metrics_after(run / METRICS, step)


def _compare(asked: Asked, told: Account, say: Say) -> None:
    """Say which checkpoints there will not be, and how the arm differs from the one it is like."""
    late = [n for n in asked.options.additions.checkpoints or () if n > told["steps"]]
    if late:
        say(f"note: no checkpoints at {', '.join(map(str, late))}: {told['steps']:,} steps in all")
    if again := told["repeated_an_epoch"]:
        say(f"note: each epoch ends with {again:,} of its first records, to fill all processes")
    if asked.like is not None:
        _hold_against(asked.like, told, say)


def _hold_against(like: Path, told: Account, say: Say) -> None:
    """Hold an arm against another: as many steps, and no setting different that need not be."""
    other = account.read(like, "--like")
    if other["steps"] != told["steps"]:
        raise CurateError(
            f"--like {like}: expected as many optimizer steps, {other['steps']:,}, found "
            f"{told['steps']:,}; --max_steps {other['steps']} sets them"
        )
    for name, (theirs, ours) in account.differences(other, told).items():
        say(f"note: {name} differs from {like}: {theirs!r} there, {ours!r} here")


def _trained(run: Path) -> Account:
    """What an arm has trained on, at its end and at each checkpoint."""
    marks = [checkpoints.read_mark(checkpoints.path_of(run, s)) for s in checkpoints.steps_of(run)]
    names = ("rows", "unique_rows", "tokens", "trained_tokens")
    last = {f"seen_{name}": marks[-1][name] for name in names} | {"epochs": marks[-1]["epoch"]}
    own = {"data", "settings", "versions", "seed"}  # as above
    each = [{name: mark[name] for name in mark if name not in own} for mark in marks]
    return {"checkpoints": each, **last}


def _finish(asked: Asked, told: Account, say: Say) -> None:
    """Draw the curves; the account comes last, as it says that all is there."""
    from curate.train.curves import draw, draw_together

    draw(asked.run, asked.run / "curves.png")
    if asked.like is not None:
        try:
            draw_together([asked.like, asked.run], asked.run / "arms.png")
        except CurateError as error:
            say(f"note: no arms.png: {error}")
    forget_tokens(asked.run)
    account.write(asked.run, told)
