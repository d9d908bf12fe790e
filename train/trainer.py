"""
TRL's SFTTrainer with what these experiments add: token losses, an order, accounts, checkpoints.

Everything else is TRL's: its forward, its loss, its optimizer, its logs. The loss is the mean over
the step's trained tokens (`--reduction token`, TRL's), in which long traces weigh more, or the mean
over its rows of each row's mean (`--reduction sample`).
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from curate.errors import CurateError
from curate.tokenkinds import KINDS
from curate.tokenscores import head_of, score
from curate.train import checkpoints
from curate.train.collating import Beside, beside
from curate.train.faults import IGNORED
from curate.train.ordering import Order
from curate.train.recording import NEEDED, Recorder, TokenScores, output_fields


@dataclass(slots=True)
class Seen:
    """What a run has trained on so far, in all processes."""

    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0


class ArmTrainer(SFTTrainer):
    """
    One arm's trainer.

    `sample` says that rows weigh the same, `own_head` that token losses come from a head of our
    own (by default where TRL's forward lacks a field). `rows` is how many an epoch has, `tied_to`
    what each checkpoint says of the run and its data.
    """

    def __init__(
        self,
        *args: Any,
        order: Order,
        recorder: Recorder | None,
        sample: bool = False,
        own_head: bool | None = None,
        rows: int,
        tied_to: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        collator = kwargs.pop("data_collator")
        try:
            super().__init__(*args, **kwargs)
        except (ImportError, ValueError) as error:  # options that TRL holds against each other
            raise CurateError(" ".join(str(error).split())) from error
        self.data_collator = collator  # TRL takes none for packed data, which it would pack itself
        self.order, self.recorder, self.sample = order, recorder, sample
        self.rows, self.tied_to = rows, tied_to or {}
        self.seen = Seen()
        self.own_head = not output_fields().issuperset(NEEDED) if own_head is None else own_head
        if self.own_head and sample:
            raise CurateError(
                f"--reduction sample: expected a TRL whose forward returns {', '.join(NEEDED)}; "
                "train with --reduction token, or with another version of trl"
            )
        self._batch: Beside | None = None
        self._hidden: torch.Tensor | None = None
        self._labels: torch.Tensor | None = None
        assert self.model is not None
        self.model.register_forward_hook(self._look)
        if self.own_head:
            self._backbone().register_forward_hook(self._keep_hidden)

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return self.order

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Trained tokens of an optimizer step, or with `sample` its rows: what TRL divides by."""
        if not self.sample:
            return super()._get_num_items_in_batch(batch_samples, device)
        rows = torch.tensor(sum(len(batch["rows"]) for batch in batch_samples), device=device)
        if self.args.world_size > 1:
            rows = self.accelerator.gather(rows).sum()
        return rows

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's loss, watched by the hook."""
        self._batch = beside(inputs)
        self._labels = inputs["labels"]
        try:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self._count(self._batch)
            self._batch = self._labels = self._hidden = None

    def _count(self, batch: Beside) -> None:
        self.seen.rows += len(batch.rows)
        self.seen.tokens += batch.tokens
        self.seen.trained_tokens += batch.trained_tokens

    @torch.compiler.disable  # what it counts would make a graph of its own of every step
    def _look(self, model: torch.nn.Module, args: Any, output: Any) -> Any:
        """The hook: record what the forward returned, and weigh it."""
        if self._batch is None:
            return output
        if self.recorder is not None:
            scores = self._own_scores() if self.own_head else TokenScores.of(output)
            assert scores is not None
            step = self.state.global_step + 1
            self.recorder.add(step, self._batch.rows, self._batch.slots, scores)
        if not self.sample:
            return output
        return replace(output, log_probs=output.log_probs * self._weights(output.label_mask))

    def _weights(self, mask: torch.Tensor) -> torch.Tensor:
        """One over the trained tokens of each token's row: float32[batch, seq - 1]."""
        assert self._batch is not None
        whose = self._batch.slots[:, 1:] // len(KINDS)
        counts = torch.zeros(len(self._batch.rows), device=mask.device)
        counts.index_add_(0, whose.reshape(-1), mask.reshape(-1).float())
        return 1 / counts.clamp(min=1)[whose]

    def _backbone(self) -> torch.nn.Module:
        model = self.accelerator.unwrap_model(self.model)
        bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        found: torch.nn.Module = bare.base_model
        return found

    def _keep_hidden(self, model: torch.nn.Module, args: Any, output: Any) -> None:
        self._hidden = output.last_hidden_state.detach()

    def _own_scores(self) -> TokenScores:
        """The same numbers by a head of our own, where TRL's forward does not return them."""
        assert self._hidden is not None and self._labels is not None
        labels = self._labels[:, 1:]
        mask = labels != IGNORED
        head = head_of(self.accelerator.unwrap_model(self.model))
        hidden = self._hidden[:, :-1].reshape(-1, self._hidden.shape[-1])
        found = score(
            hidden,
            head.weight,
            head.bias,
            labels.clamp(min=0).reshape(-1),
            logit_scale=head.logit_scale,
            softcap=head.softcap,
        )
        nll, entropy, _, top1 = (each.reshape(mask.shape) for each in found)
        return TokenScores(-nll * mask, entropy * mask, top1 & mask, mask)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a checkpoint whole, then reduce those before it to weights."""
        if self.recorder is not None:
            self.recorder.flush()
        super()._save_checkpoint(model, trial)
        seen = self._seen_by_all()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            run, step = Path(str(self.args.output_dir)), self.state.global_step
            mark = {"step": step, "epoch": self.state.epoch, "state": "full", **asdict(seen)}
            mark["unique_rows"] = min(seen.rows, self.rows)  # each epoch takes all once
            mark["num_tokens"] = self._total_train_tokens  # TRL's own, which counts some padding
            checkpoints.write_mark(checkpoints.path_of(run, step), mark | self.tied_to)
            checkpoints.reduce_before(run, step)
        self.accelerator.wait_for_everyone()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: TRL's tells of a fine-tuned model on the Hub; `run.json` tells what this one is."""

    def _seen_by_all(self) -> Seen:
        if self.args.world_size == 1:
            return self.seen
        own = torch.tensor(list(asdict(self.seen).values()), device=self.args.device)
        return Seen(*self.accelerator.reduce(own, "sum").tolist())

    def go_on_from(self, mark: dict[str, Any]) -> None:
        """Take up the counts of a checkpoint, TRL's own among them."""
        self._total_train_tokens = mark["num_tokens"]
        if self.accelerator.is_main_process:
            self.seen = Seen(mark["rows"], mark["tokens"], mark["trained_tokens"])


class Schedule(TrainerCallback):
    """Saves, and logs what was since the last log, at the steps of a schedule."""

    def __init__(self, steps: list[int]) -> None:
        self._steps = frozenset(steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint; a log with it, as a run that goes on has no sum to log later."""
        if state.global_step in self._steps:
            control.should_save = control.should_log = True


class Metrics(TrainerCallback):
    """Writes each log as a line of JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append what was logged."""
        if not state.is_world_process_zero or logs is None or "loss" not in logs:
            return
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def forget_metrics_after(path: Path, step: int) -> None:
    """Leave out the lines of steps behind one that a run goes on from, and one cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line)["step"] <= step:
            kept.append(line)
    with checkpoints.whole_file(path) as part:
        part.write_text("".join(kept), encoding="utf-8")
