"""
The kernels that this host would not choose by itself give the same answers.

Each is forced upon a process of its own, as the choice is made once, at import.
"""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.native.simd import host_kernels

ROOT = Path(__file__).parent.parent


def run(name, *arguments):
    """Python in a process of its own, with the kernel of this name."""
    environ = os.environ | {"CURATE_KERNEL": name}
    told = [sys.executable, *map(str, arguments)]
    return subprocess.run(told, cwd=ROOT, env=environ, capture_output=True, text=True)


@pytest.mark.parametrize("name", host_kernels()[1:])
def test_a_narrower_kernel_conforms(name):
    done = run(name, "-m", "pytest", "-q", "-k", "vector", "tests/test_native_conformance.py")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "chosen"), [("scalar", "scalar"), ("", "vector" if host_kernels() else "scalar")]
)
def test_the_environment_may_choose(name, chosen):
    done = run(name, "-c", "from curate.native.measure import HOST_KERNEL; print(HOST_KERNEL)")
    assert done.stdout.strip() == chosen


def test_a_kernel_that_the_host_lacks_is_refused_in_one_line(tmp_path):
    pq.write_table(pa.table({"trace": ["wait"]}), tmp_path / "one.parquet")
    done = run("avx1024", "-m", "curate", "scan", tmp_path / "one.parquet", "--out", tmp_path / "o")
    assert done.returncode == 1
    assert done.stderr.startswith("error: CURATE_KERNEL: expected one of ")
    assert done.stderr.endswith("scalar on this host, found 'avx1024'\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()
