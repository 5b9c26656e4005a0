"""One run a folder: a run is begun, gone on with, or found finished; none is written over."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.trainer_utils import get_last_checkpoint

from two_stage.recipe import Refusal, read_recipe, recipe_text, say

RESULTS, RECIPE, LINEAGE = "all_results.json", "recipe.yaml", "lineage.json"
# settings that cannot change what a run makes
HARMLESS = {"output_dir", "use_cpu", "dataloader_num_workers", "preprocessing_workers", "report_to", "disable_tqdm"}
HARMLESS |= {"workers", "keep_models"}


@dataclass(frozen=True)
class Run:
    """The state in which a script finds its output folder."""

    folder: Path
    checkpoint: str | None = None  # the last checkpoint of a run that was cut off
    scores: dict[str, float] | None = None  # of a run that is finished


def open_run(
    output_dir: str,
    recipe: dict[str, Any],
    lineage: dict[str, Any],
    check_only: bool = False,
    has_parts: bool = False,
) -> Run:
    """Look at the output folder before anything is read, loaded or written.

    Args:
        output_dir: the run's folder; it need not exist.
        recipe: the resolved recipe of this call.
        lineage: what this call would be made from.
        check_only: nothing will be written, so whatever is there does not matter.
        has_parts: what lies there is worth keeping though there is no checkpoint, so that other settings are refused.

    Returns:
        A finished run with its scores, a run to go on with from its last checkpoint, or a new one.

    Raises:
        Refusal: the folder is a file, holds something else, or holds a run with other settings or from other files.
    """
    folder = Path(output_dir)
    if check_only:
        return Run(folder)
    if folder.exists() and not folder.is_dir():
        raise Refusal(f"{folder}: is a file; give --output_dir a folder")
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(there, os.W_OK):
        raise Refusal(f"{folder}: no right to write in {there}; give another --output_dir")
    if under := [str(parent) for parent in folder.parents if parent.is_file()]:
        raise Refusal(f"{folder}: {under[0]} is a file; give --output_dir another folder")
    if not folder.exists() or not any(folder.iterdir()):
        return Run(folder)
    if not (folder / RECIPE).is_file():
        raise Refusal(f"{folder}: is not empty and holds no run; give another --output_dir")
    changed = changed_settings(read_recipe(str(folder / RECIPE)), recipe)
    results = folder / RESULTS
    checkpoint = get_last_checkpoint(str(folder))
    is_begun = has_parts or results.exists() or checkpoint
    if changed and is_begun:
        raise Refusal(f"{folder}: holds a run with other settings ({changed}); give another --output_dir")
    other = changed_inputs(folder / LINEAGE, lineage, resuming=not results.exists())
    if other and is_begun:
        raise Refusal(f"{folder}: {other} since this run began; give another --output_dir")
    if results.exists():
        try:
            return Run(folder, scores=json.loads(results.read_text(encoding="utf-8")))
        except json.JSONDecodeError as error:
            raise Refusal(f"{results}: broken ({error}); remove it, and the run is finished anew") from error
    return Run(folder, checkpoint=checkpoint)


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two resolved recipes, as "learning_rate 2e-05 → 5e-05"; what is harmless does not count."""
    keys = sorted((before.keys() | now.keys()) - HARMLESS)
    pairs = [(key, _spoken(before.get(key, "default")), _spoken(now.get(key, "default"))) for key in keys]
    changed = [f"{key} {old} → {new}" for key, old, new in pairs if old != new]
    return ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")


def _spoken(value: Any) -> str:
    """A setting as text that is the same whether it was read from a file or typed: 5.0e-05 and 5e-5 are 5e-05."""
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    if str(value).lower() in ("true", "false"):
        return str(value).lower()
    try:
        return f"{float(value):.17g}" if float(f"{float(value):g}") != float(value) else f"{float(value):g}"
    except ValueError:
        return str(value)


def changed_inputs(lineage_file: Path, now: dict[str, Any], resuming: bool) -> str | None:
    """The first file that is another than when the run began, as "train.csv changed"; None if all are the same."""
    try:
        before = json.loads(lineage_file.read_text(encoding="utf-8"))
        for flag, files in now["data"].items():
            for path, digest in files.items():
                if before["data"].get(flag, {}).get(path) != digest:
                    return f"{path} changed"
        if before["checkpoint"]["weights_sha256"] != now["checkpoint"]["weights_sha256"]:
            return f"the weights of {now['checkpoint']['name']} changed"
        if resuming and before["rows_a_step"] != now["rows_a_step"]:
            return f"rows a step changed from {before['rows_a_step']} to {now['rows_a_step']}"
    except (OSError, ValueError, KeyError):
        return f"{lineage_file} was lost or changed"
    return None


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_results(folder: Path, scores: dict[str, float]) -> None:
    """Write all_results.json, the last file of a run: where it stands, the run is finished."""
    write_whole(folder / RESULTS, json.dumps(scores, indent=2, sort_keys=True, allow_nan=False) + "\n")


def begin_run(run: Run, recipe: dict[str, Any], lineage: dict[str, Any]) -> None:
    """Make the run's folder and write its recipe and lineage, by which the same command finds its own run again.

    No process writes before every process has looked at the folder.

    Args:
        run: as `open_run` found it.
        recipe: as resolved.
        lineage: as traced.
    """
    processes = PartialState()
    processes.wait_for_everyone()
    if processes.is_main_process:
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refusal(f"{run.folder}: cannot be made ({error.strerror}); give another --output_dir") from error
        write_whole(run.folder / LINEAGE, json.dumps(lineage, indent=2) + "\n")
        write_whole(run.folder / RECIPE, recipe_text(recipe, lineage["script"], run.folder))


def left_as_it_is(run: Run) -> dict[str, float]:
    """Say that the run is finished and that nothing was done; returns its scores."""
    say(f"{run.folder} holds this very run, finished: left as it is")
    return run.scores or {}
