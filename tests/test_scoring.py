"""The last scores of a run: in which order splits are scored and calibrated, and how scores get their intervals."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from two_stage.scoring.intervals import bootstrap_intervals
from two_stage.scoring.split_scores import calibrate, score_splits, with_intervals


class Split:
    """A split that writes down what is asked of it."""

    def __init__(self, name: str, done: list[str], is_labelled: bool = True, logits: np.ndarray | None = None) -> None:
        self.name, self.done, self.is_labelled, self.rows = name, done, is_labelled, f"{name} rows"
        rng = np.random.default_rng(0)
        self.gold = rng.integers(3, size=400)
        self.logits = 4 * np.eye(3)[self.gold] + 6 * rng.normal(size=(400, 3)) if logits is None else logits

    @property
    def logits_and_targets(self) -> tuple[np.ndarray, np.ndarray]:
        """To fit a temperature on."""
        self.done.append(f"{self.name} fits")
        return self.logits, self.gold

    def __call__(self, evaluated: Any) -> dict[str, float]:
        """Score what was predicted."""
        self.done.append(f"{self.name} keeps {evaluated.of}")
        return {"loss": 0.25, "f1": 0.5} if self.is_labelled else {"f1": -1.0}

    def divide(self, temperature: float) -> None:
        """By a temperature."""
        self.done.append(f"{self.name} is divided by {temperature:.4f}")

    def final_scores(self, prefix: str) -> dict[str, float]:
        """One of them."""
        self.done.append(f"{self.name} is scored")
        return {f"{prefix}f1": 0.5}


class Trainer:
    """As much of a trainer as predicts; its metrics were set for the validation split."""

    def __init__(self, done: list[str], trains: bool = True) -> None:
        self.done, self.train_dataset = done, "train rows" if trains else None
        self.compute_metrics: Any = "validation's"
        self.model = headed_model()

    def predict(self, rows: str) -> Any:
        """Of a split's rows; with the validation's metrics it would score the wrong gold labels."""
        assert self.compute_metrics is None
        self.done.append(f"{rows} predicted")
        return SimpleNamespace(of=rows, metrics={"test_runtime": 2.0})


def headed_model() -> nn.Module:
    """A layer and a head behind it."""
    torch.manual_seed(0)
    model = nn.Sequential()
    model.encoder, model.classifier = nn.Linear(4, 5), nn.Linear(5, 3)
    model.config = SimpleNamespace()
    return model


def logits_of(model: nn.Module) -> torch.Tensor:
    """Of some inputs."""
    inputs = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32))
    return model.classifier(torch.tanh(model.encoder(inputs))).detach()


def negative_log_likelihood(split: Split, temperature: float) -> float:
    """The mean over texts."""
    return float(nn.functional.cross_entropy(torch.tensor(split.logits) / temperature, torch.tensor(split.gold)))


# --- Calibration ------------------------------------------------------------------------------------------------------


def test_the_head_is_divided_by_the_temperature(capsys: pytest.CaptureFixture[str]) -> None:
    """So the model gives its logits over it, weight and bias; the encoder stays, and the config says by what."""
    model, split = headed_model(), Split("validation", [])
    before, encoder = logits_of(model), model.encoder.weight.clone()
    temperature = calibrate(model, split)
    assert temperature > 1.5
    assert torch.allclose(logits_of(model), before / temperature, atol=1e-6)
    assert torch.equal(model.encoder.weight, encoder)
    assert model.config.head_temperature == temperature
    here = negative_log_likelihood(split, temperature)
    assert here < min(negative_log_likelihood(split, temperature * factor) for factor in (0.98, 1.02))
    assert model.classifier.weight.requires_grad
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("sign", "end"), [(1.0, 0.05), (-1.0, 20.0)], ids=["all right", "all wrong"])
def test_a_temperature_at_the_end_is_spoken_of(sign: float, end: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Where every answer is right, or worse than guessed, no temperature is the best, and the head stays as it is."""
    gold, model = Split("validation", []).gold, headed_model()
    before = model.classifier.weight.detach().clone()
    assert calibrate(model, Split("validation", [], logits=sign * np.eye(3)[gold])) == 1.0
    assert torch.equal(model.classifier.weight, before)
    assert getattr(model.config, "head_temperature", None) is None
    assert f"! temperature {end:.3g} is the furthest that is looked for" in capsys.readouterr().out


# --- The order of things ----------------------------------------------------------------------------------------------


def test_predicted_then_calibrated_then_scored() -> None:
    """The temperature comes of the validation split alone, and every split is scored as the model then is."""
    done: list[str] = []
    scored = {name: Split(name, done) for name in ("validation", "test")}
    trainer = Trainer(done)
    before = logits_of(trainer.model)
    found = score_splits(trainer, scored, calibrated=True)  # type: ignore[arg-type]
    temperature = found["temperature"]
    assert done == [
        "test rows predicted",
        "test keeps test rows",
        "validation fits",
        f"validation is divided by {temperature:.4f}",
        f"test is divided by {temperature:.4f}",
        "validation is scored",
        "test is scored",
    ]
    assert found == {
        "test_runtime": 2.0, "test_loss": 0.25, "temperature": temperature, "eval_f1": 0.5, "test_f1": 0.5
    }  # fmt: skip
    assert torch.allclose(logits_of(trainer.model), before / temperature, atol=1e-6)


def test_without_calibration_nothing_is_divided() -> None:
    """The head stays what it was, to the bit."""
    done: list[str] = []
    trainer = Trainer(done)
    before = logits_of(trainer.model)
    found = score_splits(trainer, {"validation": Split("validation", done)}, calibrated=False)  # type: ignore[arg-type]
    assert done == ["validation is scored"]
    assert found == {"eval_f1": 0.5}
    assert torch.equal(logits_of(trainer.model), before)
    assert trainer.compute_metrics == "validation's"


@pytest.mark.parametrize(
    ("is_labelled", "trains", "expected"),
    [
        (True, True, {"test_loss": 0.25, "test_f1": 0.5}),
        (True, False, {"test_f1": 0.5}),  # the folder does not say by which loss it learned
        (False, True, {}),
        (False, False, {}),
    ],
)
def test_what_is_told_of_a_test_split(is_labelled: bool, trains: bool, expected: dict[str, float]) -> None:
    """One without labels has nothing to be scored by; it is predicted all the same."""
    done: list[str] = []
    found = score_splits(Trainer(done, trains), {"test": Split("test", done, is_labelled)}, calibrated=False)  # type: ignore[arg-type]
    assert found == {"test_runtime": 2.0} | expected
    assert done[:2] == ["test rows predicted", "test keeps test rows"]
    assert ("test is scored" in done) == is_labelled


def test_a_run_without_held_out_splits_has_no_scores() -> None:
    """It trained, and that is all."""
    assert score_splits(Trainer([]), {}, calibrated=False) == {}  # type: ignore[arg-type]


# --- Intervals --------------------------------------------------------------------------------------------------------


def test_scores_with_their_intervals() -> None:
    """Under full names, with the ends that a bootstrap over the items gives; some scores go without."""
    values = np.random.default_rng(3).normal(size=40)

    def statistic(draws: np.ndarray) -> dict[str, np.ndarray]:
        mean = draws @ values / draws.sum(axis=1)
        return {"mean": mean, "square": mean**2, "never": np.full(len(draws), np.nan)}

    scores = {"mean": 0.5, "square": 0.25, "never": 0.0, "alone": 7.0}
    found = with_intervals(scores, statistic, 40, "test_", frozenset({"square"}))
    low, high = bootstrap_intervals(statistic, 40)["mean"]
    spread = math.sqrt(values.var() / 40)
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * spread, values.mean() + 1.96 * spread), abs=0.2 * spread
    )
    assert found == {f"test_{name}": value for name, value in scores.items()} | {
        "test_mean_low": low,
        "test_mean_high": high,
    }
