"""Scores as `evaluate.Metric` classes: they need no network and add up over batches and processes."""

from typing import Any

import datasets
import evaluate
import numpy as np

Scores = dict[str, float]


def metric_info(description: str, citation: str, features: dict[str, Any]) -> evaluate.MetricInfo:
    """What evaluate wants to know of a metric."""
    return evaluate.MetricInfo(
        description=description, citation=citation, inputs_description="", features=datasets.Features(features)
    )


class PretrainingScores(evaluate.Metric):
    """Masked words and next sentences, scored apart, from sums over each row.

    `compute(rows=…)` takes an array of shape (rows, 6): masked words, their summed loss in nats, how many were
    predicted right; and 1 where the row has a next-sentence label, the next-sentence loss in nats, and 1 where the
    next sentence was judged right. Without any such label there are no next-sentence scores.
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(
            "BERT's two pretraining objectives",
            "Devlin et al. 2019, BERT, section 3.1",
            {"rows": datasets.Sequence(datasets.Value("float64"))},
        )

    def _compute(self, rows: Any) -> Scores:
        sums = np.asarray(rows, dtype=np.float64).sum(axis=0)
        words, word_loss, words_right, sentences, sentence_loss, sentences_right = sums
        mlm_loss = word_loss / max(words, 1.0)
        scores = {
            "loss": mlm_loss,
            "mlm_loss": mlm_loss,
            "mlm_accuracy": words_right / max(words, 1.0),
            "perplexity": float(np.exp(min(mlm_loss, 700.0))),  # of the masked words alone; e^710 overflows
        }
        if sentences:
            nsp_loss = sentence_loss / sentences
            scores |= {"loss": mlm_loss + nsp_loss, "nsp_loss": nsp_loss, "nsp_accuracy": sentences_right / sentences}
        return scores


# --- Ordered shades ---------------------------------------------------------------------------------------------------


def ratio(part: np.ndarray, whole: np.ndarray, otherwise: float) -> np.ndarray:
    """One array over another of its shape, in float64; `otherwise` where the whole is 0, without a warning."""
    filled = np.full(np.shape(whole), otherwise, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=filled, where=np.not_equal(whole, 0)))


def confusion_matrix(
    gold: np.ndarray, predicted: np.ndarray, labels: int, counts: np.ndarray | None = None
) -> np.ndarray:
    """Count how often each label was taken for each.

    Args:
        gold: label numbers 0 … labels - 1, int (n,).
        predicted: likewise.
        labels: how many there are.
        counts: how often each item was drawn in each of some resamples, int (draws, n); None takes each item once.

    Returns:
        int64 (labels, labels), rows gold and columns predicted; with counts one such matrix a draw, (draws, labels,
        labels).

    Raises:
        ValueError: a number that is no label, or gold and predicted differ in length.
    """
    gold, predicted = np.asarray(gold, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if gold.shape != predicted.shape:
        raise ValueError(f"{len(gold)} gold labels but {len(predicted)} predicted ones")
    for numbers in (gold, predicted):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < labels:
            raise ValueError(f"label numbers from {numbers.min()} to {numbers.max()}, but there are {labels} labels")
    cells = gold * labels + predicted
    if counts is None:
        return np.bincount(cells, minlength=labels**2).reshape(labels, labels)
    from scipy.sparse import csr_array

    # one 1 an item: ten times as fast as a dense product, and 1,000,000 items of 20 labels take 20 MB instead of 3 GB
    is_in_cell = csr_array((np.ones_like(cells), cells, np.arange(len(cells) + 1)), shape=(len(cells), labels**2))
    return np.asarray(counts @ is_in_cell).reshape(-1, labels, labels)


def label_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each label against all others.

    Args:
        confusion: counts (..., K, K), rows gold and columns predicted.

    Returns:
        `precision`, `recall`, `f1`, float64, 0 where they are 0 / 0; and `support`, the gold items. Each (..., K).
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return {
        "precision": ratio(right, predicted, otherwise=0.0),
        "recall": ratio(right, support, otherwise=0.0),
        "f1": ratio(2 * right, support + predicted, otherwise=0.0),
        "support": support,
    }


def shade_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Score ordered shades: right or wrong, balanced over shades, and how far off.

    Args:
        confusion: counts (..., K, K) in the shades' order, rows gold and columns predicted.

    Returns:
        Arrays (...), all nan where there is no text:

        - `accuracy`, the share of texts that are right.
        - `macro_f1`, the mean F1 of the shades that are gold or predicted somewhere.
        - `quadratic_kappa` (Cohen 1968). It is 0 / 0 only where gold and predicted are all one and the same shade: 1
          here, as all are right, where sklearn's cohen_kappa_score gives nan.
        - `mean_absolute_error`, in shades.
        - `off_by_one_share`, the share of texts that are right or one shade off ("1-off accuracy").
    """
    counts = np.asarray(confusion)
    shades = np.arange(counts.shape[-1])
    distance = np.abs(shades[:, None] - shades).astype(np.float64)  # texts² · 19² would overflow an integer
    gold, predicted, texts = counts.sum(axis=-1), counts.sum(axis=-2), counts.sum(axis=(-2, -1))
    observed = (distance**2 * counts).sum(axis=(-2, -1)) * texts
    by_chance = ((gold @ distance**2) * predicted).sum(axis=-1)  # what the two margins alone give, times texts²
    scores = {
        "accuracy": ratio(np.trace(counts, axis1=-2, axis2=-1), texts, otherwise=np.nan),
        "macro_f1": ratio(label_scores(counts)["f1"].sum(axis=-1), (gold + predicted > 0).sum(axis=-1), np.nan),
        "quadratic_kappa": 1.0 - ratio(observed, by_chance, otherwise=0.0),
        "mean_absolute_error": ratio((distance * counts).sum(axis=(-2, -1)), texts, otherwise=np.nan),
        "off_by_one_share": ratio(((distance <= 1) * counts).sum(axis=(-2, -1)), texts, otherwise=np.nan),
    }
    scores["quadratic_kappa"] = np.where(texts > 0, scores["quadratic_kappa"], np.nan)
    return scores


def regression_scores(
    gold: np.ndarray, predicted: np.ndarray, counts: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Score numbers: how far off, how well they rise and fall together, what share of the variance is told.

    Args:
        gold: numbers (n,), n at least 1.
        predicted: likewise.
        counts: how often each item was drawn in each of some resamples, int (draws, n); None takes each item once.

    Returns:
        Arrays (draws,), or () without counts; all nan for a draw of nothing:

        - `mean_squared_error`, and `mean_absolute_error_score` in the score's own units, which a mean absolute error
          in shades is not.
        - `pearson`, the product-moment correlation; 0 where a side is constant.
        - `r2`, 1 - squared error / squared distance of gold from its mean; where gold is constant 1 if all is right,
          else 0, as sklearn has it.
    """
    gold, predicted = np.asarray(gold, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    weights = np.ones(len(gold)) if counts is None else np.asarray(counts, dtype=np.float64)
    total, error = weights.sum(axis=-1), predicted - gold
    squared, absolute = weights @ error**2, weights @ np.abs(error)
    # about each draw's own mean: a variance by E[x²] - E[x]² would lose its digits where the mean is large
    gold_off = gold - ratio(weights @ gold, total, otherwise=0.0)[..., None]
    predicted_off = predicted - ratio(weights @ predicted, total, otherwise=0.0)[..., None]
    together = _sum_of_products(weights, gold_off, predicted_off)
    gold_variance = np.where(_is_constant(gold, weights), 0.0, _sum_of_products(weights, gold_off, gold_off))
    predicted_variance = _sum_of_products(weights, predicted_off, predicted_off)
    predicted_variance = np.where(_is_constant(predicted, weights), 0.0, predicted_variance)
    spread = np.sqrt(gold_variance) * np.sqrt(predicted_variance)
    pearson = ratio(together, spread, otherwise=0.0).clip(-1.0, 1.0)  # rounding can give 1.0000000000000002
    r2 = 1.0 - ratio(squared, gold_variance, otherwise=1.0)
    r2 = np.where((gold_variance == 0) & (squared == 0), 1.0, r2)
    return {
        "mean_squared_error": ratio(squared, total, otherwise=np.nan),
        "mean_absolute_error_score": ratio(absolute, total, otherwise=np.nan),
        "pearson": np.where(total > 0, pearson, np.nan),
        "r2": np.where(total > 0, r2, np.nan),
    }


def _sum_of_products(weights: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The weighted sum of a · b over the last axis, of each draw."""
    return np.asarray(np.einsum("...n,...n,...n->...", weights, a, b))


def _is_constant(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Whether all that was drawn is one number; a rounded variance would not be exactly 0: bool (draws,)."""
    is_drawn = weights > 0
    first = values[is_drawn.argmax(axis=-1)]
    return ~(is_drawn & (values != first[..., None])).any(axis=-1)


class SentimentScores(evaluate.Metric):
    """Scores of ordered shades: right or wrong, balanced over shades, and how far off.

    `compute(predictions=…, references=…, labels=N)` takes shade numbers 0 … N-1 in their order.
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(
            "Accuracy, macro-F1, quadratic-weighted kappa, mean absolute error in shades, share at most one shade off",
            "Cohen 1968, Weighted kappa, Psychological Bulletin 70(4)",
            {"predictions": datasets.Value("int32"), "references": datasets.Value("int32")},
        )

    def _compute(self, predictions: Any, references: Any, labels: int) -> Scores:
        confusion = confusion_matrix(np.asarray(references), np.asarray(predictions), labels)
        return {name: float(score) for name, score in shade_scores(confusion).items()}
