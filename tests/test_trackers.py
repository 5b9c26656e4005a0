"""Trackers: in the run's own folder, told what trainer_state.json tells, without secrets; a missing one is refused."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import run_ner
import run_sentiment
from tests.conftest import SHADES
from two_stage.command_line.exits import Refusal
from two_stage.results.seeds import check_seeds
from two_stage.training import trackers
from two_stage.training.training_arguments import FineTuningArguments

TOKEN = "hf_" + "Sekret" * 5 + "Abcd"
QUICK = ["--max_length", "16", "--use_cpu", "--disable_tqdm", "true", "--save_strategy", "no"]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder: name → (step, value) in their order."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_what_the_run_logged(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Every number of trainer_state.json, in the run's own folder; no secret; the finished run is left as it is."""
    texts, run = str(data_folder / "texts.csv"), tmp_path / "run"
    call = ["--checkpoint", str(tiny_folder), "--train_file", texts, "--validation_file", texts, "--allow_leakage"]
    call += ["--labels", *SHADES, *QUICK, "--num_train_epochs", "2", "--logging_steps", "2", "--hub_token", TOKEN]
    call += ["--run_name", f"https://me:s3cret@host/?token={TOKEN}", "--output_dir", str(run)]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
        patch.chdir(tmp_path)
        scores = run_sentiment.main([*call, "--report_to", "tensorboard"])
    shown = scalars(run / "tensorboard")
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    assert shown["train/loss"] == [(step, pytest.approx(loss)) for step, loss in losses]
    assert len(losses) >= 3
    assert shown["train/learning_rate"] == [
        (entry["step"], pytest.approx(entry["learning_rate"])) for entry in history if "learning_rate" in entry
    ]
    found = [(entry["step"], entry["eval_accuracy"]) for entry in history if "eval_accuracy" in entry]
    assert shown["eval/accuracy"] == [(step, pytest.approx(value)) for step, value in found]
    assert len(found) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"run"}  # and no folder `runs` beside it
    for secret in (TOKEN, "s3cret"):
        assert [path for path in run.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()] == []
    assert run_sentiment.main(call) == pytest.approx(json.loads((run / "all_results.json").read_text()))
    assert scores["eval_accuracy"] == found[-1][1]


@pytest.mark.slow  # it trains three runs
def test_a_run_that_is_gone_on_with_is_one_run_to_tensorboard(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both parts lie in one folder and together show what a run shows that was not cut off."""
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    call = [
        "--checkpoint",
        str(tiny_folder),
        "--train_file",
        str(data_folder / "sentences.jsonl"),
        "--max_length",
        "16",
    ]
    call += ["--use_cpu", "--disable_tqdm", "true", "--save_strategy", "steps", "--save_steps", "4", "--max_steps", "8"]
    call += ["--logging_steps", "1", "--report_to", "tensorboard"]
    run_ner.main([*call, "--output_dir", str(tmp_path / "whole")])

    class CutOff(Exception):
        pass

    class Cut(run_ner.NerTrainer):
        def training_step(self, *args: object, **kwargs: object) -> object:
            if self.state.global_step == 4:
                raise CutOff
            return super().training_step(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(run_ner, "NerTrainer", Cut)
        with pytest.raises(CutOff):
            run_ner.main([*call, "--output_dir", str(tmp_path / "cut")])
    run_ner.main([*call, "--output_dir", str(tmp_path / "cut")])
    assert len(list((tmp_path / "cut" / "tensorboard").glob("events*"))) == 2
    cut, whole = (scalars(tmp_path / run / "tensorboard")["train/loss"] for run in ("cut", "whole"))
    assert [step for step, _ in cut] == [step for step, _ in whole] == list(range(1, 9))
    assert [loss for _, loss in cut] == pytest.approx([loss for _, loss in whole])


def test_the_users_own_place_is_kept(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TENSORBOARD_LOGGING_DIR wins, and so does TRACKIO_DIR."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "mine"))
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "sentences.jsonl"), *QUICK]
    call += ["--max_steps", "1", "--logging_steps", "1", "--report_to", "tensorboard"]
    run_ner.main([*call, "--output_dir", str(tmp_path / "run")])
    assert "train/loss" in scalars(tmp_path / "mine")
    assert not (tmp_path / "run" / "tensorboard").exists()
    monkeypatch.setenv("TRACKIO_DIR", "/elsewhere")
    trackers.keep_local(["trackio"], str(tmp_path / "run"))
    assert os.environ["TRACKIO_DIR"] == "/elsewhere"
    monkeypatch.delenv("TRACKIO_DIR")
    trackers.keep_local(["tensorboard"], str(tmp_path / "run"))
    assert "TRACKIO_DIR" not in os.environ
    trackers.keep_local(["trackio"], str(tmp_path / "run"))
    assert os.environ["TRACKIO_DIR"] == str(tmp_path / "run" / "trackio")
    trackers.keep_local(["mlflow", "wandb"], str(tmp_path / "run"))
    assert os.environ["WANDB_DIR"] == str(tmp_path / "run")
    monkeypatch.delenv("TRACKIO_DIR")
    (tmp_path / "seeds" / "trackio").mkdir(parents=True)
    check_seeds([0, 1], str(tmp_path / "seeds"))  # whose runs lie there, one folder for all seeds


@pytest.mark.parametrize(
    ("name", "needle"),
    [
        ("wandb", "its package is not installed; pip install wandb"),
        ("mlflow", "its package is not installed; pip install mlflow"),
        ("azure_ml", "pip install azureml-mlflow"),
        ("tensorbord", "is no tracker; known are tensorboard, trackio, wandb, mlflow"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused(
    name: str, needle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the flags, before anything is read; a folder that a tracker left in the way is no package."""
    (tmp_path / name).mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    there = trackers.find_spec
    monkeypatch.setattr(trackers, "find_spec", lambda module: there(module) if module == name else None)
    with pytest.raises(Refusal, match=needle):
        FineTuningArguments(output_dir="out", use_cpu=True, report_to=[name])


@pytest.mark.parametrize(("mode", "has_key"), [("online", False), ("online", True), ("offline", False)])
def test_wandb_without_a_key_is_refused(mode: str, has_key: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the flags, unless it is to write files alone."""
    asked: list[dict[str, bool]] = []
    login = SimpleNamespace(login=lambda **how: asked.append(how) or has_key)
    monkeypatch.setitem(sys.modules, "wandb", login)
    monkeypatch.setattr(trackers, "find_spec", lambda _: SimpleNamespace(origin="there"))
    monkeypatch.setenv("WANDB_MODE", mode)
    if mode == "online" and not has_key:
        with pytest.raises(Refusal, match="there is no key; run wandb login, or set WANDB_MODE=offline"):
            trackers.check_trackers(["wandb"])
    else:
        trackers.check_trackers(["wandb"])
    assert asked == [{"prompt": False}] * (mode == "online")


def test_what_trackers_are_told_holds_no_secret(tmp_path: Path) -> None:
    """Not in any field, whatever it is called; the run is called as its folder."""
    given = {"run_name": f"of {TOKEN}", "hub_token": TOKEN, "hub_model_id": "https://me:s3cret@host/x"}
    told = FineTuningArguments(output_dir=str(tmp_path / "run"), use_cpu=True, report_to="tensorboard", **given)
    for text in (told.to_json_string(), json.dumps(told.to_dict(), default=str), str(told.run_name)):
        assert TOKEN not in text
        assert "s3cret" not in text
    assert told.hub_token == TOKEN
    told = FineTuningArguments(output_dir=str(tmp_path / "run"), use_cpu=True, report_to="tensorboard")
    assert told.run_name == "run"
