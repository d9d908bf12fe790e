"""The files and columns of a training set: which are read, and whether they can hold samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from curate.errors import CurateError, SchemaError
from curate.layout import THINK
from curate.manifest import Manifest
from curate.nesting import is_list
from curate.trainers import collisions

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Fields beside `content` that hold the thought of a message."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are read; `prompt` is None where `completion` holds whole conversations."""

    prompt: str | None
    completion: str
    id: str | None
    teacher: str | None
    spans: str | None

    def names(self) -> list[str]:
        """Each of them once."""
        each = (self.prompt, self.completion, self.id, self.teacher, self.spans)
        return list(dict.fromkeys(name for name in each if name is not None))


def files_of(place: Path, record: Manifest | None) -> list[Path]:
    """The files of a dataset, in order: those of its manifest, or as trainers would find them."""
    if record is not None:
        if record["rule"] is None:
            raise CurateError(
                f"{place}: expected a dataset, found a scan without a selection; `curate select` "
                "makes one of it"
            )
        if not record["data"]:
            raise CurateError(f"{place}: expected rows to train on, found none")
        return [place / "data" / name for name in record["data"]]
    if place.is_file():
        return [place]
    if not place.exists():
        raise CurateError(f"{place}: expected a dataset, found no such file or folder")
    inside = place / "data" if (place / "data").is_dir() else place
    found = sorted(inside.glob("*.parquet"))
    if not found:
        raise CurateError(f"{inside}: expected .parquet files of a dataset, found none")
    return [path for path in found if path.name.startswith("train-")] or found


def columns_of(
    file: Path,
    schema: pa.Schema,
    record: Manifest | None,
    teacher: str | None,
    id: str | None,
    spans: str | None,
) -> Columns:
    """Which columns of a dataset hold what."""
    names = list(schema.names)
    for option, name in (("teacher", teacher), ("id", id), ("spans", spans)):
        if name is not None and name not in names:
            raise SchemaError(
                f"{file}: expected the {option} column `{name}`, found {', '.join(names)}"
            )
    if unread := sorted({"tools", "chat_template_kwargs"} & {*names}):
        raise SchemaError(
            f"{file}: column `{unread[0]}`: TRL would give it to the chat template, which is not "
            "done here; leave it out, or put what it says into the messages"
        )
    pair, talk = {"prompt", "completion"} <= {*names}, "messages" in names
    if pair and talk:
        raise SchemaError(f"{file}: expected prompt and completion, or messages, found both")
    if not (pair or talk) or not _is_trainable(record):
        raise SchemaError(
            f"{file}: expected columns prompt and completion, or messages, as `--format "
            f"prompt-completion` makes them, found {', '.join(names)}"
        )
    return Columns(
        prompt="prompt" if pair else None,
        completion="completion" if pair else "messages",
        id=id or _told(record, "id", names),
        teacher=teacher or _told(record, "teacher", names),
        spans=spans,
    )


def _is_trainable(record: Manifest | None) -> bool:
    """Whether what was scanned stands in the columns trained on; rows as they were seldom do."""
    if record is None or record["config"]["format"] != "original":
        return True
    layout = record["config"]["layout"]
    column, _, field = layout["trace"].partition(".")
    beside = column == "messages" and field in THOUGHTS and not layout["tags"]
    return beside or (column in ("messages", "completion") and tuple(layout["tags"]) == THINK)


def _told(record: Manifest | None, kind: str, names: Sequence[str]) -> str | None:
    """The column of a kind that the scan was told of, by its name in the data; or one named so."""
    name = None if record is None else record["config"]["columns"][kind]
    if name is not None and collisions([name], record["config"]["format"] if record else ""):
        while f"source_{name}" in names:
            name = f"source_{name}"
    taken = {"prompt", "completion", "messages"}
    return next((each for each in (name, kind) if each in {*names} - taken), None)


def check_types(file: Path, schema: pa.Schema, first: pa.Schema, columns: Columns) -> None:
    """Raise SchemaError where a column cannot hold what it should."""
    for name in columns.names():
        if name not in schema.names:
            raise SchemaError(
                f"{file}: expected the column `{name}`, found {', '.join(schema.names)}"
            )
    for name in filter(None, (columns.id, columns.teacher)):
        if pa.types.is_nested(kind := schema.field(name).type):
            raise SchemaError(f"{file}: column `{name}`: expected one value a row, found {kind}")
    if columns.spans is not None and not _holds_spans(kind := schema.field(columns.spans).type):
        raise SchemaError(
            f"{file}: column `{columns.spans}`: expected lists of spans, with start and end or of "
            f"two integers, found {kind}"
        )
    plain = columns.prompt is not None and _is_string(first.field(columns.prompt).type)
    wanted = "text" if plain else "messages with role and content"
    for name in filter(None, (columns.prompt, columns.completion)):
        kind = schema.field(name).type
        if not (_is_string(kind) if plain else _holds_messages(kind)):
            raise SchemaError(f"{file}: column `{name}`: expected {wanted}, found {kind}")


def _is_string(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _fields(kind: pa.DataType) -> dict[str, pa.DataType]:
    """The fields of the structs in a list, none where it holds no structs."""
    inside = kind.value_type if is_list(kind) else pa.null()
    return {field.name: field.type for field in inside} if pa.types.is_struct(inside) else {}


def _holds_messages(kind: pa.DataType) -> bool:
    fields = _fields(kind)
    return all(_is_string(fields.get(name, pa.null())) for name in ("role", "content"))


def _holds_spans(kind: pa.DataType) -> bool:
    if not is_list(kind):
        return False
    inside, fields = kind.value_type, _fields(kind)
    if fields:
        return all(pa.types.is_integer(fields.get(name, pa.null())) for name in ("start", "end"))
    pair = is_list(inside) or pa.types.is_fixed_size_list(inside)
    return bool(pair and pa.types.is_integer(inside.value_type))
