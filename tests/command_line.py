"""The command line as tests call it, and small corpora for it."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner

from curate.__main__ import cli

COMMAND = [sys.executable, "-m", "curate"]

TRACE = "First.\n\nAlternatively, second.\n\nThird."


def run(*arguments, **options):
    """The command line in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options
    )


def invoke(*arguments):
    """What a command that goes well prints; a CurateError of it is raised."""
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.stderr
    return result.stdout


def write(path, rows=6, **columns):
    """A shard of ids, teachers, sizes and traces; `columns` replace or extend them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        "id": [f"{path.stem}-{n}" for n in range(rows)],
        "teacher": ["A", "B"] * (rows // 2),
        "size": list(range(rows)),
        "trace": [TRACE + "\n\nAnother way." * n for n in range(rows)],
    }
    pq.write_table(pa.table(table | columns), path)
    return path


def tree(folder):
    """Every file under a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def only_line(result):
    """The one line of stderr of a run that ended with an error of ours."""
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    return line.removeprefix("error: ")
