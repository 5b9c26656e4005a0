"""A disk that is full, or may not be written to: one line, nothing lost, and the same command goes on."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer, TrainerState

import run_pretraining
from tests.test_resume import BATCH, Call, dropout_folder  # noqa: F401
from tests.test_scripts import files_of
from two_stage.checkpointing.checkpoints import what_is_wrong
from two_stage.checkpointing.locks import HELD, unlock_folder
from two_stage.command_line.exits import Failure, Refusal
from two_stage.results import report
from two_stage.training import resumable
from two_stage.training.trainer import ExactTrainer

MEGABYTE = 2**20
SAVES = [*BATCH, "--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "epoch"]


class SmallDisk:
    """A file system in memory; only root may mount one."""

    def __init__(self, place: Path, megabytes: int = 8) -> None:
        self.place, self.filler = place, place / "somebody-elses"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)], check=True)

    def fill(self, free: int = 0) -> None:
        """Leave so many bytes."""
        left = shutil.disk_usage(self.place).free
        with open(self.filler, "ab") as file:
            file.write(b"\0" * max(left - free, 0))

    def make_room(self) -> None:
        """As the user does."""
        self.filler.unlink()

    def read_only(self, is_so: bool) -> None:
        """Let it be read alone, or written again."""
        subprocess.run(["mount", "-o", f"remount,{'ro' if is_so else 'rw'}", str(self.place)], check=True)


def may_mount() -> bool:
    """Whether this user can make a file system."""
    return (
        os.geteuid() == 0 and subprocess.run(["mount", "-f", "-t", "tmpfs", "x", "/mnt"], check=False).returncode == 0
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not may_mount(), reason="only root may mount a small file system"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small disk that goes away."""
    made = SmallDisk(tmp_path / "disk")
    yield made
    for folder in list(HELD):
        unlock_folder(folder)
    subprocess.run(["umount", "-l", str(made.place)], check=True)


@pytest.fixture
def small(disk: SmallDisk, dropout_folder: Path, data_folder: Path) -> Call:  # noqa: F811
    """A command whose runs lie on the small disk, where one was never disturbed."""
    made = Call("sentiment", disk.place, dropout_folder, data_folder, *SAVES)
    made("whole")
    return made


# what is about to be written when the disk becomes full, and the bytes that are left: of the second file, half fits
STAGES: dict[str, tuple[Any, str, int]] = {
    "model": (ExactTrainer, "_save", 20_000),
    "optimizer": (Trainer, "_save_optimizer_and_scheduler", 100_000),
    "state": (TrainerState, "save_to_json", 0),
    "manifest": (resumable, "seal", 0),
}


@pytest.mark.parametrize("stage", STAGES)
def test_full_in_the_middle_of_a_save(small: Call, disk: SmallDisk, stage: str) -> None:
    """Folder, cause and room are told; the checkpoint before is whole; with room again the same command goes on."""
    owner, name, free = STAGES[stage]
    own = getattr(owner, name)

    def fills(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (disk.place / "run" / "checkpoint-6").exists() and not disk.filler.exists():
            disk.fill(free)
        return own(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Failure) as told:  # noqa: PT012
        patch.setattr(owner, name, fills)
        small("run")
    run = disk.place / "run"
    for needle in (
        f"{run}/checkpoint-9: could not be written",
        "are free",
        "make room",
        f"{run}/checkpoint-6 is intact",
    ):
        assert needle in str(told.value)
    assert "\n" not in str(told.value)
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-6"]
    assert what_is_wrong(run / "checkpoint-6") is None
    disk.make_room()
    small("run")
    small.same_end("run")


def test_full_at_the_end(small: Call, disk: SmallDisk) -> None:
    """The run is trained and cannot be written: nothing says that it is finished, and no step is taken again."""
    own = report.write_results

    def fills(folder: Path, scores: dict[str, float]) -> None:
        disk.fill()
        own(folder, scores)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Failure, match=r"checkpoint-\d+ is intact"):  # noqa: PT012
        patch.setattr(report, "write_results", fills)
        small("run")
    assert not (disk.place / "run" / "all_results.json").exists()
    disk.make_room()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "training_step", None)
        small("run")
    small.same_end("run")


@pytest.mark.parametrize("script", ["sentiment", "ner"])
@pytest.mark.parametrize("name", ["write_label_scores", "write_predictions"])
def test_full_when_scores_and_predictions_are_written(
    script: str,
    name: str,
    disk: SmallDisk,
    dropout_folder: Path,  # noqa: F811
    data_folder: Path,
) -> None:
    """Told as at a run's very end."""
    call = Call(script, disk.place, dropout_folder, data_folder, "--max_steps", "1", "--save_strategy", "no")
    call.flags += ["--test_file", call.flags[call.flags.index("--train_file") + 1]]
    own = getattr(call.module, name)

    def fills(*args: Any) -> Any:
        disk.fill()
        return own(*args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Failure, match="run: could not be written: No space"):  # noqa: PT012
        patch.setattr(call.module, name, fills)
        call("run")
    disk.make_room()
    assert call("run")["test_loss"] > 0


def test_no_room_for_one_checkpoint(disk: SmallDisk, dropout_folder: Path, data_folder: Path) -> None:  # noqa: F811
    """It is refused before the first step, with the room that it takes."""
    call = Call("sentiment", disk.place, dropout_folder, data_folder, *SAVES)
    disk.fill(200_000)
    with pytest.raises(Refusal, match=r"need \d+ kB, and \d+ kB are free; make room, or give an --output_dir") as told:
        call("run")
    assert f"{disk.place}/run" in str(told.value)
    assert sorted(files_of(disk.place / "run")) == ["lineage.json", "recipe.yaml"]
    disk.make_room()
    assert call("run")["train_loss"] > 0


def test_full_when_the_model_on_the_way_is_kept(disk: SmallDisk, dropout_folder: Path, data_folder: Path) -> None:  # noqa: F811
    """--keep_at of stage one: told as a checkpoint is."""
    call = Call("pretraining", disk.place, dropout_folder, data_folder, "--max_steps", "4", "--keep_at", "50")
    call.flags += ["--per_device_train_batch_size", "8", "--save_strategy", "steps", "--save_steps", "1"]
    own = run_pretraining.KeepModels.write

    def fills(self: run_pretraining.KeepModels, *args: Any) -> None:
        disk.fill(20_000)
        own(self, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Failure, match="kept/50-percent: could not be written"):  # noqa: PT012
        patch.setattr(run_pretraining.KeepModels, "write", fills)
        call("run")
    assert not (disk.place / "run" / "kept" / "50-percent").exists()
    disk.make_room()
    call("run")
    assert sorted(path.name for path in (disk.place / "run" / "kept").iterdir()) == ["50-percent"]


def read_only_while(disk: SmallDisk, change: Callable[[], object]) -> None:
    """Do something while nothing can be written."""
    disk.read_only(True)
    try:
        change()
    finally:
        disk.read_only(False)


def test_a_disk_that_is_read_only(disk: SmallDisk, dropout_folder: Path, data_folder: Path) -> None:  # noqa: F811
    """A new run and one that is cut off are refused before a model loads, and nothing changes."""
    call = Call("sentiment", disk.place, dropout_folder, data_folder, *SAVES)
    call.cut("begun", 5)
    unlock_folder(disk.place / "begun")
    before = files_of(disk.place)
    for name in ("new", "begun"):

        def refused(name: str = name) -> None:
            with pytest.raises(Refusal, match=r"no right to read and write in .*; give another --output_dir"):
                call(name)

        read_only_while(disk, refused)
    assert files_of(disk.place) == before
    assert call("begun")["train_loss"] > 0
