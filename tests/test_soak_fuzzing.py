"""Every target of `tests.fuzzing` for a while; CURATE_FUZZ_SECONDS says how long in all."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzzing import TARGETS

ROOT = Path(__file__).parents[1]

SECONDS = int(os.environ.get("CURATE_FUZZ_SECONDS") or 600)

# Of 600 seconds; each run of the reference takes milliseconds.
SHARES = {
    "kernels": 200,
    "lexicon": 150,
    "manifest": 100,
    "footer": 50,
    "pages": 50,
    "thrift": 25,
    "journal": 25,
}

COVERAGE = re.compile(r"\bcov: (\d+)")
DONE = re.compile(r"^#(\d+)\s+DONE\b", re.MULTILINE)

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(find_spec("atheris") is None, reason="no atheris on this system"),
]


def test_every_target_has_its_share():
    assert {*SHARES} == {*TARGETS}
    assert sum(SHARES.values()) == 600


@pytest.mark.parametrize("target", SHARES)
def test_no_input_is_a_finding(target, tmp_path, capsys):
    seconds = max(1, SECONDS * SHARES[target] // 600)
    command = [sys.executable, "-m", "tests.fuzzing", target, "--seconds", str(seconds)]
    done = subprocess.run(
        [*command, "--corpus", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    said = f"{done.stderr[-5000:]}\n{done.stdout}"
    assert done.returncode == 0, said
    executions, edges = DONE.findall(done.stderr), COVERAGE.findall(done.stderr)
    assert executions and edges, said
    with capsys.disabled():
        sys.stdout.write(f"\n{target}: {int(executions[-1]):,} executions, {edges[-1]} edges\n")
