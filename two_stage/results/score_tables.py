"""What both tasks of stage two leave beside their scores: label_scores.json, and pictures that the model card shows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from two_stage.results.pictures import draw_learning_curves, draw_reliability
from two_stage.results.report import HEADLINES
from two_stage.scoring.calibration import Reliability

Table = dict[str, Any]
SplitT = TypeVar("SplitT", bound="ReliableSplit")


class ReliableSplit(Protocol):
    """One split's answers, and how probable each was."""

    temperature: float  # what the model's head was divided by
    is_calibrated: bool  # the folder that predicts was, when it was trained

    def reliability(self, temperature: float = 1.0) -> Reliability:
        """How often answers are right that are so probable; `self.temperature` gives what was before calibration."""


def write_tables(
    folder: Path,
    scored: dict[str, SplitT],
    table: Callable[[SplitT], Table],
    draw: Callable[[Path, str, SplitT, Table], list[str]],
) -> list[str]:
    """Write label_scores.json, and draw the last split, the test's where there is one.

    Args:
        folder: the run's.
        scored: the splits that have labels, by name; none writes nothing.
        table: what the file says of a split.
        draw: writes a split's pictures; returns the model card's sections.

    Returns:
        These sections.
    """
    if not scored:
        return []
    tables = {name: table(split) for name, split in scored.items()}
    text = json.dumps(tables, indent=1, ensure_ascii=False)
    (folder / "label_scores.json").write_text(text + "\n", encoding="utf-8")
    name = list(scored)[-1]
    return draw(folder, name, scored[name], tables[name])


def reliability_table(bins: Reliability) -> Table:
    """The bins as label_scores.json has them: null where one is empty."""
    return {
        name: [None if np.isnan(value) else value for value in column.tolist()]
        for name, column in bins._asdict().items()
    }


def draw_trust(folder: Path, scored: ReliableSplit, title: str, items: str = "texts") -> str:
    """Draw whether probabilities mean what they say, as trained and as calibrated; returns the card's section.

    Args:
        folder: the run's.
        scored: the split.
        title: stands above.
        items: what is counted.
    """
    curves = {} if scored.is_calibrated else {"as trained": scored.reliability(scored.temperature)}
    if scored.temperature != 1 or scored.is_calibrated:
        curves["calibrated"] = scored.reliability()
    draw_reliability(folder / "reliability.png", curves, f"How sure, how right: {title}", items)
    return "## Can its probabilities be trusted?\n\n![Reliability diagram](reliability.png)"


def draw_training(folder: Path, log_history: list[dict[str, float]], names: tuple[str, ...]) -> list[str]:
    """Draw the learning curves where there was a training; returns the card's section on it.

    Args:
        folder: the run's.
        log_history: of the trainer's state.
        names: the scores beside the loss.
    """
    if not draw_learning_curves(folder / "learning_curves.png", log_history, {name: HEADLINES[name] for name in names}):
        return []
    return ["## Training\n\n![Learning curves](learning_curves.png)"]
