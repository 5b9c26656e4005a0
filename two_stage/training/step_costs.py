"""What an optimizer step costs here, in time and memory, told by the first few."""

import time
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import IntervalStrategy

from two_stage.training.memory import memory_gb
from two_stage.training.trainer import ExactTrainer
from two_stage.training.training_arguments import ExactTrainingArguments, arguments_aside

TIMED_STEPS, TIMED_SECONDS = 6, 2  # the first warms up and has no time; a lone process stops where steps are so long


class StepTimer(TrainerCallback):
    """Notes when each step ends, and what that tells."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Wait for the device, then look at the clock."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def costs(self, args: TrainingArguments, steps: int) -> dict[str, float]:
        """What a step costs here, and all of a run of `steps`.

        Returns:
            seconds_a_step, the median, so that a step with an evaluation or a save behind it is no matter; hours, those
            of all steps; memory_gb, the peak of this process so far in 10^9 bytes: of its GPU, if it has one, else of
            all that it holds.
        """
        on_gpu = torch.cuda.is_available() and not args.use_cpu
        peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else memory_gb()
        seconds = float(np.median(np.diff(self.ends)))
        return {"seconds_a_step": seconds, "hours": seconds * steps / 3600, "memory_gb": peak}


class FewSteps(StepTimer):
    """Stops a lone process once its steps have told enough; several would not agree on when."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at the clock."""
        super().on_step_end(args, state, control)
        control.should_training_stop |= args.world_size == 1 and self.ends[-1] - self.ends[0] > TIMED_SECONDS


def time_steps(
    trainer_class: type[ExactTrainer], model: nn.Module, training: ExactTrainingArguments, steps: int, **parts: Any
) -> dict[str, float]:
    """What a run of so many steps will cost here, measured on a few, which spoil `model`.

    Args:
        trainer_class: whose steps.
        model: to be thrown away.
        training: the run's arguments.
        steps: of the run.
        parts: what the trainer is given besides.

    Returns:
        As `StepTimer.costs`.
    """
    timer = FewSteps()
    arguments = arguments_aside(training, TIMED_STEPS)
    arguments.disable_tqdm, arguments.logging_strategy = True, IntervalStrategy.NO
    with TemporaryDirectory() as arguments.output_dir:
        trainer = trainer_class(model=model, args=arguments, callbacks=[timer], **parts)
        trainer.remove_callback(PrinterCallback)  # it would print the run's last line of figures
        trainer.train()
    return timer.costs(training, steps)
