"""Scores as `evaluate.Metric` classes: they need no network and add up over batches and processes."""

from typing import Any

import datasets
import evaluate
import numpy as np

Scores = dict[str, float]


def _info(description: str, citation: str, features: dict[str, Any]) -> evaluate.MetricInfo:
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
        return _info(
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


class SentimentScores(evaluate.Metric):
    """Scores of ordered shades: right or wrong, balanced over shades, and how far off.

    `compute(predictions=…, references=…, labels=N)` takes shade numbers 0 … N-1 in their order.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info(
            "Accuracy, macro-F1, quadratic-weighted kappa, mean absolute error in shades",
            "Cohen 1968, Weighted kappa, Psychological Bulletin 70(4)",
            {"predictions": datasets.Value("int32"), "references": datasets.Value("int32")},
        )

    def _compute(self, predictions: Any, references: Any, labels: int) -> Scores:
        from sklearn.metrics import cohen_kappa_score, f1_score

        gold, predicted = np.asarray(references), np.asarray(predictions)
        same = bool((gold == gold[0]).all() and (predicted == gold[0]).all())  # kappa is 0/0 there
        kappa = 1.0 if same else cohen_kappa_score(gold, predicted, labels=range(labels), weights="quadratic")
        found = np.union1d(gold, predicted)
        return {
            "accuracy": float((gold == predicted).mean()),
            "macro_f1": float(f1_score(gold, predicted, labels=found, average="macro", zero_division=0)),
            "quadratic_kappa": float(kappa),
            "mean_absolute_error": float(np.abs(gold - predicted).mean()),
        }


class EntityScores(evaluate.Metric):
    """Strict entity scores: an entity counts where its type and both its ends are right.

    `compute(predictions=…, references=…)` takes one list of IOB2 tags a sentence. Scored by seqeval, strict IOB2.
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return _info(
            "Micro-averaged precision, recall and F1 of entities",
            "Tjong Kim Sang and De Meulder 2003, CoNLL-2003; Nakayama 2018, seqeval",
            {"predictions": tags, "references": tags},
        )

    def _compute(self, predictions: Any, references: Any) -> Scores:
        from seqeval.metrics import accuracy_score
        from seqeval.metrics.v1 import precision_recall_fscore_support  # v1 is its strict mode
        from seqeval.scheme import IOB2

        precision, recall, f1, _ = precision_recall_fscore_support(
            references, predictions, average="micro", scheme=IOB2, zero_division=0
        )
        word_accuracy = float(accuracy_score(references, predictions))
        return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "word_accuracy": word_accuracy}
