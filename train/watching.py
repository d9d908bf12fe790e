"""How far training is: a bar on a terminal, a plain line now and then elsewhere, both on stderr."""

import sys
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from curate.progress import LINE_SECONDS


class Watch(TrainerCallback):
    """Says the step, the epoch, the last loss that was logged and how long it will take."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self._from = 0
        self._loss: float | None = None
        self._bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start to count, and show a bar where somebody watches."""
        self._began, self._from = time.monotonic(), state.global_step
        if not state.is_world_process_zero or not sys.stderr.isatty():
            return
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[told]}"),
            progress.TimeRemainingColumn(),
        )
        self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.add_task("steps", total=state.max_steps, completed=state.global_step, told="")
        self._bar.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Remember the loss."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move the bar, or say a line if it is time to."""
        if self._bar is not None:
            told = "" if self._loss is None else f"loss {self._loss:.4g}"
            self._bar.update(0, completed=state.global_step, told=told)
        elif state.is_world_process_zero and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            print(self._line(state), file=sys.stderr, flush=True)  # noqa: T201

    def _line(self, state: TrainerState) -> str:
        elapsed = self._said - self._began
        done = max(1, state.global_step - self._from)
        left = elapsed / done * (state.max_steps - state.global_step)
        loss = "" if self._loss is None else f", loss {self._loss:.4g}"
        return (
            f"train: step {state.global_step:,} of {state.max_steps:,}, epoch "
            f"{state.epoch or 0:.2f}{loss}, {elapsed / done:.3g} s a step, {left:,.0f} s left"
        )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take the bar away."""
        self.stop()

    def stop(self) -> None:
        """Take the bar away, or a run that was stopped would leave a terminal without a cursor."""
        if self._bar is not None:
            self._bar.stop()
