"""What a scan is asked for, cut into pieces of work: columns, and units of row groups."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from curate.errors import SchemaError
from curate.features import FIELDS, LOCATOR, NAMED
from curate.footers import Footer
from curate.nesting import is_list
from curate.reading import UNIT_BYTES
from curate.skipping import Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of the corpus hold what; None for what was not given."""

    id: str | None = None
    problem: str | None = None
    teacher: str | None = None
    correct: str | None = None
    carry: tuple[str, ...] = ()

    def named(self) -> dict[str, str | None]:
        """The columns of the features `id`, `problem`, `teacher` and `correct`."""
        return {name: getattr(self, name) for name in NAMED}

    def each(self) -> list[str]:
        """All of them, each once."""
        given = [column for column in self.named().values() if column is not None]
        return list(dict.fromkeys([*given, *self.carry]))


def features_schema(corpus: pa.Schema, columns: Columns, measured: Sequence[pa.Field]) -> pa.Schema:
    """The schema of the features sidecar. Raises SchemaError if a carried name is a feature's."""
    derived = {field.name for fields in FIELDS.values() for field in fields}
    defaults = dict.fromkeys(NAMED, pa.string()) | {"correct": pa.bool_()}
    fields = [pa.field(name, kind) for name, kind in LOCATOR]
    for name, column in columns.named().items():
        kind = defaults[name] if column is None else _value_type(corpus.field(column).type)
        fields.append(pa.field(name, kind))
    taken = {field.name for field in (*fields, *measured)} | derived
    for name in columns.carry:
        if name in taken:
            raise SchemaError(
                f"--carry: column `{name}` has the name of a feature; rename it first"
            )
        fields.append(pa.field(name, _value_type(corpus.field(name).type)))
        taken.add(name)
    return pa.schema([*fields, *measured])


def _value_type(kind: pa.DataType) -> pa.DataType:
    """The type of a value beside a trace; a list beside a list of traces has one for each."""
    kind = kind.value_type if is_list(kind) else kind
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@dataclass(frozen=True, slots=True)
class Unit:
    """A range of row groups of one shard, and the rows of it to take; `skipped` if they are not."""

    shard: int
    number: int
    row_groups: tuple[int, ...]
    first_row: int
    rows: int
    skipped: Skipped | None = None

    def singles(self, footer: Footer) -> Iterator["Unit"]:
        """A unit for each row group of this one."""
        first = self.first_row
        for number in self.row_groups:
            rows = min(footer.row_groups[number].rows, self.first_row + self.rows - first)
            yield Unit(self.shard, 0, (number,), first, rows)
            first += rows


def limited(footers: Sequence[Footer], limit: int | None) -> list[int]:
    """How many rows of each shard a run takes."""
    left = sum(footer.rows for footer in footers) if limit is None else limit
    taken = []
    for footer in footers:
        taken.append(min(left, footer.rows))
        left -= taken[-1]
    return taken


def plan_units(
    shard: int, footer: Footer, rows: int, skipped: Mapping[int | None, Skipped]
) -> list[Unit]:
    """
    The units of a shard, for its first `rows`; they depend on the footer only, never on threads.

    A row group of `skipped` is a unit of its own; under None it says so of the whole shard. What is
    packed as a whole is one unit, as it can only be unpacked from its beginning.
    """
    units: list[Unit] = []
    groups: list[int] = []
    first, held_rows, held_bytes = 0, 0, 0
    packed = footer.index is not None and footer.index.packed
    for number, group in enumerate(footer.row_groups):
        groups.append(number)
        held_rows += group.rows
        held_bytes += group.trace_bytes
        left_out = skipped.get(number, skipped.get(None))
        last = number == len(footer.row_groups) - 1
        full = (held_bytes >= UNIT_BYTES and not packed) or last or first + held_rows >= rows
        if full or left_out or number + 1 in skipped:
            taken = min(held_rows, rows - first)
            if taken > 0:
                units.append(Unit(shard, len(units), tuple(groups), first, taken, left_out))
            first, groups, held_rows, held_bytes = first + held_rows, [], 0, 0
    return units
