"""
Runs of `curate train` that are killed at a moment, and what must come out after all.

A server imports the libraries once, on one thread, and forks a process for every run. A moment is a
change that Python makes to the folder of the run, told by an audit hook.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.conftest import ROOT
from tests.tiny_models import countdown, write_model

SERVER = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
import matplotlib.figure, curate.train.curves, curate.train.running
from curate import __main__ as command_line

CHANGES = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}

def watch(folder, before, nth, number):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event not in CHANGES or (event == "open" and arguments[1] in ("r", "rb", None)):
            return
        paths = [os.fsdecode(a) for a in arguments if isinstance(a, (str, bytes, os.PathLike))]
        paths = [os.path.relpath(path, folder) for path in paths if path.startswith(folder)]
        if paths and before in " ".join([event, *paths]):
            seen += 1
            if seen == nth:
                os.kill(os.getpid(), number)
    sys.addaudithook(hook)

def child(job):
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        with open(job["log"] + "." + name, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    if job["before"]:
        watch(job["folder"], job["before"], job["nth"], job["signal"])
    sys.argv = ["curate", *job["arguments"]]
    code = 99
    try:
        code = command_line.run()
    except BaseException:
        import traceback
        traceback.print_exc()
    sys.stdout.flush(); sys.stderr.flush()
    os._exit(code)

def fork(job, rank):
    pid = os.fork()
    if pid:
        return pid
    if job["processes"] > 1:
        job["log"] += str(rank or "")
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": job["port"]}
        os.environ |= {"WORLD_SIZE": str(job["processes"]), "MASTER_ADDR": "127.0.0.1"}
    if rank:
        job["before"] = ""
    child(job)

for line in sys.stdin:
    job, codes = json.loads(line), []
    pids = {fork(job, rank) for rank in range(job["processes"])}
    while pids:
        pid, status = os.wait()
        pids.remove(pid)
        codes.append(os.waitstatus_to_exitcode(status))
        for other in pids if codes[-1] else ():  # as torchrun does
            os.kill(other, signal.SIGKILL)
    print(codes[0] or codes[-1], flush=True)
"""


class Runs:
    """A server of runs of `curate train`."""

    def __init__(self, place: Path) -> None:
        self._log = place / "log"
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __call__(self, run, *arguments, before="", nth=1, number=signal.SIGKILL, processes=1):
        """
        A run to its end, or killed just before the `nth` change whose words hold `before`.

        Of several `processes` the first is killed, and the others with it.
        """
        words = ["train", "--output-dir", str(run), *map(str, arguments)]
        job = {"arguments": words, "log": str(self._log), "folder": str(run)}
        job |= {"before": before, "nth": nth, "signal": int(number)}
        job |= {"processes": processes, "port": _free_port() if processes > 1 else ""}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        told = (Path(f"{self._log}.{name}").read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(words, code, *told)

    def end(self) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


def _free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def account_of(run):
    """What `run.json` says."""
    return json.loads((run / "run.json").read_text())


def prepare(place: Path, **changes: object) -> Path:
    """A dataset of 24 rows with its steps in a folder, and `model`: random weights."""
    dataset = countdown(place, 24)
    write_model(place / "model", dataset, **changes)
    return place


def asked(ground, *more):
    """The options of a small run: four rows a step."""
    return [
        *("--data", ground / "dataset", "--model", ground / "model"),
        *("--per_device_train_batch_size", 4, "--no-gradient-checkpointing", *more),
    ]


def outcome(run):
    """What a run leaves that must not depend on how often it was stopped."""
    account = account_of(run)
    account.pop("seconds", None)
    last = run / f"checkpoint-{account['steps']}"
    weights = "adapter_model" if (last / "adapter_config.json").exists() else "model"
    return {
        "account": account,
        "metrics": (run / "metrics.jsonl").read_text(),
        "losses": losses(run),
        "weights": (last / f"{weights}.safetensors").read_bytes(),
        "files": sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()),
    }


def losses(run):
    """The rows of all token losses, in the order of training."""
    files = sorted((run / "token_losses").iterdir())
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def check_same(found, expected):
    """That two outcomes are the same, told in a few words where they are not."""
    for part in expected:
        if part == "weights":
            assert found[part] == expected[part], "the weights differ"
        elif part == "metrics":
            assert found[part].splitlines() == expected[part].splitlines()
        else:
            assert found[part] == expected[part], part
