"""The last scores of a run of stage two: what training did not score, the temperature, and intervals."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from two_stage.command_line.exits import say
from two_stage.scoring.calibration import LEAST_TEMPERATURE, MOST_TEMPERATURE, fit_temperature
from two_stage.scoring.intervals import bootstrap_intervals
from two_stage.training.trainer import ExactTrainer


class ScoredSplit(Protocol):
    """One split's answers: called with what `row_results` kept, it remembers the logits, and scores them."""

    @property
    def rows(self) -> Dataset:
        """What the model reads of the split."""

    @property
    def is_labelled(self) -> bool:
        """Whether there is something to score by."""

    @property
    def logits_and_targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each item that a temperature is fitted on: float (items, labels), and label numbers or shares."""

    def scores(self) -> dict[str, float]:
        """What evaluation scores; before the first, of logits that are all 0, so that only the names say something."""

    def __call__(self, evaluated: Any) -> dict[str, float]:
        """Keep what evaluation gave, and score it where there is something to score by."""

    def divide(self, temperature: float) -> None:
        """Take the logits for those of the model whose head was divided by a temperature."""

    def final_scores(self, prefix: str) -> dict[str, float]:
        """All scores, the ends of their intervals, and what calibration changed."""


def score_splits(trainer: ExactTrainer, scored: Mapping[str, ScoredSplit], calibrated: bool) -> dict[str, float]:
    """Score what training did not score, and calibrate in between.

    Args:
        trainer: has trained.
        scored: `validation` and `test`, where they were given; each keeps its logits.
        calibrated: whether to set the temperature on the validation split.

    Returns:
        Scores and intervals under their names in all_results.json, and `temperature`.
    """
    scores: dict[str, float] = {}
    if test := scored.get("test"):
        trainer.compute_metrics = None  # a file without labels has nothing to score
        predicted = trainer.predict(test.rows)
        found = test(predicted)
        scores |= predicted.metrics
        if test.is_labelled and trainer.train_dataset is not None:  # else which loss it was is not known
            scores["test_loss"] = found["loss"]
    if calibrated:
        scores["temperature"] = calibrate(trainer.model, scored["validation"])
        for split in scored.values():
            split.divide(scores["temperature"])
    for name, prefix in (("validation", "eval_"), ("test", "test_")):
        if name in scored and scored[name].is_labelled:
            scores |= scored[name].final_scores(prefix)
    return scores


def check_logits(logits: np.ndarray) -> None:
    """Tell that a model answers nothing, where argmax would give its first label.

    Raises:
        FloatingPointError: not all logits are finite numbers.
    """
    if not np.isfinite(logits).all():
        raise FloatingPointError("the model gives logits that are no finite numbers; its weights are broken")


def calibrate(model: nn.Module, validation: ScoredSplit) -> float:
    """Divide the head's last layer by the temperature that suits the validation split best; returns it, or 1.

    So whatever loads the folder gives the calibrated probabilities; which label is likeliest never changes.
    """
    temperature = fit_temperature(*validation.logits_and_targets)
    if not 1.01 * LEAST_TEMPERATURE < temperature < 0.99 * MOST_TEMPERATURE:
        say(f"! temperature {temperature:.3g} is the furthest that is looked for: the validation rows are too few, or")
        say("  too easy or too hard for the model, to tell; the head is left as it is, and not to be trusted")
        return 1.0  # and the folder does not call itself calibrated
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter /= temperature
    model.config.head_temperature = temperature
    return temperature


def with_intervals(
    scores: dict[str, float],
    statistic: Callable[[np.ndarray], dict[str, np.ndarray]],
    items: int,
    prefix: str,
    without: frozenset[str] = frozenset(),
) -> dict[str, float]:
    """Scores under their full names, with the ends of their 95 % bootstrap intervals.

    Args:
        scores: name → score of the items as they are.
        statistic: of how often each item was drawn, see `bootstrap_intervals`.
        items: how many there are.
        prefix: of the names, `eval_` or `test_`.
        without: scores that get no interval.

    Returns:
        PREFIXscore, PREFIXscore_low, PREFIXscore_high.
    """
    named = {prefix + name: value for name, value in scores.items()}
    for name, (low, high) in bootstrap_intervals(statistic, items).items():
        if name not in without:
            named |= {f"{prefix}{name}_low": low, f"{prefix}{name}_high": high}
    return named
