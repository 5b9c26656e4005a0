"""Checkpoints: written whole or not at all, verified when they are read, the newest good one gone on with.

Stock Trainer writes a checkpoint file by file into its final folder, and takes the folder with the highest number for
the last one: a run that is killed meanwhile can never be gone on with until somebody removes that folder
(huggingface/transformers#35782). Here a folder gets its name when all that is in it has reached the disk.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from two_stage.command_line.exits import Failure, Refusal, say
from two_stage.data.files import file_sha256, nearest_existing

MANIFEST = "manifest.json"  # the last file of a checkpoint: what belongs to it, with sizes and hashes
UNFINISHED = ".unfinished"  # in a run's folder: where checkpoints are written
NUMBERED = re.compile(r"checkpoint-(\d+)")
OPTIMIZER = ("optimizer", "global_step")  # how the names begin of what Trainer, FSDP and DeepSpeed keep of it
RESUME_ONLY = re.compile(r"(optimizer|scheduler|scaler|rng_state).*\.(pt|pth)")  # without which weights remain whole
NEEDED = {  # by Trainer alone, FSDP or DeepSpeed
    "weights": re.compile(r"model.*\.safetensors|(pytorch_model_fsdp|global_step).*"),
    "trainer_state.json": re.compile(r"trainer_state\.json"),
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNWRITABLE = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class FoundCheckpoint(NamedTuple):
    """The checkpoint to go on from."""

    folder: Path
    lacks: str  # what an exact resume would need and is not there; else empty


# --- Writing ----------------------------------------------------------------------------------------------------------


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, whenever the process or the machine stops."""
    partial = path.with_name(f".{path.name}")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the list of files of a folder, has reached the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def files_below(folder: Path) -> dict[str, Path]:
    """All files of a folder by their paths in it."""
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def seal(folder: Path) -> None:
    """Write the manifest of a folder that is complete: each file's bytes and SHA-256."""
    files = {
        name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for name, path in files_below(folder).items()
    }
    write_whole(folder / MANIFEST, json.dumps({"files": files}, indent=1) + "\n")


def put_in_place(partial: Path, folder: Path) -> None:
    """Give a complete folder its name, after all of it has reached the disk.

    Args:
        partial: on the same file system.
        folder: the name; a folder that has it already gives way.
    """
    for path in files_below(partial).values():
        sync(path)
    for below in [*(path for path in partial.rglob("*") if path.is_dir()), partial]:
        sync(below)
    if folder.exists():
        old = partial.with_name(f".old-{folder.name}")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.rename(folder)
    sync(folder.parent)


@contextmanager
def told_if_unwritten(folder: Path, intact: str) -> Iterator[None]:
    """Tell in one line that something could not be written, most often because the disk is full.

    Args:
        folder: that is being written.
        intact: what is not lost, as the line ends.

    Raises:
        Failure: naming the folder, the cause and the space that is left.
    """
    try:
        yield
    except Exception as error:  # OSError, safetensors' own, and torch's RuntimeError
        text = " ".join(str(error).split())
        is_full = getattr(error, "errno", None) in FULL or re.search("No space left|Disk quota|File too large", text)
        # what torch.save says when its writer cannot write on
        is_ours = type(error).__module__ == "builtins" and getattr(error, "errno", None) in UNWRITABLE  # no network's
        if not is_ours and not is_full and not re.search("inline_container|StreamWriter", text):
            raise
        cause = getattr(error, "strerror", None) or ("No space left on device" if is_full else text[:120])
        free = spoken_bytes(shutil.disk_usage(nearest_existing(folder)).free)
        raise Failure(
            f"{folder}: could not be written: {cause} ({free} are free); make room and run the same command again; "
            f"{intact}"
        ) from error


def check_space(folder: Path, weights_bytes: int) -> None:
    """Refuse a run whose disk cannot hold even one checkpoint: the weights, Adam's two means, and the final model.

    Raises:
        Refusal: naming what is needed and what is free.
    """
    needed, free = 4 * weights_bytes, shutil.disk_usage(nearest_existing(folder)).free
    if free < needed:
        raise Refusal(
            f"{folder}: a checkpoint and the final model need {spoken_bytes(needed)}, and {spoken_bytes(free)} are "
            "free; make room, or give an --output_dir on another disk"
        )


def spoken_bytes(count: float) -> str:
    """Bytes in the unit that suits them, of 1,000."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


# --- Reading ----------------------------------------------------------------------------------------------------------


def what_is_wrong(folder: Path) -> str | None:
    """Why a checkpoint cannot be trusted; None of a good one. What only an exact resume needs may be missing.

    Args:
        folder: with its manifest; every file that it names is read once.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except FileNotFoundError:
        return f"has no {MANIFEST}, so it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"its {MANIFEST} is broken"
    for what, names in NEEDED.items():
        if not any(names.fullmatch(name) for name in expected):
            return f"its {MANIFEST} names no {what}"
    if added := [name for name in files_below(folder) if RESUME_ONLY.fullmatch(name) and name not in expected]:
        return f"{added[0]} is none of the files that were written"
    for name, (size, digest) in expected.items():
        path = folder / name
        if not path.is_file():
            if not RESUME_ONLY.fullmatch(name):
                return f"{name} is missing"
        elif path.stat().st_size != size or file_sha256(path) != digest:
            return f"{name} is not the file that was written"
    return None


def what_is_lacking(folder: Path) -> str:
    """The files that an exact resume from a good checkpoint would need and that are not there; else nothing."""
    names = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"].keys()
    missing = [name for name in names if not (folder / name).is_file()]
    if not any(name.startswith(OPTIMIZER) for name in names):
        missing.append("optimizer.pt")
    return ", ".join(missing)


def numbered_checkpoints(folder: Path) -> list[Path]:
    """The folders in a run's folder that are named as checkpoints, good or not, by their steps."""
    found = {path: NUMBERED.fullmatch(path.name) for path in folder.glob("checkpoint-*") if path.is_dir()}
    return sorted((path for path in found if found[path]), key=lambda path: int(path.name.split("-")[1]))


def remove_oldest(folder: Path, limit: int | None, best: str | None) -> None:
    """Remove checkpoints of a run, the oldest first, until `limit` are left; neither the newest nor the best one goes.

    transformers' own goes by the beginning of a name, and so removes a copy that somebody put aside in the folder, or
    removes the newest checkpoint in its stead.

    Args:
        folder: the run's.
        limit: None, or 0 and less, keeps all.
        best: where the best one lies, if there is one.
    """
    numbered = numbered_checkpoints(folder)
    spare = {numbered[-1].name, Path(best).name if best else ""} if numbered else set()
    old = [checkpoint for checkpoint in numbered if checkpoint.name not in spare]
    surplus = len(numbered) - limit if limit and limit > 0 else 0
    for checkpoint in old[: max(surplus, 0)]:
        shutil.rmtree(checkpoint, ignore_errors=True)


def find_checkpoint(folder: Path) -> FoundCheckpoint | None:
    """The newest good checkpoint of a run; broken ones that are newer are set aside, and what was half done goes away.

    Only for who has the folder's lock.

    Args:
        folder: the run's.

    Returns:
        None where there is no good one.
    """
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    numbered = numbered_checkpoints(folder)
    for checkpoint in reversed(numbered):
        wrong = what_is_wrong(checkpoint)
        if wrong is None:
            return FoundCheckpoint(checkpoint, what_is_lacking(checkpoint))
        say(f"! {checkpoint}: {wrong}; set aside as {set_aside(checkpoint).name}")
    if numbered:
        say(f"! {folder}: no checkpoint is good: beginning anew")
    return None


def set_aside(checkpoint: Path) -> Path:
    """Rename a broken checkpoint to a name that no run takes for one and that nothing has yet; returns it."""
    number = 1
    while os.path.lexists(aside := checkpoint.with_name(f"broken-{checkpoint.name}" + f"-{number}" * (number > 1))):
        number += 1
    return checkpoint.rename(aside)
