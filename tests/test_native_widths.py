"""
The kernels that this host would not choose by itself give the same answers.

Each is forced upon a process of its own, as the choice is made once, at import.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curate.native.simd import host_kernels

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", host_kernels()[1:])
def test_a_narrower_kernel_conforms(name):
    told = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "vector",
        "tests/test_native_conformance.py",
    ]
    done = subprocess.run(
        told, cwd=ROOT, env=os.environ | {"CURATE_KERNEL": name}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_the_scalar_kernel_can_be_forced():
    told = "from curate.native.measure import HOST_KERNEL; print(HOST_KERNEL)"
    environ = os.environ | {"CURATE_KERNEL": "scalar"}
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    assert done.stdout.strip() == "scalar"


def test_a_kernel_that_the_host_lacks_is_refused_by_name():
    environ = os.environ | {"CURATE_KERNEL": "avx1024"}
    done = subprocess.run(
        [sys.executable, "-c", "from curate import native"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "CURATE_KERNEL: expected one of" in done.stderr
    assert "found 'avx1024'" in done.stderr
