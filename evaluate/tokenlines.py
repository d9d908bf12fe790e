"""The token view as tables for a terminal."""

from collections.abc import Iterable, Sequence

from curate.evaluate.gaps import Estimate
from curate.evaluate.tokenview import Gap, Section, TeacherTokens, TokenView
from curate.terminal import printable

DASH = "–"


def lines(view: TokenView) -> list[str]:
    """What stands in each table is said once, above or beneath it."""
    out = [f"token view, NLL and entropy in nats; easy: NLL below {view.easy_below:g}"]
    for section in view.sections:
        out += ["", *_section(section)]
    if any(section.gaps for section in view.sections):
        how = f"samples (not problems) drawn {view.draws:,} times, cuts held fixed"
        out += ["", f"[]: 95 % intervals, {how}"]
    return [printable(line) for line in out]


def _section(section: Section) -> list[str]:
    against = "" if section.base is None else f", base {section.base}"
    out = [f"{section.name}: model {section.model}{against}", *_means(section)]
    out += ["", "NLL at quantiles, and its mean by kind of token", *_spread(section.teachers)]
    if section.base is None:
        return [
            *out,
            *_gaps(section.gaps),
            "",
            "hardest tokens and splits of gaps are not told: they go by the base model's scores, "
            "and --base is missing",
        ]
    return [*out, "", *_hardest(section), *_gaps(section.gaps)]


def _means(section: Section) -> list[str]:
    header = ["teacher", "samples", "tokens", "mean NLL", "entropy", "easy", "easy at base"]
    header += ["rank 0", "mean rank"]
    rows = [
        [
            *(one.teacher, f"{one.samples:,}", f"{one.tokens:,}"),
            *(_number(one.mean_nll), _number(one.mean_entropy)),
            *(_percent(one.easy), _percent(one.easy_base)),
            *(_percent(one.rank_0), _number(one.mean_rank)),
        ]
        for one in section.teachers
    ]
    return _table(header, rows)


def _spread(teachers: Sequence[TeacherTokens]) -> list[str]:
    shares = list(dict.fromkeys(share for one in teachers for share in one.quantiles))
    kinds = list(dict.fromkeys(kind for one in teachers for kind in one.kinds))
    rows = [
        [
            one.teacher,
            *(_number(one.quantiles.get(share)) for share in shares),
            *(_number(one.kinds[kind].mean_nll) for kind in kinds),
        ]
        for one in teachers
    ]
    return _table(["teacher", *shares, *kinds], rows)


def _hardest(section: Section) -> list[str]:
    cuts = ", ".join(f"{percent} %: {_number(cut)}" for percent, cut in section.cuts.items())
    header = ["teacher"]
    for percent in section.cuts:
        header += [f"{percent} %: share", "mean NLL"]
    rows = []
    for one in section.teachers:
        row = [one.teacher]
        for hard in one.hardest.values():
            row += [_percent(hard.share), _number(hard.mean_nll)]
        rows.append(row)
    return [
        f"hardest tokens: base entropy above a cut pooled over teachers ({cuts}); ties with a cut "
        "are out",
        *_table(header, rows),
    ]


def _gaps(gaps: Sequence[Gap]) -> list[str]:
    if not gaps:
        return []
    rows = []
    for gap in gaps:
        rows.append([f"{gap.a} - {gap.b}", "all tokens", _estimate(gap.gap), "", ""])
        for name, parts in gap.splits.items():
            by = {"entropy": "tenths of base entropy", "easy": "easy at base or not"}[name]
            told = [_estimate(parts.composition), _estimate(parts.within)]
            rows.append(["", by, "", *told])
    header = ["gap in mean NLL", "groups", "gap", "composition", "within groups"]
    if not any(gap.splits for gap in gaps):
        header, rows = [header[0], header[2]], [[row[0], row[2]] for row in rows]
    return ["", *_table(header, rows)]


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3g}" if 0 < abs(value) < 0.01 else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


def _estimate(one: Estimate) -> str:
    if one.low is None or one.high is None:
        return f"{one.value:+.4f}"
    return f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as they must be, words to the left, the rest to the right."""
    table = [header, *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    words = {at for at, name in enumerate(header) if name in ("teacher", "groups") or at == 0}
    return [
        "  ".join(
            cell.ljust(width) if at in words else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
