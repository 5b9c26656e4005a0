"""One process at a time in a folder.

The lock is the kernel's, on the folder itself: it ends with the process, and no file is left that could grow stale.
"""

import fcntl
import os
from pathlib import Path

from two_stage.command_line.exits import Refusal, say

HELD: dict[Path, int] = {}  # folder → file number, of the locks of this process


def lock_folder(folder: Path, waits: bool = False) -> int:
    """Lock a folder for as long as this process lives, or until `unlock_folder`.

    Args:
        folder: which must be there. A process that has its lock already keeps it.
        waits: until whoever holds it is gone, rather than refuse.

    Returns:
        The lock's file number. A process started with it holds the lock, too; one forked off does not.

    Raises:
        Refusal: another process holds it.
    """
    folder = folder.resolve()
    if folder in HELD:
        return HELD[folder]
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if not waits:
            os.close(file)
            raise Refusal(
                f"{folder}: another run is at work there{_spoken_holder(folder)}; wait until it ends, or give another "
                "--output_dir"
            ) from error
        say(f"{folder}: runs of an earlier call are still at work there: waiting until they end")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:  # some network file systems know no locks
        say(f"! {folder}: cannot be locked ({error.strerror}): see to it that no other run writes there")
    HELD[folder] = file
    return file


def unlock_folder(folder: Path) -> None:
    """Let the folder go, if this process has its lock."""
    if (file := HELD.pop(folder.resolve(), None)) is not None:
        os.close(file)


def _spoken_holder(folder: Path) -> str:
    """Which process holds the lock, as far as this machine knows."""
    try:
        inode = str(folder.stat().st_ino)
        rows = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
        found = [row[4] for row in rows if row[1] == "FLOCK" and row[5].split(":")[-1] == inode]
        return f" (process {found[0]})" if found else ""
    except (OSError, IndexError):
        return ""


def _forget_locks() -> None:
    """A forked process must not hold a lock longer than the one that took it."""
    for file in HELD.values():
        os.close(file)
    HELD.clear()


os.register_at_fork(after_in_child=_forget_locks)
