"""What a run of `curate train` is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.samples import Samples, open_samples
from curate.stepsbeside import has_steps
from curate.train.masks import Mask, mask_of
from curate.train.model import Start
from curate.train.options import Options


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
    def mask(self) -> Mask | None:
        """Which tokens of the traces are left out of the loss."""
        ours = self.options.additions
        return mask_of(ours.mask, ours.mask_spans, self.options.seed)

    def samples(self) -> Samples:
        """The dataset, with its steps if they are known or a mask needs them."""
        mask, steps = self.mask, self.steps_from is not None or has_steps(self.data)
        return open_samples(
            self.data,
            teacher=self.teacher,
            id=self.id,
            steps=steps or (mask is not None and not mask.spans),
            steps_from=self.steps_from,
            spans=self.options.additions.mask_spans,
        )

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
