"""`--memory`: what does not fit is refused before it is decoded, and what fits stays inside."""

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import CurateError
from curate.memory import Allowance, check_bound, free_bytes, resident_bytes
from curate.parallel import CancelledError
from tests.command_line import COMMAND, only_line

MIB = 1 << 20
GROUPS = Path("/sys/fs/cgroup/memory")


def huge(path, size, **options):
    """A shard of three traces, the middle one of so many bytes."""
    line = os.urandom(32 << 10).hex()
    trace = (f"{line}\n\nAlternatively, again.\n\n" * (size // len(line) + 1))[:size]
    table = pa.table({"id": ["first", "huge", "last"], "trace": ["One.", trace, "Wait."]})
    pq.write_table(table, path, compression="zstd", **options)
    return path


@contextmanager
def control_group(limit):
    """A memory control group with a limit; skips where none can be made."""
    group = GROUPS / f"curate-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError as error:
        pytest.skip(f"no memory control group: {error}")
    try:
        yield group
    finally:
        group.rmdir()


def inside(group, *arguments):
    """The command line inside a control group: its result, and the most memory it held resident."""
    join = f'echo $$ > {group}/cgroup.procs; exec "$@"'
    line = ["bash", "-c", join, "bash", *COMMAND, *map(str, arguments)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("options", [[], ["--keep", "true"]])
def test_a_huge_trace_is_refused_by_name_and_read_with_more(tmp_path, dictionary, options):
    path = huge(tmp_path / "a.parquet", 100 * MIB, use_dictionary=dictionary)
    needed = 512
    for _ in range(3):  # to copy it takes more than to measure it
        with control_group(needed * MIB) as group:
            arguments = ["scan", path, *options, "--out", tmp_path / "out", "--json"]
            result = inside(group, *arguments, "--memory", f"{needed}MiB")
        if result.returncode == 0:
            break
        line = result.stderr.splitlines()[-1]
        page = "dictionary" if dictionary else "page"
        what = f"row group 0, rows 0 to 2: a {page} of `trace` of 104,857,"
        assert line.startswith(f"error: {path}: {what}")
        assert line.endswith(f"found {needed:,}MiB")
        needed = int(line.split("--memory ")[1].split("MiB")[0].replace(",", "")) + 64
    assert result.returncode == 0, result.stderr
    assert 512 < needed < 1600
    assert json.loads(result.stdout)["kept"] == 3


def test_what_is_too_large_is_left_out_on_request(tmp_path):
    huge(tmp_path / "b.parquet", 100 * MIB, row_group_size=1)
    out = tmp_path / "out"
    with control_group(512 * MIB) as group:
        arguments = [
            "--memory",
            "512MiB",
            "--on-error",
            "quarantine",
            "--keep",
            "true",
            "--id",
            "id",
        ]
        result = inside(group, "scan", tmp_path / "b.parquet", "--out", out, "--json", *arguments)
    assert result.returncode == 3, result.stderr
    told = json.loads(result.stdout)
    assert (told["rows"], told["kept"], told["quarantined"]) == (3, 2, {"too_large": 1})
    features = pq.read_table(out / ".curate/features/00000.parquet")
    assert features["verdict"].to_pylist() == ["ok", "too_large", "ok"]
    (skipped,) = json.loads((out / ".curate/manifest.json").read_text())["skipped"]
    assert (skipped["row_group"], skipped["first_row"], skipped["rows"]) == (1, 1, 1)
    assert pq.read_table(out / "data")["id"].to_pylist() == ["first", "last"]


def test_many_values_in_a_large_page_are_looked_into_before_they_are_refused(tmp_path):
    traces = [os.urandom(20_000).hex() for _ in range(1500)]
    table = pa.table({"trace": traces})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, data_page_size=1 << 30)
    with control_group(480 * MIB) as group:
        arguments = ["scan", tmp_path / "a.parquet", "--out", tmp_path / "out"]
        result = inside(group, *arguments, "--memory", "480MiB", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rows"] == 1500


def test_a_value_of_a_dictionary_that_is_repeated_does_not_fill_memory(tmp_path):
    trace = os.urandom(400_000).hex()
    pq.write_table(pa.table({"trace": [trace] * 1000}), tmp_path / "a.parquet")
    with control_group(512 * MIB) as group:
        arguments = ["scan", tmp_path / "a.parquet", "--out", tmp_path / "out"]
        result = inside(group, *arguments, "--memory", "512MiB", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rows"] == 1000


@pytest.mark.parametrize("options", [["--steps"], ["--repeats"]])
def test_more_steps_than_memory_holds_are_refused(tmp_path, options):
    pq.write_table(pa.table({"trace": ["a\n\n" * 10_000_000]}), tmp_path / "a.parquet")
    arguments = ["scan", tmp_path / "a.parquet", "--out", tmp_path / "out", *options]
    with control_group(700 * MIB) as group:
        line = only_line(inside(group, *arguments, "--threads", "1", "--memory", "700MiB"))
    assert line.startswith(f"{tmp_path}/a.parquet: rows 0 to 0: their steps take about ")


def test_a_bomb_is_refused_before_it_goes_off(tmp_path):
    """A page that says it holds much more than it does, behind a footer that says little."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"trace": ["a" * 200 * MIB]}), path, compression="zstd")
    assert path.stat().st_size < MIB
    line = only_line(
        subprocess.run(
            [*COMMAND, "scan", path, "--out", tmp_path / "out", "--memory", "512MiB"],
            capture_output=True,
            text=True,
        )
    )
    assert "row group 0, rows 0 to 0: a dictionary of `trace` of 209,715,2" in line


def test_too_little_memory_for_anything_is_said_at_once(tmp_path):
    huge(tmp_path / "a.parquet", 1000)
    line = only_line(
        subprocess.run(
            [
                *COMMAND,
                "scan",
                tmp_path / "a.parquet",
                "--out",
                tmp_path / "out",
                "--memory",
                "1MB",
            ],
            capture_output=True,
            text=True,
        )
    )
    assert line.startswith("--memory: expected at least ")
    assert line.endswith("found 1MiB")


def test_shares_are_given_in_the_order_of_the_jobs():
    stop, order = Event(), []
    allowance = Allowance(resident_bytes() + 500 * MIB, stop)

    def job(number, share):
        with allowance.turn(number) as take:
            take(share)
            order.append(number)

    shares = [0.9, 0.2, 0.9, 0.1, 5.0, 0.3]
    threads = [
        Thread(target=job, args=(number, int(share * allowance.total)))
        for number, share in enumerate(shares)
    ]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join(20)
    assert order == [0, 1, 2, 3, 4, 5]


def test_who_waits_for_a_share_is_woken_when_the_run_stops():
    stop = Event()
    allowance = Allowance(resident_bytes() + 500 * MIB, stop)
    caught = []

    def job():
        try:
            with allowance.turn(1) as take:  # before it, job 0 never comes
                take(1)
        except CancelledError as error:
            caught.append(error)

    thread = Thread(target=job)
    thread.start()
    stop.set()
    allowance.wake()
    thread.join(20)
    assert len(caught) == 1


def test_no_share_is_left_of_too_little():
    with pytest.raises(CurateError, match="--memory: expected at least"):
        check_bound(resident_bytes())
    check_bound(resident_bytes() + 200 * MIB)


def test_free_memory_is_less_than_there_is():
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 0 < free_bytes() < total
    assert 0 < resident_bytes() < total
