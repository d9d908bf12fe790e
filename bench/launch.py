"""
Run a command; write its wall and CPU seconds, peak memory and exit status to a file, as JSON.

    $ python -S bench/launch.py REPORT COMMAND...

The kernel counts a process's peak from its fork on, when it still is a copy of who started it. So
the one who starts it must be small: this file alone, without site-packages.
"""

import json
import os
import subprocess
import sys
import time


def main(report: str, *command: str) -> None:
    """Run the command to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    cpu_seconds = usage.ru_utime + usage.ru_stime
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(report, "w") as file:
        json.dump([seconds, cpu_seconds, usage.ru_maxrss * 1024, process.returncode], file)


if __name__ == "__main__":
    main(*sys.argv[1:])
