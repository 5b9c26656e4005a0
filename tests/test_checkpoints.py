"""Checkpoints are whole or not there; a broken one is set aside, and the newest good one gone on with."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Trainer, TrainerState

from tests.test_resume import BATCH, Call, CutOff, call, dropout_folder, history, scores_of  # noqa: F401
from tests.test_scripts import files_of
from two_stage.checkpointing import checkpoints
from two_stage.checkpointing.checkpoints import (
    UNFINISHED,
    check_space,
    find_checkpoint,
    numbered_checkpoints,
    put_in_place,
    remove_oldest,
    seal,
    set_aside,
    spoken_bytes,
    told_if_unwritten,
    what_is_lacking,
    what_is_wrong,
    write_whole,
)
from two_stage.command_line.exits import Failure, Refusal
from two_stage.training import resumable
from two_stage.training.trainer import ExactTrainer

FILES = {"model.safetensors": b"weights" * 9, "trainer_state.json": b"{}", "optimizer.pt": b"means", "a/b": b"below"}


def a_checkpoint(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    """A sealed folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    seal(folder)
    return folder


# --- One folder -------------------------------------------------------------------------------------------------------


def test_a_good_checkpoint(tmp_path: Path) -> None:
    """The manifest names every file, also below, but not itself; what came later does no harm."""
    folder = a_checkpoint(tmp_path / "checkpoint-5")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {name: entry["bytes"] for name, entry in files.items()} == {name: len(text) for name, text in FILES.items()}
    (folder / "notes.txt").write_text("mine")
    assert what_is_wrong(folder) is None
    assert what_is_lacking(folder) == ""


@given(
    name=st.sampled_from([*FILES, "manifest.json"]),
    place=st.integers(0, 10**6),
    kind=st.sampled_from("flip cut add".split()),
)
def test_any_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, name: str, place: int, kind: str) -> None:
    """One bit, the end cut off, or a byte behind it."""
    folder = a_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint-5")
    content = bytearray((folder / name).read_bytes())
    place %= len(content)
    if kind == "flip":
        content[place] ^= 1
    content = content[:place] if kind == "cut" else content + b"0" * (kind == "add")
    (folder / name).write_bytes(content)
    try:
        same = json.loads(content) if name == "manifest.json" else None
    except ValueError:
        same = None
    wrong = what_is_wrong(folder)
    if same is not None and wrong is None:  # a bit within white space, or a letter of the name of something else
        entries = [(file, entry["bytes"], entry["sha256"]) for file, entry in same["files"].items()]
        assert len(entries) == len(FILES)
    else:
        assert wrong is not None
        assert name in wrong or name == "manifest.json"


@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json", "a/b", "manifest.json"])
def test_a_file_that_is_gone(tmp_path: Path, name: str) -> None:
    """It is named."""
    folder = a_checkpoint(tmp_path / "checkpoint-5")
    (folder / name).unlink()
    assert name in str(what_is_wrong(folder))


@pytest.mark.parametrize("text", ["[]", "{}", '{"files": []}', '{"files": {"a": 1}}', "null", "\udcff"])
def test_a_manifest_that_is_none(tmp_path: Path, text: str) -> None:
    """Whatever JSON it is."""
    folder = a_checkpoint(tmp_path / "checkpoint-5")
    (folder / "manifest.json").write_text(text, errors="surrogateescape")
    assert what_is_wrong(folder) == "its manifest.json is broken"


def test_what_only_a_resume_needs_may_be_gone(tmp_path: Path) -> None:
    """The weights stay whole, and what is lacking is told; so it is of a checkpoint that never had an optimizer."""
    folder = a_checkpoint(tmp_path / "checkpoint-5", FILES | {"rng_state.pth": b"r"})
    for name in ("optimizer.pt", "rng_state.pth"):
        (folder / name).unlink()
    assert what_is_wrong(folder) is None
    assert what_is_lacking(folder) == "optimizer.pt, rng_state.pth"
    bare = a_checkpoint(tmp_path / "checkpoint-6", {"model.safetensors": b"w", "trainer_state.json": b"{}"})
    assert what_is_lacking(bare) == "optimizer.pt"


def test_a_folder_gives_way_to_a_newer_one(tmp_path: Path) -> None:
    """Nothing else is left."""
    files = {"model.safetensors": b"newer", "trainer_state.json": b"{}"}
    old, new = a_checkpoint(tmp_path / "checkpoint-5"), a_checkpoint(tmp_path / "new", files)
    put_in_place(new, old)
    assert set(files_of(tmp_path)) == {f"checkpoint-5/{name}" for name in (*files, "manifest.json")}
    assert what_is_wrong(old) is None


@pytest.mark.parametrize(
    ("files", "added", "wrong"),
    [
        ({}, {}, "names no weights"),
        ({"model.safetensors": b"w"}, {}, "names no trainer_state.json"),
        (FILES, {"rng_state.pth": b"r"}, "rng_state.pth is none of the files that were written"),
        (FILES, {"training_args.bin": b"a"}, None),
    ],
)
def test_a_manifest_names_what_a_checkpoint_needs(
    tmp_path: Path, files: dict[str, bytes], added: dict[str, bytes], wrong: str | None
) -> None:
    """An empty one is none, and a pickle that came later, which a resume would read, is noticed."""
    (tmp_path / "checkpoint-5").mkdir()
    folder = a_checkpoint(tmp_path / "checkpoint-5", files)
    for name, content in added.items():
        (folder / name).write_bytes(content)
    found = what_is_wrong(folder)
    assert found is None if wrong is None else wrong in str(found)


def test_folders_of_other_names_are_no_checkpoints(tmp_path: Path) -> None:
    """What a user calls checkpoint-best is left alone, and counts for nothing; a dangling link is not written over."""
    for name in ("checkpoint-best", "checkpoint-9", "checkpoint-10", "checkpoint-1x"):
        (tmp_path / name).mkdir()
    assert [path.name for path in numbered_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
    (tmp_path / "broken-checkpoint-9").symlink_to(tmp_path / "nowhere")
    assert set_aside(tmp_path / "checkpoint-9").name == "broken-checkpoint-9-2"


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, {1, 9, 10, 11}),
        (0, None, {1, 9, 10, 11}),
        (4, None, {1, 9, 10, 11}),
        (2, None, {10, 11}),
        (1, None, {11}),
        (1, 11, {11}),
        (1, 1, {1, 11}),
        (2, 9, {9, 11}),
        (3, 1, {1, 10, 11}),
    ],
)
def test_the_oldest_go(tmp_path: Path, limit: int | None, best: int | None, left: set[int]) -> None:
    """Neither the newest nor the best, and nothing that somebody put beside them, whatever its name begins with."""
    others = {"checkpoint-1-mine", "checkpoint-99-mine", "checkpoint-best", "broken-checkpoint-9"}
    for name in {*others, *(f"checkpoint-{step}" for step in (1, 9, 10, 11))}:
        (tmp_path / name).mkdir()
    remove_oldest(tmp_path, limit, best and f"elsewhere/checkpoint-{best}")
    assert {path.name for path in tmp_path.iterdir()} == others | {f"checkpoint-{step}" for step in left}


def test_a_copy_put_aside_is_left_alone(whole: "Call", monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that rotates its checkpoints leaves a user's copy of one, and keeps its own newest one beside it."""
    own = ExactTrainer._save_checkpoint

    def copied(self: ExactTrainer, *args: Any) -> None:
        own(self, *args)
        if self.state.global_step == 3:
            shutil.copytree(self.checkpoint_folder, f"{self.checkpoint_folder}000-mine")

    monkeypatch.setattr(ExactTrainer, "_save_checkpoint", copied)
    whole("copied")
    kept = {path.name for path in (whole.folder / "copied").glob("checkpoint-*")}
    assert kept == {"checkpoint-12", "checkpoint-3000-mine"}


def test_a_text_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that breaks off leaves what was there."""
    path = tmp_path / "scores.json"
    write_whole(path, "old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):  # noqa: PT012
        patch.setattr(os, "fsync", full)
        write_whole(path, "new")
    assert path.read_text() == "old"


# --- A run's folder ---------------------------------------------------------------------------------------------------


def test_the_newest_good_one_is_found(tmp_path: Path) -> None:
    """Newer ones that are broken get a name of their own each time; half of one goes away; 10 comes behind 9."""
    for step in (8, 9, 10, 11):
        a_checkpoint(tmp_path / f"checkpoint-{step}", FILES | {"step": str(step).encode()})
    (tmp_path / "checkpoint-notes").mkdir()
    a_checkpoint(tmp_path / UNFINISHED / "checkpoint-12")
    (tmp_path / "checkpoint-11" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "broken-checkpoint-11").mkdir()
    found = find_checkpoint(tmp_path)
    assert found is not None
    assert found.folder == tmp_path / "checkpoint-10"
    assert (tmp_path / "broken-checkpoint-11-2" / "model.safetensors").read_bytes() == b"half"
    assert not (tmp_path / UNFINISHED).exists()
    (found.folder / "manifest.json").unlink()
    assert find_checkpoint(tmp_path).folder == tmp_path / "checkpoint-9"  # type: ignore[union-attr]


def test_none_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and nothing is removed."""
    (tmp_path / "checkpoint-5").mkdir()
    assert find_checkpoint(tmp_path) is None
    assert "beginning anew" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["broken-checkpoint-5"]
    assert find_checkpoint(tmp_path) is None


@given(times=st.integers(1, 5))
def test_names_aside_are_unique(tmp_path_factory: pytest.TempPathFactory, times: int) -> None:
    """However often the same step's checkpoint breaks."""
    folder = tmp_path_factory.mktemp("run")
    names = []
    for _ in range(times):
        (folder / "checkpoint-7").mkdir()
        names.append(set_aside(folder / "checkpoint-7").name)
    assert len(set(names)) == times


# --- What cannot be written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 12 vs 9"), "inline_container"),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space left"),
    ],
)
def test_a_full_disk_is_told_in_one_line(tmp_path: Path, error: Exception, cause: str) -> None:
    """Folder, cause, what is free, what is not lost."""
    with pytest.raises(Failure) as told, told_if_unwritten(tmp_path / "checkpoint-8", "checkpoint-4 is intact"):
        raise error
    line = str(told.value)
    assert "\n" not in line
    for needle in (str(tmp_path / "checkpoint-8"), cause, "are free", "same command", "checkpoint-4 is intact"):
        assert needle in line


def test_a_fault_of_the_program_is_not_called_a_full_disk(tmp_path: Path) -> None:
    """It keeps its traceback."""
    with pytest.raises(ValueError, match="shape"), told_if_unwritten(tmp_path, ""):
        raise ValueError("wrong shape")


def test_a_run_that_cannot_hold_a_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, two means of Adam's and the final model: four times the weights; by hand."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 399))  # type: ignore[attr-defined]
    check_space(tmp_path / "not" / "there", 99)
    with pytest.raises(Refusal, match="need 400 bytes, and 399 bytes are free"):
        check_space(tmp_path / "not" / "there", 100)


def test_bytes_are_spoken() -> None:
    """In units of 1,000."""
    assert [spoken_bytes(n) for n in (7, 1_500, 2_400_000, 7.26e9, 2e12)] == [
        "7 bytes", "2 kB", "2 MB", "7.3 GB", "2000.0 GB"
    ]  # fmt: skip


# --- Killed while it saves --------------------------------------------------------------------------------------------


def half(path: Path) -> None:
    """What a kill leaves of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


Stage = Callable[[pytest.MonkeyPatch, Callable[[], bool]], None]


def killed(owner: Any, name: str, is_due: Callable[..., bool] = lambda *_, **__: True, leaves: Any = None) -> Stage:
    """A kill when a function is called, with what it leaves."""

    def arm(patch: pytest.MonkeyPatch, is_time: Callable[[], bool]) -> None:
        own = getattr(owner, name)

        def replaced(*args: Any, **kwargs: Any) -> Any:
            if not (is_time() and is_due(*args, **kwargs)):
                return own(*args, **kwargs)
            if leaves:
                leaves(own, *args, **kwargs)
            raise CutOff

        patch.setattr(owner, name, replaced)

    return arm


def half_the_weights(own: Any, made: Any, folder: str, *_: Any, **__: Any) -> None:
    """The model's file breaks off."""
    own(made, folder)
    half(Path(folder, "model.safetensors"))


def half_the_optimizer(own: Any, state: Any, path: str) -> None:
    """The optimizer's file breaks off."""
    own(state, path)
    half(Path(path))


def half_the_state(own: Any, state: Any, path: str) -> None:
    """The trainer's state breaks off."""
    own(state, path)
    half(Path(path))


def half_the_manifest(own: Any, folder: Path) -> None:
    """The manifest breaks off, as no rename would let it."""
    own(folder)
    half(folder / "manifest.json")


STAGES: dict[str, Stage] = {
    "half the weights": killed(ExactTrainer, "_save", leaves=half_the_weights),
    "before the optimizer": killed(Trainer, "_save_optimizer_and_scheduler"),
    "half the optimizer": killed(
        torch, "save", lambda state, path: str(path).endswith("optimizer.pt"), half_the_optimizer
    ),
    "before the scheduler": killed(torch, "save", lambda state, path: str(path).endswith("scheduler.pt")),
    "before the random state": killed(Trainer, "_save_rng_state"),
    "before the trainer's state": killed(TrainerState, "save_to_json"),
    "half the trainer's state": killed(TrainerState, "save_to_json", leaves=half_the_state),
    "before the manifest": killed(resumable, "seal"),
    "half the manifest": killed(resumable, "seal", leaves=half_the_manifest),
    "before it has its name": killed(resumable, "put_in_place"),
    "half the files on the disk": killed(checkpoints, "sync"),
    "before older ones go": killed(resumable, "remove_oldest"),
}
QUICK = {"half the optimizer", "before older ones go"}


@pytest.fixture(scope="module")
def whole(
    dropout_folder: Path,  # noqa: F811
    data_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Call:
    """A finished run, saved every third step of twelve."""
    flags = [*BATCH, "--eval_strategy", "epoch", "--save_strategy", "steps", "--save_steps", "3"]
    made = Call("sentiment", tmp_path_factory.mktemp("whole"), dropout_folder, data_folder, *flags)
    made("whole")
    return made


@pytest.mark.parametrize("stage", [pytest.param(s, marks=() if s in QUICK else pytest.mark.slow) for s in STAGES])
def test_killed_while_it_saves(whole: Call, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command goes on from the last good checkpoint, with no hand, and ends in the same numbers."""
    name = stage.replace(" ", "-")
    made: list[ExactTrainer] = []

    def noted(self: ExactTrainer, *args: Any) -> None:
        made[:] = [self]
        own(self, *args)

    own = ExactTrainer._save_checkpoint
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CutOff):  # noqa: PT012
        patch.setattr(ExactTrainer, "_save_checkpoint", noted)
        STAGES[stage](patch, lambda: bool(made) and made[0].state.global_step == 9)
        whole(name)
    run = whole.folder / name
    there = {path.name for path in run.glob("checkpoint-*")}
    assert "checkpoint-6" in there or stage == "before older ones go"
    assert all(what_is_wrong(run / checkpoint) is None for checkpoint in there)
    assert not (run / "all_results.json").exists()
    capsys.readouterr()
    whole(name)
    went_on = "checkpoint-9" if "checkpoint-9" in there else "checkpoint-6"
    assert f"Going on from {run / went_on}" in capsys.readouterr().out
    whole.same_end(name)
    assert {path.name for path in run.glob("*checkpoint-*")} == {"checkpoint-12"}


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "trainer_state.json", "manifest.json"])
def test_damaged_when_it_is_read(whole: Call, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk lost half of a file of the newest: it is set aside, and the one before is gone on with."""
    name = f"damaged-{file}"
    whole.cut(name, 11, "--save_total_limit", "2")
    run = whole.folder / name
    half(run / "checkpoint-9" / file)
    capsys.readouterr()
    whole(name, "--save_total_limit", "2")
    said = capsys.readouterr().out
    assert f"{run / 'checkpoint-9'}: " in said
    assert "set aside as broken-checkpoint-9" in said
    assert f"Going on from {run / 'checkpoint-6'}" in said
    whole.same_end(name)


def test_without_its_optimizer_a_run_is_not_gone_on_with(whole: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """Stock Trainer starts Adam and the learning rate anew in silence; here a flag lets it pass, and it is kept."""
    whole.cut("lost", 11)
    run = whole.folder / "lost"
    for file in ("optimizer.pt", "scheduler.pt"):
        (run / "checkpoint-9" / file).unlink()
    before = files_of(run)
    with pytest.raises(Refusal, match=r"checkpoint-9 has lost optimizer\.pt, scheduler\.pt.*--resume_anyway"):
        whole("lost")
    assert files_of(run) == before
    capsys.readouterr()
    whole("lost", "--resume_anyway")
    assert "has lost optimizer.pt" in capsys.readouterr().out
    assert "optimizer.pt" in json.loads((run / "lineage.json").read_text())["changes"][0]
    rates = [
        [entry["learning_rate"] for entry in history(path) if "learning_rate" in entry]
        for path in (run, whole.folder / "whole")
    ]
    assert rates[0] == pytest.approx(rates[1])  # the schedule goes on where it was
    assert "resume_anyway" not in (run / "recipe.yaml").read_text()


def test_other_settings_are_not_gone_on_with(whole: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is named with both its values; a flag lets them pass, and the lineage tells of it."""
    whole.cut("other", 11)
    before = files_of(whole.folder / "other")
    changed = ["--learning_rate", "1e-4", "--weight_decay", "0.1"]
    with pytest.raises(Refusal, match=r"learning_rate 2e-05 → 0\.0001, weight_decay 0\.01 → 0\.1.*--resume_anyway"):
        whole("other", *changed)
    assert files_of(whole.folder / "other") == before
    capsys.readouterr()
    whole("other", *changed, "--resume_anyway")
    assert "learning_rate 2e-05 → 0.0001" in capsys.readouterr().out
    lineage = json.loads((whole.folder / "other" / "lineage.json").read_text())
    assert "learning_rate 2e-05 → 0.0001" in lineage["changes"][0]
    with pytest.raises(Refusal, match=r"give another --output_dir$"):  # finished, no flag lets it be changed
        whole("other", "--learning_rate", "1e-3", "--resume_anyway")


def test_a_finished_run_changes_no_file(whole: Call) -> None:
    """Not even a time."""
    run = whole.folder / "whole"
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [run, *run.rglob("*")]}
    scores = whole("whole")
    assert scores == json.loads((run / "all_results.json").read_text())
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [run, *run.rglob("*")]} == before


def test_a_run_of_weights_alone(whole: Call) -> None:
    """--save_only_model saves no optimizer: the run ends, and cut off it is not gone on with in silence."""
    whole.cut("bare", 11, "--save_only_model", "true")
    with pytest.raises(Refusal, match=r"has lost optimizer\.pt"):
        whole("bare", "--save_only_model", "true")
