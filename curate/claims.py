"""What may be claimed of a dataset, and which controls are missing, for its card."""

from collections.abc import Iterator

from curate.distributions import Counts
from curate.expression import roots
from curate.manifest import Manifest
from curate.markdown import cell, code, items, percent, table
from curate.summary import BETWEEN_WARNING, Cut

PATTERNS, CONDITIONS = "arXiv 2604.01702", "arXiv 2604.06628"

Control = tuple[str, str, str, str]
"""A control, whether the rule covers it, what it tells apart, and where that comes from."""


def claims(manifest: Manifest, cut: Cut) -> str:
    """What the rule alone supports, what else it cut by, and what is missing to say more."""
    header = ("control", "here", "what it tells apart", "after")
    return "\n\n".join(
        [
            "No training run is recorded here: nothing on this page says that a model trained on "
            "these rows is better or worse.",
            "The rule alone supports one comparison: these rows with all rows of the same corpus "
            "that could be read, as in the tables above. Whatever was cut by branching was also "
            "cut by length, by topic and by teacher; by how much, as measured:",
            items([*_length(cut), _topic(manifest, cut), _teachers(manifest, cut)]),
            "Controls, each a dataset or a run of its own unless the rule covers it:",
            _plain_table(header, _controls(manifest)),
        ]
    )


def _length(cut: Cut) -> Iterator[str]:
    """Length of what was kept and dropped."""
    for name in ("bytes", "steps"):
        one = cut.distributions.get(name)
        if one is None or not one.all.rows:
            continue
        dropped = one.all.without(one.kept)
        yield (
            f"length: the median of `{name}` is {_median(one.kept)} of kept rows and "
            f"{_median(dropped)} of dropped ones"
        )
    if shares := _ends(cut):
        yield f"length: {shares}"


def _median(counts: Counts) -> str:
    return f"{counts.quantile(50):,.0f}" if counts.rows else "unknown (there are none)"


def _ends(cut: Cut) -> str:
    """The share kept of the shortest and of the longest rows."""
    one = cut.distributions.get("bytes")
    if one is None or not one.all.rows:
        return ""
    edges = [one.all.bin_at(percent) for percent in (25, 75)]
    short, long = slice(None, edges[0] + 1), slice(edges[1] + 1, None)
    parts = []
    for what, part in (("shortest", short), ("longest", long)):
        rows, kept = int(one.all.bins[part].sum()), int(one.kept.bins[part].sum())
        if rows:
            parts.append(f"{percent(kept / rows)} of the {rows:,} {what} rows were kept")
    return ", ".join(parts) + " (about a quarter each, by `bytes`)"


def _topic(manifest: Manifest, cut: Cut) -> str:
    """How much of the feature lies between problems."""
    if cut.between is None:
        return "topic: not measured, as no column of problems was given (`--problem`)"
    shares = cut.between.shares()
    if shares is None:
        return "topic: not measured, as no problem has two traces that differ"
    raw, corrected = shares
    told = f"topic: {percent(corrected)} of the variance of {code(cut.between.feature)}"
    warning = "; a cut by it is likely one by topic" if corrected > BETWEEN_WARNING else ""
    return (
        f"{told} lies between problems (intraclass correlation; {percent(raw)} before the "
        f"correction for chance){warning}"
    )


def _teachers(manifest: Manifest, cut: Cut) -> str:
    """The teachers of whom the least and the most was kept."""
    group = next((one for one in cut.groups if one.column == "teacher"), None)
    counted = None if group is None else group.table()
    if group is None:
        return "teacher: not measured, as no column of teachers was given (`--teacher`)"
    if counted is None:
        return "teacher: not measured, as there are too many teachers"
    if not counted.height:
        return "teacher: there are no rows"
    ordered = counted.sort("cut", "value", descending=[True, False]).rows()
    least, most = (f"{percent(1 - row[3])} of {cell(row[0])}" for row in (ordered[0], ordered[-1]))
    if counted.height == 1:
        return f"teacher: {least}, the only one, was kept"
    return f"teacher: from {least} to {most} was kept, of {counted.height:,} teachers"


def _controls(manifest: Manifest) -> list[Control]:
    problem, teacher = (_within(manifest, name) for name in ("problem", "teacher"))
    return [
        ("random drop of the same size", "missing", "what was dropped from that less is left",
         f"{PATTERNS} (its filter drops a tenth)"),
        ("drop matched in length", "missing", "branching from length",
         f"{PATTERNS} (length as a control)"),
        ("within the problem", problem, "branching from topic and difficulty",
         f"{PATTERNS} (the same problems on both sides)"),
        ("within the teacher", teacher, "branching from a teacher's style",
         f"{PATTERNS} (two teachers)"),
        ("only correct traces on both sides", _correct(manifest), "branching from being wrong",
         f"{PATTERNS} (verified traces), {CONDITIONS} (data quality)"),
        ("equal optimizer steps", "missing", "better data from a shorter run",
         f"{PATTERNS} (steps as a control), {CONDITIONS} (length of training)"),
        ("several checkpoints", "missing", "worse from not yet recovered",
         f"{CONDITIONS} (length of training: scores dip, then recover)"),
        ("several base models", "missing", "the data from the model's capability",
         f"{CONDITIONS} (base model)"),
        ("several seeds", "missing", "a difference from chance",
         f"{CONDITIONS} (schedules alone move scores by points)"),
    ]  # fmt: skip


def _within(manifest: Manifest, name: str) -> str:
    """Whether rows were only cut against those of the same problem or teacher."""
    if name not in manifest["rule"]["within"]:
        return "missing"
    rejected = manifest["counts"]["rejected"]
    ranked = sum(rejected.get(reason, 0) for reason in ("drop_top", "best_of"))
    others = sum(rejected.values()) - ranked
    if others:
        return (
            f"covered for the {ranked:,} rows cut by rank, by `--within {name}`; not for the "
            f"{others:,} rejected otherwise"
        )
    return f"covered by `--within {name}`"


def _correct(manifest: Manifest) -> str:
    rule = manifest["rule"]
    if rule["only_correct"]:
        return "covered for the kept rows, by `--best-of`; drop from correct rows to compare"
    if rule["keep"] is not None and {"correct", "grade"} & {*roots(rule["keep"])}:
        return "as far as `--keep` asks for it; the rows compared with must be asked the same"
    return "missing"


def _plain_table(header: tuple[str, ...], rows: list[Control]) -> str:
    return table(header, rows).replace("---:", "---")
