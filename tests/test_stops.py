"""SIGTERM and Ctrl-C save at the step's end and exit 143 and 130; nothing looks final, and a resume is exact."""

import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from accelerate import Accelerator
from torch.optim import adam
from transformers import Trainer

import run_ner
import run_pretraining
import run_sentiment
from tests.test_resume import BATCH, Call, dropout_folder, history, scores_of  # noqa: F401
from two_stage.checkpointing import runs
from two_stage.checkpointing.checkpoints import UNFINISHED, what_is_wrong
from two_stage.command_line.exits import STOP_SIGNALS, STOPS, Stopped
from two_stage.training import resumable
from two_stage.training.resumable import ResumableCallback
from two_stage.training.trainer import ExactTrainer

ACCUMULATED = ("--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2")  # rows a step as in BATCH
FLAGS = {
    # six steps, scored and saved behind the third and the last
    "pretraining": ("--max_steps", "6", "--eval_strategy", "steps", "--eval_steps", "3", "--save_steps", "3"),
    "sentiment": ("--max_train_samples", "24"),
    "ner": ("--max_train_samples", "24"),
}


def send(number: int) -> None:
    """A real signal, which Python heeds before the next line."""
    os.kill(os.getpid(), number)


@pytest.fixture
def heeded() -> None:
    """Both signals are heeded as `run_script` lets them be."""
    for number in STOP_SIGNALS:
        signal.signal(number, STOPS.heed)


@pytest.fixture(scope="module")
def whole(
    dropout_folder: Path,  # noqa: F811
    data_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Call]:
    """A script's command, run to its end in the folder `whole` when it is first asked for."""

    @cache
    def made(script: str) -> Call:
        flags = [*BATCH, *ACCUMULATED, "--per_device_eval_batch_size", "16", *FLAGS[script]]
        call = Call(script, tmp_path_factory.mktemp(script), dropout_folder, data_folder, *flags)
        if script != "pretraining":
            call.flags += ["--test_file", call.flags[call.flags.index("--train_file") + 1]]
        call("whole")
        return call

    return made


def check_unfinished(run: Path, step: int | None) -> None:
    """The newest checkpoint is whole and of this step, and nothing in the folder looks like the end of a run."""
    found = {int(path.name.split("-")[1]): path for path in run.glob("checkpoint-*")}
    assert max(found, default=None) == step
    assert all(what_is_wrong(path) is None for path in found.values())
    for name in ("all_results.json", "README.md", "model.safetensors"):
        assert not (run / name).exists()


class Point(NamedTuple):
    """Where a signal comes: when a function is called for the nth time, before it or behind it."""

    owner: Any
    name: str
    nth: int
    step: int | None  # of the newest checkpoint that is left
    script: str = "sentiment"
    number: int = signal.SIGTERM
    is_behind: bool = False
    is_at_once: bool = False  # the signal is not waited with until a step's end


TRAINERS = {
    "pretraining": run_pretraining.PretrainingTrainer,
    "sentiment": run_sentiment.SentimentTrainer,
    "ner": run_ner.NerTrainer,
}
POINTS = {
    "files are read": Point(run_sentiment, "load_splits", 1, None, is_at_once=True),
    "the folder is begun": Point(runs, "write_whole", 2, None, is_at_once=True),
    "a step's rows are read": Point(ExactTrainer, "get_batch_samples", 2, 2),
    "forward of the first of two": Point(run_sentiment.SentimentTrainer, "compute_loss", 3, 2),
    "forward of the second of two": Point(run_ner.NerTrainer, "compute_loss", 4, 2, "ner", signal.SIGINT),
    "forward of the very first": Point(run_ner.NerTrainer, "compute_loss", 1, 1, "ner"),
    "backward": Point(Accelerator, "backward", 4, 2, "pretraining"),
    "within the optimizer's step": Point(adam, "adam", 6, 2, "ner"),
    "behind the optimizer's step": Point(adam, "adam", 6, 2, "sentiment", signal.SIGINT, True),
    "between steps": Point(ResumableCallback, "on_step_end", 1, 2, is_behind=True),
    "last step of an epoch": Point(run_sentiment.SentimentTrainer, "compute_loss", 6, 3),
    "behind the last step of an epoch": Point(ResumableCallback, "on_step_end", 3, 3, is_behind=True),
    "last step": Point(run_ner.NerTrainer, "compute_loss", 12, 6, "ner"),
    "an evaluation": Point(ExactTrainer, "prediction_step", 2, 3, "ner", signal.SIGINT),
    "an evaluation amid an epoch": Point(ExactTrainer, "prediction_step", 4, 3, "pretraining"),
    "the last evaluation": Point(ExactTrainer, "prediction_step", 5, 6),
    "the weights are saved": Point(Trainer, "_save_optimizer_and_scheduler", 1, 3),
    "a checkpoint is sealed": Point(resumable, "seal", 1, 3, "ner", is_behind=True),
    "a checkpoint gets its name": Point(resumable, "put_in_place", 1, 3, "pretraining", signal.SIGINT),
    "the last checkpoint is saved": Point(resumable, "seal", 2, 6),
    "training ends": Point(Trainer, "_finalize_training", 1, 6),
    "all is scored": Point(ExactTrainer, "prediction_step", 8, 6, is_at_once=True),
    "scores are put together": Point(run_ner, "score_splits", 1, 6, "ner", signal.SIGINT, False, True),
}
QUICK = {"forward of the first of two"}


def stopped(made: Call, name: str, point: Point, *more: str) -> Stopped:
    """Run the command until the signal that comes there ends it."""
    own, calls = getattr(point.owner, point.name), 0

    def replaced(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        is_due = calls == point.nth
        if is_due and not point.is_behind:
            send(point.number)
        result = own(*args, **kwargs)
        if is_due and point.is_behind:
            send(point.number)
        return result

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped) as stop:  # noqa: PT012
        patch.setattr(point.owner, point.name, replaced)
        made(name, *more)
    assert calls >= point.nth
    assert stop.value.number == point.number
    return stop.value


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("where", [pytest.param(p, marks=() if p in QUICK else pytest.mark.slow) for p in POINTS])
def test_a_stop_loses_nothing(whole: Callable[[str], Call], where: str) -> None:
    """The step at work is saved, the folder holds nothing final, and the same command ends as if nothing happened."""
    point = POINTS[where]
    made, name = whole(point.script), where.replace(" ", "-")
    run = made.folder / name
    stop = stopped(made, name, point)
    check_unfinished(run, point.step)
    assert not (run / UNFINISHED).exists()
    assert stop.saved == ("" if point.is_at_once else str(run / f"checkpoint-{point.step}"))
    made(name)
    made.same_end(name)


@pytest.mark.usefixtures("heeded")
def test_a_check_that_is_stopped_leaves_nothing(whole: Callable[[str], Call]) -> None:
    """Its few steps are timed on a model to be thrown away."""
    made = whole("pretraining")
    timed = Point(run_pretraining.PretrainingTrainer, "compute_loss", 3, None)
    assert stopped(made, "checked", timed, "--check_only").saved == ""
    assert not (made.folder / "checked").exists()
