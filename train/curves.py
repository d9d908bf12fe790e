"""
A picture of a training run: loss, NLL by kind of token and by teacher, learning rate.

Drawn is what the run wrote: `metrics.jsonl`, a line for each logged step, and `token_losses/`,
where it is. A step that was logged twice, as after a resume, counts as it was logged last.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from curate.errors import CurateError
from curate.tokenkinds import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of Okabe and Ito, told apart by the colour-blind, too; their yellow is too pale for lines."""

DASHES = ("-", "--", "-.", ":")
"""Runs that lie on each other are still seen, as they differ in their dashes, too."""

MOST = 7
"""Teachers that have a line of their own, those of the most tokens; the rest share one."""

LOG_FROM = 100
"""The axis of steps is logarithmic where the last step is so many times the first."""

SMOOTHING = 16
"""A smoothed point is a mean over this part of the logged steps before it, and as many after."""

OTHERS = " others"

RAW = "loss"
RATE = "learning_rate"
KIND = "nll by kind"
TEACHER = "nll by teacher"

SCHEMA = {
    "curve": pl.String,
    "name": pl.String,
    "step": pl.Int64,
    "value": pl.Float64,
    "smoothed": pl.Float64,
    "tokens": pl.Int64,
}

TITLES = {
    RAW: ("Training loss", "loss (nats per token)"),
    RATE: ("Learning rate", "learning rate"),
    KIND: ("NLL by kind of token", "mean NLL (nats per token)"),
    TEACHER: ("NLL by teacher", "mean NLL (nats per token)"),
}


def curves_of(run: Path) -> pl.DataFrame:
    """
    What `draw` draws, a row for each point: `curve`, `name`, `step`, `value`, `smoothed`, `tokens`.

    Curves are `loss` and `learning_rate` (of no name), `nll by kind` and `nll by teacher`, in nats
    per token; `tokens` is null for the first two. `smoothed` is a mean over nearby logged steps,
    ever more of them so that it is even on a logarithmic axis, by tokens; null for the learning
    rate. Raises CurateError for a run without `metrics.jsonl`, or for what cannot be read in it.
    """
    frames = [_logged(run, RAW), _logged(run, RATE)]
    losses = _token_losses(run)
    if losses is not None:
        frames += [_by(losses, "kind", KIND), _by(_with_most(losses), "teacher", TEACHER)]
    return pl.concat(frames)


def draw(run: Path, out: Path) -> Path:
    """
    Draw the curves of a run as the PNG `out`, which is returned; a panel for whatever there is.

    Raises CurateError as `curves_of` does, for a run that logged nothing, and without matplotlib.
    """
    curves = curves_of(run)
    panels = [name for name in (RAW, KIND, TEACHER, RATE) if curves["curve"].eq(name).any()]
    if not panels:
        raise CurateError(f"{run / 'metrics.jsonl'}: expected steps with a loss, found none")
    figure, axes = _panels(len(panels))
    marks = _checkpoints(run)
    for panel, ax in zip(panels, axes, strict=True):
        ours = curves.filter(pl.col("curve") == panel)
        for at, name in enumerate(_order(ours, panel)):
            line = ours.filter(pl.col("name").eq_missing(name))
            _line(ax, line, COLOURS[at % len(COLOURS)], "-", name)
        _finish(ax, *TITLES[panel], ours, marks)
        _name_lines(ax, TITLES[panel][0])
    _say(figure, _label(run), marks)
    return _save(figure, out)


def draw_together(runs: Sequence[Path], out: Path) -> Path:
    """Draw several runs in one PNG, a colour each: loss, learning rate, and a panel for a kind."""
    names = _names(runs)
    curves = pl.concat(
        curves_of(run).with_columns(run=pl.lit(name)) for run, name in zip(runs, names, strict=True)
    ).filter(pl.col("curve") != TEACHER)
    panels = [(RAW, None), *((KIND, kind) for kind in _order(curves, KIND)), (RATE, None)]
    panels = [each for each in panels if curves["curve"].eq(each[0]).any()]
    if not panels:
        raise CurateError("expected runs that logged steps with a loss, found none")
    figure, axes = _panels(len(panels))
    for (curve, kind), ax in zip(panels, axes, strict=True):
        ours = curves.filter(pl.col("curve") == curve, pl.col("name").eq_missing(kind))
        for at, name in enumerate(names):
            line = ours.filter(pl.col("run") == name)
            if line.height:
                _line(ax, line, COLOURS[at % len(COLOURS)], DASHES[at % len(DASHES)], name)
        title, unit = TITLES[curve]
        _finish(ax, title if kind is None else f"NLL of kind: {kind}", unit, ours, [])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", frameon=False, ncols=4, fontsize=9)
    _say(figure, f"{len(runs)} runs", [])
    return _save(figure, out)


def _logged(run: Path, key: str) -> pl.DataFrame:
    """One number of `metrics.jsonl` by step, null and missing ones left out."""
    logged = {step: said.get(key) for step, said in _lines(run / "metrics.jsonl")}
    points = [(None, step, value) for step, value in sorted(logged.items()) if value is not None]
    schema = {"name": pl.String, "step": pl.Int64, "value": pl.Float64}
    frame = pl.DataFrame(points, schema, orient="row", strict=False)
    frame = frame.with_columns(curve=pl.lit(key), tokens=pl.lit(None, pl.Int64))
    values, ones = frame["value"].to_numpy(), np.ones(frame.height)
    smoothed = pl.Series(_smooth(values, ones) if key == RAW else [None] * frame.height)
    return frame.with_columns(smoothed=smoothed.cast(pl.Float64)).select(*SCHEMA)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The logged steps; later lines about a step are added to what was said of it before."""
    if not path.is_file():
        raise CurateError(f"{path}: expected the metrics of a training run, found no such file")
    said: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            logged = json.loads(line)
        except ValueError:
            raise CurateError(
                f"{path}: line {number}: expected JSON, found {line[:40]!r}"
            ) from None
        step = logged.get("step") if isinstance(logged, dict) else None
        if not isinstance(step, int):
            raise CurateError(f"{path}: line {number}: expected a whole `step`, found {step!r}")
        for key in (RAW, RATE):
            if not isinstance(logged.get(key), int | float | None):
                found = repr(logged[key])
                raise CurateError(
                    f"{path}: line {number}: expected a number `{key}`, found {found}"
                )
        said.setdefault(step, {}).update(logged)
    yield from said.items()


def _token_losses(run: Path) -> pl.DataFrame | None:
    """Tokens and NLL by step, kind and teacher; None where none were recorded."""
    files = sorted((run / "token_losses").glob("*.parquet"))
    if not files:
        return None
    keys = ["step", "kind", "teacher"]
    try:
        return (
            pl.scan_parquet(files)
            .select("step", "kind", "teacher", "tokens", "nll")
            .with_columns(pl.col("step").cast(pl.Int64), pl.col("teacher").cast(pl.String))
            .group_by(keys)
            .agg(pl.col("tokens").cast(pl.Int64).sum(), pl.col("nll").cast(pl.Float64).sum())
            .filter(pl.col("tokens") > 0)
            .collect(engine="streaming")
            .sort(keys)
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        said = str(error).splitlines()[0]
        raise CurateError(
            f"{run / 'token_losses'}: expected token losses as training records them, found {said}"
        ) from None


def _with_most(losses: pl.DataFrame) -> pl.DataFrame:
    """The losses of known teachers, those of few tokens under one name."""
    named = losses.filter(pl.col("teacher").is_not_null())
    ranked = named.group_by("teacher").agg(pl.col("tokens").sum())
    names = ranked.sort("tokens", "teacher", descending=[True, False])["teacher"].to_list()
    if len(names) <= MOST:
        return named
    kept = names[: MOST - 1]
    rest = pl.lit(f"{len(names) - len(kept)}{OTHERS}")
    known = pl.when(pl.col("teacher").is_in(kept)).then("teacher").otherwise(rest)
    return named.with_columns(teacher=known)


def _by(losses: pl.DataFrame, column: str, curve: str) -> pl.DataFrame:
    """Mean NLL by step for each value of a column."""
    summed = losses.group_by(column, "step").agg(pl.col("tokens", "nll").sum())
    frames = []
    for _, one in summed.sort(column, "step").group_by(column, maintain_order=True):
        smoothed = _smooth(one["nll"].to_numpy(), one["tokens"].to_numpy())
        frames.append(
            one.select(
                curve=pl.lit(curve),
                name=pl.col(column),
                step="step",
                value=pl.col("nll") / pl.col("tokens"),
                smoothed=pl.Series(smoothed, dtype=pl.Float64),
                tokens="tokens",
            )
        )
    return pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA)


def _smooth(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means of nearby points, float64[n] of sums and counts; what is not finite is left out."""
    at = np.arange(len(sums))
    first, last = at - at // SMOOTHING, np.minimum(at + at // SMOOTHING, len(sums) - 1)
    told = np.isfinite(sums)
    totals = []
    for values in (np.where(told, sums, 0.0), np.where(told, counts, 0)):
        below = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        totals.append(below[last + 1] - below[first])
    means: np.ndarray = np.full(len(sums), np.nan)
    np.divide(totals[0], totals[1], out=means, where=np.asarray(totals[1] > 0))
    return means


def _order(curves: pl.DataFrame, curve: str) -> list[str | None]:
    """The lines of a curve: kinds as they are always told, teachers by name, others last."""
    ours = curves.filter(pl.col("curve") == curve)
    names = ours["name"].unique(maintain_order=True).to_list()
    if curve == KIND:
        return sorted(names, key=lambda name: KINDS.index(name) if name in KINDS else len(KINDS))
    return sorted(names, key=lambda name: (str(name).endswith(OTHERS), str(name)))


def _checkpoints(run: Path) -> list[int]:
    found = (path.name.removeprefix("checkpoint-") for path in run.glob("checkpoint-*"))
    return sorted(int(step) for step in found if step.isdecimal())


def _panels(count: int) -> "tuple[Figure, list[Axes]]":
    try:
        from matplotlib.figure import Figure  # training itself does without it
    except ImportError:
        raise CurateError("a picture of the curves: expected matplotlib, found none") from None
    columns = 1 if count == 1 else 2
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(6.4 * columns, 0.7 + 3.5 * rows), dpi=130, layout="constrained")
    axes = [figure.add_subplot(rows, columns, at + 1) for at in range(count)]
    return figure, axes


def _line(ax: "Axes", points: pl.DataFrame, colour: str, dashes: str, label: str | None) -> None:
    """A line, and faint behind it what it smooths; a single point is a dot."""
    steps, values, smoothed = points["step"], points["value"], points["smoothed"]
    if smoothed.is_not_null().any():
        ax.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        values = smoothed
    ax.plot(steps, values, color=colour, linestyle=dashes, linewidth=1.8, label=label)
    if points.height == 1:
        ax.plot(steps, values, color=colour, marker="o", markersize=4)


def _name_lines(ax: "Axes", title: str) -> None:
    """The title with the lines' names beneath it, above the axes, where they hide nothing."""
    labels = ax.get_legend_handles_labels()[1]
    if not labels:
        return
    columns = max(1, min(len(labels), 64 // (6 + max(map(len, labels)))))
    ax.set_title("", loc="left")
    legend = ax.legend(
        **{"title": title, "alignment": "left", "ncols": columns, "frameon": False, "fontsize": 8},
        **{"loc": "lower left", "bbox_to_anchor": (-0.01, 1.0), "borderpad": 0.2},
    )
    legend.get_title().set(fontsize=11, fontweight="bold")


def _finish(ax: "Axes", title: str, unit: str, points: pl.DataFrame, marks: Sequence[int]) -> None:
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold")
    ax.set_ylabel(unit)
    ax.set_xlabel("optimizer steps")
    steps = points["step"].to_numpy()
    first, last = max(1, int(steps.min())), int(steps.max())
    if last >= LOG_FROM * first:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:,.0f}")
    for mark in marks:
        ax.axvline(mark, color="#777777", linewidth=0.7, linestyle=(0, (1, 3)), zorder=0)
        ax.axvline(mark, ymax=0.035, color="#333333", linewidth=1.2, zorder=3)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    if unit == TITLES[RATE][1]:
        ax.yaxis.set_major_formatter("{x:.2g}")


def _say(figure: "Figure", title: str, marks: Sequence[int]) -> None:
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    said = [f"faint: as logged; bold: mean over 1/{SMOOTHING} of the steps so far to either side"]
    if marks:
        said.append(f"ticks at the foot: checkpoints at {_listed(marks)}")
    figure.supxlabel("; ".join(said), fontsize=8, color="#555555", x=0.01, ha="left")


def _listed(steps: Sequence[int]) -> str:
    shown = [f"{step:,}" for step in steps]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:6], "…", *shown[-3:]])


def _label(run: Path) -> str:
    return run.resolve().name


def _names(runs: Iterable[Path]) -> list[str]:
    """As much of each path, from its end, as tells the runs apart."""
    parts = [run.resolve().parts for run in runs]
    if len(set(parts)) < len(parts):
        raise CurateError("expected runs that differ, found one of them twice")
    size = 1
    while len({path[-size:] for path in parts}) < len(parts):
        size += 1
    return ["/".join(path[-size:]) for path in parts]


def _save(figure: "Figure", out: Path) -> Path:
    try:
        figure.savefig(out, format="png")
    except OSError as error:
        raise CurateError(f"{out}: expected to write a picture there, found {error}") from None
    return out
