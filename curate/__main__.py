"""
The command line. stdout is data, stderr is talk.

Exit status: 0 done, 1 our error (one line, no traceback), 2 misuse, 3 done but for what could not
be read, 130 and 143 on signals.
"""

import gc
import os
import signal
import sys
from types import FrameType

import click

from curate.commands.late import LateGroup
from curate.errors import CurateError
from curate.terminal import printable

STOPPED: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

AGAIN_SECONDS = 0.02
"""After which a signal that came during an import is looked at again."""

COMMANDS = {
    "scan": "Measure every trace of a corpus and, given a selection, emit the kept rows.",
    "select": "Select from the features that a scan left, without scanning again.",
    "status": "Say how far a run is, what is left, and what went wrong.",
    "verify": "Read again what a run left, and hold it against its manifest.",
    "show": "Show one trace, its steps numbered and its markers coloured.",
    "check": "Check whether trainers load a dataset, and what they would cut or drop.",
    "train": "Train a model on a dataset, audited before the first step.",
    "losses": "Score every token of a dataset under a model, and report the token view.",
    "evaluate": "Measure what a checkpoint can do: generate, grade, report, compare.",
    "lexicon": "List, show and test lexicons.",
    "layout": "List and show what is known of where traces are.",
}


@click.command(
    cls=LateGroup,
    late=COMMANDS,
    modules="curate.commands.{}",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="curate-cot", prog_name="curate")
def cli() -> None:
    """Measure, select and prove long chain-of-thought training traces."""


def main() -> None:
    """Run a command in a process of its own."""
    # Imports leave a million objects that stay; looking for garbage among them takes a fifth of a
    # second. NumPy's linear algebra, which nothing here needs, would start threads that spin.
    gc.set_threshold(50_000)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    code = run()
    gc.freeze()  # or the interpreter looks through all that it is about to give back
    sys.exit(code)


def run() -> int:
    """Run a command; the exit status is as the module's docstring says."""
    for number in STOPPED:
        if signal.getsignal(number) != signal.SIG_IGN:  # as of a job in the background
            signal.signal(number, _stop)
    try:
        code = cli.main(prog_name="curate", standalone_mode=False)
        sys.stdout.flush()
    except (CurateError, ImportError) as error:  # no such library, or no such kernel on this host
        code = _say(f"error: {error}", 1)
    except click.UsageError as error:
        error.show()
        code = error.exit_code
    except click.Abort:  # of a prompt
        code = _say("error: interrupted", 130)
    except StoppedError as error:
        notes = "".join(f" {note}" for note in getattr(error, "__notes__", [])[:1])
        code = _say(f"error: {error}{notes}", 128 + error.number)
    except OSError as error:  # a reader that has gone needs no word
        code = 1 if isinstance(error, BrokenPipeError) else _say(f"error: {error}", 1)
        # Nothing may be flushed at exit to what failed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # the interpreter's end knows no such signal
    return code if isinstance(code, int) else 0


class StoppedError(BaseException):
    """A signal, as an exception that ends the run. No Exception: nothing may go on over it."""

    def __init__(self, number: int) -> None:
        super().__init__(STOPPED[number])
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    """Stop; not in the middle of an import, which may swallow it or leave half a module."""
    if not _importing(frame):
        raise StoppedError(number)
    signal.signal(signal.SIGALRM, lambda _, later: _stop(number, later))
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _say(line: str, code: int) -> int:
    click.echo(printable(line), err=True)
    return code


if __name__ == "__main__":
    main()
