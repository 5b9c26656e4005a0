"""A run that was cut off and called again ends as one that was not: losses, scores and weights bit for bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers.trainer
from accelerate.optimizer import AcceleratedOptimizer
from safetensors.torch import load_file, save_file
from transformers import TrainerState

import run_ner
import run_pretraining
import run_sentiment
from tests.conftest import SHADES
from two_stage.checkpointing.checkpoints import UNFINISHED, numbered_checkpoints
from two_stage.checkpointing.handoff import file_sha256
from two_stage.checkpointing.locks import unlock_folder
from two_stage.command_line.exits import Refusal
from two_stage.training.trainer import ExactTrainer

MODULES: dict[str, ModuleType] = {"pretraining": run_pretraining, "sentiment": run_sentiment, "ner": run_ner}
TIMES = ("_preparation_time", "runtime", "per_second", "total_flos")


class CutOff(BaseException):
    """A run ends as by kill -9: no `except Exception` of the program's sees it."""


@pytest.fixture(scope="module")
def dropout_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with dropout, whose draws a resume must take up where they were."""
    folder = tmp_path_factory.mktemp("dropout") / "bert"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class Call:
    """A command of one of the scripts."""

    def __init__(self, name: str, folder: Path, checkpoint: Path, data: Path, *flags: str) -> None:
        self.module, self.folder = MODULES[name], folder
        file = str(data / {"pretraining": "corpus.txt", "sentiment": "texts.csv", "ner": "sentences.jsonl"}[name])
        self.flags = ["--checkpoint", str(checkpoint), "--train_file", file, "--use_cpu", "--max_length", "32"]
        if name == "pretraining":
            self.flags += ["--validation_fraction", "0.2", "--max_eval_samples", "20"]
        else:
            self.flags += ["--validation_file", file, "--allow_leakage"]
        self.flags += ["--labels", *SHADES] if name == "sentiment" else []
        self.flags += flags

    def __call__(self, name: str, *more: str) -> dict[str, float]:
        """Run it in a folder of this name."""
        return self.module.main([*self.flags, *more, "--output_dir", str(self.folder / name)])

    def cut(self, name: str, step: int, *more: str) -> None:
        """Run it and cut it off in the middle of a step, counted from 1."""
        own = ExactTrainer.training_step

        def training_step(trainer: ExactTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
            if trainer.state.global_step == step - 1:
                raise CutOff
            return own(trainer, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(CutOff):  # noqa: PT012
            patch.setattr(ExactTrainer, "training_step", training_step)
            self(name, *more)

    def same_end(self, name: str) -> None:
        """The run of this name ended as the one named `whole` did, bit for bit, and left nothing half done."""
        run, expected = self.folder / name, self.folder / "whole"
        assert history(run) == history(expected)
        assert scores_of(run) == scores_of(expected)
        assert file_sha256(run / "model.safetensors") == file_sha256(expected / "model.safetensors")
        assert not (run / UNFINISHED).exists()


@pytest.fixture
def call(tmp_path: Path, dropout_folder: Path, data_folder: Path) -> Callable[..., Call]:
    """A function that makes a command."""
    return lambda name, *flags: Call(name, tmp_path, dropout_folder, data_folder, *flags)


def history(folder: Path) -> list[dict[str, Any]]:
    """The log of a run, without times."""
    state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
    return [{key: value for key, value in entry.items() if not key.endswith(TIMES)} for entry in state.log_history]


def scores_of(folder: Path) -> dict[str, float]:
    """The results of a run, without times."""
    scores = json.loads((folder / "all_results.json").read_text())
    return {key: value for key, value in scores.items() if not key.endswith(TIMES)}


class Cut(NamedTuple):
    """Where a run of two epochs is cut off, and how it makes its steps."""

    save: int
    at: int
    flags: tuple[str, ...] = ()


BATCH = ("--per_device_train_batch_size", "8", "--num_train_epochs", "2", "--logging_steps", "4")
CUTS = {
    "mid first epoch": Cut(3, 5),  # between two logged losses
    "mid second epoch": Cut(5, 11),
    "boundary": Cut(6, 8),
    "accumulation": Cut(3, 5, ("--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2")),
    "two workers": Cut(3, 5, ("--dataloader_num_workers", "2")),
}
STREAMED = {
    "streamed": Cut(3, 5, ("--streaming", "--max_steps", "9", "--stream_documents", "20")),
    "streamed, a worker": Cut(
        3, 8, ("--streaming", "--max_steps", "9", "--stream_documents", "20", "--dataloader_num_workers", "1")
    ),
}
CASES = [(name, kind) for name in MODULES for kind in CUTS] + [("pretraining", kind) for kind in STREAMED]
QUICK = {("ner", "accumulation")}


@pytest.mark.parametrize(
    ("name", "kind"), [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_resume_is_exact(call: Callable[..., Call], name: str, kind: str) -> None:
    """With dropout; the logged losses, every evaluation, the results and the weights, all bit for bit."""
    case = (CUTS | STREAMED)[kind]
    if name == "pretraining" and kind == "boundary":  # its epochs are longer
        case = Cut(9, 10)
    made = call(name, *BATCH, "--eval_strategy", "epoch", "--save_steps", str(case.save), *case.flags)
    made.flags += ["--save_strategy", "steps"]
    made("whole")
    made.cut("cut", case.at)
    kept = sorted(path.name for path in (made.folder / "cut").glob("checkpoint-*"))
    assert kept
    assert not (made.folder / "cut" / "all_results.json").exists()
    made("cut")
    made.same_end("cut")


@pytest.mark.slow  # it trains whole runs
def test_cut_off_again_and_again(call: Callable[..., Call]) -> None:
    """Cut off at every third step, each time called again by the same command."""
    made = call("sentiment", *BATCH, "--save_strategy", "steps", "--save_steps", "2", "--eval_strategy", "epoch")
    made("whole")
    for step in (3, 6, 9, 12):
        made.cut("cut", step)
    made("cut")
    made.same_end("cut")


RISING = ["--learning_rate", "0.02"]  # the loss soon is not as low as it was


@pytest.mark.slow  # it trains whole runs
def test_the_best_model_is_found_again(call: Callable[..., Call]) -> None:
    """Cut off behind the best checkpoint, which rotation spares, a run ends with the same best weights."""
    best = ["--load_best_model_at_end", "--metric_for_best_model", "eval_loss", *RISING]
    made = call("sentiment", *BATCH, "--num_train_epochs", "4", *best)
    made("whole")
    made.cut("cut", 20)
    state = TrainerState.load_from_json(str(made.folder / "cut" / "checkpoint-18" / "trainer_state.json"))
    assert state.best_model_checkpoint == str(made.folder / "cut" / f"checkpoint-{state.best_global_step}")
    assert Path(state.best_model_checkpoint).is_dir()
    made("cut")
    made.same_end("cut")


@pytest.mark.slow  # it trains whole runs
@pytest.mark.parametrize("limit", ["1", "3"])
def test_the_best_model_of_a_folder_that_moved(call: Callable[..., Call], limit: str) -> None:
    """Moved while it was cut off, and then cut off once more behind its last step, with its last checkpoint there."""
    best = ["--load_best_model_at_end", "--metric_for_best_model", "eval_loss", *RISING]
    made = call("sentiment", *BATCH, "--num_train_epochs", "4", *best, "--save_total_limit", limit)
    made("whole")
    made.cut("cut", 20)
    unlock_folder(made.folder / "cut")
    (made.folder / "cut").rename(made.folder / "moved")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CutOff):  # noqa: PT012
        patch.setattr(run_sentiment, "score_splits", lambda *_: (_ for _ in ()).throw(CutOff))
        made("moved")
    assert (made.folder / "moved" / "checkpoint-24").is_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExactTrainer, "training_step", None)  # nothing is trained again
        made("moved")
    made.same_end("moved")
    state = TrainerState.load_from_json(str(made.folder / "whole" / "trainer_state.json"))
    assert state.best_global_step < 24
    for name in ("whole", "moved"):
        left = {path.name for path in (made.folder / name).glob("checkpoint-*")}
        assert f"checkpoint-{state.best_global_step}" in left
        assert len(left) == int(limit)


@pytest.mark.slow  # it trains whole runs
def test_a_run_that_looks_for_a_best_and_keeps_the_last(call: Callable[..., Call]) -> None:
    """A folder whose model is the last one keeps the checkpoint that it is of."""
    made = call("sentiment", *BATCH, "--num_train_epochs", "4", "--metric_for_best_model", "loss", *RISING)
    made("whole")
    state = TrainerState.load_from_json(str(made.folder / "whole" / "trainer_state.json"))
    assert state.best_global_step < 24
    assert (made.folder / "whole" / "checkpoint-24").is_dir()


@pytest.mark.slow  # it trains whole runs
@pytest.mark.parametrize("flags", [("--lr_scheduler_type", "reduce_lr_on_plateau"), ("--eval_on_start", "true")])
def test_resume_before_the_first_evaluation(call: Callable[..., Call], flags: tuple[str, ...]) -> None:
    """A schedule that counts evaluations has counted none yet; and what is scored at the start is scored once."""
    made = call(
        "sentiment", *BATCH, "--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "epoch", *flags
    )
    made("whole")
    made.cut("cut", 5)
    made("cut")
    made.same_end("cut")


ANYWAY = [*BATCH, "--save_strategy", "steps", "--save_steps", "3", "--logging_steps", "1", "--resume_anyway"]


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("sentiment", ()),
        pytest.param("pretraining", ("--layer_decay", "0.5"), marks=pytest.mark.slow),
        pytest.param("ner", ("--lr_scheduler_type", "reduce_lr_on_plateau"), marks=pytest.mark.slow),
    ],
)
def test_a_rate_that_was_lowered_is_gone_on_at(call: Callable[..., Call], name: str, flags: tuple[str, ...]) -> None:
    """As a run that has diverged is told to go on: at the rates and the decay of this call, not of the checkpoint's."""
    asked = ["--learning_rate", "1e-5", "--head_learning_rate", "2e-5", "--weight_decay", "0.5", "--adam_beta1", "0.8"]
    made = call(name, *ANYWAY, *flags)
    made("whole", *asked)
    made.cut("cut", 5, "--learning_rate", "1e-3", "--head_learning_rate", "3e-3")
    made("cut", *asked)
    rates = [
        {entry["step"]: entry["learning_rate"] for entry in history(made.folder / run) if "learning_rate" in entry}
        for run in ("whole", "cut")
    ]
    assert {step: rate for step, rate in rates[1].items() if step > 3} == pytest.approx(
        {step: rate for step, rate in rates[0].items() if step > 3}
    )
    groups = []
    for run in ("whole", "cut"):
        last = max(numbered_checkpoints(made.folder / run), key=lambda path: path.stat().st_mtime)
        kept = torch.load(last / "optimizer.pt")["param_groups"]
        groups.append([[group["lr"], group["weight_decay"], group["betas"][0]] for group in kept])
    assert np.allclose(groups[0], groups[1], rtol=1e-6)


@pytest.mark.parametrize("flags", [(), ("--optim", "adafactor")], ids=["torch's", "another's"])
def test_a_rate_that_is_the_same_stays_to_the_bit(call: Callable[..., Call], flags: tuple[str, ...]) -> None:
    """Gone on with by --resume_anyway though nothing is other than before, a run ends as if it had not been cut off."""
    made = call("sentiment", *ANYWAY, *flags)
    made("whole")
    made.cut("cut", 8)  # from step 6, whose rate of 2e-5 times its share is another once it was divided by 2e-5
    made("cut")
    made.same_end("cut")


def test_an_optimizer_is_found_within_what_wraps_it(call: Callable[..., Call], monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's own wrapper has groups of parameters, and no `defaults` for accelerate's to pass on."""
    monkeypatch.delattr(AcceleratedOptimizer, "defaults")
    made = call("sentiment", *ANYWAY)
    made.cut("cut", 5)
    made("cut", "--learning_rate", "1e-5")
    rates = {entry["step"]: entry["learning_rate"] for entry in history(made.folder / "cut") if "grad_norm" in entry}
    assert max(rate for step, rate in rates.items() if step > 3) < 1e-5 < rates[3]


def test_what_is_saved_and_logged_is_what_is_asked_for_now(call: Callable[..., Call]) -> None:
    """The run's state, which says when, gives way to the flags."""
    made = call("sentiment", *ANYWAY, "--save_total_limit", "9")
    made.cut("cut", 5)
    made("cut", "--save_steps", "4", "--logging_steps", "2")
    assert [path.name for path in numbered_checkpoints(made.folder / "cut")] == [
        f"checkpoint-{step}" for step in (3, 4, 8, 12)
    ]
    assert [entry["step"] for entry in history(made.folder / "cut") if "grad_norm" in entry] == [
        1,
        2,
        3,
        4,
        6,
        8,
        10,
        12,
    ]


@pytest.mark.parametrize("flags", [("--layer_decay", "0.9"), ("--freeze_layers", "1"), ("--optim", "sgd")])
def test_another_optimizer_is_not_gone_on_with(call: Callable[..., Call], flags: tuple[str, ...]) -> None:
    """In one line: its state belongs to other parameters, or to another rule."""
    made = call("sentiment", *ANYWAY)
    made.cut("cut", 5)
    with pytest.raises(Refusal, match=r"checkpoint-3: its optimizer is not the one that --optim"):
        made("cut", *flags)


def test_a_schedule_by_scores_is_not_gone_on_with_by_steps(call: Callable[..., Call]) -> None:
    """In one line: it kept no shares of the rate, and was a traceback."""
    made = call("sentiment", *ANYWAY)
    made.cut("cut", 5, "--lr_scheduler_type", "reduce_lr_on_plateau")
    with pytest.raises(Refusal, match=r"checkpoint-3: its schedule goes by scores.* --lr_scheduler_type"):
        made("cut", "--lr_scheduler_type", "linear")


def test_a_run_of_other_steps_goes_on_in_the_epoch_that_is_counted(call: Callable[..., Call]) -> None:
    """Half an epoch of six steps is a whole one of three: the next rows are those of the second."""
    seen: list[int] = []
    own = ExactTrainer.training_step

    def training_step(trainer: ExactTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(trainer.sampler.epoch)
        return own(trainer, *args, **kwargs)

    made = call("sentiment", *ANYWAY)
    made.cut("cut", 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExactTrainer, "training_step", training_step)
        made("cut", "--per_device_train_batch_size", "16")
    assert seen == [1, 1, 1]


@pytest.mark.parametrize("flags", [(), ("--no_next_sentence",)], ids=["tied", "never trained"])
def test_nobody_is_alarmed_of_what_a_checkpoint_need_not_have(
    dropout_folder: Path, data_folder: Path, tmp_path: Path, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head's matrix is the embeddings', and a pooler that stayed as it was drawn is not saved."""
    shutil.copytree(dropout_folder, tmp_path / "bert")
    if flags:
        tensors = load_file(dropout_folder / "model.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(run_pretraining.NEXT_SENTENCE)}
        save_file(kept, tmp_path / "bert" / "model.safetensors", metadata={"format": "pt"})
    steps = ("--save_strategy", "steps", "--save_steps", "3")
    made = Call("pretraining", tmp_path, tmp_path / "bert", data_folder, *BATCH, *steps, *flags)
    made.cut("cut", 5)
    warned: list[str] = []
    monkeypatch.setattr(transformers.trainer.logger, "warning", lambda text, *_: warned.append(text))
    made("cut")
    assert [text for text in warned if "keys" in text] == []


@pytest.mark.parametrize(("last", "flags"), [(9, ()), (3, ("--logging_steps", "50"))], ids=["logged", "no log yet"])
def test_a_run_that_is_behind_its_end_takes_no_step(
    call: Callable[..., Call], last: int, flags: tuple[str, ...]
) -> None:
    """Where fewer steps are asked for than were taken, the last checkpoint is the model."""
    made = call("sentiment", *ANYWAY, *flags)
    made.cut("cut", last + 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExactTrainer, "training_step", None)  # nothing is trained
        scores = made("cut", "--max_steps", str(last - 1))
    assert scores["eval_loss"] > 0
    cut = made.folder / "cut"
    assert file_sha256(cut / "model.safetensors") == file_sha256(cut / f"checkpoint-{last}" / "model.safetensors")


def test_another_score_finds_its_own_best(call: Callable[..., Call]) -> None:
    """An accuracy is not held against the loss that was the best before, which none would exceed."""
    scored = ["--eval_strategy", "steps", "--eval_steps", "3", "--load_best_model_at_end", "true"]
    made = call("pretraining", *ANYWAY, *scored, "--max_steps", "12", "--learning_rate", "1e-2")
    made.cut("cut", 8)
    made("cut", "--metric_for_best_model", "mlm_accuracy")
    state = TrainerState.load_from_json(str(made.folder / "cut" / "trainer_state.json"))
    at_saves = [entry for entry in state.log_history if "eval_loss" in entry][:4]
    best = next(entry for entry in at_saves if entry["step"] == state.best_global_step)
    assert state.best_metric == best["eval_mlm_accuracy"] == max(entry["eval_mlm_accuracy"] for entry in at_saves[1:])
