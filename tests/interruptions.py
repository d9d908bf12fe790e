"""
Runs that are stopped: at a moment, by a signal or by a full disk; and what must come out after all.

A run is a process of its own, forked from a server that has imported the tool, which takes a
fraction of the time that a fresh interpreter does. Its moments are the changes that Python makes to
the output folder, told by an audit hook: a run can be killed just before any of them.
"""

import faulthandler
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from curate import __main__ as command_line
from tests.command_line import tree

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    "pytest curate.api curate.pipeline curate.native curate.commands.report curate.commands.scan "
    "curate.commands.select pandas pyarrow.pandas_compat".split()
)

STUCK_SECONDS = 60
"""After so long a run says where its threads are: nothing here takes that long."""

CHANGES = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}


STARTED = []


def end_all():
    """Kill what a test left at work or frozen, which would be waited for at the end."""
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.join()


class Run:
    """
    A run of the command line in a process of its own; what it says goes to files under `log`.

    `before` kills it just before the `nth` change (from 1) whose words hold that text, such as
    `os.rename .curate/data data`; `freeze` stops it there instead, until it is sent SIGCONT.
    """

    def __init__(self, log, *arguments, before=None, nth=1, freeze=False):
        log.mkdir(parents=True, exist_ok=True)
        self.log = log
        arguments = list(map(str, arguments))
        number = signal.SIGSTOP if freeze else signal.SIGKILL
        self.process = CONTEXT.Process(
            target=_run, args=(str(log), arguments, before, nth, int(number))
        )
        self.process.start()
        STARTED.append(self.process)

    @property
    def pid(self):
        return self.process.pid

    @property
    def is_alive(self):
        return self.process.is_alive()

    def send(self, number):
        """Send a signal; nothing where the run has ended."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def wait(self, timeout=120):
        """The run once it has ended, as `subprocess.run` gives it; killed: minus the signal."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            told = (self.log / "stderr").read_text()
            raise TimeoutError(f"still at work after {timeout} s: {told}")
        stdout, stderr = ((self.log / name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([], self.process.exitcode, stdout, stderr)


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextmanager
def frozen(log, *arguments, before, nth=1):
    """A run that stands still just before a change, and is killed in the end."""
    run = Run(log, *arguments, before=before, nth=nth, freeze=True)
    try:
        wait_for(lambda: is_stopped(run.pid), run)
        yield run
    finally:
        run.send(signal.SIGKILL)
        run.process.join()


def forked(log, *arguments, **options):
    """A run to its end."""
    return Run(log, *arguments, **options).wait()


def _run(log, arguments, before, nth, number):
    """What a forked process does."""
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        stream.flush()
        with open(f"{log}/{name}", "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    faulthandler.dump_traceback_later(STUCK_SECONDS, file=sys.stderr)
    sys.argv = ["curate", *arguments]
    folder = os.path.abspath(arguments[arguments.index("--out") + 1])
    _watch_changes(folder, before, nth, number)
    sys.exit(command_line.run())


def _watch_changes(folder, before, nth, number):
    """Send this process a signal just before a change of a folder."""
    lock = threading.Lock()
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        if event not in CHANGES or (event == "open" and arguments[1] in ("r", "rb")):
            return
        paths = [os.fsdecode(a) for a in arguments if isinstance(a, (str, bytes, os.PathLike))]
        paths = [os.path.relpath(path, folder) for path in paths if path.startswith(folder)]
        if paths and before is not None and before in " ".join([event, *paths]):
            with lock:
                seen += 1
                if seen == nth:
                    os.kill(os.getpid(), number)
                    time.sleep(0.2)  # a signal that came meanwhile counts before the change

    sys.addaudithook(hook)


def wait_for(found, run, seconds=60):
    """Wait until something is found; whether it was before the run ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        if not run.is_alive:
            return bool(found())
        time.sleep(0.001)
    raise TimeoutError


def outcome(folder):
    """All that a run left in a folder, checked to be whole: files by place, and the manifest."""
    files = tree(folder)
    assert [place for place in files if place.endswith(".part")] == []
    assert ".curate/journal.jsonl" not in files
    assert not (folder / ".curate/data").exists()
    manifest = json.loads(files.pop(".curate/manifest.json"))
    assert manifest["state"] == "complete"
    assert isinstance(manifest.pop("seconds"), float)
    data = {place.removeprefix("data/") for place in files if place.startswith("data/")}
    assert data == set(manifest["data"])
    return files, manifest


def same(found, expected):
    """That two outcomes are the same, told in a few words where they are not."""
    (files, manifest), (old_files, old_manifest) = found, expected
    assert sorted(files) == sorted(old_files)
    assert [place for place in files if files[place] != old_files[place]] == []
    assert manifest == old_manifest
    return True


def statistics(stdout):
    """What a run prints of what it did, without where and how long."""
    if stdout.startswith("{"):
        told = json.loads(stdout)
        return {name: told[name] for name in told if name not in ("seconds", "out")}
    return re.sub(r"^.*, \d+\.\d s$", "", stdout, count=1, flags=re.MULTILINE)


def stage(folder):
    """How far the run in a folder came, by what stands there."""
    inner = folder / ".curate"
    if not (inner / "manifest.json").exists():
        return "before the first shard"
    if json.loads((inner / "manifest.json").read_text())["state"] == "complete":
        return "after"
    if (folder / "data").exists() or (inner / "data").exists():
        return "while emitting"
    if (inner / "selection").exists():
        return "while deciding"
    whole = any((inner / "features").glob("[0-9]*.parquet"))
    return "while measuring" if whole else "before the first shard"


def shown(counts):
    """A table of counts, a line for each."""
    width = max(map(len, counts), default=0)
    return "\n".join(f"{name.ljust(width)}  {count:>4}" for name, count in counts.items())


class Disk:
    """A small file system in memory, mounted on a folder."""

    def __init__(self, folder):
        self.folder = folder

    def remount(self, *options):
        """Change its size, or whether it can be written to."""
        _mount("-o", ",".join(["remount", *options]), str(self.folder))


@contextmanager
def disk(folder, size):
    """Mount a file system of so many bytes; None where that is not allowed."""
    folder.mkdir(parents=True)
    try:
        _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments):
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def cut(path, size=None):
    """Cut a file short, to half of it unless told."""
    os.truncate(path, path.stat().st_size // 2 if size is None else size)


def alter(path):
    """Change a byte in the middle of a file, which keeps its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def edit(path, old, new):
    """Replace a text that a file must hold."""
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))
