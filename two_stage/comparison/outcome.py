"""What a comparison found: from the folders of its runs to one dict of plain values, comparison.json.

Of every cell (an arm, a share of the labels, a seed) the answers to the test items are read; arms are held against the
base by seeds and by items. The report shows the dict, and other tools can read it.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from two_stage.checkpointing.runs import LINEAGE, RESULTS, read_object
from two_stage.command_line.exits import Refusal
from two_stage.comparison.paired import (
    Difference,
    detectable_difference,
    holm,
    mean_interval,
    paired_difference,
    spoken_difference,
    verdict,
)
from two_stage.comparison.side_by_side import FINISHED
from two_stage.data.tag_schemes import tag_names
from two_stage.results.entity_results import documents_apart
from two_stage.results.report import HEADLINES
from two_stage.results.sentiment_results import safe_cell
from two_stage.scoring.entity_scores import entity_counts, entity_scores, find_entities, resampled_counts, type_scores
from two_stage.scoring.intervals import resampled_scores
from two_stage.scoring.scores import confusion_matrix, label_scores, regression_scores, shade_scores

# Scores that are better when lower
LOWER_IS_BETTER = ("mean_absolute_error", "mean_squared_error")
# what a card calls a score, and what stands in the middle of a sentence
SHORT_NAMES = {"f1": "entity-F1", "mean_absolute_error": "mean absolute error", "pearson": "correlation"}
ITEM_NAMES = {"sentiment": "texts", "ner": "sentences"}
EXAMPLES = 12  # flipped texts that are shown, of each direction
NONE = "–"  # stands where there is no number
ANEW = "remove the folder, and the run is done anew"  # the mend for a cell whose files are not as its run left them
NO_VERDICT = {
    "word": "no verdict",
    "sentence": "No verdict: base and the first arm share no finished seed with the most labels.",
    "more": "",
}


class Arm(NamedTuple):
    """A checkpoint that stage two starts from, or another way to use one."""

    name: str
    title: str  # what it is
    spoken: str  # what a sentence calls it
    checkpoint: str
    stages: tuple[Path, ...] = ()  # folders of stage one that went into it, all of them
    dose: float | None = None  # per cent of stage one's steps
    dose_of: str | None = None  # the arm that has all of them


class Cell(NamedTuple):
    """Stage two from one arm, with a share of the labels, under one seed."""

    arm: str
    fraction: float  # per cent of the labelled rows
    seed: int
    folder: Path
    status: str = FINISHED
    reason: str = ""


class Answers(NamedTuple):
    """What a cell's model says of the test items."""

    texts: list[str]
    gold: list[str]  # spelled
    predicted: list[str]
    right: np.ndarray  # whether all of a text is: bool (texts,)
    support: dict[str, int]  # texts, or entities, of each label in the gold
    items: int  # that the bootstrap draws: texts, sentences or documents
    telling: int  # of them, those that put something to the test: of sentences, those with an entity
    holding: list[int]  # of them, those that hold each label in the gold, in the order of `support`
    scores: dict[str, float]
    draws: dict[str, np.ndarray]  # the scores of each resample of the items: (resamples,)


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_answers(folder: Path, task: str) -> Answers:
    """Read a cell's answers to the test items, and score them and resamples of them.

    Args:
        folder: of a finished run of stage two.
        task: `sentiment` or `ner`.

    Returns:
        The answers. The same resamples are drawn of every cell, so that two cells' draws can be subtracted. Scores of
        single labels are called "f1 of 0", "f1 of 1" and so on.

    Raises:
        Refusal: a file of the run was lost, or is not as the run left it.
    """
    tables = read_json(folder / "label_scores.json")
    if "test" not in tables:
        raise Refusal(f"{folder}: its label_scores.json has no test split; {ANEW}")
    labels = list(tables["test"].get("labels", {}))  # none where scores are predicted that fall into no shades
    try:
        read = (_read_sentiment if task == "sentiment" else _read_entities)(folder, labels)
        if not read.items:
            raise ValueError("no row")
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        raise Refusal(f"{folder}: its predictions cannot be read ({error!r}); {ANEW}") from error
    items, statistic = read.items, read.statistic
    whole = statistic(np.ones((1, items), dtype=int))
    # 0 where there is no entity, gold or predicted, as in the run's own file
    scores = {name: float(np.nan_to_num(np.ravel(value)[0])) for name, value in whole.items()}
    support = {label: tables["test"]["labels"][label]["support"] for label in labels}
    return Answers(*read[:4], support, items, read.telling, read.holding, scores, resampled_scores(statistic, items))


class _Read(NamedTuple):
    """What stands in a file of predictions."""

    texts: list[str]
    gold: list[str]
    predicted: list[str]
    right: np.ndarray
    items: int
    telling: int
    holding: list[int]
    statistic: Callable[[np.ndarray], dict[str, np.ndarray]]  # of how often each item was drawn


def _read_sentiment(folder: Path, labels: list[str]) -> _Read:
    """Texts, gold and predicted shades of predictions.csv, how many, and the scores of resamples."""
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    first = 2 if header[1] == "text_pair" else 1
    gold, predicted = ([row[first + side] for row in rows] for side in (0, 1))
    numbers = {safe_cell(label): i for i, label in enumerate(labels)}
    shades = [np.array([numbers[label] for label in side]) for side in (gold, predicted)] if labels else []
    is_regression = header[first + 2 : first + 4] == ["gold_score", "predicted_score"]
    scales = [np.array([float(row[first + 2 + side]) for row in rows]) for side in (0, 1)] if is_regression else []

    def statistic(counts: np.ndarray) -> dict[str, np.ndarray]:
        """All scores of each resample."""
        found: dict[str, np.ndarray] = {}
        if shades:
            confusion = confusion_matrix(shades[0], shades[1], len(labels), counts)
            found |= shade_scores(confusion) | _of_labels(label_scores(confusion)["f1"])
        return found | (regression_scores(scales[0], scales[1], counts) if scales else {})

    right = np.array([a == b for a, b in zip(gold, predicted, strict=True)])
    texts = [" · ".join(row[:first]) for row in rows]
    holding = [gold.count(safe_cell(label)) for label in labels]
    return _Read(texts, gold, predicted, right, len(rows), len(rows), holding, statistic)


def _read_entities(folder: Path, types: list[str]) -> _Read:
    """Sentences of predictions.jsonl with their entities spelled, how many items, and the scores of resamples."""
    # not splitlines: it would cut at marks that a text may hold
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").split("\n") if line]
    numbers = {tag: i for i, tag in enumerate(tag_names(types))}
    lengths = np.array([len(row["tokens"]) for row in rows])
    sides = ("gold_tags", "predicted_tags")
    found = [
        find_entities(np.array([numbers[tag] for row in rows for tag in row[side]], dtype=int), lengths)
        for side in sides
    ]
    documents = np.array([row["document"] for row in rows]) if rows and "document" in rows[0] else None
    of_sentences = entity_counts(found[0], found[1], len(rows), len(types))
    counts = documents_apart(of_sentences, documents)

    def statistic(draws: np.ndarray) -> dict[str, np.ndarray]:
        """All scores of each resample."""
        drawn = resampled_counts(counts, draws)
        return entity_scores(drawn) | _of_labels(type_scores(drawn)["f1"])

    gold, predicted = ([spelled_entities(row["tokens"], row[side]) for row in rows] for side in sides)
    right = (of_sentences == of_sentences[..., :1]).all(axis=(1, 2))  # as many right as predicted and as gold
    is_held = counts[..., 2] > 0  # of each item and type; what has no gold entity adds nothing to the gold's spread
    telling, holding = int(is_held.any(axis=1).sum()), is_held.sum(axis=0).tolist()
    texts = [row["text"] for row in rows]
    return _Read(texts, gold, predicted, right, len(counts), telling, holding, statistic)


def _of_labels(f1: np.ndarray) -> dict[str, np.ndarray]:
    """The F1 of each label under a name of its own: from (draws, labels) to (draws,) each."""
    return {f"f1 of {i}": f1[:, i] for i in range(f1.shape[1])}


def spelled_entities(words: list[str], tags: list[str]) -> str:
    """The entities of a sentence in IOB2 tags as "ORG Marlow Shipping · LOC Oslo", or "none"."""
    found: list[list[str]] = []
    for word, tag, before in zip(words, tags, ["O", *tags], strict=False):
        if tag.startswith("B-") or (tag != "O" and before[2:] != tag[2:]):
            found.append([tag[2:]])
        if tag != "O":
            found[-1].append(word)
    return " · ".join(" ".join(entity) for entity in found) or "none"


# --- Holding arms against the base ------------------------------------------------------------------------------------


class Evidence:
    """All finished cells' answers, and how arms differ in them."""

    def __init__(self, task: str, score: str, cells: Sequence[Cell]) -> None:
        """Read every finished cell.

        Args:
            task: `sentiment` or `ner`.
            score: what is compared.
            cells: of all arms.

        Raises:
            Refusal: two cells answered different test items, or one's answers cannot be read.
        """
        self.score, self.higher_is_better = score, score not in LOWER_IS_BETTER
        self.points = 1.0 if score in LOWER_IS_BETTER else 100.0
        self.cells = [cell for cell in cells if cell.status == FINISHED]
        self.answers = {cell[:3]: read_answers(cell.folder, task) for cell in self.cells}
        first = next(iter(self.answers.values()), None)
        for cell in self.cells:
            answers = self.answers[cell[:3]]
            if first is None or (answers.texts, answers.gold) != (first.texts, first.gold):
                raise Refusal(f"{cell.folder}: answers other test items than {self.cells[0].folder}; {ANEW}")
        self.first = first

    def seeds(self, fraction: float, *arms: str) -> list[int]:
        """The seeds under which all `arms` are finished."""
        found = [{cell.seed for cell in self.cells if (cell.arm, cell.fraction) == (arm, fraction)} for arm in arms]
        return sorted(set.intersection(*found))

    def each(self, arm: str, fraction: float, seeds: list[int], score: str) -> np.ndarray:
        """The arm's score under each seed: (seeds,)."""
        return np.array([self.answers[arm, fraction, seed].scores[score] for seed in seeds])

    def draws(self, arm: str, fraction: float, seeds: list[int], score: str) -> np.ndarray:
        """The arm's mean score over the seeds, of each resample of the items: (resamples,)."""
        return np.mean([self.answers[arm, fraction, seed].draws[score] for seed in seeds], axis=0)

    def difference(
        self, arm: str, base: str, fraction: float, score: str, telling: int | None = None
    ) -> Difference | None:
        """Arm minus base; None where they share no seed. Of a single label not all `telling` items tell something."""
        if not (seeds := self.seeds(fraction, arm, base)):
            return None
        assert self.first is not None
        ours, theirs = (self.each(name, fraction, seeds, score) for name in (arm, base))
        resampled = self.draws(arm, fraction, seeds, score) - self.draws(base, fraction, seeds, score)
        telling = self.first.telling if telling is None else telling
        return paired_difference(ours, theirs, resampled, max(telling, 1))

    def curves(self, arms: Sequence[Arm], fractions: Sequence[float]) -> list[dict[str, Any]]:
        """Each arm's own mean score and its interval, at each share of the labels."""
        found = []
        for arm in arms:
            for fraction in fractions:
                if seeds := self.seeds(fraction, arm.name):
                    assert self.first is not None
                    each = self.each(arm.name, fraction, seeds, self.score)
                    draws, telling = self.draws(arm.name, fraction, seeds, self.score), max(self.first.telling, 1)
                    low, high = mean_interval(each, draws, telling)
                    point = {"arm": arm.name, "fraction": fraction, "mean": float(each.mean())}
                    ends = {"low": _finite(low), "high": _finite(high)}
                    found.append(point | ends | {"each": each.tolist(), "seeds": seeds})
        return found

    def differences(self, arms: Sequence[Arm], base: str, fractions: Sequence[float]) -> list[dict[str, Any]]:
        """Every arm against the base at every share of the labels, the headline comparison first.

        The headline, the first arm with the most labels, is judged alone: it is what was asked before any result was
        seen. Of all others the p-values are adjusted for how many they are.
        """
        pairs = [(arm, fraction) for arm in arms if arm.name != base for fraction in reversed(fractions)]
        held = [(arm, fraction, self.difference(arm.name, base, fraction, self.score)) for arm, fraction in pairs]
        known = [(arm, fraction, difference) for arm, fraction, difference in held if difference is not None]
        is_headline = [(arm, fraction) == pairs[0] for arm, fraction, _ in known]
        others = [difference.p_value for (_, _, difference), first in zip(known, is_headline, strict=True) if not first]
        adjusted = iter(holm(others))
        found = []
        for (arm, fraction, difference), first in zip(known, is_headline, strict=True):
            p_value = difference.p_value if first else float(next(adjusted))
            words = (arm.spoken, self.name, self.points, self.higher_is_better, None if first else p_value)
            told = verdict(difference, *words, items_each=self.items_each)
            seeds = self.seeds(fraction, arm.name, base)
            means = {side: float(self.each(side, fraction, seeds, self.score).mean()) for side in (base, arm.name)}
            ups = sum(value * (1 if self.higher_is_better else -1) > 0 for value in difference.each)
            numbers = {name: getattr(difference, name) for name in ("mean", "low", "high", "p_value")}
            found.append(
                {"arm": arm.name, "fraction": fraction, "is_headline": first}
                | {name: _finite(value) for name, value in numbers.items()}
                | {"base_mean": means[base], "arm_mean": means[arm.name]}  # over the seeds that both have
                | {"adjusted_p_value": p_value, "seeds": seeds, "each": list(difference.each), "seeds_up": ups}
                | told._asdict()
                | {"detectable": _finite(detectable_difference(difference))}
                | {"seed_sd": _finite(difference.seed_sd), "item_error": _finite(difference.item_error)}
            )
        return found

    @property
    def items_each(self) -> float:
        """How many test items there are for one that puts something to the test."""
        return self.first.items / max(self.first.telling, 1) if self.first else 1.0

    @property
    def name(self) -> str:
        """The score as a sentence calls it."""
        return SHORT_NAMES.get(self.score, HEADLINES[self.score])

    def label_changes(self, arm: str, base: str, fraction: float) -> list[dict[str, Any]]:
        """The F1 of each label or type, of base and arm, and how it changed.

        Resamples draw all items, but a label that a few of them hold is told by these few alone: that all seeds have a
        single text right with one arm is a gain of 100 points, and says nothing of other texts.
        """
        assert self.first is not None
        seeds, found = self.seeds(fraction, arm, base), []
        for i, (label, support) in enumerate(self.first.support.items()):
            difference = self.difference(arm, base, fraction, f"f1 of {i}", self.first.holding[i])
            assert difference is not None
            means = {side: float(self.each(side, fraction, seeds, f"f1 of {i}").mean()) for side in (base, arm)}
            found.append(
                {
                    "label": label,
                    "support": support,
                    "base": means[base],
                    "arm": means[arm],
                    "difference": difference.mean,
                }
                | {"low": _finite(difference.low), "high": _finite(difference.high)}
            )
        return found

    def flips(self, arm: str, base: str, fraction: float) -> dict[str, Any]:
        """The texts that most seeds have right with one of the two, and most have wrong with the other."""
        assert self.first is not None
        gold, seeds = self.first.gold, self.seeds(fraction, arm, base)
        right = {side: np.zeros(len(gold), dtype=int) for side in (base, arm)}
        for side in (base, arm):
            for seed in seeds:
                right[side] += self.answers[side, fraction, seed].right
        most = {side: 2 * count > len(seeds) for side, count in right.items()}
        few = {side: 2 * count < len(seeds) for side, count in right.items()}  # of an even number half is neither
        found: dict[str, Any] = {"items": len(gold), "examples": {}}
        for name, better, worse in (("right", arm, base), ("wrong", base, arm)):
            places = np.flatnonzero(most[better] & few[worse])
            found[name] = len(places)
            surest = places[np.argsort(right[worse][places] - right[better][places], kind="stable")][:EXAMPLES]
            found["examples"][name] = [
                {"text": self.first.texts[i], "gold": gold[i], "base_right": int(right[base][i])}
                | {"arm_right": int(right[arm][i]), "base": self.usual(base, fraction, seeds, i)}
                | {"arm": self.usual(arm, fraction, seeds, i)}
                for i in surest.tolist()
            ]
        return found

    def usual(self, arm: str, fraction: float, seeds: list[int], item: int) -> str:
        """What most seeds answer, the first of those that are as frequent."""
        answers = [self.answers[arm, fraction, seed].predicted[item] for seed in seeds]
        return max(answers, key=answers.count)


def _finite(value: float) -> float | None:
    """A number that JSON knows, or None."""
    return float(value) if np.isfinite(value) else None


# --- What the runs' own files say -------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file, {} where there is none.

    Raises:
        Refusal: that file is broken.
    """
    return read_object(path, "remove it, and give the same command again") if path.is_file() else {}


def earlier_stages(folder: Path, base: str) -> Iterator[Path]:
    """The folders of stage one that a folder of stage one came from, such as a first phase, up to the base.

    A folder that is gone, or holds another model by now, ends the search.

    Args:
        folder: that run_pretraining.py left.
        base: the checkpoint that the base starts from, whose own making is no cost of an arm.
    """
    while name := (start := read_json(folder / LINEAGE).get("checkpoint", {})).get("name"):
        folder = Path(name)
        made = read_json(folder / LINEAGE)
        is_stage_one = made.get("script") == "run_pretraining.py" and (folder / RESULTS).is_file()
        if not is_stage_one or os.path.realpath(folder) == os.path.realpath(base):
            return
        if made.get("weights_sha256") != start.get("weights_sha256"):
            return
        yield folder


def stage_cost(arm: Arm, base: str) -> dict[str, float] | None:
    """Tokens, minutes and steps of all of stage one that went into an arm, each where every folder of it tells it.

    Args:
        arm: of a dose its share of the last stage counts.
        base: the checkpoint that the base starts from.

    Returns:
        None where nothing is known, as of a model that stage one kept on its way.
    """
    figures: dict[str, list[float | None]] = {}
    shares = {os.path.realpath(folder): (arm.dose or 100) / 100 for folder in arm.stages}
    for folder in arm.stages:
        shares = dict.fromkeys(map(os.path.realpath, earlier_stages(folder, base)), 1.0) | shares
    for folder, share in ((Path(place), share) for place, share in shares.items()):
        results, state = read_json(folder / RESULTS), read_json(folder / "trainer_state.json")
        tokens = results.get("train_tokens", results.get("num_input_tokens_seen"))
        found = {"tokens": tokens, "steps": state.get("global_step")}
        # the time of the last call alone, where the run was cut off; its rate then tells of the whole
        rate = results.get("train_tokens_per_second")
        seconds = max(results.get("total_runtime", 0), tokens / rate if tokens and rate else 0)
        found["minutes"] = seconds / 60 if seconds else None
        for name, value in found.items():
            figures.setdefault(name, []).append(None if value is None else value * share)
    known = {name: [value for value in values if value is not None] for name, values in figures.items()}
    return {name: sum(values) for name, values in known.items() if len(values) == len(shares)} or None


def stage_scores(arm: Arm) -> dict[str, float] | None:
    """Stage one's own scores before and after: on held-out text of the domain, and on general text."""
    if not arm.stages or arm.dose is not None:
        return None
    results = read_json(arm.stages[-1] / RESULTS)
    names = ("mlm_loss", "mlm_accuracy", "nsp_accuracy")
    sides = {"": "eval_", "_before": "before_"}
    found = {f"{name}{when}": results.get(f"{prefix}{name}") for name in names for when, prefix in sides.items()}
    found |= {f"general_mlm_loss{when}": results.get(f"general{when}_mlm_loss") for when in ("", "_before")}
    return {name: value for name, value in found.items() if value is not None} or None


def cell_facts(cell: Cell) -> dict[str, Any]:
    """What comparison.json says of a cell: where it is, what became of it, and all its test scores."""
    results = read_json(cell.folder / RESULTS) if cell.status == FINISHED else {}
    ends = ("_low", "_high", "_runtime", "_per_second")
    scores = {name.removeprefix("test_"): value for name, value in results.items() if name.startswith("test_")}
    return {
        "arm": cell.arm,
        "fraction": cell.fraction,
        "seed": cell.seed,
        "folder": str(cell.folder),
        "status": cell.status,
        "reason": cell.reason,
        "minutes": results["total_runtime"] / 60 if results else None,
        "train_rows": results.get("train_samples"),
        "scores": {name: value for name, value in scores.items() if not name.endswith(ends)},
    }


def calibration_table(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The expected calibration error of every arm and share of the labels, where the cells have it."""
    found: dict[tuple[str, float], list[float]] = {}
    for cell in cells:
        if "calibration_error" in cell["scores"]:
            found.setdefault((cell["arm"], cell["fraction"]), []).append(cell["scores"]["calibration_error"])
    return [
        {"arm": arm, "fraction": fraction, "mean": float(np.mean(each)), "each": each}
        for (arm, fraction), each in found.items()
    ]


def compare(task: str, score: str, arms: Sequence[Arm], cells: Sequence[Cell]) -> dict[str, Any]:
    """All that the finished cells say, as plain values that JSON holds.

    Args:
        task: `sentiment` or `ner`.
        score: one of `SCORES`.
        arms: the base first, then the one that the verdict is about.
        cells: of all arms, finished or not.

    Returns:
        The content of comparison.json, but for settings, lineage and what was typed.
    """
    evidence, base = Evidence(task, score, cells), arms[0].name
    fractions = sorted({cell.fraction for cell in cells})
    facts = [cell_facts(cell) for cell in cells]
    differences = evidence.differences(arms, base, fractions)
    headline = next((row for row in differences if row.pop("is_headline")), None)
    for row in differences:
        row.pop("is_headline", None)
    found: dict[str, Any] = {
        "title": title_of(arms),
        "task": task,
        "score": score,
        "score_name": evidence.name,
        "points": evidence.points,
        "higher_is_better": evidence.higher_is_better,
        "items": evidence.first.items if evidence.first else 0,
        "item_name": item_name(task, evidence),
        "seeds": sorted({cell.seed for cell in cells}),
        "fractions": fractions,
        "train_rows": {f"{row['fraction']:g}": row["train_rows"] for row in facts if row["train_rows"]},
        "base": base,
        "headline": {name: headline[name] for name in ("arm", "fraction")} if headline else None,
        "verdict": {name: headline[name] for name in ("word", "sentence", "more")} if headline else None,
        "arms": [
            {"name": arm.name, "title": arm.title, "checkpoint": arm.checkpoint, "dose": arm.dose}
            | {"dose_of": arm.dose_of, "cost": stage_cost(arm, arms[0].checkpoint), "pretraining": stage_scores(arm)}
            for arm in arms
        ],
        "cells": facts,
        "curves": evidence.curves(arms, fractions),
        "differences": differences,
        "calibration": calibration_table(facts),
        "labels": [],
        "flips": None,
    }
    if headline and evidence.first and evidence.first.support:
        found["labels"] = evidence.label_changes(headline["arm"], base, headline["fraction"])
        found["flips"] = evidence.flips(headline["arm"], base, headline["fraction"])
    return found


def title_of(arms: Sequence[Arm]) -> str:
    """The question that the verdict answers."""
    is_stage_one = len(arms) < 2 or arms[1].name not in ("heads_as_is", "scratch")
    return "Did stage one pay off?" if is_stage_one else f"Does {arms[1].spoken} pay off?"


def spoken_cost(cost: dict[str, float]) -> str:
    """What stage one took, in words."""
    found = {"tokens": "{:,.0f} tokens", "steps": "{:,.0f} steps", "minutes": "{:,.1f} minutes"}
    return ", ".join(form.format(cost[name]) for name, form in found.items() if name in cost)


def item_name(task: str, evidence: Evidence) -> str:
    """What the bootstrap draws."""
    if evidence.first and task == "ner" and evidence.first.items < len(evidence.first.texts):
        return "documents"
    return ITEM_NAMES[task]


def better_seeds(difference: dict[str, Any]) -> str:
    """In how many of the seeds the arm is better than base."""
    return f"{difference['seeds_up']} of {len(difference['seeds'])}"


def comparison_table(comparison: dict[str, Any]) -> str:
    """The differences and the verdict as lines for the screen."""
    points = comparison["points"]
    unit = " points" if points == 100 else ""
    rows = [("arm", "labels", f"{comparison['score_name']}, base", "arm", "difference [95 % interval]", "seeds up", "")]
    for row in comparison["differences"]:
        low, high = (NONE if row[end] is None else spoken_difference(row[end], points) for end in ("low", "high"))
        both = [f"{row[side]:.3f}" for side in ("base_mean", "arm_mean")]
        gain = f"{spoken_difference(row['mean'], points)}{unit} [{low}, {high}]"
        rows.append((row["arm"], f"{row['fraction']:g} %", *both, gain, better_seeds(row), row["word"]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    told = comparison["verdict"] or NO_VERDICT
    costs = [f"{arm['name']} took {spoken_cost(arm['cost'])}" for arm in comparison["arms"] if arm["cost"]]
    lines += ["", *costs] if costs else []
    return "\n".join([*lines, "", f"{told['sentence']} {told['more']}".strip()])
