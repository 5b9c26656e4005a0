"""Scores against values worked by hand and independent computation; and what is told of them."""

import json
import math
import socket
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_stage.checkpointing.checkpoints import seal
from two_stage.checkpointing.runs import Run, begin_run, changed_settings, left_as_it_is, open_run, write_results
from two_stage.command_line.exits import Refusal
from two_stage.results import report
from two_stage.scoring.calibration import calibration_scores
from two_stage.scoring.entity_scores import EntityScores
from two_stage.scoring.scores import (
    PretrainingScores,
    SentimentScores,
    confusion_matrix,
    label_scores,
    regression_scores,
    shade_scores,
)

QUICK = settings(max_examples=40, deadline=None)


def pretraining(rows: list[list[float]]) -> dict[str, float]:
    """Stage one's scores of rows."""
    return PretrainingScores(keep_in_memory=True).compute(rows=rows)


def sentiment(predicted: list[int], gold: list[int], labels: int) -> dict[str, float]:
    """Scores of shades."""
    return SentimentScores(keep_in_memory=True).compute(predictions=predicted, references=gold, labels=labels)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No score is loaded or looked up anywhere."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("a score asked for the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# --- Stage one --------------------------------------------------------------------------------------------------------


def test_pretraining_scores_of_a_worked_example() -> None:
    """Four rows, one without a next sentence: means are over words and over labelled rows, not over rows' means."""
    # masked words, their loss, how many right; labelled, the next-sentence loss, right
    scores = pretraining([[4, 8.0, 1, 1, 0.5, 1], [0, 0, 0, 1, 1.0, 0], [1, 2.0, 1, 1, 0.0, 1], [5, 5.0, 3, 0, 0, 0]])
    assert scores == pytest.approx(
        {
            "mlm_loss": 1.5,  # 15 / 10
            "nsp_loss": 0.5,  # 1.5 / 3
            "loss": 2.0,
            "mlm_accuracy": 0.5,  # 5 / 10
            "nsp_accuracy": 2 / 3,
            "perplexity": math.exp(1.5),
        }
    )


def test_pretraining_scores_without_next_sentences() -> None:
    """Where no row is labelled there is nothing to say of next sentences, and the loss is that of the words."""
    scores = pretraining([[4, 8.0, 1, 0, 0, 0], [1, 2.0, 1, 0, 0, 0]])
    assert scores == pytest.approx({"mlm_loss": 2.0, "loss": 2.0, "mlm_accuracy": 0.4, "perplexity": math.exp(2.0)})


@QUICK
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 20),
            st.floats(0, 50),
            st.integers(0, 20),
            st.sampled_from([(0, 0.0, 0), (1, 0.25, 1), (1, 3.0, 0)]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_pretraining_scores_equal_a_naive_computation(
    rows: list[tuple[int, float, int, tuple[int, float, int]]],
) -> None:
    """Perplexity is of the masked words alone, whatever the next-sentence loss is."""
    scores = pretraining([[*row[:3], *row[3]] for row in rows])
    words = sum(row[0] for row in rows) or 1
    mlm, labelled = sum(row[1] for row in rows) / words, [row[3] for row in rows if row[3][0]]
    assert scores["mlm_loss"] == pytest.approx(mlm)
    assert scores["perplexity"] == pytest.approx(math.exp(min(mlm, 700)))
    assert scores["mlm_accuracy"] == pytest.approx(sum(row[2] for row in rows) / words)
    nsp = sum(loss for _, loss, _ in labelled) / len(labelled) if labelled else 0.0
    assert scores["loss"] == pytest.approx(mlm + nsp)
    assert {name for name in scores if name.startswith("nsp")} == ({"nsp_loss", "nsp_accuracy"} if labelled else set())
    if labelled:
        assert scores["nsp_loss"] == pytest.approx(nsp)
        assert scores["nsp_accuracy"] == pytest.approx(sum(right for *_, right in labelled) / len(labelled))


def test_perplexity_of_a_broken_model_is_a_number() -> None:
    """A loss of 10,000 nats does not overflow, a NaN stays one."""
    assert math.isfinite(pretraining([[1, 1e4, 0, 0, 0, 0]])["perplexity"])
    assert math.isnan(pretraining([[1, math.nan, 0, 0, 0, 0]])["perplexity"])


# --- Sentiment --------------------------------------------------------------------------------------------------------


def naive_sentiment(predicted: list[int], gold: list[int], labels: int) -> dict[str, float]:
    """The five scores by their definitions."""
    f1 = []
    for label in sorted({*gold, *predicted}):
        right = sum(p == g == label for p, g in zip(predicted, gold, strict=True))
        f1.append(2 * right / (predicted.count(label) + gold.count(label)))
    observed = np.zeros((labels, labels))
    for p, g in zip(predicted, gold, strict=True):
        observed[g, p] += 1
    expected = np.outer(observed.sum(1), observed.sum(0)) / len(gold)
    weights = np.subtract.outer(np.arange(labels), np.arange(labels)) ** 2
    disagreement = (weights * expected).sum()
    return {
        "accuracy": sum(p == g for p, g in zip(predicted, gold, strict=True)) / len(gold),
        "macro_f1": sum(f1) / len(f1),
        "quadratic_kappa": 1 - (weights * observed).sum() / disagreement if disagreement else 1.0,
        "mean_absolute_error": sum(abs(p - g) for p, g in zip(predicted, gold, strict=True)) / len(gold),
        "off_by_one_share": sum(abs(p - g) < 2 for p, g in zip(predicted, gold, strict=True)) / len(gold),
    }


def test_sentiment_scores_of_a_worked_example() -> None:
    """Four texts of three shades, two right, one off by one, one off by two."""
    scores = sentiment([0, 1, 1, 0], [0, 1, 2, 2], labels=3)
    # F1 of the shades: 2/3, 2/3, 0. Kappa: observed 1 + 4; expected, margins gold 1 1 2 and predicted 2 2 0, over 4:
    # (0·2 + 1·2) + (1·2 + 0·2) + (4·4 + 1·4) = 24, 24 / 4 = 6; 1 - 5 / 6.
    assert scores == pytest.approx(
        {
            "accuracy": 0.5,
            "macro_f1": 4 / 9,
            "quadratic_kappa": 1 / 6,
            "mean_absolute_error": 0.75,
            "off_by_one_share": 0.75,
        }
    )


@QUICK
@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30),
    labels=st.integers(5, 7),
)
def test_sentiment_scores_equal_a_naive_computation(pairs: list[tuple[int, int]], labels: int) -> None:
    """Also where some shades are never predicted, or there are none of them."""
    predicted, gold = [p for p, _ in pairs], [g for _, g in pairs]
    assert sentiment(predicted, gold, labels) == pytest.approx(naive_sentiment(predicted, gold, labels))


@pytest.mark.parametrize(
    ("predicted", "gold", "kappa"),
    [([2, 2, 2], [2, 2, 2], 1.0), ([0, 1, 2], [0, 1, 2], 1.0), ([1, 1, 1], [2, 2, 2], 0.0), ([2, 0], [0, 2], -1.0)],
)
def test_kappa_at_its_ends(predicted: list[int], gold: list[int], kappa: float) -> None:
    """All right is 1, even with one shade only, where the formula is 0 / 0; always beside it is 0; reversed is -1."""
    assert sentiment(predicted, gold, 3)["quadratic_kappa"] == pytest.approx(kappa)


@st.composite
def judged_shades(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Gold and predicted shades of 1 to 30 texts, of 2 to 20 shades, of which some may not occur."""
    labels = draw(st.integers(2, 20))
    shades = st.lists(st.tuples(st.integers(0, labels - 1), st.integers(0, labels - 1)), min_size=1, max_size=30)
    gold, predicted = np.array(draw(shades)).T
    return gold, predicted, labels


@pytest.mark.filterwarnings("error")
@QUICK
@given(judged=judged_shades())
def test_scores_of_shades_equal_sklearns(judged: tuple[np.ndarray, np.ndarray, int]) -> None:
    """Kappa too, save where it is 0 / 0; and nothing of ours warns."""
    from sklearn import metrics

    gold, predicted, labels = judged
    shades = np.arange(labels)
    confusion = confusion_matrix(gold, predicted, labels)
    assert confusion.dtype == np.int64
    assert np.array_equal(confusion, metrics.confusion_matrix(gold, predicted, labels=shades))
    each = metrics.precision_recall_fscore_support(gold, predicted, labels=shades, zero_division=0)
    of_labels = label_scores(confusion)
    assert list(of_labels) == ["precision", "recall", "f1", "support"]
    for ours, theirs in zip(of_labels.values(), each, strict=True):
        assert ours == pytest.approx(theirs)
    scores = {name: float(score) for name, score in shade_scores(confusion).items()}
    one_shade = len(np.union1d(gold, predicted)) == 1
    kappa = 1.0 if one_shade else metrics.cohen_kappa_score(gold, predicted, labels=shades, weights="quadratic")
    assert scores == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(gold, predicted),
            "macro_f1": metrics.f1_score(gold, predicted, average="macro", zero_division=0),
            "quadratic_kappa": kappa,
            "mean_absolute_error": metrics.mean_absolute_error(gold, predicted),
            "off_by_one_share": metrics.accuracy_score(np.abs(gold - predicted) <= 1, np.ones(len(gold))),
        }
    )


@pytest.mark.filterwarnings("error")
@QUICK
@given(judged=judged_shades(), seed=st.integers(0, 9))
def test_drawn_shades_score_as_repeated_ones(judged: tuple[np.ndarray, np.ndarray, int], seed: int) -> None:
    """Each draw's confusion and scores are those of its texts, each as often as drawn; a draw of nothing is nan."""
    gold, predicted, labels = judged
    counts = np.random.default_rng(seed).integers(0, 3, size=(4, len(gold)))
    counts[0], counts[3] = 1, 0
    confusions = confusion_matrix(gold, predicted, labels, counts)
    scores, of_labels = shade_scores(confusions), label_scores(confusions)
    for draw, drawn in enumerate(counts):
        again = confusion_matrix(np.repeat(gold, drawn), np.repeat(predicted, drawn), labels)
        assert confusions.dtype == again.dtype
        assert np.array_equal(confusions[draw], again)
        for name, values in {**shade_scores(again), **label_scores(again)}.items():
            assert {**scores, **of_labels}[name][draw] == pytest.approx(values, nan_ok=True), name
    assert all(values.shape == (4,) and np.isnan(values[3]) for values in scores.values())


def test_counts_of_a_million_texts_do_not_overflow() -> None:
    """Kappa multiplies two margins and 19²: 400 cells of 10^8 texts still give the kappa of 400 cells of one."""
    rng = np.random.default_rng(0)
    confusion = rng.integers(0, 5, size=(20, 20)).astype(np.int32)
    many = {name: float(score) for name, score in shade_scores(confusion * 10**8).items()}
    assert many == pytest.approx({name: float(score) for name, score in shade_scores(confusion).items()})


@pytest.mark.parametrize(
    ("gold", "predicted", "said"),
    [
        ([0, 3], [0, 0], "from 0 to 3"),
        ([0, 0], [-1, 0], "from -1 to 0"),
        ([0, 1], [0], "2 gold labels but 1 predicted"),
    ],
)
def test_a_number_that_is_no_label_is_not_counted_elsewhere(gold: list[int], predicted: list[int], said: str) -> None:
    """Gold 0, predicted 3 would land in the cell of gold 1, predicted 0."""
    with pytest.raises(ValueError, match=said):
        confusion_matrix(np.array(gold), np.array(predicted), 3)


# --- Scores that are numbers ------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([-1.0, 0.0, 0.1, 0.3, 1.0, 1e6 + 0.1]) | st.decimals(-10, 10, places=3).map(float)


def regression(gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The scores of numbers that sklearn and numpy give."""
    from sklearn import metrics

    varies = bool((gold != gold[0]).any() and (predicted != predicted[0]).any())
    r2 = metrics.r2_score(gold, predicted) if len(gold) > 1 else float(gold[0] == predicted[0])  # nan in sklearn
    return {
        "mean_squared_error": metrics.mean_squared_error(gold, predicted),
        "mean_absolute_error_score": metrics.mean_absolute_error(gold, predicted),
        "pearson": np.corrcoef(gold, predicted)[0, 1] if varies else 0.0,
        "r2": r2,
    }


def test_regression_scores_of_a_worked_example() -> None:
    """Gold -1, 0, 1 and predicted -1, 1, 1: one error of 1."""
    scores = regression_scores(np.array([-1, 0, 1]), np.array([-1, 1, 1]))
    assert all(score.shape == () for score in scores.values())
    # off their means: -1 0 1 and -4/3 2/3 2/3; products 2, squares 2 and 24/9; r2 = 1 - 1 / 2
    assert {name: float(score) for name, score in scores.items()} == pytest.approx(
        {
            "mean_squared_error": 1 / 3,
            "mean_absolute_error_score": 1 / 3,
            "pearson": 2 / math.sqrt(2 * 24 / 9),
            "r2": 0.5,
        }
    )


@pytest.mark.filterwarnings("error")
@QUICK
@given(pairs=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12), seed=st.integers(0, 9))
def test_regression_scores_equal_sklearns(pairs: list[tuple[float, float]], seed: int) -> None:
    """At once and draw by draw, where a draw may hold one number only; a draw of nothing is nan."""
    gold, predicted = np.array(pairs).T
    counts = np.random.default_rng(seed).integers(0, 3, size=(4, len(gold)))
    counts[0], counts[3] = 1, 0
    scores = regression_scores(gold, predicted, counts)
    assert all(np.isnan(values[3]) for values in scores.values())
    once = {name: float(score) for name, score in regression_scores(gold, predicted).items()}
    assert once == pytest.approx({name: float(values[0]) for name, values in scores.items()})
    for draw in range(3):
        if counts[draw].any():
            drawn, answers = np.repeat(gold, counts[draw]), np.repeat(predicted, counts[draw])
            expected = regression(drawn, answers)
            if (drawn == drawn[0]).all():  # their mean may round away from them, and sklearn divides by that
                expected["r2"] = float(np.array_equal(drawn, answers))
            ours = {name: float(values[draw]) for name, values in scores.items()}
            assert ours == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("constant", [0.1, 0.7, 1e6 + 0.1])
def test_what_is_constant_in_a_draw_does_not_correlate(constant: float) -> None:
    """Though rounding parts many a mean of one number from that number, and another number stands first, not drawn."""
    values, rng = np.array([5.0, *[constant] * 40]), np.random.default_rng(0)
    other = rng.normal(size=41)
    counts = rng.integers(0, 9, size=(100, 41))
    counts[:, 0] = 0
    means = (counts @ values) / counts.sum(axis=1)
    assert (means != constant).any()
    as_gold, as_predicted = regression_scores(values, other, counts), regression_scores(other, values, counts)
    assert not as_gold["pearson"].any()
    assert not as_gold["r2"].any()
    assert not as_predicted["pearson"].any()
    assert not regression_scores(values[1:], values[1:], counts[:, 1:])["pearson"].any()
    assert (regression_scores(values[1:], values[1:], counts[:, 1:])["r2"] == 1).all()


def test_no_correlation_is_more_than_whole() -> None:
    """Rounding alone would give 1.0000000000000002 for some multiples."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        gold = rng.normal(size=7)
        pearson = float(regression_scores(gold, gold * 1.7)["pearson"])
        assert 1 - 1e-12 < pearson <= 1
        assert float(regression_scores(gold, -gold)["pearson"]) >= -1


def test_regression_keeps_its_digits_far_from_zero() -> None:
    """Numbers a billion away from 0 correlate as they do near it."""
    rng = np.random.default_rng(0)
    gold = rng.normal(size=50)
    predicted = gold + rng.normal(size=50)
    near, far = regression_scores(gold, predicted), regression_scores(gold + 1e9, predicted + 1e9)
    for name in near:
        assert float(far[name]) == pytest.approx(float(near[name]), rel=1e-5), name


# --- Batches ----------------------------------------------------------------------------------------------------------

BATCHED: list[tuple[Any, dict[str, list[Any]], dict[str, Any]]] = [
    (
        PretrainingScores,
        {"rows": [[4, 8.0, 1, 1, 0.5, 1], [0, 0, 0, 0, 0, 0], [1, 2.0, 1, 1, 0, 1], [3, 1.0, 2, 1, 0.1, 0]]},
        {},
    ),
    (SentimentScores, {"predictions": [0, 1, 1, 0, 2], "references": [0, 1, 2, 2, 1]}, {"labels": 3}),
    (
        EntityScores,
        {
            "predictions": [["B-A", "O", "B-B"], ["I-A"], ["B-A", "I-A"], ["O", "B-B"]],
            "references": [["B-A", "I-A", "B-B"], ["B-A"], ["B-A", "I-A"], ["B-A", "B-B"]],
        },
        {},
    ),
]


@pytest.mark.parametrize(("metric", "columns", "options"), BATCHED, ids=["pretraining", "sentiment", "entities"])
@pytest.mark.parametrize("size", [1, 3])
def test_batches_add_up(metric: Any, columns: dict[str, list[Any]], options: dict[str, Any], size: int) -> None:
    """Rows that are added batch by batch, the last one shorter, score as all at once."""
    whole = metric(keep_in_memory=True).compute(**columns, **options)
    parts = metric(keep_in_memory=True)
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, size):
        parts.add_batch(**{name: values[start : start + size] for name, values in columns.items()})
    assert parts.compute(**options) == pytest.approx(whole)


# --- What is told of a run --------------------------------------------------------------------------------------------


def finished(folder: Path, **scores: float) -> Path:
    """A folder with results."""
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder, scores)
    return folder


@pytest.mark.parametrize(
    ("scores", "lines"),
    [
        ({}, []),
        ({"total_runtime": 3.0, "train_loss": 1.0}, []),
        ({"eval_f1": 0.5, "eval_loss": 1.0}, [("validation", "entity F1", "0.500")]),
        ({"eval_f1": 0.5, "test_f1": 0.25, "test_loss": 1.0}, [("test", "entity F1", "0.250")]),
        ({"eval_f1": 0.5, "test_runtime": 1.0, "test_loss": 1.0}, [("validation", "entity F1", "0.500")]),
        (
            {"eval_nsp_accuracy": 0.5, "eval_mlm_loss": 2.0},
            [("validation", "masked-word loss (nats)", "2.000"), ("validation", "next-sentence accuracy", "0.500")],
        ),
        ({"eval_perplexity": math.nan}, [("validation", "masked-word perplexity", "nan")]),
    ],
)
def test_headline_scores(scores: dict[str, float], lines: list[tuple[str, str, str]]) -> None:
    """The test split's if it was scored, else the validation split's, in a fixed order."""
    assert report.score_lines(scores) == lines


def test_every_headline_is_a_score_that_is_computed() -> None:
    """The names of the report are those of the metrics."""
    computed = pretraining([[1, 1.0, 1, 1, 1.0, 1]]) | sentiment([0], [0], 2)
    computed |= EntityScores(keep_in_memory=True).compute(predictions=[["B-A"]], references=[["B-A"]])
    one = np.ones(1, dtype=np.int64)
    computed |= regression_scores(one, one) | calibration_scores(np.ones((1, 1)), np.zeros(1, dtype=np.int64))
    assert set(report.HEADLINES) <= set(computed)


def test_broken_scores_are_told_in_one_line(tmp_path: Path) -> None:
    """By the report, too."""
    (tmp_path / "all_results.json").write_text("{", encoding="utf-8")
    with pytest.raises(Refusal, match=r"all_results\.json: broken"):
        report.main([str(tmp_path)])
    (tmp_path / "all_results.json").unlink()
    (tmp_path / "seeds.json").write_text("{", encoding="utf-8")
    with pytest.raises(Refusal, match=r"seeds\.json: broken .*; run its command again"):
        report.main([str(tmp_path)])


def test_summary_table(tmp_path: Path) -> None:
    """One block a run: its name, one score a line, its minutes and its folder, in even columns."""
    one = finished(tmp_path / "one", eval_mlm_loss=2.5, eval_perplexity=12.182, total_runtime=90.0)
    two = finished(tmp_path / "second run", total_runtime=6.0)
    lines = report.summary_table([one, two]).splitlines()
    assert [line.split() for line in lines[:1]] == [["made", "scores", "took", "lies", "in"]]
    assert set(lines[1]) == {"-", " "}
    assert lines[2].split("  ")[0] == "one"
    assert "masked-word loss (nats) 2.500 (validation)" in lines[2]
    assert "1.5 min" in lines[2]
    assert lines[2].endswith(str(one))
    assert lines[3].strip() == "masked-word perplexity 12.182 (validation)"
    assert lines[4].startswith("second run")
    assert "no split scored" in lines[4]
    assert "0.1 min" in lines[4]
    assert len(lines) == 5
    assert lines[2].index("masked") == lines[3].index("masked") == lines[4].index("no split")


def test_model_card(tmp_path: Path) -> None:
    """Usage with the folder's name, facts that cannot break out of their cells, and the scores."""
    card = report.Card("A model", 'model = load("FOLDER")', ("It knows no irony.",))
    facts = {"started from": "a|b <script>x</script>", "train_file": "one.csv,\n two|.csv"}
    scores = {"test_f1": 0.5, "test_f1_low": 0.4, "test_f1_high": 0.625, "eval_f1": 0.75}
    findings = report.Findings(facts, ("## Labels\n\nnone",))
    report.write_model_card(finished(tmp_path / "made"), card, scores, findings)
    lines = (tmp_path / "made" / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines[:4] == ["---", "library_name: transformers", "---", "# A model"]
    assert f'model = load("{tmp_path / "made"}")' in lines
    assert "| started from | a\\|b &lt;script>x&lt;/script> |" in lines
    assert "| train_file | one.csv, two\\|.csv |" in lines
    assert "| entity F1 | test | 0.500 [0.400, 0.625] |" in lines
    assert lines.index("## Labels") < lines.index("## Limits") < lines.index("- It knows no irony.")
    assert not any("0.750" in line for line in lines)
    assert any("One run, one seed" in line for line in lines)


@pytest.mark.parametrize(
    ("scores", "known"), [({"train_loss": 1.0}, False), ({"eval_f1": 0.5, "test_runtime": 1.0}, True)]
)
def test_model_card_says_where_nothing_was_held_out(tmp_path: Path, scores: dict[str, float], known: bool) -> None:
    """A card without a score says that nothing is known; one of a run with an untagged test file shows validation."""
    report.write_model_card(tmp_path, report.Card("A model", ""), scores, report.Findings({}))
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert ("No held-out split" in text) is not known
    assert ("0.500" in text) is known


def test_report_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the finished runs among the folders, and then refuses the others."""
    with pytest.raises(Refusal, match="none: no finished run"):
        report.main([str(finished(tmp_path / "one", eval_f1=0.5)), str(tmp_path / "none")])
    assert "entity F1 0.500 (validation)" in capsys.readouterr().out


@pytest.mark.parametrize("folders", [[], ["nowhere"]])
def test_report_command_of_no_run_fails(folders: list[str]) -> None:
    """The message names the folder and the file that is missing."""
    with pytest.raises(Refusal, match=r"all_results\.json") as refusal:
        report.main(folders)
    assert all(folder in str(refusal.value) for folder in folders)


# --- One run a folder -------------------------------------------------------------------------------------------------

RECIPE = {"seed": 7, "learning_rate": 5e-5, "labels": ["a b", "c"], "output_dir": "somewhere"}
MADE_FROM: dict[str, Any] = {
    "script": "run_sentiment.py",
    "checkpoint": {"name": "a", "weights_sha256": "1", "lineage": None},
    "data": {"train_file": {"a.csv": "2"}},
    "rows_a_step": 16,
}


def begun(folder: Path, **changed: Any) -> Path:
    """A run's folder as it is at the run's start."""
    begin_run(Run(folder), RECIPE | changed, MADE_FROM)
    return folder


def a_checkpoint(folder: Path) -> None:
    """A whole checkpoint."""
    folder.mkdir()
    for name in ("model.safetensors", "trainer_state.json", "optimizer.pt"):
        (folder / name).write_bytes(b"numbers")
    seal(folder)


def test_a_folder_that_is_not_there_or_empty_is_a_new_run(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    assert open_run(str(tmp_path / "new"), RECIPE, MADE_FROM) == Run(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert open_run(str(tmp_path), RECIPE, MADE_FROM) == Run(tmp_path)


def test_a_run_without_checkpoint_begins_anew(tmp_path: Path) -> None:
    """It was cut off before it had anything to lose, so its settings may be changed, too."""
    assert open_run(str(begun(tmp_path / "run")), RECIPE, MADE_FROM) == Run(tmp_path / "run")
    assert open_run(str(tmp_path / "run"), RECIPE | {"seed": 8}, MADE_FROM) == Run(tmp_path / "run")


def test_a_run_cut_off_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    """The last one by number, not by name."""
    folder = begun(tmp_path / "run")
    for step in (5, 100, 20):
        a_checkpoint(folder / f"checkpoint-{step}")
    assert open_run(str(folder), RECIPE, MADE_FROM) == Run(folder, checkpoint=str(folder / "checkpoint-100"))


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its scores are given back, even where checkpoints are left."""
    folder = finished(begun(tmp_path / "run"), eval_f1=0.5)
    (folder / "checkpoint-5").mkdir()
    run = open_run(str(folder), RECIPE | {"output_dir": "elsewhere"}, MADE_FROM)
    assert run == Run(folder, scores={"eval_f1": 0.5})
    assert left_as_it_is(run) == {"eval_f1": 0.5}
    assert "left as it is" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["finished", "cut off"])
def test_a_run_with_other_settings_is_not_touched(tmp_path: Path, state: str) -> None:
    """The message says which settings, before and now."""
    folder = begun(tmp_path / "run")
    if state == "finished":
        finished(folder)
    else:
        (folder / "checkpoint-5").mkdir()
    with pytest.raises(Refusal, match=r"seed 7 → 8.*another --output_dir"):
        open_run(str(folder), RECIPE | {"seed": 8}, MADE_FROM)


def test_folders_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    """A file, and a folder with anything in it but a run."""
    (tmp_path / "notes").write_text("x", encoding="utf-8")
    with pytest.raises(Refusal, match="notes: is a file"):
        open_run(str(tmp_path / "notes"), RECIPE, MADE_FROM)
    with pytest.raises(Refusal, match="holds no run"):
        open_run(str(tmp_path), RECIPE, MADE_FROM)


def test_results_cut_off_in_the_writing_are_refused(tmp_path: Path) -> None:
    """Half a file of results is no finished run, and no traceback either: it is named, or the run goes on."""
    folder = begun(tmp_path / "run")
    (folder / "all_results.json").write_text('{"eval_f1": 0.', encoding="utf-8")
    try:
        assert open_run(str(folder), RECIPE, MADE_FROM).scores is None
    except Refusal as refusal:
        assert "all_results.json" in str(refusal)  # noqa: PT017


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ({}, {}, ""),
        ({"output_dir": "a"}, {"output_dir": "b"}, ""),
        ({"learning_rate": "5.0e-05"}, {"learning_rate": 5e-5}, ""),
        ({"seed": "7"}, {"seed": 7.0}, ""),
        ({"check_only": "true"}, {"check_only": True}, ""),
        ({"labels": ["a", "1"]}, {"labels": ["a", "1"]}, ""),
        ({"learning_rate": "2e-05"}, {"learning_rate": 5e-5}, "learning_rate 2e-05 → 5e-05"),
        ({}, {"seed": 7}, "seed default → 7"),
        ({"seed": "7"}, {}, "seed 7 → default"),
        ({"b": "1", "a": "x"}, {"b": 2, "a": "y"}, "a x → y, b 1 → 2"),
        ({"check_only": "true"}, {"check_only": False}, "check_only true → false"),
        ({"save_strategy": "no"}, {"save_strategy": "epoch"}, "save_strategy no → epoch"),
    ],
)
def test_changed_settings(before: dict[str, Any], now: dict[str, Any], changed: str) -> None:
    """What stands in the file as text and what argparse gives are compared by value; the output folder is left out."""
    assert changed_settings(before, now) == changed


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"checkpoint": "outputs/News"}, {"checkpoint": "outputs/news"}),
        ({"text_column": "Text"}, {"text_column": "text"}),
        ({"labels": ["good", "bad"]}, {"labels": ["bad", "good"]}),
        ({"labels": ["very bad", "good"]}, {"labels": ["very", "bad good"]}),
        ({"seed": "1234567"}, {"seed": 1234568}),
        ({"learning_rate": "1.0000001e-05"}, {"learning_rate": 1e-5}),
        ({"train_file": ["a b.csv"]}, {"train_file": ["a", "b.csv"]}),
    ],
)
def test_settings_that_only_look_alike_are_changed(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Names in other letters, lists that are parted elsewhere, and numbers that differ in a late digit are others."""
    assert changed_settings(before, now) != ""


def test_results_are_the_json_that_they_were(tmp_path: Path) -> None:
    """Scores keep every digit."""
    scores = {"b": 0.1 + 0.2, "a": 1e-300}
    write_results(tmp_path, scores)
    assert json.loads((tmp_path / "all_results.json").read_text(encoding="utf-8")) == scores


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"data": {"train_file": {"a.csv": "3"}}}, r"a\.csv changed since this run began"),
        ({"checkpoint": {"name": "a", "weights_sha256": "4", "lineage": None}}, "the weights of a changed"),
        ({"rows_a_step": 32}, "rows a step changed from 16 to 32"),
    ],
)
def test_a_run_from_other_files_is_not_gone_on_with(tmp_path: Path, now: dict[str, Any], said: str) -> None:
    """Another training file, checkpoint or step size than when the run began."""
    folder = begun(tmp_path / "run")
    a_checkpoint(folder / "checkpoint-100")
    with pytest.raises(Refusal, match=said):
        open_run(str(folder), RECIPE, MADE_FROM | now)
    assert open_run(str(folder), RECIPE | {"use_cpu": True}, MADE_FROM).checkpoint == str(folder / "checkpoint-100")


def test_what_is_only_checked_may_lie_anywhere(tmp_path: Path) -> None:
    """--check_only writes nothing, so a finished run of other settings is no hindrance."""
    folder = begun(tmp_path / "run")
    write_results(folder, {"eval_loss": 1.0})
    assert open_run(str(folder), RECIPE | {"seed": 8}, MADE_FROM, check_only=True).scores is None


def test_no_number_that_is_none_is_written(tmp_path: Path) -> None:
    """NaN is not JSON."""
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results(tmp_path, {"eval_loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
