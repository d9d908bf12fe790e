"""Row groups and traces larger than the memory that a run may take, under a control group."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.test_curate_memory import MIB, control_group, huge, inside

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]


def one_row_group(path, traces, size):
    """A shard of real traces over and over, all in one row group of so many bytes of text."""
    text = pq.read_table(traces, columns=["trace"])["trace"].combine_chunks()
    times = -(-size // text.nbytes)
    table = pa.table({"trace": pa.chunked_array([text] * times)})
    pq.write_table(
        table, path, row_group_size=table.num_rows, compression="zstd", use_dictionary=False
    )
    assert pq.read_metadata(path).num_row_groups == 1
    return table.num_rows


def scanned(path, out, memory, *options):
    """A scan in a control group of just so much memory: its result, and the peak of the group."""
    with control_group(memory * MIB) as group:
        arguments = ["--out", out, "--memory", f"{memory}MiB", "--json", *options]
        result = inside(group, "scan", path, *arguments)
        peak = int((group / "memory.max_usage_in_bytes").read_text()) / 1e6
    return result, peak


@pytest.mark.parametrize("gb", [1.35, 5])
@pytest.mark.parametrize("options", [[], ["--steps"], ["--keep", "true"]])
def test_a_huge_row_group_takes_512_mib(traces, tmp_path, gb, options, capsys):
    rows = one_row_group(tmp_path / "a.parquet", traces, int(gb * 1e9))
    result, peak = scanned(tmp_path / "a.parquet", tmp_path / "out", 512, *options)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["kept"] == rows
    with capsys.disabled():
        print(f"\nrow group of {gb} GB {options}: peak with page cache {peak:.0f} MB")  # noqa: T201


def test_a_trace_of_300_mb_is_refused_at_512_mib_and_read_at_3_gib(tmp_path):
    path = huge(tmp_path / "a.parquet", 300_000_000)
    for options in ([], ["--keep", "true"]):
        result, _ = scanned(path, tmp_path / "out", 512, *options)
        assert result.returncode == 1
        said = f"error: {path}: row group 0, rows 0 to 2: a dictionary of `trace` of 300,000,0"
        assert result.stderr.splitlines()[-1].startswith(said)
        result, _ = scanned(path, tmp_path / "out", 3072, *options)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["rows"] == 3
        for left in (tmp_path / "out").rglob("*"):
            assert not left.name.endswith(".part")
        os.rename(tmp_path / "out", tmp_path / f"done{len(options)}")


def test_a_trace_of_1500_mb_is_read(tmp_path):
    path = huge(tmp_path / "a.parquet", 1_500_000_000)
    result, _ = scanned(path, tmp_path / "out", 10_240, "--steps")
    assert result.returncode == 0, result.stderr
    features = pq.read_table(tmp_path / "out/.curate/features/00000.parquet")
    assert features["bytes"].to_pylist()[1] == 1_500_000_000
    result, _ = scanned(path, tmp_path / "other", 512, "--on-error", "quarantine")
    assert result.returncode == 3
    assert json.loads(result.stdout)["quarantined"] == {"too_large": 3}
