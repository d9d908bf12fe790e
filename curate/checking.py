"""
Whether trainers would load a dataset, and what they would leave of it.

Footers say which files, columns and row groups break a loader. Rows are then read
(`curate.conversations`), and their lengths held against the limits that trainers have by default.
Only what would break loading, or train on something else than the rows say, is a problem.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from curate.conversations import EMPTY, NULL, ORDER, ROLE, SILENT, TAGGED, check_group
from curate.corpus import Shard
from curate.errors import CurateError, ShardError
from curate.rawfooter import UNREADABLE, RawFooter, first_line, read_footer
from curate.tokens import TokenCounter, load_tokenizer
from curate.trainers import COLUMNS, FIELDS, RESERVED, ROLES, TRAINERS, Trainer, misreaders

NESTED_BYTES = (1 << 31) - 1
"""Text of a nested column in a row group: above it, only readers by the batch can read it."""

VIEWER_BYTES = 286 << 20
"""A row group uncompressed: above it, the Hub's viewer shows nothing."""

TRAIN_FILE = re.compile(r"train-(\d{5})-of-(\d{5})\.parquet$")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, where, and whom it breaks."""

    place: str
    what: str
    breaks: str


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a row's text, the chat template's own not counted."""

    estimated: bool
    min: int
    median: int
    p95: int
    max: int


@dataclass(frozen=True, slots=True)
class Overlong:
    """
    Rows of more tokens than a trainer's limit, and the share of all tokens that would be lost.

    Of a row that is cut the tokens behind the limit are lost, of one that is dropped all of them;
    a trainer that refuses takes no row, so there the share is that of the rows it refuses.
    """

    trainer: str
    option: str
    limit: int
    beyond: str
    rows: int
    lost: float


@dataclass(slots=True)
class Checked:
    """What was found in a dataset; `tagged` counts rows with a thought's tags more than once."""

    format: str
    files: int = 0
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tagged: int = 0
    lengths: Lengths | None = None
    overlong: list[Overlong] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _File:
    """A Parquet file of the dataset, its footer, and its schema as Arrow has it."""

    path: Path
    footer: RawFooter
    schema: pa.Schema


def check(
    folder: str | Path, tokenizer: str | None, limits: Mapping[str, int] | None, threads: int
) -> Checked:
    """
    Check the Parquet files of a dataset: a file, or a folder, of which `data/` if it has one.

    `tokenizer` is a name or a path, None for an estimate from bytes; `limits` are further limits in
    tokens, by the trainer's name. Raises CurateError where there is no Parquet file that can be
    read, or none of the formats in it. Costs a reading of the columns with messages, a few rows at
    a time for each thread.
    """
    place = Path(folder)
    counter = None if tokenizer is None else load_tokenizer(tokenizer)
    paths = _parquet_files(place)
    problems = list(_strangers(place, paths))
    files = list(_open(paths, problems))
    if not files:
        raise CurateError(f"{problems[0].place}: {problems[0].what}")
    found = Checked(_format(files[0]), files=len(files), problems=problems)
    found.rows = sum(group.rows for file in files for group in file.footer.groups)
    _check_footers(files, found)
    _check_rows(files, found, counter, limits or {}, threads)
    return found


def _parquet_files(place: Path) -> list[Path]:
    """The training files of a folder: those named so if there are any, else all Parquet files."""
    if place.is_file():
        return [place]
    inside = place / "data" if (place / "data").is_dir() else place
    found = sorted(inside.glob("*.parquet")) if inside.is_dir() else []
    paths = [path for path in found if path.name.startswith("train-")] or found
    if not paths:
        raise CurateError(f"{inside}: expected .parquet files of a dataset, found none")
    return paths


def _strangers(place: Path, paths: Sequence[Path]) -> Iterator[Problem]:
    """What stands in `data/` beside the training files, and which of these are not there."""
    if paths[0].parent != place / "data":
        return
    for path in sorted(paths[0].parent.iterdir()):
        if path in paths:
            continue
        what = "not a Parquet file named train-*, as all in `data/` should be"
        if path.suffix == ".parquet":
            yield Problem(str(path), what, "LLaMA-Factory, which trains on it")
        elif path.name.startswith("train-"):
            yield Problem(str(path), what, "load_dataset, LLaMA-Factory")
        else:
            yield Problem(str(path), what, "LLaMA-Factory")
    numbered = [match for path in paths if (match := TRAIN_FILE.match(path.name))]
    totals = sorted({int(match[2]) for match in numbered})
    expected = [(n, totals[0]) for n in range(totals[0])] if len(totals) == 1 else []
    if numbered and [(int(match[1]), int(match[2])) for match in numbered] != expected:
        said = " and ".join(f"{total:,}" for total in totals)
        what = f"expected {said} files by their names, found {len(numbered):,}"
        yield Problem(str(paths[0].parent), what, "every trainer: rows are missing without a word")


def _open(paths: Iterable[Path], problems: list[Problem]) -> Iterator[_File]:
    for path in paths:
        shard = Shard(path.name, str(path), str(path), path.stat().st_size, pafs.LocalFileSystem())
        try:
            footer = read_footer(shard)
            schema = footer.metadata.schema.to_arrow_schema()
            if len(set(schema.names)) < len(schema.names):
                raise ShardError(f"{path}: two columns have the same name")
            yield _File(path, footer, schema)
        except (ShardError, *UNREADABLE) as error:
            what = first_line(error).removeprefix(f"{path}: ")
            problems.append(Problem(str(path), what, "every trainer"))


def _format(file: _File) -> str:
    """The format of a file: the first whose columns it has as they should be, or has at all."""
    names = set(file.schema.names)
    having = [format for format in FIELDS if names.issuperset(COLUMNS[format])]
    if not having:
        expected = "; ".join(" and ".join(f"`{c}`" for c in COLUMNS[format]) for format in FIELDS)
        raise CurateError(
            f"{file.path}: expected the columns of a format: {expected}; found "
            f"{', '.join(file.schema.names)}"
        )
    return next((format for format in having if not _mistyped(file.schema, format)), having[0])


def _mistyped(schema: pa.Schema, format: str) -> str | None:
    """What is wrong with the columns of a format, None if nothing is."""
    fields = FIELDS[format]
    for name in COLUMNS[format]:
        if name not in schema.names:
            return f"no column `{name}`"
        kind = _plain(schema.field(name).type)
        inside = kind.value_type if pa.types.is_list(kind) else pa.null()
        held = {f.name: f.type for f in inside} if pa.types.is_struct(inside) else {}
        if any(held.get(each) != pa.string() for each in fields):
            return f"`{name}` is {kind}, expected a list of structs of strings {fields}"
    return None


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type without what loaders see no difference in: large types, the order of fields."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct(sorted(((f.name, _plain(f.type)) for f in kind), key=lambda f: f[0]))
    return kind


def _check_footers(files: Sequence[_File], found: Checked) -> None:
    """What footers tell: schemas that differ, names that collide, row groups that do not load."""
    first = files[0]
    loaders = ", ".join(trainer.name for trainer in _loaders(found.format))
    others = ", ".join(t.name for t in TRAINERS if found.format not in t.loads)
    if others:
        found.notes.append(f"{others}: do not load the format {found.format}")
    beside = [name for name in first.schema.names if name not in COLUMNS[found.format]]
    for name in beside:
        if by := misreaders(name, found.format):
            why = f"reserved: {RESERVED[name].why}"
            found.problems.append(Problem(f"column `{name}`", why, ", ".join(by)))
    for file in files:
        wrong = _mistyped(file.schema, found.format)
        if wrong is not None:
            found.problems.append(Problem(str(file.path), wrong, loaders))
        for what in _differences(first.schema, file.schema):
            what += f" in {first.path.name}"
            found.problems.append(Problem(str(file.path), what, "load_dataset"))
        _check_groups(file, found)
    for column in first.schema:
        if _has_null_type(column.type):
            found.notes.append(f"column `{column.name}`: all null, typed {column.type}")


def _differences(first: pa.Schema, other: pa.Schema) -> Iterator[str]:
    for name in sorted(set(first.names) ^ set(other.names)):
        yield f"column `{name}` is " + ("missing, it is" if name in first.names else "not")
    for name in first.names:
        if name in other.names:
            expected, kind = _plain(first.field(name).type), _plain(other.field(name).type)
            if kind != expected:
                yield f"column `{name}` is {kind}, it is {expected}"


def _has_null_type(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind) or any(
        _has_null_type(kind.field(n).type) for n in range(kind.num_fields)
    )


def _check_groups(file: _File, found: Checked) -> None:
    flat = {column.name for column in file.schema if not column.type.num_fields}
    for number, group in enumerate(file.footer.groups):
        place = f"{file.path}: row group {number}"
        if group.rows == 0:  # it reads as many rows at a time as the first group that it is given
            breaks = "load_dataset, streaming row groups apart" if number else "load_dataset"
            found.problems.append(Problem(place, "it has no rows", breaks))
        nested = [chunk for chunk in group.chunks if chunk.path not in flat]
        if max((chunk.decoded for chunk in nested), default=0) > NESTED_BYTES:
            what = f"a nested column of over {NESTED_BYTES:,} bytes"
            found.problems.append(Problem(place, what, "load_dataset, pandas, verl"))
        if group.all_bytes > VIEWER_BYTES:
            size = group.all_bytes >> 20
            found.notes.append(
                f"{place}: {size:,} MiB, the Hub's viewer takes {VIEWER_BYTES >> 20}"
            )


def _loaders(format: str) -> list[Trainer]:
    return [trainer for trainer in TRAINERS if format in trainer.loads]


def _check_rows(
    files: Sequence[_File],
    found: Checked,
    counter: TokenCounter | None,
    limits: Mapping[str, int],
    threads: int,
) -> None:
    """What the rows themselves tell."""
    readable = [file for file in files if _mistyped(file.schema, found.format) is None]
    groups = [group for file in readable for group in _groups(file)]
    wrong: dict[str, tuple[int, str]] = {}
    strangers: set[str] = set()
    tokens = []
    with ThreadPoolExecutor(threads) as pool:
        each = pool.map(partial(check_group, format=found.format, counter=counter), groups)
        for (path, _, _), rows in zip(groups, each, strict=True):
            tokens.append(rows.tokens)
            strangers |= rows.strangers
            for what, (count, row) in rows.wrong.items():
                before, place = wrong.get(what, (0, f"{path}: row {row:,}"))
                wrong[what] = before + count, place
            if rows.error is not None:
                found.problems.append(Problem(str(path), rows.error, "every trainer"))
    found.tagged = wrong.pop(TAGGED, (0, ""))[0]
    found.problems += _row_problems(wrong, strangers, found.format)
    lengths = np.concatenate(tokens) if tokens else np.zeros(0, np.int64)
    if len(lengths):
        found.lengths = _lengths(lengths, estimated=counter is None)
        found.overlong = list(_overlong(lengths, found.format, limits))


def _groups(file: _File) -> Iterator[tuple[Path, int, int]]:
    """The row groups of a file as `check_group` is given them."""
    row = 0
    for number, group in enumerate(file.footer.groups):
        yield file.path, number, row
        row += group.rows


def _row_problems(
    wrong: Mapping[str, tuple[int, str]], strangers: Iterable[str], format: str
) -> Iterator[Problem]:
    every = ", ".join(trainer.name for trainer in _loaders(format))
    system, user, assistant = ROLES[format]
    names = ", ".join(repr(name) for name in sorted(strangers)[:5])
    order = {
        "prompt-completion": f"a prompt that ends with `{user}` and a completion by `{assistant}`",
    }.get(format, f"`{user}` and `{assistant}` in turn, and as many")
    told = {
        EMPTY: ("have no messages", every),
        NULL: ("have a message without its text or without who speaks", every),
        ROLE: (f"have roles other than {system}, {user}, {assistant}, such as {names}", every),
        ORDER: (
            f"are not {order}, after the {system}'s message if there is one",
            "TRL" if format == "prompt-completion" else "LLaMA-Factory, which drops them",
        ),
        SILENT: (f"have an empty message of the {assistant}", every),
    }
    for what, (line, breaks) in told.items():
        if what in wrong:
            count, place = wrong[what]
            yield Problem(place, f"the first of {count:,} rows that {line}", breaks)


def _lengths(tokens: np.ndarray, *, estimated: bool) -> Lengths:
    told = np.quantile(tokens, [0, 0.5, 0.95, 1], method="inverted_cdf")
    return Lengths(estimated, *map(int, told))


def _overlong(tokens: np.ndarray, format: str, limits: Mapping[str, int]) -> Iterator[Overlong]:
    """What each trainer would do at its default limit, and at another that is asked for."""
    for trainer in _loaders(format):
        for limit in dict.fromkeys([trainer.limit, limits.get(trainer.name, trainer.limit)]):
            longer = tokens[tokens > limit]
            kept = limit * len(longer) if trainer.beyond == "cut" else 0
            lost = (int(longer.sum()) - kept) / max(1, int(tokens.sum()))
            yield Overlong(trainer.name, trainer.option, limit, trainer.beyond, len(longer), lost)
