"""How a script ends: 0 done, 1 failed, 2 refused, 143 or 130 stopped by SIGTERM or Ctrl-C; and a line that says why."""

import gc
import os
import signal
import sys
import time
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tqdm import tqdm

from two_stage.command_line.redaction import redacted

ONE_STOP = 3.0  # seconds: a launcher passes on the Ctrl-C that the terminal has sent already; that is no second one
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Refusal(Exception):
    """What the user gave cannot be used: one line that says what, where and how to mend it; exit code 2."""


class OneLineParser(ArgumentParser):
    """Whose errors are one line; help keeps the text as it is written."""

    def __init__(self, **given: Any) -> None:
        super().__init__(formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False, **given)

    def error(self, message: str) -> NoReturn:
        """Refuse without argparse's usage text."""
        raise Refusal(f"{message} (--help lists the flags)")


class Failure(Exception):
    """Some of the work failed, and what was done is kept: one line that says what; exit code 1."""


class Stopped(BaseException):
    """A signal ended the run; exit code 128 + its number."""

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(number)
        self.number, self.saved = number, saved  # the checkpoint that was written on the way out


class Stops:
    """What signals asked of this process: a stop at once, or while a model learns at the end of the step.

    A stop that comes again after some seconds is heeded at once.
    """

    def __init__(self) -> None:
        self.asked, self.since, self.waits = 0, 0.0, False

    def heed(self, number: int, frame: FrameType | None = None) -> None:
        """The handler of SIGTERM and SIGINT.

        Raises:
            Stopped: nothing is going on that should be brought to an end first, or the user grows impatient.
        """
        if not self.waits or (self.asked and time.monotonic() - self.since > ONE_STOP):
            raise Stopped(number)
        if not self.asked:
            self.asked, self.since = number, time.monotonic()
            if int(os.environ.get("LOCAL_RANK", 0)) == 0:
                # print may not be called again from within a print
                os.write(2, b"\nstopping at the end of this step, with a checkpoint; ask once more to stop at once\n")

    @contextmanager
    def heeded_at_step_end(self) -> Iterator[None]:
        """While a model learns, stops are noted in `asked`, and who trains looks there."""
        self.asked, self.waits = 0, True
        try:
            yield
        finally:
            self.waits = False


STOPS = Stops()  # of this process: signals are the process's


def _leave_stops_to_the_parent() -> None:
    """A forked process ends when it is told to, and is not told by Ctrl-C: its parent tells it."""
    if signal.getsignal(signal.SIGTERM) == STOPS.heed:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


os.register_at_fork(after_in_child=_leave_stops_to_the_parent)


def outlive_one_stop(worker: int) -> None:
    """Let a process that makes batches go on through one SIGTERM and through Ctrl-C.

    A scheduler tells all processes of a job at once, and without its workers the run could not finish its step. The
    second SIGTERM, which a worker that hangs gets from its run, ends it.
    """

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, first)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def say(text: str) -> None:
    """Print once, however many processes say it, above the progress bars that are there."""
    if int(os.environ.get("RANK", 0)) == 0:
        with tqdm.external_write_mode():
            print(_printable(text, kept="\n"), flush=True)


def run_script(main: Callable[[list[str]], object]) -> NoReturn:
    """Call `main` with the command line and end the process as this module's first line says.

    A bare `--debug` shows the traceback of a refusal or failure; with a value it is TrainingArguments' own.
    """
    gc.freeze()  # all that was imported: Trainer asks for collections, which would look it through
    gc.enable()
    script, argv = Path(sys.argv[0]).name, sys.argv[1:]
    debug = "--debug" in argv
    for number in STOP_SIGNALS:
        signal.signal(number, STOPS.heed)
    try:
        main([flag for flag, after in pairwise([*argv, "--"]) if flag != "--debug" or not after.startswith("-")])
    except (KeyboardInterrupt, Stopped) as stop:
        end_stopped(script, stop)
    except Refusal as refusal:
        if debug:
            traceback.print_exc()
        elif int(os.environ.get("LOCAL_RANK", 0)) == 0:  # once a machine: its files may be others
            print(f"{script}: {_one_safe_line(str(refusal))}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        # a job's other processes were told to stop as well, and what needed them broke off
        if STOPS.asked and not debug and not isinstance(error, Failure):
            end_stopped(script, Stopped(STOPS.asked))
        line = str(error) if isinstance(error, Failure) else told_failure(error)
        if debug or line is None:
            raise
        rank = f" (process {os.environ['RANK']})" if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""
        sys.stderr.write(f"{script}{rank}: {_one_safe_line(line)}\n")  # at once, so that no other process's cuts in
        sys.exit(1)
    sys.exit(0)


def _one_safe_line(text: str) -> str:
    """One line without secrets, and without what a terminal would obey."""
    return redacted(_printable(text))


def _printable(text: str, kept: str = "") -> str:
    """Text without what a terminal would obey, but for `kept`: names and texts of files may stand in it."""
    return "".join(letter if letter.isprintable() or letter in kept else " " for letter in text)


def end_stopped(script: str, stop: BaseException) -> NoReturn:
    """End the process as a signal's: 128 + its number."""
    saved = f"; saved {stop.saved}" if isinstance(stop, Stopped) and stop.saved else ""
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        print(f"{script}: interrupted{saved}; the same command goes on from the last checkpoint", file=sys.stderr)
    sys.exit(128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT))


def _is_of_a_lost_worker(error: BaseException) -> bool:
    """Whether a batch was to be fetched from a process that was killed just then, before torch had noticed."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    is_fetching = any(Path(file).parts[-3:-1] == ("torch", "multiprocessing") for file in files)
    return is_fetching and isinstance(error, (ConnectionError, EOFError, FileNotFoundError))


def told_failure(error: BaseException) -> str | None:
    """One line about a fault that is not the program's, and how to mend it; None of any other."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if kind == "FloatingPointError":
        return f"{text}; try a lower --learning_rate, or --precision fp32"
    if kind == "OutOfMemoryError":
        return (
            "the GPU's memory is full; give a smaller --per_device_train_batch_size, and as many times more "
            "--gradient_accumulation_steps: the numbers stay the same"
        )
    what = {"MemoryError": "no memory is left", "BrokenProcessPool": "a process that reads data was killed"}.get(kind)
    is_told = "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text)
    if is_told or _is_of_a_lost_worker(error):
        what = "a process that makes batches was killed, as happens when memory is full"
    if what is None:
        return None
    return (
        f"{what} ({text[:120] or kind}); give fewer --dataloader_num_workers or --preprocessing_workers, and run the "
        "same command again: it goes on from the last checkpoint"
    )
