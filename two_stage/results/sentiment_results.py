"""What a sentiment run leaves beside its weights: scores with intervals, predictions, pictures, the card's tables."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from two_stage.data.labelled_texts import Scale, Texts
from two_stage.results.pictures import draw_confusion_matrix
from two_stage.results.report import Findings, markdown_cell
from two_stage.results.score_tables import Table, draw_training, draw_trust, reliability_table, write_tables
from two_stage.scoring.calibration import Reliability, calibration_scores, reliability, softmax
from two_stage.scoring.scores import SentimentScores, confusion_matrix, label_scores, regression_scores, shade_scores
from two_stage.scoring.split_scores import check_logits, with_intervals

CALIBRATION = ("calibration_error", "negative_log_likelihood")
# An interval of it would lie too high: what is biased by few texts is biased once more in a resample of them.
NO_INTERVAL = frozenset({"calibration_error"})
CURVES = ("macro_f1", "quadratic_kappa", "accuracy", "pearson")


class SplitScores:
    """The scores of one split: called with what `row_results` kept, it remembers each text's logits."""

    def __init__(self, split: Texts, scale: Scale, is_calibrated: bool = False) -> None:
        self.split, self.scale = split, scale
        self.is_calibrated = is_calibrated  # the folder that predicts was, when it was trained
        self.temperature = 1.0  # what the model's head was divided by
        self.gold = split.gold if split.gold is not None else np.zeros(len(split), dtype=np.int64)
        self.logits = np.zeros((len(split), scale.outputs))

    @property
    def rows(self) -> Dataset:
        """What the model reads of the split."""
        return self.split.rows

    @property
    def is_labelled(self) -> bool:
        """Whether there is something to score by."""
        return self.split.gold is not None

    @property
    def logits_and_targets(self) -> tuple[np.ndarray, np.ndarray]:
        """What a temperature is fitted on: (texts, labels) each."""
        return self.logits, self.split.targets

    def divide(self, temperature: float) -> None:
        """Take the logits for those of the model whose head was divided by a temperature."""
        self.temperature, self.logits = temperature, self.logits / temperature

    def __call__(self, evaluated: Any) -> dict[str, float]:
        """The mean loss of a text, and its scores; a text in windows has their mean loss and mean logits.

        Args:
            evaluated: `predictions`, a row's loss and logits: (rows, 1 + outputs); `label_ids`, its text: (rows,).

        Raises:
            FloatingPointError: see `check_logits`.
        """
        numbers, results = evaluated.label_ids, evaluated.predictions.astype(np.float64)
        sums = np.zeros((len(self.split), results.shape[1]))
        np.add.at(sums, numbers, results)
        means = sums / np.bincount(numbers, minlength=len(sums))[:, None]
        self.logits = means[:, 1:]
        check_logits(self.logits)
        scores = {"loss": float(means[:, 0].mean())}
        return scores | self.scores() if self.split.gold is not None else scores

    @property
    def probabilities(self) -> np.ndarray:
        """Of each text a share a label: (texts, labels)."""
        return softmax(self.logits)

    @property
    def uncalibrated(self) -> np.ndarray:
        """The same at temperature 1, as the model was trained."""
        return softmax(self.logits * self.temperature)

    def reliability(self, temperature: float = 1.0) -> Reliability:
        """How often shades are right that are so probable, where logits are multiplied by a temperature."""
        return reliability(softmax(self.logits * temperature), self.split.targets)

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest shade of each text, or the one that its score falls into: int (texts,)."""
        return self.scale.shade(self.logits[:, 0]) if self.scale.is_regression else self.logits.argmax(axis=1)

    def scores(self, counts: np.ndarray | None = None) -> dict[str, Any]:
        """All scores: of the texts as they are, or of resamples.

        Args:
            counts: how often each text was drawn: int (draws, texts).

        Returns:
            Name → float, or with counts (draws,).
        """
        found: dict[str, Any] = {}
        if self.scale.labels and counts is not None:
            found |= shade_scores(self.confusion(counts))
        elif self.scale.labels:
            found |= SentimentScores(keep_in_memory=True).compute(
                predictions=self.predicted, references=self.gold, labels=len(self.scale.labels)
            )
        if self.scale.is_regression:
            found |= regression_scores(self.split.targets[:, 0], self.logits[:, 0], counts)
        else:
            found |= calibration_scores(self.probabilities, self.split.targets, counts)
        return {name: float(value) for name, value in found.items()} if counts is None else found

    def final_scores(self, prefix: str) -> dict[str, float]:
        """All scores, the ends of their 95 % intervals, and what two were before calibration (…_uncalibrated).

        Args:
            prefix: of the names, `eval_` or `test_`.
        """
        scores = with_intervals(self.scores(), self.scores, len(self.split), prefix, NO_INTERVAL)
        if self.temperature != 1:
            before = calibration_scores(self.uncalibrated, self.split.targets)
            scores |= {f"{prefix}{name}_uncalibrated": float(before[name]) for name in CALIBRATION}
        return scores

    def confusion(self, counts: np.ndarray | None = None) -> np.ndarray:
        """Texts of each gold and predicted shade: (labels, labels), or of each resample (draws, labels, labels)."""
        return confusion_matrix(self.gold, self.predicted, len(self.scale.labels), counts)


def write_predictions(path: Path, scored: SplitScores) -> None:
    """Write predictions.csv: text, second text, gold, predicted, and a probability a label or the predicted score.

    A cell that begins with = + - @ or a tab and is no number gets a ' in front, or a spreadsheet would run it as a
    formula.
    """
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(csv_text([prediction_header(scored.scale, scored.split.pairs is not None)]))
        csv.writer(file).writerows(prediction_rows(scored))


def prediction_header(scale: Scale, paired: bool) -> list[str]:
    """The names of the columns of predictions.csv."""
    header = ["text", *(["text_pair"] if paired else []), "gold", "predicted"]
    return [
        safe_cell(name)
        for name in header + (["gold_score", "predicted_score"] if scale.is_regression else scale.labels)
    ]


def prediction_rows(scored: SplitScores) -> Iterator[list[str]]:
    """The cells of each text in predictions.csv."""
    split, labels = scored.split, scored.scale.labels
    numbers = scored.logits if scored.scale.is_regression else scored.probabilities
    predicted = scored.predicted
    for i, text in enumerate(split.texts):
        cells = [text, *([split.pairs[i]] if split.pairs else [])]
        cells.append(labels[split.gold[i]] if split.gold is not None and labels else "")
        cells.append(labels[predicted[i]] if labels else "")
        figures = [f"{number:.6f}" for number in numbers[i]]
        if scored.scale.is_regression:
            figures.insert(0, "" if split.gold is None else f"{split.targets[i, 0]:.6f}")
        yield [safe_cell(cell) for cell in cells] + figures


def csv_text(rows: Iterable[list[str]]) -> str:
    """Rows as lines of comma-separated values."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def safe_cell(text: str) -> str:
    """Text that a spreadsheet takes for text; a number such as -1 is none that it could run."""
    is_risky = text.startswith(("\t", "\r", "\n")) or text.lstrip().startswith(tuple("=+-@＝＋－＠"))
    return f"'{text}" if is_risky and not re.fullmatch(r"[+-]\d+([.,]\d+)?", text) else text


def label_table(scored: SplitScores) -> Table:
    """What label_scores.json says of a split: each label's scores, who was taken for whom, and the calibration."""
    labels = scored.scale.labels
    table: Table = {}
    if labels:
        confusion = scored.confusion()
        columns = {name: value.tolist() for name, value in label_scores(confusion).items()}
        of_label = ({name: column[i] for name, column in columns.items()} for i in range(len(labels)))
        table["labels"] = dict(zip(labels, of_label, strict=True))
        table["confusion_matrix"] = confusion.tolist()  # rows gold, columns predicted
    if not scored.scale.is_regression:
        table["reliability"] = reliability_table(scored.reliability())
    return table


def write_label_scores(
    folder: Path, scored: dict[str, SplitScores], log_history: list[dict[str, float]], facts: dict[str, str]
) -> Findings:
    """Write label_scores.json and the pictures.

    Args:
        folder: the run's.
        scored: the splits that were predicted, by name; of those with labels the last is shown.
        log_history: of the trainer's state.
        facts: name → value, for the model card.

    Returns:
        What the model card says of all this.
    """
    labelled = {name: split for name, split in scored.items() if split.is_labelled}
    sections = write_tables(folder, labelled, label_table, draw_scores)
    return Findings(facts, (*sections, *draw_training(folder, log_history, CURVES)))


def draw_scores(folder: Path, name: str, scored: SplitScores, table: Table) -> list[str]:
    """Draw who was taken for whom, and whether probabilities mean what they say; returns the card's sections."""
    sections, texts = [], f"{len(scored.split):,} {name} texts"
    if scored.scale.labels:
        counts = np.array(table["confusion_matrix"])
        draw_confusion_matrix(
            folder / "confusion_matrix.png", counts, scored.scale.labels, f"Who was taken for whom: {texts}"
        )
        lines = ["## Labels", "", f"| label ({name}) | precision | recall | F1 | texts |", "|---|---|---|---|---|"]
        for label, found in table["labels"].items():
            shares = " | ".join(f"{found[key]:.3f}" for key in ("precision", "recall", "f1"))
            lines.append(f"| {markdown_cell(label)} | {shares} | {found['support']} |")
        sections.append("\n".join([*lines, "", "![Confusion matrix](confusion_matrix.png)"]))
    if not scored.scale.is_regression:
        sections.append(draw_trust(folder, scored, texts))
    return sections
