"""A task of stage two, from its flags to its run's folder: what `run_sentiment.py` and `run_ner.py` do alike."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from two_stage.checkpointing.handoff import Checkpoint
from two_stage.checkpointing.lineage import check_unseen, trace_lineage
from two_stage.checkpointing.runs import Run
from two_stage.command_line.exits import Refusal
from two_stage.data.sources import SourceFlags, check_training_flags, split_sources, trace_dataset
from two_stage.training.losses import chosen_loss
from two_stage.training.training_arguments import FineTuningArguments

SettingsT = TypeVar("SettingsT", bound=SourceFlags)
ArgumentsT = TypeVar("ArgumentsT", bound=FineTuningArguments)
ReadingT = TypeVar("ReadingT")


@dataclass(frozen=True)
class Task(Generic[SettingsT, ArgumentsT, ReadingT]):
    """What is settled before any row is learned from."""

    settings: SettingsT  # the script's own flags
    training: ArgumentsT  # those of Trainer
    recipe: dict[str, Any]  # both, as they came to be
    checkpoint: Checkpoint
    reading: ReadingT  # how much of a row the model reads, and how
    lineage: dict[str, Any]
    run: Run
    started: float  # when, in seconds of `time.time`

    @property
    def trains(self) -> bool:
        """Whether there is a train split; without one the checkpoint's own head answers."""
        return "train" in split_sources(self.settings)

    @property
    def is_calibrated(self) -> bool:
        """Whether the head that answers was divided by a temperature when it was trained."""
        return not self.trains and bool(getattr(self.checkpoint.config, "head_temperature", None))


def check_task(settings: Any, training: FineTuningArguments, flags: tuple[str, ...]) -> None:
    """Refuse flags that do not go together, before any file is looked at.

    Args:
        settings: the script's own flags.
        training: those of Trainer.
        flags: which of the script's own mean nothing where nothing is trained.

    Raises:
        Refusal: naming the flag.
    """
    check_training_flags(settings, flags)
    if training.push_to_hub and "train" not in split_sources(settings):
        raise Refusal("--push_to_hub: uploads a model that was trained; nothing is trained here")
    chosen_loss(settings.loss, training.label_smoothing_factor, settings.focal_gamma)


def trace_task(
    script: str, settings: Any, checkpoint: Checkpoint, training: FineTuningArguments, formats: tuple[str, ...]
) -> dict[str, Any]:
    """`trace_lineage` of a script of stage two, its data set too; no ancestor may have learned what is scored here.

    Args:
        script: the script's name.
        settings: its flags, those of SourceFlags and `allow_leakage` among them.
        checkpoint, training, formats: as `trace_lineage` takes them.

    Raises:
        Refusal: as `trace_lineage` and `check_unseen` do.
    """
    data = {f"{name}_file": getattr(settings, f"{name}_file") for name in ("train", "validation", "test", "predict")}
    lineage = trace_lineage(script, checkpoint, data, formats, training.rows_a_step, training.resolved_precision)
    lineage["data"] = trace_dataset(settings) | lineage["data"]
    check_unseen(lineage, settings.allow_leakage)
    return lineage
