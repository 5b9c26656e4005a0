"""Lineage: what a run is made from, by hashes, back to the first checkpoint; and what an ancestor was trained on.

`runs` writes it into the run's folder, and compares it when a run is gone on with.
"""

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from two_stage.checkpointing.handoff import Checkpoint
from two_stage.command_line.exits import Refusal, say
from two_stage.command_line.redaction import redacted
from two_stage.data.files import check_files, file_format, file_sha256

PACKAGES = ("transformers", "torch", "datasets", "accelerate", "evaluate", "tokenizers")


def trace_lineage(
    script: str,
    checkpoint: Checkpoint,
    data: dict[str, list[str] | None],
    formats: tuple[str, ...],
    rows_a_step: int,
    precision: str = "fp32",
) -> dict[str, Any]:
    """What a run is about to be made from, with hashes taken before any of it is read.

    Args:
        script: the script's name.
        checkpoint: what the run starts from; its own lineage is kept inside, so the chain is whole.
        data: flag → files, or None where the flag was not given.
        formats: the endings that the script reads.
        rows_a_step: of all processes; a run can only be gone on with at the same,
        precision: and in the same.

    Returns:
        The content of lineage.json, but for the hashes of what is saved, which the end of the run adds.

    Raises:
        Refusal: a file that is missing, empty, or of a form that the script does not read.
    """
    given = {flag: files for flag, files in data.items() if files}
    for files in given.values():
        check_files(files, formats)
    return {
        "script": script,
        "checkpoint": {
            "name": redacted(checkpoint.name),
            "from_hub": not Path(checkpoint.name).is_dir(),
            "weights_sha256": checkpoint.weights_sha256,
            "config_sha256": checkpoint.config_sha256,
            "tokenizer_sha256": checkpoint.tokenizer_sha256,
            "lineage": checkpoint.lineage,
        },
        "data": {flag: {redacted(path): file_sha256(path) for path in files} for flag, files in given.items()},
        "rows_a_step": rows_a_step,
        "precision": precision,
        "tokenizer_sha256": checkpoint.tokenizer_sha256,
        "versions": _versions(),
        "commit": _commit(),
    }


def check_unseen(lineage: dict[str, Any], allow: bool) -> None:
    """Refuse to score on a file that the checkpoint, or one that it came from, was trained on.

    Args:
        lineage: from `trace_lineage`.
        allow: say it and go on.

    Raises:
        Refusal: naming the file, the script that trained on it, and how to go on.
    """
    seen: dict[str, str] = {}
    ancestor = lineage["checkpoint"]["lineage"]
    while ancestor:
        files = ancestor.get("data", {}).get("train_file", {})
        seen |= dict.fromkeys(files.values(), ancestor.get("script", "an earlier run"))
        ancestor = ancestor.get("checkpoint", {}).get("lineage")
    for flag in ("validation_file", "test_file"):
        for path, digest in lineage["data"].get(flag, {}).items():
            if digest in seen and file_format(path) != "txt":  # of plain text nothing is scored
                told = f"{path}: {seen[digest]} trained {lineage['checkpoint']['name']} on this very file"
                if not allow:
                    raise Refusal(f"{told}; give another --{flag}, or go on with --allow_leakage")
                say(f"! {told}")


@cache
def _versions() -> dict[str, str]:
    """Of the packages that make a run's numbers."""
    return {package: version(package) for package in PACKAGES}


@cache
def _commit() -> str | None:
    """The git commit of this code, with a + where it was changed since; None outside a clone."""
    here = Path(__file__).parent
    try:
        called = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty=+", "--match="]
        return subprocess.run(called, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
