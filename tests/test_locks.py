"""One process at a time in a folder: a second run is refused, and a dead one holds nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.test_resume import BATCH, Call, call, dropout_folder  # noqa: F401
from tests.test_scripts import files_of
from two_stage.checkpointing.locks import HELD, lock_folder, unlock_folder
from two_stage.command_line.exits import Refusal

HOLDER = """
import sys, time
from pathlib import Path
from two_stage.checkpointing.locks import lock_folder
lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(100)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folder's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """It hears which one is at work, and leaves nothing open; once that one is killed, nothing stale is in the way."""
    with holder(tmp_path) as process:
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(
            Refusal, match=rf"another run is at work there \(process {process.pid}\); wait until it ends"
        ):
            lock_folder(tmp_path)
        assert set(os.listdir("/proc/self/fd")) == before
        assert tmp_path.resolve() not in HELD
        process.send_signal(signal.SIGKILL)
        process.wait()
        lock_folder(tmp_path)
    unlock_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_who_may_wait_waits(tmp_path: Path) -> None:
    """Until the other is gone, and no longer."""
    with holder(tmp_path) as process:
        waiting = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {process.pid}"])
        began = time.monotonic()
        lock_folder(tmp_path, waits=True)
        assert time.monotonic() - began > 0.4
        waiting.wait()
    unlock_folder(tmp_path)


def test_a_lock_is_taken_once_and_let_go(tmp_path: Path) -> None:
    """By whatever path the folder goes; after that another process can have it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert lock_folder(tmp_path / "run") == lock_folder(tmp_path / "link")
    unlock_folder(tmp_path / "link")
    unlock_folder(tmp_path / "run")  # nothing is there to let go
    with holder(tmp_path / "run"):
        pass


def test_a_forked_process_holds_no_lock(tmp_path: Path) -> None:
    """A data worker that outlives its run does not keep the next one out."""
    lock_folder(tmp_path)
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
    try:
        unlock_folder(tmp_path)
        with holder(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.slow  # it trains whole runs
def test_two_runs_in_one_folder(call: Callable[..., Call]) -> None:  # noqa: F811
    """A run that was cut off is being gone on with; a second call changes nothing, and goes on once the first died."""
    made = call("sentiment", *BATCH, "--save_strategy", "steps", "--save_steps", "3")
    made.cut("run", 5)
    folder = made.folder / "run"
    unlock_folder(folder)  # as the process's end would
    with holder(folder) as process:
        before = files_of(folder)
        with pytest.raises(Refusal, match=rf"at work there \(process {process.pid}\)"):
            made("run")
        assert files_of(folder) == before
    assert made("run")["train_loss"] > 0
