"""Trackers of --report_to: there before a model is loaded, and where they write files, in the run's own folder."""

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from two_stage.command_line.exits import Refusal

if TYPE_CHECKING:  # importing transformers' trackers takes seconds, and --help must not wait for them
    from transformers import TrainerCallback

MODULES = {"azure_ml": "azureml", "flyte": "flytekit"}  # trackers whose module has another name
PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml", "flyte": "flytekit"}
OFTEN = ("tensorboard", "trackio", "wandb", "mlflow")  # what a refusal names
# tracker → the variable that tells it where its files lie, and where in the run's folder that is
LOCAL = {"trackio": ("TRACKIO_DIR", "trackio"), "wandb": ("WANDB_DIR", "")}  # where wandb makes a folder of its name


def check_trackers(names: Iterable[str]) -> None:
    """Refuse a tracker that nobody knows, whose package is not installed, or that has no key: Trainer would do it late.

    Raises:
        Refusal: naming the command that mends it.
    """
    if not (names := list(names)):
        return
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise Refusal(f"--report_to {name}: is no tracker; known are {', '.join(OFTEN)} and others of transformers")
        if not _is_installed(MODULES.get(name, name)):
            package = PACKAGES.get(name, name)
            raise Refusal(
                f"--report_to {name}: its package is not installed; pip install {package}, or leave {name} out"
            )
        if name == "wandb" and os.environ.get("WANDB_MODE", "online") == "online" and not _is_logged_in():
            raise Refusal("--report_to wandb: there is no key; run wandb login, or set WANDB_MODE=offline")


def _is_logged_in() -> bool:
    """Whether wandb has a key; it asks for none, and a Trainer without one would end in a traceback."""
    import wandb

    return bool(wandb.login(prompt=False))


def _is_installed(module: str) -> bool:
    """Whether a module can be imported; a folder `wandb` or `mlruns` that a tracker left in the way is none."""
    found = find_spec(module)
    return found is not None and found.origin is not None


def keep_local(names: Iterable[str], output_dir: str) -> None:
    """Let trackio, which looks once, where it is imported, and wandb keep runs in the run's folder unless told where.

    With several seeds that is the folder of all of them.
    """
    for name in LOCAL.keys() & set(names):
        variable, folder = LOCAL[name]
        os.environ.setdefault(variable, str(Path(output_dir, folder).absolute()))


def write_into(callbacks: Iterable["TrainerCallback"], output_dir: str) -> None:
    """Let TensorBoard's files lie in `output_dir`/tensorboard, unless TENSORBOARD_LOGGING_DIR says where.

    Of itself it takes a new folder each time that a run is gone on with, and where nothing is trained one outside.
    """
    from transformers.integrations.integration_utils import TensorBoardCallback

    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(Path(output_dir, "tensorboard"))
