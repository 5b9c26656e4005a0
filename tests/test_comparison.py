"""What a comparison reads of its cells, and what it makes of them: by other libraries, by naive twins, by hand."""

import csv
import json
import math
import re
import shutil
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, mean_squared_error

from tests.conftest import SHADES
from two_stage.command_line.exits import Refusal
from two_stage.comparison import outcome
from two_stage.comparison.outcome import (
    EXAMPLES,
    Arm,
    Cell,
    Evidence,
    compare,
    comparison_table,
    read_answers,
    read_json,
    spelled_entities,
    stage_cost,
    stage_scores,
)
from two_stage.comparison.paired import Verdict, verdict
from two_stage.comparison.settings import SCORES
from two_stage.data.labelled_texts import Scale, Texts
from two_stage.results.report import HEADLINES
from two_stage.results.sentiment_results import SplitScores, label_table, write_predictions

TYPES = ["LOC", "ORG"]
BASE, ONE, TWO = (
    Arm("base", "as it is", "the base", "b"),
    Arm("one", "1", "stage one", "o"),
    Arm("two", "2", "two", "t"),
)
AWKWARD = ["=x", "gold", 'so, "so"', "@", "-1", "'=y", " ", "ä\nb"]
Sentence = tuple[list[str], list[str], list[str]]  # words, gold tags, predicted tags

# --- Folders as runs leave them ---------------------------------------------------------------------------------------


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """The run's last file."""
    (folder / "all_results.json").write_text(json.dumps({"total_runtime": 90.0} | results), encoding="utf-8")


def sentiment_cell(
    folder: Path,
    gold: list[int],
    predicted: list[int],
    labels: list[str] = SHADES,
    texts: list[str] | None = None,
    pairs: list[str] | None = None,
) -> Path:
    """A cell whose model answers with these labels, written as run_sentiment.py writes it."""
    texts = texts or [f"text {i}" for i in range(len(gold))]
    targets = np.eye(len(labels))[gold]
    split = Texts(texts, pairs, [f"row {i}" for i in range(len(texts))], np.array(gold), targets)
    scored = SplitScores(split, Scale(labels))
    scored.logits = 3.0 * np.eye(len(labels))[predicted]
    return written(folder, scored)


def score_cell(folder: Path, gold: list[float], predicted: list[float], scale: Scale) -> Path:
    """A cell whose model predicts scores."""
    targets = np.array(gold)[:, None]
    texts = [f"text {i}" for i in range(len(gold))]
    split = Texts(texts, None, texts, scale.shade(targets[:, 0]), targets)
    scored = SplitScores(split, scale)
    scored.logits = np.array(predicted)[:, None]
    return written(folder, scored)


def written(folder: Path, scored: SplitScores) -> Path:
    """The files of a sentiment run."""
    folder.mkdir(parents=True)
    write_predictions(folder / "predictions.csv", scored)
    (folder / "label_scores.json").write_text(json.dumps({"test": label_table(scored)}), encoding="utf-8")
    write_results(folder, {f"test_{name}": score for name, score in scored.scores().items()} | {"train_samples": 40})
    return folder


def entity_cell(
    folder: Path, sentences: list[Sentence], documents: list[int] | None = None, types: list[str] = TYPES
) -> Path:
    """A cell of run_ner.py, its files written by hand."""
    folder.mkdir(parents=True)
    with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
        for i, (words, gold, predicted) in enumerate(sentences):
            row: dict[str, Any] = {"tokens": words, "predicted_tags": predicted, "gold_tags": gold}
            row |= {"text": " ".join(words), "entities": []}
            file.write(json.dumps(row | ({"document": documents[i]} if documents else {}), ensure_ascii=False) + "\n")
    support = Counter(tag[2:] for _, gold, _ in sentences for tag in gold if tag[0] == "B")
    labels = {kind: {"support": support[kind]} for kind in types}
    (folder / "label_scores.json").write_text(json.dumps({"test": {"labels": labels}}), encoding="utf-8")
    write_results(folder, {"test_f1": 0.5, "train_samples": 40})
    return folder


def made_up_tags(rng: np.random.Generator, length: int) -> list[str]:
    """Legal IOB2 tags of LOC and ORG, many of them O."""
    tags: list[str] = []
    for draw in rng.random(length):
        before = tags[-1] if tags else "O"
        goes_on = before != "O" and draw < 0.3
        tags.append(f"I-{before[2:]}" if goes_on else "O" if draw < 0.6 else f"B-{TYPES[int(draw < 0.8)]}")
    return tags


def made_up_sentences(seed: int, count: int, skill: float = 0.6) -> list[Sentence]:
    """Sentences of the same words and gold tags whatever the skill; some have no entity."""
    rng, sentences = np.random.default_rng(seed), []
    of_model = np.random.default_rng([seed, int(skill * 1000)])
    for _ in range(count):
        gold = made_up_tags(rng, int(rng.integers(1, 9)))
        words = [f"w{number}" for number in rng.integers(20, size=len(gold))]
        sentences.append((words, gold, gold if of_model.random() < skill else made_up_tags(of_model, len(gold))))
    return sentences


def made_up_shades(seed: int, count: int, skill: float) -> tuple[list[int], list[int]]:
    """Gold shades, the same whatever the skill, and predicted ones."""
    gold = np.random.default_rng(0).integers(3, size=count)
    rng = np.random.default_rng([seed, int(skill * 1000)])
    return gold.tolist(), np.where(rng.random(count) < skill, gold, rng.integers(3, size=count)).tolist()


def shaded_cells(
    folder: Path,
    skills: dict[str, float],
    fractions: tuple[float, ...] = (100.0,),
    seeds: tuple[int, ...] = (0, 1, 2),
    count: int = 60,
) -> list[Cell]:
    """Cells of arms of such skill, which fewer labels lower."""
    cells = []
    for arm, skill in skills.items():
        for fraction in fractions:
            for seed in seeds:
                answers = made_up_shades(seed, count, skill * (0.7 + 0.003 * fraction))
                place = sentiment_cell(folder / arm / f"{fraction:g}" / str(seed), *answers)
                cells.append(Cell(arm, fraction, seed, place))
    return cells


# --- Reading ----------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), skill=st.sampled_from([0.0, 0.5, 1.0]))
def test_sentiment_scores_are_sklearns(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, skill: float
) -> None:
    """Of all texts, and of single labels."""
    gold, predicted = made_up_shades(seed, count, skill)
    found = read_answers(sentiment_cell(tmp_path_factory.mktemp("a") / "cell", gold, predicted), "sentiment")
    assert found.gold == [SHADES[i] for i in gold]
    assert found.predicted == [SHADES[i] for i in predicted]
    assert (found.items, found.texts) == (count, [f"text {i}" for i in range(count)])
    assert found.support == {label: gold.count(i) for i, label in enumerate(SHADES)}
    assert found.scores["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    assert found.scores["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    apart = f1_score(gold, predicted, average=None, labels=[0, 1, 2], zero_division=0)
    assert [found.scores[f"f1 of {i}"] for i in range(3)] == pytest.approx(apart)


def test_scores_are_those_of_the_runs_own_file(tmp_path: Path) -> None:
    """What all_results.json says of the test split, all that can be compared."""
    folder = sentiment_cell(tmp_path / "cell", *made_up_shades(1, 50, 0.6))
    found, results = read_answers(folder, "sentiment").scores, read_json(folder / "all_results.json")
    compared = [name for name in SCORES["sentiment"] if f"test_{name}" in results]
    assert compared == ["macro_f1", "accuracy", "quadratic_kappa", "mean_absolute_error"]
    assert {name: found[name] for name in compared} == pytest.approx({n: results[f"test_{n}"] for n in compared})


@pytest.mark.parametrize("pairs", [False, True])
def test_awkward_labels_and_texts_are_read_as_they_were_written(tmp_path: Path, pairs: bool) -> None:
    """Labels that a spreadsheet would run, with commas, quotes and line ends; the second text too."""
    rng = np.random.default_rng(3)
    gold, predicted = (rng.integers(len(AWKWARD), size=80).tolist() for _ in range(2))
    predicted = [a if rng.random() < 0.5 else b for a, b in zip(gold, predicted, strict=True)]
    texts = [f'{AWKWARD[i % 8]} a,"b"\n{i}' for i in range(80)]
    seconds = [f"second {i}" for i in range(80)] if pairs else None
    found = read_answers(sentiment_cell(tmp_path / "cell", gold, predicted, AWKWARD, texts, seconds), "sentiment")
    assert found.scores["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert found.scores["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    assert list(found.support) == AWKWARD
    assert [found.gold[i] == found.predicted[i] for i in range(80)] == [gold[i] == predicted[i] for i in range(80)]
    assert all(f' a,"b"\n{i}' in text for i, text in enumerate(found.texts))
    assert all((f"second {i}" in text) is pairs for i, text in enumerate(found.texts))


def test_labels_called_as_columns_of_scores_are_labels(tmp_path: Path) -> None:
    """A probability is not taken for a score, whatever the labels are called."""
    labels = ["gold_score", "predicted_score"]
    found = read_answers(sentiment_cell(tmp_path / "cell", [0, 1, 1], [0, 1, 0], labels), "sentiment")
    assert found.scores["accuracy"] == pytest.approx(2 / 3)


def test_scores_with_bins_have_both_kinds_of_score(tmp_path: Path) -> None:
    """Labels for the shades that they fall into, and how far off the numbers are."""
    rng = np.random.default_rng(0)
    gold = rng.normal(size=40).round(3).tolist()
    predicted = (np.array(gold) + rng.normal(size=40) / 2).round(3).tolist()
    scale = Scale(SHADES, [-0.5, 0.5], is_regression=True)
    found = read_answers(score_cell(tmp_path / "cell", gold, predicted, scale), "sentiment")
    assert found.scores["mean_squared_error"] == pytest.approx(mean_squared_error(gold, predicted))
    assert found.scores["pearson"] == pytest.approx(np.corrcoef(gold, predicted)[0, 1])
    shades = [[sum(x >= edge for edge in (-0.5, 0.5)) for x in side] for side in (gold, predicted)]
    assert found.scores["quadratic_kappa"] == pytest.approx(cohen_kappa_score(*shades, weights="quadratic"))
    assert found.predicted == [SHADES[i] for i in shades[1]]
    picks = np.random.default_rng(0).integers(40, size=(2000, 40))[:5]
    expected = [mean_squared_error(np.array(gold)[pick], np.array(predicted)[pick]) for pick in picks]
    assert found.draws["mean_squared_error"][:5] == pytest.approx(expected)


def test_scores_without_bins_are_compared(tmp_path: Path) -> None:
    """There is no label then, and an error that fell is a gain."""
    rng = np.random.default_rng(1)
    gold = rng.normal(size=40).round(3)
    cells = []
    for arm, noise in (("base", 1.0), ("one", 0.1)):
        for seed in (0, 1, 2):
            predicted = (gold + noise * rng.normal(size=40)).round(3).tolist()
            folder = score_cell(tmp_path / arm / str(seed), gold.tolist(), predicted, Scale([], None, True))
            cells.append(Cell(arm, 100.0, seed, folder))
    found = compare("sentiment", "mean_squared_error", [BASE, ONE], cells)
    assert (found["points"], found["higher_is_better"]) == (1.0, False)
    assert found["verdict"]["word"] == "paid off"
    assert found["differences"][0]["mean"] < 0
    assert found["differences"][0]["seeds_up"] == 3
    assert found["labels"] == []
    json.dumps(found, allow_nan=False)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 25), skill=st.sampled_from([0.0, 0.5, 1.0]))
def test_entity_scores_are_seqevals(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, skill: float
) -> None:
    """Strictly, of all and of each type; sentences without an entity among them."""
    sentences = [*made_up_sentences(seed, count, skill), (["w"], ["B-LOC"], ["B-LOC"]), (["w"], ["O"], ["O"])]
    found = read_answers(entity_cell(tmp_path_factory.mktemp("a") / "cell", sentences), "ner")
    sides = [gold for _, gold, _ in sentences], [predicted for *_, predicted in sentences]
    expected = precision_recall_fscore_support(*sides, average="micro", scheme=IOB2, zero_division=0)
    assert [found.scores[name] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    apart = precision_recall_fscore_support(*sides, average=None, scheme=IOB2, zero_division=0)[2]
    present = sorted({tag[2:] for side in sides for tags in side for tag in tags if tag != "O"})
    assert [found.scores[f"f1 of {TYPES.index(kind)}"] for kind in present] == pytest.approx(list(apart))
    assert found.items == len(sentences)
    assert found.texts == [" ".join(words) for words, *_ in sentences]
    # the first resamples, sentence by sentence
    picks = np.random.default_rng(0).integers(found.items, size=(2000, found.items))[:4]
    for draw, pick in zip(found.draws["f1"], picks, strict=False):
        drawn = ([side[i] for i in pick] for side in sides)
        drawn_gold, drawn_predicted = drawn
        if any(tag != "O" for side in (drawn_gold, drawn_predicted) for tags in side for tag in tags):
            again = precision_recall_fscore_support(
                drawn_gold, drawn_predicted, average="micro", scheme=IOB2, zero_division=0
            )[2]
            assert draw == pytest.approx(again)
        else:
            assert math.isnan(draw)


@pytest.mark.parametrize(("documents", "items"), [(20, 20), (19, 57), (0, 57)])
def test_documents_are_drawn_where_there_are_enough(tmp_path: Path, documents: int, items: int) -> None:
    """Of twenty at least whole documents are drawn; of fewer, or none, sentences."""
    sentences = made_up_sentences(5, 57)
    numbers = [100 - i * documents // 57 for i in range(57)] if documents else None
    found = read_answers(entity_cell(tmp_path / "cell", sentences, numbers), "ner")
    assert found.items == items
    pick = np.random.default_rng(0).integers(items, size=(2000, items))[7]
    if items == 20:  # in the order of their numbers
        apart = [[i for i in range(57) if numbers and numbers[i] == number] for number in sorted(set(numbers or []))]
        pick = np.array([i for document in pick for i in apart[document]])
    sides = [[sentences[i][side] for i in pick] for side in (1, 2)]
    expected = precision_recall_fscore_support(*sides, average="micro", scheme=IOB2, zero_division=0)[2]
    assert found.draws["f1"][7] == pytest.approx(expected)
    cell = Cell("base", 100.0, 0, tmp_path / "cell")
    spoken = compare("ner", "f1", [BASE], [cell])["item_name"]
    assert spoken == ("documents" if items == 20 else "sentences")


def test_texts_may_hold_what_ends_a_line_elsewhere(tmp_path: Path) -> None:
    """Marks that Python's splitlines cuts at, in words and texts."""
    words = ["a\u2028b", "\x1c", "\x85"]
    found = read_answers(entity_cell(tmp_path / "cell", [(words, ["B-LOC", "O", "O"], ["B-LOC", "O", "O"])] * 2), "ner")
    assert found.texts == [" ".join(words)] * 2
    assert found.scores["f1"] == 1.0


@pytest.mark.parametrize("spoil", ["gone", "empty", "cut", "another label", "no numbers"])
@pytest.mark.parametrize("task", ["sentiment", "ner"])
def test_predictions_that_were_lost_or_edited_are_refused(task: str, spoil: str, tmp_path: Path) -> None:
    """In a line that says how the run is done anew: it is the user's own folder, in which somebody tidied up."""
    folder, name = tmp_path / "cell", "predictions.csv" if task == "sentiment" else "predictions.jsonl"
    if task == "ner":
        entity_cell(folder, made_up_sentences(1, 9))
    elif spoil == "no numbers":
        score_cell(folder, [0.5, 0.25], [0.5, 0.25], Scale([], None, True))
    else:
        sentiment_cell(folder, *made_up_shades(1, 9, 0.5))
    text = (folder / name).read_text(encoding="utf-8")
    changed = {"empty": "", "cut": text[: len(text) // 2], "no numbers": re.sub(r"0\.\d+|B-", "none", text)}
    changed["another label"] = text.replace("good", "fine").replace("LOC", "loc")
    (folder / name).unlink() if spoil == "gone" else (folder / name).write_text(changed[spoil], encoding="utf-8")
    with pytest.raises(Refusal, match=r"cell: its predictions cannot be read \(.*; remove the folder, and the run is"):
        Evidence(task, SCORES[task][0], [Cell("base", 100.0, 0, folder)])


@pytest.mark.parametrize(
    ("words", "tags", "spelled"),
    [
        ("profit rose", "O O", "none"),
        ("in Oslo", "O B-LOC", "LOC Oslo"),
        ("Marlow Shipping in Oslo", "B-ORG I-ORG O B-LOC", "ORG Marlow Shipping · LOC Oslo"),
        ("Oslo Lima", "B-LOC B-LOC", "LOC Oslo · LOC Lima"),
        ("Oslo Inc", "B-LOC B-ORG", "LOC Oslo · ORG Inc"),
        ("", "", "none"),
    ],
)
def test_spelled_entities(words: str, tags: str, spelled: str) -> None:
    """Each with its type before it."""
    assert spelled_entities(words.split(), tags.split()) == spelled


# --- Holding arms against the base ------------------------------------------------------------------------------------


def test_draws_of_two_cells_are_of_the_same_resamples(tmp_path: Path) -> None:
    """The first resamples drawn by hand, of both cells; so a difference of draws is one of the same texts."""
    gold, ours = made_up_shades(1, 50, 0.9)
    theirs = made_up_shades(2, 50, 0.4)[1]
    answers = [
        read_answers(sentiment_cell(tmp_path / name, gold, predicted), "sentiment")
        for name, predicted in (("one", ours), ("base", theirs))
    ]
    picks = np.random.default_rng(0).integers(50, size=(2000, 50))
    for draw in (0, 1, 2, 1999):
        drawn = [[side[i] for i in picks[draw]] for side in (gold, ours, theirs)]
        for found, predicted in zip(answers, drawn[1:], strict=True):
            expected = f1_score(drawn[0], predicted, average="macro")
            assert found.draws["macro_f1"][draw] == pytest.approx(expected)
    assert len(answers[0].draws["accuracy"]) == 2000


def test_the_difference_by_hand(tmp_path: Path) -> None:
    """Means, spreads and interval from scores and draws that were made without the code under test."""
    cells = shaded_cells(tmp_path, {"base": 0.5, "one": 0.7}, count=40)
    found = Evidence("sentiment", "accuracy", cells).difference("one", "base", 100.0, "accuracy")
    assert found is not None
    right = {}  # of each text and seed: arm's minus base's
    for seed in (0, 1, 2):
        gold = np.array(made_up_shades(seed, 40, 0.5)[0])
        right[seed] = (np.array(made_up_shades(seed, 40, 0.7)[1]) == gold) * 1.0
        right[seed] -= np.array(made_up_shades(seed, 40, 0.5)[1]) == gold
    each = [float(right[seed].mean()) for seed in (0, 1, 2)]
    assert found.each == pytest.approx(each)
    assert found.mean == pytest.approx(sum(each) / 3)
    assert found.seed_sd == pytest.approx(statistics.stdev(each))
    picks = np.random.default_rng(0).integers(40, size=(2000, 40))
    draws = np.mean([right[seed][picks].mean(axis=1) for seed in (0, 1, 2)], axis=0)
    item_error = draws.std() * math.sqrt(40 / 39)
    assert found.item_error == pytest.approx(item_error)
    by_seed, by_item = student.ppf(0.975, 2) * statistics.stdev(each) / math.sqrt(3), student.ppf(0.975, 39)
    half = math.hypot(by_seed, by_item * item_error)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))


def test_only_shared_seeds_are_held_against_each_other(tmp_path: Path) -> None:
    """A seed that only one of the two finished counts in no difference; in the arm's own curve it does."""
    cells = shaded_cells(tmp_path, {"base": 0.5, "one": 0.7}, seeds=(0, 1, 2, 3))
    cells = [
        cell._replace(status="failed", reason="no") if (cell.arm, cell.seed) in {("base", 2), ("one", 0)} else cell
        for cell in cells
    ]
    found = compare("sentiment", "accuracy", [BASE, ONE], cells)
    (difference,) = found["differences"]
    assert difference["seeds"] == [1, 3]
    evidence = Evidence("sentiment", "accuracy", cells)
    scores = {key: answers.scores["accuracy"] for key, answers in evidence.answers.items()}
    expected = [scores["one", 100.0, seed] - scores["base", 100.0, seed] for seed in (1, 3)]
    assert difference["each"] == pytest.approx(expected)
    assert difference["mean"] == pytest.approx(sum(expected) / 2)
    curves = {row["arm"]: row for row in found["curves"]}
    assert [curves[arm]["seeds"] for arm in ("base", "one")] == [[0, 1, 3], [1, 2, 3]]
    assert curves["one"]["mean"] == pytest.approx(np.mean([scores["one", 100.0, seed] for seed in (1, 2, 3)]))
    assert found["flips"]["examples"]["right"][0]["arm_right"] <= 2
    states = {(cell["arm"], cell["seed"]): (cell["status"], cell["reason"], cell["scores"]) for cell in found["cells"]}
    assert states["base", 2] == ("failed", "no", {})
    assert states["base", 1][0] == "finished"


@pytest.mark.parametrize("what", ["gold", "texts", "number"])
def test_cells_of_other_test_items_are_refused(tmp_path: Path, what: str) -> None:
    """Their answers cannot be held against each other, text by text."""
    gold, predicted = made_up_shades(0, 20, 0.5)
    texts = [f"text {i}" for i in range(20)]
    other = {"gold": ([(gold[0] + 1) % 3, *gold[1:]], predicted, SHADES, texts)}
    other["texts"] = (gold, predicted, SHADES, ["another", *texts[1:]])
    other["number"] = (gold[:19], predicted[:19], SHADES, texts[:19])
    cells = [
        Cell("base", 100.0, 0, sentiment_cell(tmp_path / "base", gold, predicted)),
        Cell("one", 100.0, 0, sentiment_cell(tmp_path / "one", *other[what])),
    ]
    with pytest.raises(Refusal, match=r"one: answers other test items than .*base; remove the folder"):
        Evidence("sentiment", "macro_f1", cells)


@pytest.mark.slow
def test_the_headline_is_the_first_arm_with_most_labels(tmp_path: Path) -> None:
    """It is judged alone; the p-values of all others are adjusted for how many they are, as Holm does."""
    skills = {"base": 0.3, "two": 0.5, "one": 0.8}
    cells = shaded_cells(tmp_path, skills, fractions=(10.0, 50.0, 100.0), seeds=(0, 1, 2, 3))
    found = compare("sentiment", "accuracy", [BASE, ONE, TWO], cells)
    assert found["headline"] == {"arm": "one", "fraction": 100.0}
    keys = [(row["arm"], row["fraction"]) for row in found["differences"]]
    assert keys == [(arm, fraction) for arm in ("one", "two") for fraction in (100.0, 50.0, 10.0)]
    evidence = Evidence("sentiment", "accuracy", cells)
    raw = {}
    for arm, fraction in keys:
        difference = evidence.difference(arm, "base", fraction, "accuracy")
        assert difference is not None
        raw[arm, fraction] = difference.p_value
    first, *others = found["differences"]
    assert first["adjusted_p_value"] == first["p_value"] == raw["one", 100.0]
    assert found["verdict"] == {name: first[name] for name in ("word", "sentence", "more")}
    ranked = sorted((raw[key], key) for key in keys[1:])
    highest, adjusted = 0.0, {}
    for i, (p_value, key) in enumerate(ranked):
        highest = max(highest, min(1.0, (5 - i) * p_value))
        adjusted[key] = highest
    assert any(adjusted[key] > 0.05 > raw[key] for key in adjusted)  # else nothing would be put to the test
    assert 0.05 / 6 < raw["one", 100.0] < 0.05
    for row in others:
        key = (row["arm"], row["fraction"])
        assert row["p_value"] == pytest.approx(raw[key])
        assert row["adjusted_p_value"] == pytest.approx(adjusted[key])
        assert (row["word"] == "paid off") == (row["mean"] > 0 and row["low"] > 0 and adjusted[key] < 0.05)
    assert first["word"] == "paid off"
    assert "is_headline" not in first


def test_without_the_headlines_cells_there_is_no_verdict(tmp_path: Path) -> None:
    """Another comparison does not step into its place; the others are told, all adjusted."""
    cells = shaded_cells(tmp_path, {"base": 0.5, "one": 0.7}, fractions=(10.0, 100.0))
    cells = [cell._replace(status="failed") if (cell.arm, cell.fraction) == ("one", 100.0) else cell for cell in cells]
    found = compare("sentiment", "macro_f1", [BASE, ONE], cells)
    assert (found["headline"], found["verdict"], found["flips"], found["labels"]) == (None, None, None, [])
    assert [(row["arm"], row["fraction"]) for row in found["differences"]] == [("one", 10.0)]
    assert found["fractions"] == [10.0, 100.0]
    assert comparison_table(found)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("task", ["sentiment", "ner"])
def test_nothing_finished_is_told(tmp_path: Path, task: str) -> None:
    """No cell has a folder, and the table says that there is nothing to compare."""
    cells = [Cell(arm, 100.0, 0, tmp_path / arm, "failed", "no memory") for arm in ("base", "one")]
    found = compare(task, SCORES[task][0], [BASE, ONE], cells)
    assert (found["differences"], found["curves"], found["verdict"], found["items"]) == ([], [], None, 0)
    assert [cell["reason"] for cell in found["cells"]] == ["no memory"] * 2
    assert "No verdict" in comparison_table(found)
    json.dumps(found, allow_nan=False)


def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    """There is a difference and no interval, nor any number that JSON does not know."""
    found = compare("sentiment", "macro_f1", [BASE, ONE], shaded_cells(tmp_path, {"base": 0.3, "one": 1.0}, seeds=(4,)))
    (difference,) = found["differences"]
    assert difference["mean"] > 0.2
    assert [difference[name] for name in ("low", "high", "seed_sd", "detectable")] == [None] * 4
    assert (difference["p_value"], difference["word"]) == (1.0, "cannot tell")
    assert all(row["low"] is None and row["difference"] is not None for row in found["labels"])
    json.dumps(found, allow_nan=False)
    assert "cannot tell" in comparison_table(found).lower()


def test_a_model_that_finds_nothing_scores_0(tmp_path: Path) -> None:
    """No entity is found where there are some: 0, as the run's own file has it, and comparable."""
    sentences = made_up_sentences(2, 30, 0.7)
    nothing = [(words, gold, ["O"] * len(words)) for words, gold, _ in sentences]
    cells = [Cell("base", 100.0, seed, entity_cell(tmp_path / f"b{seed}", nothing)) for seed in (0, 1)]
    cells += [Cell("one", 100.0, seed, entity_cell(tmp_path / f"o{seed}", sentences)) for seed in (0, 1)]
    for score in SCORES["ner"]:
        found = compare("ner", score, [BASE, ONE], cells)
        assert [row["mean"] for row in found["curves"] if row["arm"] == "base"] == [0.0]
        json.dumps(found, allow_nan=False)


def test_a_test_split_without_entities_is_no_traceback(tmp_path: Path) -> None:
    """Neither gold nor predicted: nothing was put to the test, and the run's own file says 0."""
    sentences: list[Sentence] = [(["a", "b"], ["O", "O"], ["O", "O"])] * 4
    cells = [Cell(arm, 100.0, 0, entity_cell(tmp_path / arm, sentences)) for arm in ("base", "one")]
    found = compare("ner", "f1", [BASE, ONE], cells)
    assert [row["word"] for row in found["differences"]] == ["cannot tell"]
    json.dumps(found, allow_nan=False)


# --- Labels, flips, and what the runs' own files say ------------------------------------------------------------------


def test_label_changes_are_sklearns(tmp_path: Path) -> None:
    """The mean F1 of each label over seeds, base's and arm's, in the order of the labels."""
    cells = shaded_cells(tmp_path, {"base": 0.4, "one": 0.8})
    found = compare("sentiment", "macro_f1", [BASE, ONE], cells)["labels"]
    means = {}
    for arm, skill in (("base", 0.4), ("one", 0.8)):
        sides = [made_up_shades(seed, 60, skill) for seed in (0, 1, 2)]
        means[arm] = np.mean([f1_score(*side, average=None) for side in sides], axis=0)
    gold = made_up_shades(0, 60, 0.4)[0]
    assert [row["label"] for row in found] == SHADES
    assert [row["support"] for row in found] == [gold.count(i) for i in range(3)]
    assert [row["base"] for row in found] == pytest.approx(means["base"].tolist())
    assert [row["arm"] for row in found] == pytest.approx(means["one"].tolist())
    for row in found:
        assert row["difference"] == pytest.approx(row["arm"] - row["base"])
        assert row["low"] < row["difference"] < row["high"]


@pytest.mark.parametrize("entities", [1, 3])
def test_of_few_sentences_with_an_entity_nothing_is_claimed(entities: int, tmp_path: Path) -> None:
    """All right with one arm and none with the other, among a hundred sentences that put nothing to the test."""
    cells = []
    for arm, tag in (("base", "O"), ("one", "B-LOC")):
        for seed in range(3):
            told = [(["Oslo"], ["B-LOC"], [tag])] * entities + [(["rose"], ["O"], ["O"])] * 100
            cells.append(Cell(arm, 100.0, seed, entity_cell(tmp_path / f"{arm}{seed}", told)))
    evidence = Evidence("ner", "f1", cells)
    found = evidence.difference("one", "base", 100.0, "f1")
    assert found is not None
    assert (found.mean, found.p_value, math.isnan(found.low)) == (1.0, 1.0, True)


@pytest.mark.parametrize("count", [1, 5, 6])
def test_a_label_that_few_texts_hold_has_no_interval(count: int, tmp_path: Path) -> None:
    """With every seed the arm has all of them right and base none: of so few that says nothing of other texts."""
    gold = [0, 1] * 40 + [2] * count
    cells = []
    for arm, told in (("base", 0), ("one", 2)):
        for seed in range(3):
            folder = sentiment_cell(tmp_path / f"{arm}{seed}", gold, gold[:80] + [told] * count)
            cells.append(Cell(arm, 100.0, seed, folder))
    *_, rare = compare("sentiment", "accuracy", [BASE, ONE], cells)["labels"]
    assert (rare["support"], rare["difference"]) == (count, 1.0)
    assert (rare["low"] is None) is (rare["high"] is None) is (count < 6)


def test_a_type_that_few_sentences_hold_has_no_interval(tmp_path: Path) -> None:
    """Though there are many of it in these few, as entities of a sentence stand and fall together."""
    few, many = (["Oslo"] * 9, ["B-LOC"] * 9), (["Ajax"], ["B-ORG"])
    cells = []
    for arm, tag in (("base", "O"), ("one", "B-LOC")):
        for seed in range(3):
            told = [(*few, [tag] * 9)] * 2 + [(*many, many[1])] * 40
            cells.append(Cell(arm, 100.0, seed, entity_cell(tmp_path / f"{arm}{seed}", told)))
    places, names = compare("ner", "f1", [BASE, ONE], cells)["labels"]
    assert (places["support"], places["low"]) == (18, None)
    assert (names["support"], names["low"]) == (40, 0.0)


def naive_flips(cells: list[Cell], better: str, worse: str) -> list[int]:
    """Texts that most seeds have right with one and most have wrong with the other, counted row by row."""
    right: dict[str, Counter[int]] = {better: Counter(), worse: Counter()}
    seeds = {arm: [cell.seed for cell in cells if cell.arm == arm] for arm in (better, worse)}
    shared = set(seeds[better]) & set(seeds[worse])
    count = 0
    for cell in cells:
        if cell.arm in right and cell.seed in shared:
            with open(cell.folder / "predictions.csv", encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            count = len(rows)
            right[cell.arm].update(i for i, row in enumerate(rows) if row["gold"] == row["predicted"])
    return [i for i in range(count) if right[better][i] > len(shared) / 2 and right[worse][i] < len(shared) / 2]


@pytest.mark.slow
@settings(max_examples=12)
@given(
    number=st.integers(0, 10**6),
    seeds=st.sampled_from([(0,), (0, 1), (1, 4, 5), (0, 1, 2, 3)]),
    skill=st.floats(0.1, 1),
)
def test_flips_by_a_naive_twin(
    tmp_path_factory: pytest.TempPathFactory, number: int, seeds: tuple[int, ...], skill: float
) -> None:
    """Both directions, with an even number of seeds too, where half is no majority; the clearest are shown."""
    folder = tmp_path_factory.mktemp("flips")
    cells = []
    for arm, skills in (("base", 0.5), ("one", round(skill, 2))):
        for seed in seeds:
            answers = made_up_shades(seed + 10 * number, 40, skills)
            cells.append(Cell(arm, 100.0, seed, sentiment_cell(folder / f"{arm}{seed}", *answers)))
    evidence = Evidence("sentiment", "macro_f1", cells)
    found = evidence.flips("one", "base", 100.0)
    gold = evidence.answers["one", 100.0, seeds[0]].gold
    assert found["items"] == 40
    for name, better, worse in (("right", "one", "base"), ("wrong", "base", "one")):
        expected, shown = naive_flips(cells, better, worse), found["examples"][name]
        assert found[name] == len(expected)
        assert len(shown) == min(len(expected), EXAMPLES)
        margins = [row["arm_right"] - row["base_right"] for row in shown]
        assert [abs(margin) for margin in margins] == sorted(map(abs, margins), reverse=True)
        for row in shown:
            i = int(row["text"].removeprefix("text "))
            assert i in expected
            assert row["gold"] == gold[i]
            for side, arm in (("base", "base"), ("arm", "one")):
                answered = [evidence.answers[arm, 100.0, seed].predicted[i] for seed in seeds]
                assert row[f"{side}_right"] == answered.count(gold[i])
                assert answered.count(row[side]) == max(Counter(answered).values())


def test_flips_of_entities_are_of_whole_sentences(tmp_path: Path) -> None:
    """A sentence is right where every entity is, at its place; one that is spelled alike elsewhere is not."""
    words = ["Oslo", "and", "Oslo"]
    right, wrong = ["B-LOC", "O", "O"], ["O", "O", "B-LOC"]
    cells = [Cell("one", 100.0, 0, entity_cell(tmp_path / "one", [(words, right, right)] * 3))]
    cells += [Cell("base", 100.0, 0, entity_cell(tmp_path / "base", [(words, right, wrong)] * 3))]
    evidence = Evidence("ner", "f1", cells)
    assert [evidence.answers[arm, 100.0, 0].scores["f1"] for arm in ("one", "base")] == [1.0, 0.0]
    assert evidence.flips("one", "base", 100.0)["right"] == 3


def test_cells_are_told_with_their_scores(tmp_path: Path) -> None:
    """Minutes, rows, and every score of the test split without its prefix, ends of intervals and times left out."""
    folder = sentiment_cell(tmp_path / "cell", [0, 1, 2], [0, 1, 1])
    more = {"test_macro_f1": 0.5, "test_macro_f1_low": 0.1, "test_macro_f1_high": 0.9, "test_calibration_error": 0.07}
    more |= {"eval_macro_f1": 0.9, "test_samples_per_second": 9.0, "train_samples": 193}
    write_results(folder, more)
    found = compare("sentiment", "macro_f1", [BASE], [Cell("base", 5.0, 3, folder)])
    (cell,) = found["cells"]
    assert cell["scores"] == {"macro_f1": 0.5, "calibration_error": 0.07}
    assert (cell["minutes"], cell["train_rows"], cell["folder"]) == (1.5, 193, str(folder))
    assert found["train_rows"] == {"5": 193}
    assert found["calibration"] == [{"arm": "base", "fraction": 5.0, "mean": 0.07, "each": [0.07]}]
    assert (found["seeds"], found["fractions"], found["differences"]) == ([3], [5.0], [])


def test_the_cost_of_stage_one_by_hand(tmp_path: Path) -> None:
    """All its folders together; of a dose its share; nothing where nobody knows."""
    for name, tokens, steps in (("domain", 600_000, 300), ("task", 20_000, 10)):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, {"train_tokens": tokens, "total_runtime": 60.0 * steps, "eval_mlm_loss": steps})
        state = json.dumps({"global_step": steps})
        (tmp_path / name / "trainer_state.json").write_text(state, encoding="utf-8")
    both = ONE._replace(stages=(tmp_path / "domain", tmp_path / "task"))
    assert stage_cost(both, "b") == {"tokens": 620_000, "steps": 310, "minutes": 310}
    dose = ONE._replace(stages=(tmp_path / "domain",), dose=2.5)
    assert stage_cost(dose, "b") == pytest.approx({"tokens": 15_000, "steps": 7.5, "minutes": 7.5})
    assert stage_cost(ONE._replace(stages=(tmp_path / "gone",)), "b") is None
    assert stage_cost(BASE, "b") is None
    assert stage_scores(both) == {"mlm_loss": 10}
    assert stage_scores(dose) is None
    assert stage_scores(BASE) is None


def phases(folder: Path, **spoiled: Any) -> Path:
    """Two folders of stage one, the second begun from the first, and that from a base that stage one made, too."""
    for name, start, steps in (("base", "nothing", 1), ("first", "base", 400), ("second", "first", 100)):
        (folder / name).mkdir()
        write_results(folder / name, {"train_tokens": 1000 * steps, "total_runtime": 60.0 * steps})
        (folder / name / "trainer_state.json").write_text(json.dumps({"global_step": steps}), encoding="utf-8")
        lineage: dict[str, Any] = {"script": "run_pretraining.py", "weights_sha256": f"of {name}"}
        lineage |= spoiled if name == "first" else {}
        lineage["checkpoint"] = {"name": str(folder / start), "weights_sha256": f"of {start}"}
        (folder / name / "lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
    return folder


def test_a_first_phase_is_a_cost_too(tmp_path: Path) -> None:
    """Of rows of 128 before those of 512, back to the base; of a dose of the second the first is whole."""
    base = str(phases(tmp_path) / "base")
    arm = ONE._replace(stages=(tmp_path / "second",))
    assert stage_cost(arm, base) == {"tokens": 500_000, "steps": 500, "minutes": 500}
    assert stage_cost(arm._replace(dose=10), base) == {"tokens": 410_000, "steps": 410, "minutes": 410}
    assert stage_cost(ONE._replace(stages=(tmp_path / "first", tmp_path / "second")), base) == stage_cost(arm, base)
    assert stage_cost(ONE._replace(stages=(tmp_path / "first",)), base) == {
        "tokens": 400_000, "steps": 400, "minutes": 400
    }  # fmt: skip
    cells = shaded_cells(tmp_path / "cells", {"base": 0.5, "one": 0.7}, seeds=(0, 1))
    found = compare("sentiment", "accuracy", [BASE._replace(checkpoint=base), arm], cells)
    assert [row["cost"] for row in found["arms"]] == [None, stage_cost(arm, base)]


@pytest.mark.parametrize("spoiled", [{"weights_sha256": "of another"}, {"script": "run_sentiment.py"}])
def test_a_folder_that_is_no_first_phase_any_more_costs_nothing(spoiled: dict[str, str], tmp_path: Path) -> None:
    """It was made anew since, or by another script."""
    arm = ONE._replace(stages=(phases(tmp_path, **spoiled) / "second",))
    assert stage_cost(arm, str(tmp_path / "base")) == {"tokens": 100_000, "steps": 100, "minutes": 100}


def test_a_cost_of_which_a_part_is_not_known_is_not_told(tmp_path: Path) -> None:
    """A model that a second phase kept on its way says nothing of its steps; those of the first alone are no sum."""
    kept = phases(tmp_path) / "second" / "kept"
    kept.mkdir()
    shutil.copy(tmp_path / "second" / "lineage.json", kept)
    assert stage_cost(ONE._replace(stages=(kept,)), str(tmp_path / "base")) is None
    (tmp_path / "second" / "all_results.json").write_text(json.dumps({"train_tokens": 100_000}), encoding="utf-8")
    arm = ONE._replace(stages=(tmp_path / "second",))
    assert stage_cost(arm, str(tmp_path / "base")) == {"tokens": 500_000, "steps": 500}


def test_scores_before_and_after_stage_one(tmp_path: Path) -> None:
    """Under the names that the report shows; what was not measured is not there."""
    results = {"eval_mlm_loss": 5.5, "before_mlm_loss": 6.8, "eval_mlm_accuracy": 0.3, "before_mlm_accuracy": 0.1}
    results |= {"general_mlm_loss": 6.4, "general_before_mlm_loss": 7.3, "eval_nsp_accuracy": 0.8}
    write_results(tmp_path, results)
    assert stage_scores(ONE._replace(stages=(tmp_path,))) == {
        "mlm_loss": 5.5,
        "mlm_loss_before": 6.8,
        "mlm_accuracy": 0.3,
        "mlm_accuracy_before": 0.1,
        "nsp_accuracy": 0.8,
        "general_mlm_loss": 6.4,
        "general_mlm_loss_before": 7.3,
    }


@pytest.mark.parametrize("task", ["sentiment", "ner"])
def test_every_score_that_can_be_compared_has_a_name(task: str) -> None:
    """The first is the one that is compared if nobody says which."""
    assert set(SCORES[task]) <= set(HEADLINES)
    assert SCORES[task][0] == {"sentiment": "macro_f1", "ner": "f1"}[task]


def test_the_table_on_the_screen(tmp_path: Path) -> None:
    """A line a comparison, its points by hand, and the verdict below."""
    found = compare("sentiment", "accuracy", [BASE, ONE], shaded_cells(tmp_path, {"base": 0.4, "one": 0.9}))
    header, line, empty, told = comparison_table(found).split("\n")
    row, means = found["differences"][0], {curve["arm"]: curve["mean"] for curve in found["curves"]}
    assert line.split()[:4] == ["one", "100", "%", f"{means['base']:.3f}"]
    assert f"{means['one']:.3f}" in line
    assert f"{100 * row['mean']:+.1f} points [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]" in line
    assert line.endswith("3 of 3    paid off")
    assert "accuracy" in header
    assert (empty, told) == ("", found["verdict"]["sentence"])


def test_more_test_items_are_sentences_with_and_without_entities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of those that are there hold one, so of those to add one in two will."""
    cells, each = [], []
    for arm, skill in (("base", 0.5), ("one", 0.6)):
        told = [row for row in made_up_sentences(0, 60, skill) if any(tag != "O" for tag in row[1])][:20]
        cells += [Cell(arm, 100.0, 0, entity_cell(tmp_path / arm, told + [(["w"], ["O"], ["O"])] * 20))]

    def noted(*args: Any, items_each: float = 1.0) -> Verdict:
        each.append(items_each)
        return verdict(*args)

    monkeypatch.setattr(outcome, "verdict", noted)
    compare("ner", "f1", [BASE, ONE], cells)
    assert each == [2.0]


def test_an_end_near_0_keeps_its_sign_on_the_screen(tmp_path: Path) -> None:
    """It decides the word beside it; 0 itself has none."""
    found = compare("sentiment", "accuracy", [BASE, ONE], shaded_cells(tmp_path, {"base": 0.4, "one": 0.9}))
    found["differences"][0] |= {"low": 0.0003, "mean": 0.02, "high": 0.0397}
    assert "+2.0 points [+0.03, +4.0]" in comparison_table(found)
    found["differences"][0] |= {"low": -0.0003, "mean": -0.0, "high": None}
    assert " 0.0 points [-0.03, –]" in comparison_table(found)
