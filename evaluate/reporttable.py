"""The results of evaluations as HTML: a table of tasks and models, warnings, settings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from curate.evaluate.evaluation import Record
from curate.evaluate.results import TaskResult
from curate.page import escaped

NOTHING = "–"

SHARES = ("wrong", "no_answer", "truncated", "parse_error", "timed_out")

COLUMNS = 14

HEAD = """<thead>
<tr><th rowspan="2" class="text" scope="col">Model</th>
<th rowspan="2" scope="col">Problems ×<br>samples (<i>k</i>)</th>
<th colspan="6" class="group" scope="colgroup">Accuracy, %</th>
<th colspan="5" class="group" scope="colgroup">Share of completions, %</th>
<th rowspan="2" scope="col">Mean<br>tokens</th></tr>
<tr><th scope="col">avg@<i>k</i></th><th scope="col">95 % interval</th>
<th scope="col" class="bar"><span>0</span><span>100</span></th>
<th scope="col">lenient</th><th scope="col">pass@<i>k</i></th><th scope="col">maj@<i>k</i></th>
"""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation on a page: its name there, the folder's own name, its record and results."""

    label: str
    folder: str
    record: Record
    results: list[TaskResult]


def tasks_of(evaluations: Sequence[Evaluated]) -> list[str]:
    """The tasks of any, in the order in which they are first met."""
    return list(dict.fromkeys(one.task for each in evaluations for one in each.results))


def results_table(evaluations: Sequence[Evaluated]) -> str:
    """The table: a group of rows for each task, in it a row for each model that has it."""
    bodies = [_group(evaluations, task) for task in tasks_of(evaluations)]
    heads = "".join(f'<th scope="col">{name.replace("_", " ")}</th>' for name in SHARES)
    return (
        '<div class="wide" role="region" aria-label="Results" tabindex="0">\n'
        '<table class="results">\n'
        f"{HEAD}{heads}</tr>\n</thead>\n{''.join(bodies)}</table>\n</div>\n"
    )


def _group(evaluations: Sequence[Evaluated], task: str) -> str:
    """A row that names a task and what all its models were asked alike, and a row for each."""
    having = [each for each in evaluations if task in each.record["tasks"]]
    title = having[0].record["tasks"][task]["title"]
    told = "; ".join(f"{name} {_said(value)}" for name, value in _alike(having, task).items())
    head = f'<th scope="rowgroup" class="text" colspan="{COLUMNS}"><b>{escaped(title)}</b>'
    lines = [
        _line(each, result) for each in having for result in each.results if result.task == task
    ]
    asked = f"<small>{escaped(told)}</small></th></tr>"
    return f'<tbody>\n<tr class="task">{head} {asked}\n{"".join(lines)}</tbody>\n'


def _alike(having: Sequence[Evaluated], task: str) -> dict[str, Any]:
    """The sampling of a task as far as it is the same for all models that have it."""
    first, *others = (each.record["tasks"][task]["sampling"] for each in having)
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }


def _line(each: Evaluated, result: TaskResult) -> str:
    cells = [
        _size(result),
        f"<b>{_linked(each, result, 'correct', result.accuracy)}</b>",
        " to ".join(map(_percent, result.interval)),
        _bar(result.accuracy, result.interval),
        _percent(result.lenient),
        _percent(result.pass_at.get(result.samples)),
        _percent(result.majority),
        *(_linked(each, result, status, result.statuses[status]) for status in SHARES),
        NOTHING if result.mean_tokens is None else f"{result.mean_tokens:,.0f}",
    ]
    told = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{escaped(each.label)}</th>{told}</tr>\n'


def _size(result: TaskResult) -> str:
    size = f"{result.problems:,} × {result.samples:,}"
    if result.clusters == result.problems:
        return size
    return f"{size}<br><small>in {result.clusters:,} clusters</small>"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f}"


def _linked(each: Evaluated, result: TaskResult, status: str, share: float) -> str:
    """A share that leads to its completions."""
    if not share:
        return f'<span class="quiet">{_percent(share)}</span>'
    view = urlencode({"task": result.task, "model": each.label, "status": status})
    return f'<a href="#{escaped(view)}">{_percent(share)}</a>'


def _bar(value: float, interval: tuple[float, float]) -> str:
    """An axis from 0 to 100 %, the interval on it, and the value."""
    low, high = (100 * end for end in interval)
    return (
        '<svg class="interval" viewBox="0 0 100 10" width="100" height="10" aria-hidden="true">'
        '<line class="axis" x1="0" x2="100" y1="5" y2="5"/>'
        f'<rect class="range" x="{low:.1f}" y="3" width="{high - low:.1f}" height="4"/>'
        f'<circle class="value" cx="{100 * value:.1f}" cy="5" r="3"/></svg>'
    )


def warnings_of(evaluations: Sequence[Evaluated]) -> list[str]:
    """What to know of each model and its tasks, and where models were asked otherwise."""
    asked = [f"{each.label}: {note}" for each in evaluations for note in each.record["notes"]]
    told = [
        f"{one.task}, {each.label}: {warning}"
        for each in evaluations
        for one in each.results
        for warning in one.warnings
    ]
    notes = [
        f"{task}, {each.label}: {note}"
        for each in evaluations
        for task, about in each.record["tasks"].items()
        for note in about["notes"]
    ]
    return [*asked, *told, *notes, *_differences(evaluations)]


def _differences(evaluations: Sequence[Evaluated]) -> Iterator[str]:
    """Of each task, what models were asked under other settings than the first that has it."""
    for task in tasks_of(evaluations):
        having = {
            e.label: e.record["tasks"][task] for e in evaluations if task in e.record["tasks"]
        }
        asked = {label: _asked(about) for label, about in having.items()}
        for name in dict.fromkeys(name for one in asked.values() for name in one):
            values = {label: one.get(name) for label, one in asked.items()}
            if len({json.dumps(value) for value in values.values()}) > 1:
                each = ", ".join(f"{label} {json.dumps(value)}" for label, value in values.items())
                yield f"{task}: models differ in {name}: {each}"


def _asked(about: Record) -> dict[str, Any]:
    """What makes two models' numbers of a task comparable; seeds may differ."""
    sampling = {name: value for name, value in about["sampling"].items() if name != "seed"}
    return {"problems": about["problems"], "samples": about["samples"], **sampling}


def warnings_list(warnings: Sequence[str]) -> str:
    """The warnings as a list; nothing where there are none."""
    if not warnings:
        return ""
    title = "<h3>Warnings</h3>"
    items = "".join(f"<li>{escaped(one)}</li>\n" for one in warnings)
    return f'<section class="warnings">\n{title}\n<ul>\n{items}</ul>\n</section>\n'


def settings(evaluations: Sequence[Evaluated]) -> str:
    """Of each model what it is and under what settings it was asked, folded."""
    return "".join(_settings(each) for each in evaluations)


def _settings(each: Evaluated) -> str:
    record = each.record
    told = {
        "model": record["model"],
        "folder": each.folder,
        "source": record["source"],
        **_flat(record["settings"]),
        **{f"version of {name}": version for name, version in record["versions"].items()},
    }
    tasks = "".join(_task(name, about) for name, about in record["tasks"].items())
    rows = "".join(
        f"<dt>{escaped(name)}</dt><dd>{escaped(_said(value))}</dd>\n"
        for name, value in told.items()
    )
    summary = f"<summary>{escaped(each.label)}</summary>"
    return f"<details>\n{summary}\n<dl>\n{rows}{tasks}</dl>\n</details>\n"


def _task(name: str, about: Record) -> str:
    asked = {"scorer": about["scorer"], **_flat(about["sampling"])}
    told = "; ".join(f"{key} {_said(value)}" for key, value in asked.items())
    return f"<dt>{escaped(name)}</dt><dd>{escaped(told)}</dd>\n"


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings in settings by their whole names, with dots."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{above}{name}.") if inner else {f"{above}{name}": value}
    return flat


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
