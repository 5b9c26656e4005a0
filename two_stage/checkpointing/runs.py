"""One run a folder: a run is begun, gone on with, or found finished; none is written over."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from two_stage.checkpointing.checkpoints import find_checkpoint, numbered_checkpoints, write_whole
from two_stage.checkpointing.hub import upload_run
from two_stage.checkpointing.locks import HELD, lock_folder, unlock_folder
from two_stage.command_line.exits import Failure, Refusal, say
from two_stage.command_line.recipe import read_recipe, recipe_text
from two_stage.command_line.redaction import redacted_values
from two_stage.data.files import file_sha256, nearest_existing

if TYPE_CHECKING:
    from two_stage.training.training_arguments import ExactTrainingArguments

T = TypeVar("T")

RESULTS, RECIPE, LINEAGE = "all_results.json", "recipe.yaml", "lineage.json"
PARTIAL = ".unfinished-"  # how the names begin of what is worth keeping of a prediction that was cut off
# settings that cannot change what a run makes
HARMLESS = {"output_dir", "use_cpu", "dataloader_num_workers", "preprocessing_workers", "report_to", "disable_tqdm"}
HARMLESS |= {"workers", "keep_models"}
BEGINNING = {LINEAGE, f".{LINEAGE}", f".{RECIPE}"}  # all that a run has that was killed as it began
HARMLESS |= {"push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy", "hub_always_push"}


@dataclass(frozen=True)
class Run:
    """The state in which a script finds its output folder."""

    folder: Path
    checkpoint: str | None = None  # the last checkpoint of a run that was cut off
    scores: dict[str, float] | None = None  # of a run that is finished
    changes: tuple[str, ...] = ()  # what is not as when the run began, and was let pass


def open_run(
    output_dir: str,
    recipe: dict[str, Any],
    lineage: dict[str, Any],
    check_only: bool = False,
    has_parts: bool = False,
    resume_anyway: bool = False,
) -> Run:
    """Look at the output folder before anything is read, loaded or written, and lock it if a run lies there half done.

    One process looks, and all of them hear what it found.

    Args:
        output_dir: the run's folder; it need not exist.
        recipe: the resolved recipe of this call.
        lineage: what this call would be made from.
        check_only: nothing will be written, so whatever is there does not matter.
        has_parts: what lies there is worth keeping though there is no checkpoint, so that other settings are refused.
        resume_anyway: go on with a run that is half done although settings, files or its optimizer are not its own.

    Returns:
        A finished run with its scores, a run to go on with from its newest good checkpoint, or a new one.

    Raises:
        Refusal: the folder is a file, holds something else, or holds a run with other settings or from other files, or
            one that another process is at work on, or whose checkpoint has lost its optimizer.
    """
    folder = Path(output_dir)
    if check_only:
        return Run(folder)
    return told_to_all(lambda: _look(folder, recipe, lineage, has_parts, resume_anyway))


def told_to_all(look: Callable[[], T]) -> T:
    """What the first process finds, in every process; what it refuses, every process refuses."""
    found: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            found = [look()]
        except Refusal as refusal:
            found = [refusal]
        except Exception as error:  # the others must not wait for what never comes
            broadcast_object_list([Failure(f"the first process failed: {error}")])
            raise
    if isinstance(answer := broadcast_object_list(found)[0], Refusal | Failure):
        raise answer
    return answer


def _look(folder: Path, recipe: dict[str, Any], lineage: dict[str, Any], has_parts: bool, resume_anyway: bool) -> Run:
    """What `open_run` returns."""
    _check_place(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return Run(folder)
    if not (folder / RECIPE).is_file():
        if {path.name for path in folder.iterdir()} <= BEGINNING:
            lock_folder(folder)
            return Run(folder)
        raise Refusal(f"{folder}: is not empty and holds no run; give another --output_dir")
    if not (folder / RESULTS).exists():
        lock_folder(folder, waits=has_parts)  # a killed caller's runs may still be at work on its parts
    is_finished = (folder / RESULTS).exists()
    changes = _changes(folder, recipe, lineage, resuming=not is_finished)
    if is_finished:
        if changes:
            raise Refusal(f"{folder}: {changes[0]}; give another --output_dir")
        return Run(folder, scores=finished_scores(folder / RESULTS))
    is_predicting = any(folder.glob(f"{PARTIAL}*"))
    is_begun = has_parts or bool(numbered_checkpoints(folder)) or is_predicting
    override = "" if has_parts else ", or go on with it all the same by --resume_anyway"
    if changes and is_begun and not resume_anyway:
        raise Refusal(f"{folder}: {changes[0]}; give another --output_dir{override}")
    found = find_checkpoint(folder)
    if found is None and not is_predicting:
        return Run(folder)
    if found and found.lacks:
        changes.append(f"{found.folder.name} has lost {found.lacks}, without which nothing goes on exactly")
        if not resume_anyway:
            raise Refusal(f"{folder}: {changes[-1]}; remove it to go on from an older one{override}")
    for change in changes:
        say(f"! {folder}: {change}: going on all the same")
    if found is None:
        return Run(folder, changes=tuple(changes))
    say(f"Going on from {found.folder}")
    return Run(folder, checkpoint=str(found.folder), changes=tuple(changes))


def _check_place(folder: Path) -> None:
    """Refuse a place where no folder can be made, read or written to."""
    try:
        if folder.exists() and not folder.is_dir():
            raise Refusal(f"{folder}: is a file; give --output_dir a folder")
        if folder.is_symlink() and not folder.exists():
            raise Refusal(f"{folder}: is a link that leads nowhere; give another --output_dir")
        there = nearest_existing(folder)
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            raise Refusal(f"{folder}: no right to read and write in {there}; give another --output_dir")
        if under := [str(parent) for parent in folder.parents if parent.is_file()]:
            raise Refusal(f"{folder}: {under[0]} is a file; give --output_dir another folder")
    except OSError as error:  # a name too long, a link in a circle
        shown = f"{str(folder)[:60]}…" if len(str(folder)) > 200 else folder
        raise Refusal(f"{shown}: can be no folder ({error.strerror}); give another --output_dir") from error


def _changes(folder: Path, recipe: dict[str, Any], lineage: dict[str, Any], resuming: bool) -> list[str]:
    """What is not as when the run in `folder` began, a line each."""
    changes = []
    if changed := changed_settings(read_recipe(str(folder / RECIPE)), recipe):
        changes.append(f"holds a run with other settings ({changed})")
    if other := changed_inputs(folder / LINEAGE, lineage, resuming):
        changes.append(f"{other} since this run began")
    return changes


def finished_scores(results: Path) -> dict[str, float]:
    """The scores of a finished run.

    Args:
        results: its all_results.json.

    Raises:
        Refusal: that file is broken.
    """
    return read_object(results, "remove it, and the run is finished anew")


def read_object(path: Path, mend: str) -> dict[str, Any]:
    """The JSON object that a file of a run holds.

    Args:
        path: of the file.
        mend: what to do about a broken one.

    Raises:
        Refusal: that file is broken.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{path}: broken ({error}); {mend}") from error
    if not isinstance(found, dict):
        raise Refusal(f"{path}: broken (no object); {mend}")
    return found


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two resolved recipes, as "learning_rate 2e-05 → 5e-05"; what is harmless does not count."""
    before, now = redacted_values(before), redacted_values(now)  # as they were written
    keys = sorted((before.keys() | now.keys()) - HARMLESS)
    pairs = [(key, _spoken(before.get(key, "default")), _spoken(now.get(key, "default"))) for key in keys]
    changed = [f"{key} {old} → {new}" for key, old, new in pairs if old != new]
    return ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")


def _spoken(value: Any) -> str:
    """A setting as text that is the same whether it was read from a file or typed: 5.0e-05 and 5e-5 are 5e-05."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_spoken, value)) + "]"
    if str(value).lower() in ("true", "false"):
        return str(value).lower()
    if re.fullmatch(r"0\d+", str(value)):  # a name, as of a column
        return str(value)
    try:
        return f"{float(value):.17g}" if float(f"{float(value):g}") != float(value) else f"{float(value):g}"
    except ValueError:
        return str(value).rstrip("/") or str(value)  # a folder's name, with the slash that a shell puts behind it


def changed_inputs(lineage_file: Path, now: dict[str, Any], resuming: bool) -> str | None:
    """The first file that is another than when the run began, as "train.csv changed"; None if all are the same."""
    try:
        now, before = redacted_values(now), json.loads(lineage_file.read_text(encoding="utf-8"))
        for flag, files in now["data"].items():
            for path, digest in files.items():
                if before["data"].get(flag, {}).get(path) != digest:
                    return f"{path} changed"
        if before["checkpoint"]["weights_sha256"] != now["checkpoint"]["weights_sha256"]:
            return f"the weights of {now['checkpoint']['name']} changed"
        for key, spoken in (("tokenizer_sha256", "the tokenizer"), ("config_sha256", "the config.json")):
            if before["checkpoint"].get(key) != now["checkpoint"].get(key):
                return f"{spoken} of {now['checkpoint']['name']} changed"
        for key, spoken in (("rows_a_step", "rows a step"), ("precision", "precision")):
            if resuming and key in now and before[key] != now[key]:
                return f"{spoken} changed from {before[key]} to {now[key]}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{lineage_file} was lost or changed"
    return None


def write_lineage(folder: Path, lineage: dict[str, Any]) -> None:
    """Write lineage.json: what a run, or the model in a folder, was made from; without secrets."""
    write_whole(folder / LINEAGE, json.dumps(redacted_values(lineage), indent=2) + "\n")


def saved_hashes(folder: Path) -> dict[str, str]:
    """What lineage.json says of a model that was saved, for whoever starts from it to see that it is the same."""
    return {
        "weights_sha256": file_sha256(folder / "model.safetensors"),
        "config_file_sha256": config_file_sha256(folder / "config.json"),
    }


def config_file_sha256(path: Path) -> str:
    """The SHA-256 of what a config.json says, however it is laid out and whatever version of transformers wrote it."""
    fields = json.loads(path.read_text(encoding="utf-8")) | {"transformers_version": None}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def write_results(folder: Path, scores: dict[str, float]) -> None:
    """Write all_results.json, the last file of a run: where it stands, the run is finished."""
    write_whole(folder / RESULTS, json.dumps(scores, indent=2, sort_keys=True, allow_nan=False) + "\n")


def begin_run(run: Run, recipe: dict[str, Any], lineage: dict[str, Any]) -> None:
    """Make and lock the run's folder, and write its recipe and lineage, by which the same command finds it again.

    Args:
        run: as `open_run` found it.
        recipe: as resolved.
        lineage: as traced; it gets `changes`, what was let pass when the run was gone on with.

    Raises:
        Refusal: the folder cannot be written to, or another process began or finished a run there meanwhile.
    """
    told_to_all(lambda: _begin(run, recipe, lineage))


def _begin(run: Run, recipe: dict[str, Any], lineage: dict[str, Any]) -> None:
    """What `begin_run` does in one process."""
    folder = run.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_ours = folder.resolve() in HELD
        lock_folder(folder)
        if not is_ours and any(folder.iterdir()):
            unlock_folder(folder)
            raise Refusal(f"{folder}: another run was begun there meanwhile; run the same command again to see")
        before = _written_lineage(folder) if run.changes else {}
        if changes := [*before.get("changes", []), *run.changes]:
            lineage["changes"] = changes
        write_lineage(folder, lineage)
        write_whole(folder / RECIPE, recipe_text(recipe, lineage["script"], folder))
    except OSError as error:
        raise Refusal(f"{folder}: cannot be written to ({error.strerror}); give another --output_dir") from error


def _written_lineage(folder: Path) -> dict[str, Any]:
    """The lineage that stands in a run's folder; nothing where it was lost or broken."""
    try:
        lineage = json.loads((folder / LINEAGE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return lineage if isinstance(lineage, dict) else {}


def left_as_it_is(run: Run, training: "ExactTrainingArguments | None" = None) -> dict[str, float]:
    """Say that the run is finished and that nothing was done, but to upload it if that is asked for; its scores."""
    say(f"{run.folder} holds this very run, finished: left as it is")
    if training is not None and training.push_to_hub:
        told_to_all(lambda: upload_run(run.folder, training))
    return run.scores or {}
