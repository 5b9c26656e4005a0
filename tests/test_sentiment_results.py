"""What a sentiment run leaves: scores of texts in windows, their intervals, predictions, and the card's tables."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, log_loss
from transformers import AutoTokenizer, BertConfig
from transformers.trainer_utils import EvalPrediction

import run_sentiment
from tests.conftest import SHADES
from two_stage.data.labelled_texts import Scale, Texts
from two_stage.results.sentiment_results import SplitScores, safe_cell, write_label_scores, write_predictions

SCALE = Scale(SHADES)
BINNED = Scale(SHADES, [-0.5, 0.5], is_regression=True)
BARE = Scale([], None, is_regression=True)


def split_of(scale: Scale, count: int, seed: int = 0, texts: list[str] | None = None, **changed: Any) -> Texts:
    """A labelled split of some texts; a score's shade is the one that it falls into."""
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(count, 1)) if scale.is_regression else np.eye(3)[rng.integers(3, size=count)]
    gold = scale.shade(targets[:, 0]) if scale.is_regression else targets.argmax(axis=1)
    texts = texts or [f"text {i}" for i in range(count)]
    content = {"pairs": None, "places": [f"row {i}" for i in range(count)], "gold": gold, "targets": targets}
    return Texts(texts, **content | changed)


def scored_split(scale: Scale, count: int, seed: int = 0, **changed: Any) -> SplitScores:
    """A split with the logits of a model that is often right."""
    split = split_of(scale, count, seed, **changed)
    scored = SplitScores(split, scale)
    noise = np.random.default_rng(seed + 1).normal(size=split.targets.shape)
    scored.logits = noise + (1.0 if scale.is_regression else 1.5) * split.targets
    return scored


# --- Scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(
    windows=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    seed=st.integers(0, 99),
    outputs=st.sampled_from([1, 3]),
)
def test_a_text_has_the_mean_of_its_windows(windows: list[int], seed: int, outputs: int) -> None:
    """In any order of rows; the loss is the mean over texts, so that a text in many windows counts no more."""
    scale = SCALE if outputs == 3 else BINNED
    rng = np.random.default_rng(seed)
    numbers = rng.permutation([text for text, count in enumerate(windows) for _ in range(count)])
    results = rng.normal(size=(len(numbers), 1 + outputs)).astype(np.float32)
    logits, losses = [], []
    for text in range(len(windows)):
        rows = [results[i] for i in range(len(numbers)) if numbers[i] == text]
        losses.append(sum(float(row[0]) for row in rows) / len(rows))
        logits.append([sum(float(row[1 + k]) for row in rows) / len(rows) for k in range(outputs)])
    scored = SplitScores(split_of(scale, len(windows), seed), scale)
    found = scored(EvalPrediction(predictions=results, label_ids=numbers))
    assert scored.logits == pytest.approx(np.array(logits))
    assert found["loss"] == pytest.approx(sum(losses) / len(losses))
    assert {name: found[name] for name in found if name != "loss"} == scored.scores()
    if outputs == 3:
        assert scored.predicted.tolist() == [row.index(max(row)) for row in logits]
    else:
        assert scored.predicted.tolist() == [(row[0] >= -0.5) + (row[0] >= 0.5) for row in logits]


def test_scores_of_labels_are_sklearns() -> None:
    """Of the likeliest shade, and of its probability."""
    scored = scored_split(SCALE, 300)
    found, gold, predicted = scored.scores(), scored.gold, scored.logits.argmax(axis=1)
    assert 0.5 < found["accuracy"] < 0.95
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert found["quadratic_kappa"] == pytest.approx(cohen_kappa_score(gold, predicted, weights="quadratic"))
    assert found["mean_absolute_error"] == pytest.approx(np.abs(gold - predicted).mean())
    exponents = np.exp(scored.logits)
    assert scored.probabilities == pytest.approx(exponents / exponents.sum(axis=1, keepdims=True))
    assert found["negative_log_likelihood"] == pytest.approx(log_loss(gold, scored.probabilities))
    assert "pearson" not in found


def test_scores_of_scores() -> None:
    """The distance of predicted numbers from gold ones, of shades where there are bins, and no probabilities."""
    scored = scored_split(BINNED, 200)
    found, gold, predicted = scored.scores(), scored.split.targets[:, 0], scored.logits[:, 0]
    assert found["mean_squared_error"] == pytest.approx(np.mean((gold - predicted) ** 2))
    assert found["pearson"] == pytest.approx(np.corrcoef(gold, predicted)[0, 1])
    shades = [[sum(x >= edge for edge in (-0.5, 0.5)) for x in numbers] for numbers in (gold, predicted)]
    assert found["accuracy"] == pytest.approx(accuracy_score(*shades))
    assert not {"calibration_error", "brier"} & set(found)
    bare = scored_split(BARE, 200).scores()
    assert set(bare) == {"mean_squared_error", "mean_absolute_error_score", "pearson", "r2"}


@pytest.mark.parametrize("scale", [SCALE, BINNED, BARE], ids=["labels", "binned scores", "scores"])
def test_scores_of_a_resample_are_those_of_its_texts(scale: Scale) -> None:
    """A text that was drawn twice stands twice, one that was not is not there."""
    scored = scored_split(scale, 30)
    draws = np.random.default_rng(7).integers(30, size=(5, 30))
    found = scored.scores(np.array([np.bincount(draw, minlength=30) for draw in draws]))
    for number, draw in enumerate(draws):
        split = scored.split
        gold = None if split.gold is None else split.gold[draw]
        again = SplitScores(Texts([split.texts[i] for i in draw], None, [], gold, split.targets[draw]), scale)
        again.logits = scored.logits[draw]
        expected = again.scores()
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name][number] == pytest.approx(value), name


def test_a_split_without_labels_has_a_loss_alone() -> None:
    """Its texts have probabilities all the same."""
    scored = SplitScores(split_of(SCALE, 2, gold=None), SCALE)
    results = np.array([[0.5, 3, 1, 2], [1.5, 1, 2, 3]])
    assert scored(EvalPrediction(predictions=results, label_ids=np.array([1, 0]))) == {"loss": 1.0}
    assert scored.predicted.tolist() == [2, 0]


def test_what_a_calibrated_model_said_before() -> None:
    """Its head is divided by the temperature; times that, the logits are what they were."""
    scored = scored_split(SCALE, 50)
    before = scored.probabilities
    assert scored.uncalibrated == pytest.approx(before)
    scored.logits, scored.temperature = scored.logits / 2.5, 2.5
    assert scored.uncalibrated == pytest.approx(before)
    assert np.abs(scored.probabilities - before).max() > 0.1


@pytest.mark.parametrize("scale", [SCALE, BINNED, BARE], ids=["labels", "binned scores", "scores"])
def test_an_interval_holds_its_score(scale: Scale) -> None:
    """Every score has one, but for the calibration error, whose would lie too high."""
    scored = scored_split(scale, 150)
    found = scored.final_scores("test_")
    names = set(scored.scores())
    without = names & {"calibration_error"}
    expected = {f"test_{name}" for name in names}
    expected |= {f"test_{name}_{end}" for name in names - without for end in ("low", "high")}
    assert set(found) == expected
    for name in names - without:
        low, value, high = (found[f"test_{name}{end}"] for end in ("_low", "", "_high"))
        assert low < value < high or value == low == high == 1, name
        assert all(type(number) is float for number in (low, value, high))


def test_scores_before_calibration() -> None:
    """Of a calibrated model alone, and those that a temperature changes."""
    scored = scored_split(SCALE, 80)
    before = scored.final_scores("eval_")
    assert not any("uncalibrated" in name for name in before)
    scored.logits, scored.temperature = scored.logits / 3, 3.0
    after = scored.final_scores("eval_")
    for name in ("calibration_error", "negative_log_likelihood"):
        assert after[f"eval_{name}_uncalibrated"] == pytest.approx(before[f"eval_{name}"])
        assert after[f"eval_{name}"] != pytest.approx(before[f"eval_{name}"])
    assert sum("uncalibrated" in name for name in after) == 2
    assert after["eval_accuracy"] == before["eval_accuracy"]


# --- predictions.csv --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+2", "'=1+2"),
        ("+3%", "'+3%"),
        ("@x", "'@x"),
        ("\tx", "'\tx"),
        ("\r=x", "'\r=x"),
        ("-x", "'-x"),
        ("-", "'-"),
        ("-1+2", "'-1+2"),
        ("-5\n", "'-5\n"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ("-5", "-5"),
        ("+1", "+1"),
        ("-0.25", "-0.25"),
        ("+2,5", "+2,5"),
        ("1-2", "1-2"),
        ("good = bad", "good = bad"),
        ("'=x", "'=x"),
        ("", ""),
    ],
)
def test_a_cell_that_no_spreadsheet_runs(text: str, written: str) -> None:
    """What could be a formula gets a ' in front; numbers stay numbers."""
    assert safe_cell(text) == written


def read_back(path: Path) -> list[dict[str, str]]:
    """The rows of a written file."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


TEXTS = [
    'He said "sell", and they did',
    "two\nlines\r\nand a third",
    "=HYPERLINK(0)",
    "Gewinn 🚀 利益",
    ",;,",
    "-3 %",
    " spaces ",
    "'",
    "-5",
    "+0.0",
    "+1+1",
]


@given(texts=st.lists(st.one_of(st.sampled_from(TEXTS), st.text()), min_size=1, max_size=6), seed=st.integers(0, 9))
def test_predictions_read_back(texts: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every text, label and probability is there again, whatever the text holds; no cell is a formula."""
    path = tmp_path_factory.getbasetemp() / "predictions.csv"
    pairs = [f"@{text}" for text in texts]
    scored = scored_split(SCALE, len(texts), seed, texts=texts, pairs=pairs)
    write_predictions(path, scored)
    rows = read_back(path)
    assert list(rows[0]) == ["text", "text_pair", "gold", "predicted", *SHADES]
    assert len(rows) == len(texts)
    for i, row in enumerate(rows):
        assert row["text"] in (texts[i], f"'{texts[i]}")
        assert row["text_pair"] == f"'{pairs[i]}"
        assert not re.match(r"[=@\t\r]|[+-](?!\d+([.,]\d+)?$)", row["text"])
        assert row["gold"] == SHADES[scored.gold[i]]
        shares = [float(row[shade]) for shade in SHADES]
        assert shares == pytest.approx(scored.probabilities[i], abs=1e-6)
        assert sum(shares) == pytest.approx(1, abs=3e-6)
        assert row["predicted"] == SHADES[int(np.argmax(scored.logits[i]))]


def test_predictions_of_texts_without_labels(tmp_path: Path) -> None:
    """Gold is empty; there is no column of second texts where there are none."""
    write_predictions(tmp_path / "predictions.csv", scored_split(SCALE, 3, gold=None))
    rows = read_back(tmp_path / "predictions.csv")
    assert list(rows[0]) == ["text", "gold", "predicted", *SHADES]
    assert [row["gold"] for row in rows] == [""] * 3
    assert {row["predicted"] for row in rows} <= set(SHADES)


@pytest.mark.parametrize("scale", [BINNED, BARE], ids=["bins", "no bins"])
def test_predictions_of_scores(scale: Scale, tmp_path: Path) -> None:
    """The gold and the predicted score; shades where there are bins."""
    scored = scored_split(scale, 4)
    write_predictions(tmp_path / "predictions.csv", scored)
    rows = read_back(tmp_path / "predictions.csv")
    assert list(rows[0]) == ["text", "gold", "predicted", "gold_score", "predicted_score"]
    gold, predicted = ([float(row[name]) for row in rows] for name in ("gold_score", "predicted_score"))
    assert gold == pytest.approx(scored.split.targets[:, 0].tolist(), abs=1e-4)
    assert predicted == pytest.approx(scored.logits[:, 0].tolist(), abs=1e-6)
    for name, numbers in (("gold", gold), ("predicted", predicted)):
        shades = [SHADES[(x >= -0.5) + (x >= 0.5)] if scale is BINNED else "" for x in numbers]
        assert [row[name] for row in rows] == shades
    write_predictions(tmp_path / "new.csv", scored_split(scale, 4, gold=None))
    assert {(row["gold"], row["gold_score"]) for row in read_back(tmp_path / "new.csv")} == {("", "")}


def test_gold_scores_stay_numbers(tmp_path: Path) -> None:
    """Small and large ones, below 0 too, in all the digits that predicted ones have."""
    scores = [-1234567.5, -0.00001, 1234.5678, 0.0, -5.0, 20_000_000.0]
    split = split_of(BARE, 6, targets=np.array(scores)[:, None])
    write_predictions(tmp_path / "predictions.csv", SplitScores(split, BARE))
    found = [row["gold_score"] for row in read_back(tmp_path / "predictions.csv")]
    assert not any(cell.startswith("'") for cell in found)
    assert [float(cell) for cell in found] == pytest.approx(scores, abs=1e-6)


def test_labels_that_could_be_formulas(tmp_path: Path) -> None:
    """In the header and in the cells alike, so that a column can be found by its label."""
    scale = Scale(["-", "=", "+1"])
    write_predictions(tmp_path / "predictions.csv", scored_split(scale, 20))
    rows = read_back(tmp_path / "predictions.csv")
    assert list(rows[0])[3:] == ["'-", "'=", "+1"]
    assert {row["predicted"] for row in rows} == {"'-", "'=", "+1"}


# --- The folder and the card ------------------------------------------------------------------------------------------

HISTORY = [{"loss": 1.0, "step": 2}, {"eval_loss": 0.9, "eval_accuracy": 0.5, "step": 2}, {"loss": 0.5, "step": 4}]


@pytest.mark.parametrize(
    ("scale", "pictures"),
    [(SCALE, {"confusion_matrix.png", "reliability.png"}), (BINNED, {"confusion_matrix.png"}), (BARE, set())],
    ids=["labels", "binned scores", "scores"],
)
def test_the_files_of_a_run(scale: Scale, pictures: set[str], tmp_path: Path) -> None:
    """Exactly these, strict JSON, and every picture in the card once."""
    scored = {"validation": scored_split(scale, 20), "test": scored_split(scale, 30)}
    findings = write_label_scores(tmp_path, scored, HISTORY, {"train": "5 texts"})
    assert {path.name for path in tmp_path.iterdir()} == {"label_scores.json", "learning_curves.png"} | pictures
    for picture in tmp_path.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    card = "\n".join(findings.sections)
    assert sorted(re.findall(r"\((\w+\.png)\)", card)) == sorted({"learning_curves.png"} | pictures)
    assert all(section.startswith("## ") for section in findings.sections)
    assert findings.facts == {"train": "5 texts"}

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    tables = json.loads((tmp_path / "label_scores.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert list(tables) == ["validation", "test"]
    for name, table in tables.items():
        if not scale.labels:
            assert table == {}
            continue
        gold, predicted = scored[name].gold, scored[name].predicted
        naive = [[int(((gold == i) & (predicted == j)).sum()) for j in range(3)] for i in range(3)]
        assert table["confusion_matrix"] == naive
        f1 = f1_score(gold, predicted, average=None, labels=range(3), zero_division=0)
        assert [table["labels"][shade]["f1"] for shade in SHADES] == pytest.approx(f1)
        assert [table["labels"][shade]["support"] for shade in SHADES] == np.bincount(gold, minlength=3).tolist()
        assert ("reliability" in table) == (scale is SCALE)
        if scale is SCALE:
            assert sum(table["reliability"]["count"]) == len(gold)
            assert None in table["reliability"]["accuracy"]  # of an empty bin


def test_a_run_without_labels_or_training_leaves_nothing(tmp_path: Path) -> None:
    """Texts that were only predicted have no scores to write."""
    findings = write_label_scores(tmp_path, {}, [], {"test": "3 texts: no labels"})
    assert list(tmp_path.iterdir()) == []
    assert findings.sections == ()
    assert findings.facts == {"test": "3 texts: no labels"}


def test_a_calibrated_run_draws_both_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As trained, and calibrated; else the one."""
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "two_stage.results.score_tables.draw_reliability", lambda path, curves, *rest: drawn.append(curves)
    )
    scored = scored_split(SCALE, 40)
    write_label_scores(tmp_path, {"test": scored}, [], {})
    before = scored.logits
    scored.logits, scored.temperature = before / 2, 2.0
    write_label_scores(tmp_path, {"test": scored}, [], {})
    assert [list(curves) for curves in drawn] == [["as trained"], ["as trained", "calibrated"]]
    first, second = (curves["as trained"].count.tolist() for curves in drawn)
    assert first == second != drawn[1]["calibrated"].count.tolist()


def test_the_last_split_is_shown_in_the_card(tmp_path: Path) -> None:
    """The test's, with the figures of label_scores.json, rounded."""
    scored = {"validation": scored_split(SCALE, 20), "test": scored_split(SCALE, 30)}
    card = write_label_scores(tmp_path, scored, [], {}).sections[0].splitlines()
    table = json.loads((tmp_path / "label_scores.json").read_text(encoding="utf-8"))["test"]["labels"]
    expected = [
        f"| {shade} | {found['precision']:.3f} | {found['recall']:.3f} | {found['f1']:.3f} | {found['support']} |"
        for shade, found in table.items()
    ]
    assert card[2] == "| label (test) | precision | recall | F1 | texts |"
    assert card[4:7] == expected


def test_a_label_cannot_break_the_cards_table(tmp_path: Path) -> None:
    """A bar, a tag or a line break in it stays in its cell; the JSON has it as it is."""
    labels = ["a | b", "<img src=x>", "two\nlines"]
    card = write_label_scores(tmp_path, {"test": scored_split(Scale(labels), 30)}, [], {}).sections[0]
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(labels)
    for row in rows:
        assert len(re.split(r"(?<!\\)\|", row)) == 7  # five cells and the two ends
    assert "<" not in card
    assert list(json.loads((tmp_path / "label_scores.json").read_text(encoding="utf-8"))["test"]["labels"]) == labels


# --- Of a trained folder ----------------------------------------------------------------------------------------------

TABLE = "text,score\nprofit rose .,0.5\nsales fell .,-1.25\nbank held .,0.25\ndebt grew .,-3\n"


def trained_folder(folder: Path, tiny_folder: Path, labels: list[str], **config: Any) -> list[str]:
    """A folder with a small model of these labels and random weights; the flags of a call that starts from it."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    torch.manual_seed(0)
    model = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **names, **config)
    run_sentiment.SentimentModel(model).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return ["--checkpoint", str(folder / "model"), "--output_dir", str(folder / "run"), "--use_cpu"]


def test_predicted_scores_are_held_against_scores(tiny_folder: Path, tmp_path: Path) -> None:
    """Also where no flag says so; a folder that only predicts does not know by which loss it learned."""
    call = trained_folder(tmp_path, tiny_folder, ["score"], problem_type="regression")
    (tmp_path / "test.csv").write_text(TABLE, encoding="utf-8")
    scores = run_sentiment.main([*call, "--test_file", str(tmp_path / "test.csv"), "--score_column", "score"])
    assert scores["test_mean_squared_error"] > 0.1
    assert "test_loss" not in scores


def test_a_folder_that_is_trained_on_is_no_longer_calibrated(tiny_folder: Path, tmp_path: Path) -> None:
    """The temperature was set for weights that it no longer has; its card does not claim it."""
    call = trained_folder(tmp_path, tiny_folder, ["bad", "good"], head_temperature=1.75, bins=[0.0])
    (tmp_path / "train.csv").write_text(TABLE, encoding="utf-8")
    call += ["--train_file", str(tmp_path / "train.csv"), "--score_column", "score", "--max_steps", "1"]
    run_sentiment.main(call)
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "Its probabilities were not calibrated" in card
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8")).get("head_temperature") is None


@pytest.mark.parametrize(
    ("text", "cell"),
    [("\n=1+1", "'\n=1+1"), ("＝1+1", "'＝1+1"), ("  =1+1", "'  =1+1"), (" a", " a"), ("+0,5", "+0,5")],
)
def test_hidden_formulas_are_text(text: str, cell: str) -> None:
    """Behind white space, or with the wide signs that some spreadsheets read too."""
    assert safe_cell(text) == cell
