"""
Files with a few bytes changed: a scan reads them, leaves them out or refuses, and never lies.

Every mutant is scanned with a selection that keeps all, in a process of its own.
"""

import os
import random
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.broken_files import regions_of
from tests.mutation_worker import MEMORY, Worker

SECONDS = 20
SEED = 20260101
WORKERS = 2

REGIONS = ("header", "page", "footer")

BASES = {
    "zstd-v1-dict-crc": {"compression": "zstd"},
    "zstd-v2-plain-crc": {"compression": "zstd", "v2": True, "dictionary": False},
    "zstd-v1-plain-1group": {
        "compression": "zstd",
        "dictionary": False,
        "groups": 1,
        "crc": False,
    },
    "snappy-v1-plain-crc-nulls": {"compression": "snappy", "dictionary": False, "nulls": True},
    "snappy-v2-dict": {"compression": "snappy", "v2": True, "crc": False},
    "none-v1-plain-crc-1group": {"compression": "none", "dictionary": False, "groups": 1},
    "none-v1-dict-nulls": {"compression": "none", "crc": False, "nulls": True},
    "none-v2-dict-crc-nulls": {"compression": "none", "v2": True, "nulls": True},
    "none-v1-plain": {"compression": "none", "dictionary": False, "crc": False},
}

ROWS = 64


def write_base(path, *, compression, crc=True, dictionary=True, v2=False, groups=4, nulls=False):
    """A valid file of some kind, of several pages a column."""
    words = ["Wait, no.", "Alternatively, x.", "So it is 4.", "Let me check.", "Hence."]
    rng = random.Random(5)

    def trace(row):
        if nulls and row % 5 == 1:
            return None
        return "\n\n".join(rng.choice(words) for _ in range(row % 7 + 1))

    table = pa.table(
        {
            "id": [f"row-{n}" for n in range(ROWS)],
            "teacher": ["A", "B", "C", "D"] * (ROWS // 4),
            "size": list(range(ROWS)),
            "trace": [trace(row) for row in range(ROWS)],
            "score": [n / 7 for n in range(ROWS)],
            "tags": [["x"] * (n % 3) for n in range(ROWS)],
        }
    )
    pq.write_table(
        table,
        path,
        compression=compression,
        write_page_checksum=crc,
        use_dictionary=dictionary,
        data_page_version="2.0" if v2 else "1.0",
        row_group_size=ROWS // groups,
        data_page_size=200,
        write_batch_size=8,
    )
    return path


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed file: of which base, in which region, how; `stays` if its length is the same."""

    number: int
    base: str
    region: str
    how: str
    at: int
    stays: bool
    data: bytes


def mutants(files, count):
    """So many mutants of the base files, always the same ones."""
    rng = random.Random(SEED)
    contents = {name: (path.read_bytes(), regions_of(path)) for name, path in files.items()}
    names = list(files)
    for number in range(count):
        # Every base and region comes as often, in whatever order.
        base, region = names[number % len(names)], REGIONS[number // len(names) % len(REGIONS)]
        whole, regions = contents[base]
        while True:
            start, stop = rng.choice(regions[region])
            how = rng.choice(list(WAYS))
            at, data = WAYS[how](rng, whole, start, stop)
            if data != whole:
                yield Mutant(number, base, region, how, at, len(data) == len(whole), data)
                break


def _replaced(whole, at, new):
    return at, whole[:at] + new + whole[at + len(new) :]


def _span(rng, start, stop, most):
    """A stretch inside of another, of at most so many bytes."""
    length = rng.randint(1, min(most, stop - start))
    at = rng.randint(start, stop - length)
    return at, length


def flip_bits(rng, whole, start, stop):
    """Up to eight bits are the other way."""
    at, length = _span(rng, start, stop, 4)
    new = bytearray(whole[at : at + length])
    for _ in range(rng.randint(1, 8)):
        new[rng.randrange(length)] ^= 1 << rng.randrange(8)
    return _replaced(whole, at, bytes(new))


def overwrite_bytes(rng, whole, start, stop):
    """Other bytes."""
    at, length = _span(rng, start, stop, 16)
    return _replaced(whole, at, rng.randbytes(length))


def zero_span(rng, whole, start, stop):
    """Zeros."""
    at, length = _span(rng, start, stop, 64)
    return _replaced(whole, at, bytes(length))


def huge_number(rng, whole, start, stop):
    """Bytes that make a number as large as can be, fixed or varint."""
    at, length = _span(rng, start, stop, 9)
    new = rng.choice([b"\xff" * (length - 1) + b"\x7f", b"\xff" * length, b"\xfe" * length])
    return _replaced(whole, at, new)


def copy_span(rng, whole, start, stop):
    """Bytes of the same region again at another place of it, over what was there."""
    at, length = _span(rng, start, stop, 32)
    source = rng.randint(start, stop - length)
    return _replaced(whole, at, whole[source : source + length])


def swap_fields(rng, whole, start, stop):
    """Two fields of one to four bytes have changed places, as sizes of one file may have."""
    length = rng.choice([1, 1, 2, 4])
    if stop - start < 2 * length:
        return start, whole
    first, second = sorted(rng.sample(range(start, stop - length + 1), 2))
    if second < first + length:
        return start, whole
    new = bytearray(whole)
    new[first : first + length] = whole[second : second + length]
    new[second : second + length] = whole[first : first + length]
    return first, bytes(new)


def truncate(rng, whole, start, stop):
    """Nothing comes after some place."""
    at = rng.randrange(start, stop)
    return at, whole[:at]


def insert_span(rng, whole, start, stop):
    """Bytes that are there already come twice."""
    at, length = _span(rng, start, stop, 64)
    return at, whole[:at] + whole[at : at + length] + whole[at:]


def delete_span(rng, whole, start, stop):
    """Some bytes are gone."""
    at, length = _span(rng, start, stop, 64)
    return at, whole[:at] + whole[at + length :]


WAYS = {
    way.__name__: way
    for way in (
        flip_bits,
        overwrite_bytes,
        zero_span,
        huge_number,
        copy_span,
        swap_fields,
        truncate,
        insert_span,
        delete_span,
    )
}

SOUND = ("identical", "quarantined", "refused", "changed-undetectable")
FAILURES = ("CHANGED-WITH-CHECKSUM", "wrong", "crash", "hang", "traceback", "memory")


def outcome_of(mutant, answer):
    """The class of what came of a mutant."""
    if answer["peak"] > 1.25 * MEMORY:
        return "memory"
    if answer["outcome"] != "changed":
        return answer["outcome"]
    covered = mutant.stays and mutant.region == "page" and "crc" in mutant.base
    return "CHANGED-WITH-CHECKSUM" if covered else "changed-undetectable"


def scan_all(folder, count):
    """Every mutant and what came of it, in order."""
    bases = folder / "bases"
    bases.mkdir()
    files = {name: write_base(bases / f"{name}.parquet", **kind) for name, kind in BASES.items()}
    beside = write_base(bases / "beside.parquet", compression="zstd")
    each = mutants(files, count)

    def scan_some(number):
        place = folder / f"worker-{number}"
        place.mkdir()
        worker, found = Worker(place, SECONDS), []
        try:
            while (mutant := next_one()) is not None:
                path = place / "mutant.parquet"
                path.write_bytes(mutant.data)
                answer = worker.ask(
                    mutant=str(path),
                    base=str(files[mutant.base]),
                    beside=str(beside) if mutant.number % 2 else None,
                )
                found.append((mutant, outcome_of(mutant, answer), answer))
        finally:
            worker.close()
        return found

    lock = Lock()

    def next_one():
        with lock:
            return next(each, None)

    with ThreadPoolExecutor(WORKERS) as pool:
        found = [one for some in pool.map(scan_some, range(WORKERS)) for one in some]
    return sorted(found, key=lambda one: one[0].number)


def table_of(found):
    """The outcomes by kind of base and region, as lines."""
    counts = defaultdict(Counter)
    for mutant, outcome, _ in found:
        counts[mutant.base, mutant.region][outcome] += 1
        counts["all", mutant.region][outcome] += 1
        counts["all", "all"][outcome] += 1
    seen = [name for name in SOUND + FAILURES if counts["all", "all"][name]]
    lines = [f"{'base':<26} {'region':<7}" + "".join(f" {name:>21}" for name in seen)]
    for (base, region), row in sorted(counts.items(), key=lambda one: one[0][0] == "all"):
        lines.append(f"{base:<26} {region:<7}" + "".join(f" {row[name]:>21,}" for name in seen))
    most = max(answer["peak"] for _, _, answer in found)
    return "\n".join([*lines, f"resident at the most: {most / 2**20:,.0f} MiB"])


def check(folder: Path, count: int) -> None:
    """Scan mutants, print what came of them, and fail where one did what it must not."""
    found = scan_all(folder, count)
    print(f"\n{table_of(found)}")  # noqa: T201
    failed = [one for one in found if one[1] in FAILURES]
    for mutant, outcome, answer in failed[:40]:
        print(  # noqa: T201
            f"\nmutant {mutant.number} of {mutant.base}, {mutant.region}, {mutant.how} at byte "
            f"{mutant.at:,}: {outcome}\n{answer['detail']}"
        )
    assert len(found) == count
    assert not failed, f"{len(failed)} of {count}, the first: {failed[0][0].number}"


def count_of(default):
    """How many mutants to look at, or what CURATE_MUTANTS says."""
    return int(os.environ.get("CURATE_MUTANTS") or default)


def test_mutants_are_read_left_out_or_refused(tmp_path):
    check(tmp_path, count_of(150))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_mutants_are_read_left_out_or_refused(tmp_path):
    check(tmp_path, count_of(10_000))
