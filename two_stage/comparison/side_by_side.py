"""Runs of the scripts side by side: as many at once as there are devices, each a process with a folder of its own."""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from two_stage.checkpointing.checkpoints import told_if_unwritten
from two_stage.checkpointing.locks import lock_folder, unlock_folder
from two_stage.checkpointing.runs import RESULTS
from two_stage.command_line.exits import Refusal, say

FINISHED, FAILED, LEFT_OUT = "finished", "failed", "left out"
PAUSE = 0.1  # seconds between two looks at what runs


class PlannedRun(NamedTuple):
    """One call of one script."""

    name: str  # what is said of it; its log is called so too
    command: tuple[str, ...]  # a script of this project and its flags
    folder: Path  # its --output_dir
    needs: tuple[str, ...] = ()  # names of the runs that must be finished first
    resumes: bool = False  # half of it is gone on with; else it is done anew
    kind: str = ""  # runs of one kind take about as long


class Outcome(NamedTuple):
    """What became of a run."""

    status: str
    reason: str = ""  # one line, why it failed or was left out


def is_finished(folder: Path) -> bool:
    """Whether a run left its last file there."""
    return (folder / RESULTS).is_file()


def device_slots(workers: int | None) -> list[dict[str, str]]:
    """One entry a run that is to go on at the same time: the environment that gives it a device of its own.

    Args:
        workers: how many at once; None is one a GPU, or without one as many as there are cores, four at most, since
            each holds a model.

    Returns:
        Environments: a GPU's number, in turn where there are more workers than GPUs; or a share of the cores, unless
        OMP_NUM_THREADS is set.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if torch.cuda.is_available() and gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers or len(gpus))]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = workers or min(cores, 4)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(cores // workers, 1))  # who set it knows what else runs
    return [{"OMP_NUM_THREADS": threads} for _ in range(workers)]


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Make `folder` if need be, lock it, and give the lock on to every process started meanwhile, by its file number.

    So a folder is free when the last process is gone that works in it, whoever was killed before: another call waits
    until then, rather than begin a run that still goes on.

    Raises:
        Refusal: the folder cannot be made.
        Failure: meanwhile something in it could not be written, most often because the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"{folder}: cannot be made ({error.strerror}); give another --output_dir") from error
    try:
        lock = lock_folder(folder, waits=True)
        with told_if_unwritten(folder, "what is finished is kept"):
            yield lock
    finally:
        unlock_folder(folder)


class SideBySide:
    """Runs that go on at the same time, each begun when those that it needs are finished."""

    def __init__(
        self,
        planned: list[PlannedRun],
        slots: list[dict[str, str]],
        logs: Path,
        lock: int,
        on_finish: Callable[[PlannedRun], str],
    ) -> None:
        """Look at what is finished already.

        Args:
            planned: in the order in which they are to be begun.
            slots: from `device_slots`.
            logs: the folder that gets a log a run.
            lock: from `locked`.
            on_finish: called when a run has finished, and of one that was finished before; what it returns is said.
        """
        self.planned, self.slots, self.logs, self.lock, self.on_finish = planned, list(slots), logs, lock, on_finish
        self.workers = len(slots)
        self.outcomes = {run.name: Outcome(FINISHED) for run in planned if is_finished(run.folder)}
        self.waiting = [run for run in planned if run.name not in self.outcomes]
        self.going: dict[str, tuple[PlannedRun, subprocess.Popen[bytes], dict[str, str], float]] = {}
        self.seconds: dict[str, list[float]] = {}  # that finished runs of a kind took

    def run_all(self) -> dict[str, Outcome]:
        """Run everything; returns what became of each run by its name. A failed one does not stop the others.

        Raises:
            KeyboardInterrupt, Stopped: as it came, after every run that was going on has been stopped.
        """
        before_call = len(self.outcomes)
        if before_call:
            say(f"{before_call} of {len(self.planned)} runs are finished already")
        for run in self.planned:
            if run.name in self.outcomes:
                self.on_finish(run)
        self.logs.mkdir(exist_ok=True)
        form = "{percentage:3.0f} %|{bar}| {n_fmt}/{total_fmt} runs, {elapsed} gone{postfix}"
        try:
            with tqdm(total=len(self.planned), initial=before_call, bar_format=form, file=sys.stderr) as bar:
                while self.waiting or self.going:
                    self.begin_ready()
                    if ended := [name for name, (_, process, *_) in self.going.items() if process.poll() is not None]:
                        for name in ended:
                            bar.write(self.end(name), file=sys.stdout)
                        sys.stdout.flush()
                    bar.n = len(self.outcomes)
                    bar.set_postfix_str(self.time_left(), refresh=False)
                    bar.refresh()
                    time.sleep(PAUSE)
        finally:
            self.stop()
        return self.outcomes

    def begin_ready(self) -> None:
        """Begin what has all it needs while there is a device, and leave out what will never have it."""
        for run in list(self.waiting):
            found = [self.outcomes[name] for name in run.needs if name in self.outcomes]
            if lacking := [name for name in run.needs if name in self.outcomes and self.outcomes[name][0] != FINISHED]:
                self.waiting.remove(run)
                self.outcomes[run.name] = Outcome(LEFT_OUT, f"needs {lacking[0]}, which failed")
            elif len(found) == len(run.needs) and self.slots:
                self.waiting.remove(run)
                self.begin(run, self.slots.pop(0))

    def begin(self, run: PlannedRun, slot: dict[str, str]) -> None:
        """Start a run's process on a device; what half a run left goes away, unless the script goes on with it."""
        if not run.resumes and run.folder.exists():
            shutil.rmtree(run.folder)
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log_of(run), "wb") as log:
            process = subprocess.Popen(
                [sys.executable, *run.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | slot,
                pass_fds=(self.lock,),
            )
        self.going[run.name] = (run, process, slot, time.monotonic())

    def end(self, name: str) -> str:
        """Note how a run ended, and free its device; returns what is said of it."""
        run, process, slot, started = self.going.pop(name)
        self.slots.append(slot)
        seconds = time.monotonic() - started
        if process.returncode == 0 and is_finished(run.folder):
            self.outcomes[name] = Outcome(FINISHED)
            self.seconds.setdefault(run.kind, []).append(seconds)
            return f"{name}: {self.on_finish(run)}, {spoken_time(seconds)}"
        self.outcomes[name] = Outcome(FAILED, why_it_failed(process.returncode, last_line(self.log_of(run))))
        return f"! {name}: failed after {spoken_time(seconds)}: {self.outcomes[name].reason}"

    def stop(self) -> None:
        """End what is still going on: first as Ctrl-C would, after five seconds at once; a save may take a minute."""
        for _, process, *_ in self.going.values():
            process.send_signal(signal.SIGINT)
        for run, process, *_ in self.going.values():
            try:
                process.wait(timeout=60 if run.resumes else 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def time_left(self) -> str:
        """About how long the rest will take, by what finished runs took; nothing before one has finished.

        Nor while a stage one is ahead, which takes as long as nobody knows: no other is like it.
        """
        ahead = [*self.waiting, *(run for run, *_ in self.going.values())]
        if not self.seconds or any(run.resumes for run in ahead):
            return ""
        overall = statistics.mean(second for seconds in self.seconds.values() for second in seconds)
        now = time.monotonic()
        expected = {kind: statistics.mean(seconds) for kind, seconds in self.seconds.items()}
        left = sum(expected.get(run.kind, overall) for run in self.waiting)
        going = [max(expected.get(run.kind, overall) - (now - began), 0.0) for run, _, _, began in self.going.values()]
        return f"about {spoken_time(max((left + sum(going)) / self.workers, *going, 0.0))} left"

    def log_of(self, run: PlannedRun) -> Path:
        """Where a run's output goes."""
        return (
            self.logs / f"{run.name.replace('%', 'percent').replace(',', '').replace(' ', '_').replace('/', '_')}.txt"
        )


def why_it_failed(code: int, said: str) -> str:
    """The reason in a line: the last line that a run said, unless it was killed, of which that line knows nothing.

    Args:
        code: as the process ended; below 0 by a signal.
        said: its last line, or nothing.
    """
    if code >= 0:
        return said or f"exit code {code}"
    full = ", as happens when memory is full" if -code == signal.SIGKILL else ""
    before = f"; before that it said: {said}" if said else ""
    return f"killed by signal {-code} ({signal.strsignal(-code)}){full}{before}"


def last_line(log: Path) -> str:
    """The last line that a process wrote, as a reader of the screen would see it."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[-500:] if lines else ""


def spoken_time(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
