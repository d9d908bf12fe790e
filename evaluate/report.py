"""The report: one offline HTML page of one or several evaluations, completions to read in it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from curate.answers import STATUSES
from curate.errors import CurateError
from curate.evaluate.evaluation import read_record
from curate.evaluate.reportrows import ToRead, to_read
from curate.evaluate.reporttable import (
    Evaluated,
    results_table,
    settings,
    tasks_of,
    warnings_list,
    warnings_of,
)
from curate.evaluate.results import results
from curate.page import asset, check_place, escaped, packed, page, write_page
from curate.terminal import printable

KEY = """<p class="quiet key">avg@<i>k</i> is correct / all samples; its interval is clustered by
problem. Lenient also counts answers out of no box, or before a cut. pass@<i>k</i>: one of
<i>k</i> is correct; maj@<i>k</i>: the answer that most of them give is, ties averaged.
Truncated: the limit of new tokens came before an answer.</p>
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """Completions of a model, task and status, all and those on the page."""

    model: str
    task: str
    status: str
    completions: int
    shown: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a page shows; `cut` are completions on it of which a part is left out."""

    page: str
    bytes: int
    completions: int
    shown: int
    cut: int
    left_out: list[Counted]
    warnings: list[str]
    evaluations: list[Evaluated]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON would hold it."""
        told = {
            name: getattr(self, name) for name in ("page", "bytes", "completions", "shown", "cut")
        }
        return {
            **told,
            "left_out": [asdict(one) for one in self.left_out],
            "warnings": self.warnings,
            "models": {
                each.label: {one.task: asdict(one) for one in each.results}
                for each in self.evaluations
            },
        }

    def line(self) -> str:
        """What was written, in a line."""
        return (
            f"{self.page}: {self.bytes / 1e6:,.1f} MB, models: {len(self.evaluations)}, "
            f"tasks: {len(tasks_of(self.evaluations))}, "
            f"completions: {self.shown:,} of {self.completions:,}"
        )

    def notes(self) -> list[str]:
        """What the page warns of, and what it leaves out."""
        notes = [f"warning: {warning}" for warning in self.warnings]
        notes += [
            f"note: {one.task}, {one.model}: {one.shown:,} of {one.completions:,} completions that "
            f"are {one.status} are on the page (--completions)"
            for one in self.left_out
        ]
        if self.cut:
            notes.append(f"note: {self.cut:,} completions are cut on the page (--characters)")
        return notes


def write_report(outs: Sequence[Path], place: Path, *, completions: int, characters: int) -> Report:
    """
    Write the page of graded evaluations, at most so many completions of each status of each task.

    The same folders give the same bytes. Raises OutputError for a folder that is not graded, or
    for a place that holds something else than such a page.
    """
    check_place(place)
    evaluations = _evaluations(outs)
    texts = [
        {one.task: to_read(out, one.task, completions, characters) for one in each.results}
        for out, each in zip(outs, evaluations, strict=True)
    ]
    report = _counted(place, evaluations, texts)
    limits = f"at most {completions:,} of each model, task, status and lenient status"
    cuts = f"of a text of more than {characters:,} characters the middle"
    return replace(report, bytes=write_page(place, _page(report, texts, limits, cuts)))


def _evaluations(outs: Sequence[Path]) -> list[Evaluated]:
    folders = _folders(outs)
    records = [read_record(out) for out in outs]
    labels = _labels([record["model"] for record in records], folders)
    return [
        Evaluated(printable(label), folder, record, results(out))
        for label, folder, record, out in zip(labels, folders, records, outs, strict=True)
    ]


def _labels(models: Sequence[str | None], folders: Sequence[str]) -> list[str]:
    """What models are called on the page, the folder said too where several are the same."""
    names = [
        PurePosixPath(model or folder).parts for model, folder in zip(models, folders, strict=True)
    ]
    distinct = [*dict.fromkeys(names)]
    ends = dict(zip(distinct, _ends(distinct), strict=True))
    return [
        ends[name] if names.count(name) == 1 else f"{ends[name]} ({folder})"
        for name, folder in zip(names, folders, strict=True)
    ]


def _folders(outs: Sequence[Path]) -> list[str]:
    parts = [out.resolve().parts for out in outs]
    for out, own in zip(outs, parts, strict=True):
        if parts.count(own) > 1:
            raise CurateError(f"{out}: expected each evaluation once, found it twice")
    return _ends(parts)


def _ends(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """As much of the end of each path, all of them different, as tells it from the others."""
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-length:]) for path in paths]
        if len({*names}) == len(names):
            break
    return names


def _counted(
    place: Path, evaluations: list[Evaluated], texts: Sequence[Mapping[str, ToRead]]
) -> Report:
    pairs = [
        (each.label, task, read)
        for each, tasks in zip(evaluations, texts, strict=True)
        for task, read in tasks.items()
    ]
    counts = [
        Counted(label, task, status, read.counts[status], read.shown.get(status, 0))
        for label, task, read in pairs
        for status in STATUSES
        if status in read.counts
    ]
    return Report(
        page=str(place),
        bytes=0,
        completions=sum(one.completions for one in counts),
        shown=sum(one.shown for one in counts),
        cut=sum(read.cut for _, _, read in pairs),
        left_out=[one for one in counts if one.shown < one.completions],
        warnings=warnings_of(evaluations),
        evaluations=evaluations,
    )


def _page(report: Report, texts: Sequence[Mapping[str, ToRead]], limits: str, cuts: str) -> str:
    evaluations = report.evaluations
    models = ", ".join(each.label for each in evaluations)
    size = f"models: {len(evaluations):,}, completions: {report.completions:,}"
    body = (
        f'<header><h1>Evaluation</h1>\n<p class="quiet">{size}</p></header>\n<main>\n'
        f"<section>\n<h2>Results</h2>\n{results_table(evaluations)}"
        f"{KEY}{warnings_list(report.warnings)}</section>\n"
        '<section class="settings">\n<h2>Models and settings</h2>\n'
        f"{settings(evaluations)}</section>\n"
        f'<section id="completions">\n<h2>Completions</h2>\n{_account(report, limits, cuts)}'
        f"{asset('curate.evaluate', 'report.html')}</section>\n</main>\n"
    )
    return page(
        f"Evaluation: {models}",
        body,
        styles=[asset("curate.evaluate", "report.css")],
        scripts=[asset("curate.evaluate", name) for name in ("reportone.js", "report.js")],
        data=_data(evaluations, texts),
    )


def _data(
    evaluations: Sequence[Evaluated], texts: Sequence[Mapping[str, ToRead]]
) -> dict[str, str]:
    """A block for each task of each model, and one that says what they are."""
    blocks: list[dict[str, str]] = []
    data = {}
    for each, tasks in zip(evaluations, texts, strict=True):
        for task, read in tasks.items():
            name = f"block-{len(blocks)}"
            blocks.append({"id": name, "model": each.label, "task": task})
            data[name] = packed({"problems": read.problems, "rows": read.rows})
    titles = {
        task: each.record["tasks"][task]["title"]
        for each in evaluations
        for task in tasks_of([each])
    }
    told = {
        "blocks": blocks,
        "models": [each.label for each in evaluations],
        "tasks": {task: titles[task] for task in tasks_of(evaluations)},
        "statuses": STATUSES,
    }
    return {"contents": packed(told), **data}


def _account(report: Report, limits: str, cuts: str) -> str:
    """How much of what there is can be read on the page, and what is left out."""
    lines = [f"{report.shown:,} of {report.completions:,} completions are on this page."]
    if report.cut:
        lines.append(f"{report.cut:,} of these are cut: {cuts} is left out, as is said there.")
    if report.left_out:
        lines.append(f"The page holds {limits}, drawn by a hash of task, id and sample.")
    rows = "".join(
        f"<li>{escaped(one.model)}, {escaped(one.task)}, {one.status}: "
        f"{one.shown:,} of {one.completions:,}</li>\n"
        for one in report.left_out
    )
    listed = (
        f"<details>\n<summary>What is left out</summary>\n<ul>\n{rows}</ul>\n</details>\n"
        if rows
        else ""
    )
    return f'<p class="quiet">{" ".join(lines)}</p>\n{listed}'
