"""A signal stops a command, also one that comes while a library is being imported."""

import subprocess
import sys

import pytest

IMPORTED = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.{name})
    time.sleep(0.1)
except BaseException:  # as libraries do around what they can do without
    pass
whole = True
"""

PROGRAM = """
import signal, sys, time
from curate import __main__ as command_line
sys.path.insert(0, sys.argv[1])
signal.signal(signal.{name}, command_line._stop)
import imported
assert imported.whole
try:
    time.sleep(5)
except command_line.StoppedError as error:
    print(error, error.number)
"""


@pytest.mark.parametrize(
    ("name", "said"), [("SIGINT", "interrupted 2"), ("SIGTERM", "terminated 15")]
)
def test_a_signal_in_the_middle_of_an_import_waits_for_its_end(tmp_path, name, said):
    (tmp_path / "imported.py").write_text(IMPORTED.format(name=name))
    command = [sys.executable, "-c", PROGRAM.format(name=name), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (said + "\n", "")
