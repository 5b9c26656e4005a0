"""Runs run_sentiment.py in a process that kills itself where it is told to, each time once.

    python -m torch.distributed.run … tests/dying_processes.py DEATHS flags of run_sentiment.py

DEATHS is a folder of empty files named RANK-POINT-STEP, POINT being `step` or `save`; who dies by one removes it.
By RANK-stop-STEP it gets a SIGTERM instead, in the middle of the step; by RANK-worker-STEP one of the processes that
make its batches dies.
"""

import gc

if __name__ == "__main__":
    gc.disable()  # until all is imported, as the scripts do: `run_script` puts it on again

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

import run_sentiment
from two_stage.command_line.exits import run_script
from two_stage.training.trainer import ExactTrainer


def die(deaths: Path, point: str, trainer: ExactTrainer, step: int) -> None:
    """As the kernel kills who takes too much memory, or a scheduler stops a process, if it is told so."""
    order = deaths / f"{trainer.args.process_index}-{point}-{step}"
    if order.exists():
        order.rename(deaths / f"done {time.time()} {order.name}")
        if point == "worker":
            multiprocessing.active_children()[0].kill()
        else:
            os.kill(os.getpid(), signal.SIGTERM if point == "stop" else signal.SIGKILL)


def main(deaths: Path) -> None:
    """Let the trainer die in the middle of a step, its gradient worked out, or of a save, half of it written."""
    own_step, own_state = ExactTrainer.training_step, ExactTrainer._save_rng_state

    def training_step(trainer: ExactTrainer, *args: Any) -> torch.Tensor:
        die(deaths, "worker", trainer, trainer.state.global_step + 1)
        loss = own_step(trainer, *args)
        die(deaths, "step", trainer, trainer.state.global_step + 1)
        die(deaths, "stop", trainer, trainer.state.global_step + 1)
        return loss

    def save_rng_state(trainer: ExactTrainer, folder: str) -> None:
        die(deaths, "save", trainer, trainer.state.global_step)
        own_state(trainer, folder)

    ExactTrainer.training_step, ExactTrainer._save_rng_state = training_step, save_rng_state  # type: ignore[method-assign]
    sys.argv[0] = "run_sentiment.py"
    run_script(run_sentiment.main)


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)))
