"""
Scans of mutated files in a process of their own, so that a crash or a hang of one is seen.

The process reads a line of JSON for each mutant and answers with one: `outcome`, `detail`, and
`peak`, the most bytes that were resident.
"""

import json
import os
import resource
import select
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import curate

ROOT = Path(__file__).parents[1]

ADDRESS_SPACE = 6 << 30
MEMORY = 1 << 30

NOT_READ = {"empty", "missing", "not_text", "invalid_utf8"}
"""Why a row that was read is not kept where all are asked for."""

SCAN = {"id": "id", "teacher": "teacher", "carry": ["size"], "keep": "true"}


class Worker:
    """A process that scans mutants, started again where one of them ends it."""

    def __init__(self, folder, seconds):
        self._log = open(folder / "worker.txt", "ab+")
        self._folder, self._seconds = folder, seconds
        self._process = None

    def ask(self, **task):
        """What came of a mutant: the process's answer, or `crash` or `hang`."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.mutation_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd=ROOT,
            )
            self._process.stdout.readline()  # kernels are compiled, which may take long
        task |= {"out": str(self._folder / "out")}
        self._process.stdin.write(json.dumps(task).encode() + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], self._seconds)
        line = self._process.stdout.readline() if ready else b""
        if line.endswith(b"\n"):
            return json.loads(line)
        if not ready:
            self._process.kill()
        code = self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process = None
        shutil.rmtree(self._folder / "out", ignore_errors=True)
        told = self._last_words()
        outcome = "crash" if ready else "hang"
        return {"outcome": outcome, "detail": f"status {code}: {told}", "peak": 0}

    def close(self):
        """End the process."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
        self._log.close()

    def _last_words(self):
        self._log.seek(0)
        return self._log.read()[-300:].decode(errors="replace")


def serve():
    """Answer to mutants until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    sound = {}
    curate.measure(["a"])
    print(flush=True)  # noqa: T201
    for line in sys.stdin:
        task = json.loads(line)
        _forget_peak()
        try:
            outcome, detail = judge(task, sound)
        except Exception:
            outcome, detail = "traceback", traceback.format_exc()[-1500:]
        shutil.rmtree(task["out"], ignore_errors=True)
        answer = {"outcome": outcome, "detail": detail, "peak": _peak()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def judge(task, sound):
    """
    Scan a mutant, beside a sound shard if there is one, and say what came of it.

    `identical`, `quarantined` or `changed` with all that was read, or `refused`, or `wrong` where
    what the run tells of itself does not hold.
    """
    out, base = Path(task["out"]), task["base"]
    for path in filter(None, (base, task["beside"])):
        if path not in sound:
            sound[path] = _whole(path, out)
    corpus = [*filter(None, [task["beside"]]), task["mutant"]]
    try:
        report = curate.scan(
            corpus, out=out, on_error="quarantine", memory=MEMORY, threads=1, **SCAN
        )
    except curate.CurateError as error:
        line = str(error)
        if list(out.rglob("*.part")) or (out / "data").exists() or (out / "README.md").exists():
            return "wrong", f"refused, but a part of it was left: {line}"
        if "\n" in line or task["mutant"] not in line:
            return "wrong", f"refused with an odd message: {line!r}"
        return "refused", line
    return _account(report, out, sound[base], sound.get(task["beside"]))


def _whole(path, out):
    """The rows of a sound file, their features, and why some are not kept."""
    curate.scan(path, out=out, threads=1, **SCAN)
    found = pq.read_table(path), _features(out), _decided(out)["reason"].to_pylist()
    shutil.rmtree(out)
    return found


def _features(out):
    files = sorted((out / ".curate" / "features").glob("*.parquet"))
    return pa.concat_tables(pq.read_table(file) for file in files).drop_columns(["shard", "row"])


def _account(report, out, sound, beside):
    """What a run that came through did to the rows."""
    data = pa.concat_tables(map(pq.read_table, sorted((out / "data").iterdir())))
    features = _features(out)
    decided = _decided(out)
    left_out = Counter(decided["reason"].drop_null().to_pylist())
    skipped = [one.as_dict() for one in report.skipped]
    details = "; ".join(one["detail"] for one in skipped)
    told = f"{report.rows}, {report.kept}, {report.rejected}, {report.quarantined}; {details}"
    reasons = report.rejected | report.quarantined
    if report.rows != report.kept + sum(reasons.values()) or not {*report.rejected} <= {"empty"}:
        return "wrong", f"the account does not close: {told}"
    if not report.rows == features.num_rows == decided.num_rows or left_out != reasons:
        return "wrong", f"{features.num_rows} features, {left_out}: {told}"
    if report.kept != data.num_rows or report.units_skipped != len(skipped):
        return "wrong", f"{data.num_rows} rows, {len(skipped)} left out: {told}"
    if list(out.rglob("*.part")):
        return "wrong", "a part was left"
    first = 0 if beside is None else beside[0].num_rows
    if first and not data.slice(0, first).equals(beside[0]):
        return "changed", "rows of the sound shard"
    rows, measured, why = sound
    if features.num_rows - first not in (0, rows.num_rows):
        return "changed", f"{features.num_rows - first} rows of {rows.num_rows}"
    if features.num_rows - first == 0 and not skipped:
        return "changed", f"no rows of {rows.num_rows}"
    emitted = decided.slice(first)["kept"].combine_chunks()
    found = decided.slice(first)["reason"].to_pylist()
    if features.num_rows > first and (other := _other_verdicts(found, why)):
        return "changed", f"verdicts: {other}; {details}"
    if features.num_rows > first:
        rows, measured = rows.filter(emitted), measured.filter(emitted)
        features = features.slice(first).filter(emitted)
    else:
        rows = rows.slice(0, 0)
    if not data.slice(first).equals(rows) or data.slice(first).schema != rows.schema:
        return "changed", f"{_differing(data.slice(first), rows)}; {details}"
    if features.num_rows > first and not features.equals(measured):
        return "changed", f"features: {_differing(features, measured)}; {details}"
    if skipped:
        return "quarantined", details
    return "identical", f"{report.rows} rows"


def _other_verdicts(found, expected):
    """Reasons of rows that were read, and are not as those of the sound file."""
    pairs = Counter(zip(found, expected, strict=True))
    return {pair: n for pair, n in pairs.items() if pair[0] in NOT_READ and pair[0] != pair[1]}


def _decided(out):
    files = sorted((out / ".curate" / "selection").glob("*.parquet"))
    return pa.concat_tables(map(pq.read_table, files))


def _differing(found, expected):
    if found.num_rows != expected.num_rows or found.schema != expected.schema:
        return f"{found.num_rows} rows, expected {expected.num_rows}, {found.schema.names}"
    return [name for name in found.column_names if not found[name].equals(expected[name])]


def _forget_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def _peak():
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    serve()
