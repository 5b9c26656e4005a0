"""Whether a probability means what it says: how far off it is, and the one number that mends most of it."""

from typing import NamedTuple

import numpy as np

from two_stage.scoring.scores import ratio

BINS = 15  # as Guo et al. 2017 have it, and most since
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0  # beyond them probabilities are 0 and 1, or all alike
LEAST_PROBABILITY = 1e-12  # a certain and wrong answer costs 27.6 nats, not infinitely many


# --- Temperature ------------------------------------------------------------------------------------------------------


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, over the last axis.

    Args:
        logits: finite numbers of any size, (..., K).

    Returns:
        float64 (..., K), each row of sum 1.
    """
    shifted = _shifted(logits)
    exponents = np.exp(shifted)
    return exponents / exponents.sum(axis=-1, keepdims=True)


def fit_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
    """Find the temperature T that makes softmax(logits / T) fit best (Guo et al. 2017, section 4.2).

    It minimises the mean negative log-likelihood, which has one minimum as a function of 1 / T. No prediction changes,
    only how sure of it the model is: less where T > 1. To be fitted on other texts than are trained on or scored.

    T is looked for between 0.05 and 20. Where every text is right there is no minimum, as the likelihood grows for ever
    as T goes to 0: what comes back is then close to 0.05, and says that the texts were too few or too easy to tell.
    Where the logits are worse than guessing it is close to 20.

    Args:
        logits: finite numbers (n, K), n at least 1.
        gold: label numbers 0 … K - 1, int (n,), or what share of the annotators gave each label, float (n, K).

    Returns:
        T > 0; 1.0 where no other fits better.
    """
    from scipy.optimize import minimize_scalar

    shifted = _shifted(logits)
    shares = _shares(gold, shifted.shape[-1])

    def negative_log_likelihood(log_temperature: float) -> float:
        """The mean over texts, in nats."""
        scaled = shifted / np.exp(log_temperature)
        return float((np.log(np.exp(scaled).sum(axis=-1)) - (scaled * shares).sum(axis=-1)).mean())

    bounds = (np.log(LEAST_TEMPERATURE), np.log(MOST_TEMPERATURE))
    found = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x)) if found.fun < negative_log_likelihood(0.0) else 1.0


def _shifted(logits: np.ndarray) -> np.ndarray:
    """Logits in float64 whose greatest is 0, so that no exponent overflows."""
    wide = np.asarray(logits, dtype=np.float64)
    return wide - wide.max(axis=-1, keepdims=True)


# --- Reliability ------------------------------------------------------------------------------------------------------


class Reliability(NamedTuple):
    """A reliability diagram's numbers, one a bin: arrays (bins,)."""

    confidence: np.ndarray  # mean probability of the predicted label; nan where the bin is empty
    accuracy: np.ndarray  # share that is right; nan where the bin is empty
    count: np.ndarray  # type: ignore[assignment]  # texts, int64; a tuple.count is not missed


def reliability(probabilities: np.ndarray, gold: np.ndarray, bins: int = BINS) -> Reliability:
    """Hold confidence against accuracy in bins of equal width (Guo et al. 2017, section 2).

    Args:
        probabilities: (n, K), rows of sum 1.
        gold: label numbers 0 … K - 1, int (n,), or the annotators' shares, float (n, K).
        bins: of the predicted label's probability; bin b of B holds those in (b / B, (b + 1) / B], the first also 0.

    Returns:
        The bins, lowest first.
    """
    shares = _shares(gold, np.shape(probabilities)[-1])
    confidence, is_right, bin_of = _binned(probabilities, shares, bins)
    count = np.bincount(bin_of, minlength=bins)
    return Reliability(
        ratio(np.bincount(bin_of, weights=confidence, minlength=bins), count, otherwise=np.nan),
        ratio(np.bincount(bin_of, weights=is_right, minlength=bins), count, otherwise=np.nan),
        count,
    )


def calibration_scores(
    probabilities: np.ndarray, gold: np.ndarray, counts: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Score probabilities: how far confidence is from accuracy, and two losses that are least for the true ones.

    The expected calibration error of few texts is biased upwards (Roelofs et al. 2022): in a bin of few texts chance
    alone parts confidence from accuracy. A perfectly calibrated model of three labels has about 0.07 with 200 texts and
    0.03 with 1,000; a bootstrap resample has more still, so that every seventh interval of 200 texts lies wholly above
    the figure itself. Compare models on the same texts; the other two scores have no such bias.

    Args:
        probabilities: (n, K), rows of sum 1, n at least 1.
        gold: label numbers 0 … K - 1, int (n,), or what share of the annotators gave each label, float (n, K): a
            prediction is then as right as its label's share.
        counts: how often each text was drawn in each of some resamples, int (draws, n); None takes each text once.

    Returns:
        Arrays (draws,), or () without counts; all nan for a draw of nothing:

        - `calibration_error`, the expected calibration error in 15 bins (Guo et al. 2017, equation 3).
        - `negative_log_likelihood`, in nats, of probabilities clipped at 1e-12.
        - `brier`, the squared error summed over labels, 0 to 2 (Brier 1950).
    """
    from scipy.sparse import csr_array

    probabilities = np.asarray(probabilities, dtype=np.float64)
    shares = _shares(gold, probabilities.shape[-1])
    weights = np.ones(len(gold)) if counts is None else np.asarray(counts, dtype=np.float64)
    squared = np.square(probabilities - shares).sum(axis=-1)
    surprise = -(shares * np.log(probabilities.clip(LEAST_PROBABILITY))).sum(axis=-1)
    confidence, is_right, bin_of = _binned(probabilities, shares, BINS)
    # a bin's count times |accuracy - confidence| is the absolute sum of its texts' gaps
    gaps = csr_array((is_right - confidence, bin_of, np.arange(len(gold) + 1)), shape=(len(gold), BINS))
    sums = {
        "calibration_error": np.abs(weights @ gaps).sum(axis=-1),
        "negative_log_likelihood": weights @ surprise,
        "brier": weights @ squared,
    }
    total = weights.sum(axis=-1)
    return {name: ratio(value, total, otherwise=np.nan) for name, value in sums.items()}


def _binned(probabilities: np.ndarray, shares: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each text the predicted label's probability, how right it is, and its bin's number: (n,) each."""
    rows, predicted = np.arange(len(shares)), np.argmax(probabilities, axis=-1)
    confidence = np.asarray(probabilities, dtype=np.float64)[rows, predicted]
    edges = np.arange(1, bins) / bins  # linspace's differ from these in the last digit, where exact shares lie
    return confidence, shares[rows, predicted], np.searchsorted(edges, confidence, side="left")


def _shares(gold: np.ndarray, labels: int) -> np.ndarray:
    """Label numbers as shares of 1 and 0; shares as they are: float64 (n, labels)."""
    return np.eye(labels)[gold] if np.ndim(gold) == 1 else np.asarray(gold, dtype=np.float64)
