"""Temperature and calibration against known truth, fine grids, naive loops and arithmetic by hand."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_stage.scoring.calibration import Reliability, calibration_scores, fit_temperature, reliability, softmax
from two_stage.scoring.intervals import bootstrap_intervals

QUICK = settings(deadline=None)

# --- Temperature ------------------------------------------------------------------------------------------------------


def negative_log_likelihood(logits: np.ndarray, gold: np.ndarray, temperature: float) -> float:
    """The mean over texts, in nats, one text at a time."""
    losses = []
    for row, label in zip((logits.astype(float) / temperature).tolist(), gold.tolist(), strict=True):
        greatest = max(row)
        losses.append(greatest + math.log(sum(math.exp(x - greatest) for x in row)) - row[label])
    return math.fsum(losses) / len(losses)


def drawn_from(logits: np.ndarray, seed: int) -> np.ndarray:
    """Gold labels drawn with the probabilities softmax(logits)."""
    return (softmax(logits).cumsum(axis=1) > np.random.default_rng(seed).random((len(logits), 1))).argmax(axis=1)


@QUICK
@given(row=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20))
def test_softmax_equals_its_definition(row: list[float]) -> None:
    """By plain Python floats, after the greatest logit is taken off, which changes nothing and overflows nothing."""
    exponents = [math.exp(x - max(row)) for x in row]
    assert softmax(np.array([row, row]))[1] == pytest.approx([x / sum(exponents) for x in exponents])


def test_softmax_equals_scipys_of_any_shape() -> None:
    """Over the last axis, in float64 even where logits are float32."""
    from scipy.special import softmax as theirs

    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    ours = softmax(logits)
    assert ours.dtype == np.float64
    assert ours == pytest.approx(theirs(logits.astype(np.float64), axis=-1), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("labels", [2, 7])
def test_a_known_temperature_is_found(temperature: float, labels: int) -> None:
    """Logits that are T times too large, of 20,000 texts: T within 5 %."""
    true = np.random.default_rng(labels).normal(size=(20_000, labels)) * 2
    found = fit_temperature((true * temperature).astype(np.float32), drawn_from(true, seed=1))
    assert found == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_temperature_is_the_least_of_a_fine_grid(seed: int) -> None:
    """Nowhere on a grid of 1 % steps is the likelihood better, and its slope at T is 0."""
    rng = np.random.default_rng(seed)
    logits, gold = rng.normal(size=(40, 3)) * 3, rng.integers(0, 3, 40)
    gold[:25] = logits[:25].argmax(axis=1)
    found = fit_temperature(logits, gold)
    assert 0.1 < found < 19
    best = negative_log_likelihood(logits, gold, found)
    grid = np.exp(np.arange(math.log(0.05), math.log(20), 0.01))
    losses = [negative_log_likelihood(logits, gold, step) for step in grid]
    assert best <= min(losses) + 1e-12
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.0101)
    # d NLL / d T is the mean over texts of (z_gold - Σ p z) / T²
    expected = (softmax(logits / found) * logits).sum(axis=1)
    assert (logits[np.arange(40), gold] - expected).mean() / found**2 == pytest.approx(0, abs=1e-6)


@QUICK
@given(
    size=st.tuples(st.integers(1, 6), st.integers(2, 5)),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]),
)
@pytest.mark.filterwarnings("error")
def test_temperature_is_never_worse_than_none(size: tuple[int, int], seed: int, scale: float) -> None:
    """For few texts, one text, constant logits and huge ones: between the bounds, and T = 1 fits no better."""
    rng = np.random.default_rng(seed)
    logits, gold = rng.normal(size=size) * scale, rng.integers(0, size[1], size[0])
    found = fit_temperature(logits, gold)
    assert 0.05 <= found <= 20
    before = negative_log_likelihood(logits, gold, 1.0)
    assert negative_log_likelihood(logits, gold, found) <= before * (1 + 1e-12)
    if scale == 0:
        assert found == 1.0


def test_temperature_falls_back_where_the_search_goes_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that ends at a worse place than it could have stayed at is not believed."""
    import scipy.optimize

    def astray(function: object, **options: object) -> scipy.optimize.OptimizeResult:
        return scipy.optimize.OptimizeResult(x=2.0, fun=function(2.0))  # type: ignore[operator]

    logits = np.random.default_rng(0).normal(size=(500, 3))
    monkeypatch.setattr(scipy.optimize, "minimize_scalar", astray)
    assert fit_temperature(logits, drawn_from(logits, seed=1)) == 1.0


@pytest.mark.parametrize(
    ("logits", "gold", "low", "high"),
    [
        ([[1.0, 0.0], [0.0, 2.0]], [0, 1], 0.05, 0.051),  # all right: the surer the better
        ([[0.0, 1.0]], [0], 19.5, 20.0),  # all wrong: the less sure the better
        ([[1.0, 1.0]], [0], 1.0, 1.0),  # nothing to choose by
        ([[9e3, 0.0], [0.0, 9e3]], [0, 1], 1.0, 1.0),  # a loss of 0 already
    ],
)
def test_temperature_at_its_ends(logits: list[list[float]], gold: list[int], low: float, high: float) -> None:
    """Where the likelihood has no minimum the bounds hold it."""
    assert low <= fit_temperature(np.array(logits), np.array(gold)) <= high


# --- Reliability ------------------------------------------------------------------------------------------------------


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, K), some on the bins' edges, and gold labels (n,)."""
    labels, texts = draw(st.integers(2, 5)), draw(st.integers(1, 25))
    parts = st.lists(st.integers(0, 15), min_size=labels, max_size=labels).filter(any)
    shares = np.array(draw(st.lists(parts, min_size=texts, max_size=texts)), dtype=float)
    gold = draw(st.lists(st.integers(0, labels - 1), min_size=texts, max_size=texts))
    return shares / shares.sum(axis=1, keepdims=True), np.array(gold)


def naive_reliability(probabilities: np.ndarray, gold: np.ndarray, bins: int) -> Reliability:
    """One bin after the other, (lower, upper], and 0 in the first."""
    confidence = [max(row) for row in probabilities.tolist()]
    is_right = [float(row.index(max(row)) == label) for row, label in zip(probabilities.tolist(), gold, strict=True)]
    means: list[list[float]] = [[], []]
    count = []
    for number in range(bins):
        lower, upper = number / bins, (number + 1) / bins
        inside = [i for i, c in enumerate(confidence) if lower < c <= upper or (number == 0 and c == 0)]
        count.append(len(inside))
        for mean, values in zip(means, (confidence, is_right), strict=True):
            mean.append(sum(values[i] for i in inside) / len(inside) if inside else math.nan)
    return Reliability(np.array(means[0]), np.array(means[1]), np.array(count))


def naive_scores(probabilities: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """The three scores by their definitions."""
    bins = naive_reliability(probabilities, gold, 15)
    return {
        "calibration_error": sum(
            count / len(gold) * abs(accuracy - confidence)
            for confidence, accuracy, count in zip(*bins, strict=True)
            if count
        ),
        "negative_log_likelihood": sum(
            -math.log(max(row[label], 1e-12)) for row, label in zip(probabilities, gold, strict=True)
        )
        / len(gold),
        "brier": sum(
            (p - (k == label)) ** 2 for row, label in zip(probabilities, gold, strict=True) for k, p in enumerate(row)
        )
        / len(gold),
    }


def test_calibration_of_a_worked_example() -> None:
    """Four texts of two labels, in two of 15 bins."""
    probabilities = np.array([[0.7, 0.3], [0.28, 0.72], [0.9, 0.1], [0.92, 0.08]])
    gold = np.array([0, 0, 0, 0])  # the second is wrong
    bins = reliability(probabilities, gold)
    # 0.7 and 0.72 lie in (10/15, 11/15], 0.9 and 0.92 in (13/15, 14/15]
    assert bins.count.tolist() == [0] * 10 + [2, 0, 0, 2, 0]
    assert bins.confidence[[10, 13]] == pytest.approx([0.71, 0.91])
    assert bins.accuracy[[10, 13]] == pytest.approx([0.5, 1.0])
    assert np.isnan(bins.accuracy[bins.count == 0]).all()
    assert np.isnan(bins.confidence[bins.count == 0]).all()
    scores = calibration_scores(probabilities, gold)
    assert all(score.shape == () for score in scores.values())
    assert {name: float(score) for name, score in scores.items()} == pytest.approx(
        {
            "calibration_error": 0.15,  # 2/4 · |0.5 - 0.71| + 2/4 · |1 - 0.91|
            "negative_log_likelihood": -(math.log(0.7) + math.log(0.28) + math.log(0.9) + math.log(0.92)) / 4,
            "brier": 2 * (0.09 + 0.5184 + 0.01 + 0.0064) / 4,
        }
    )


@pytest.mark.filterwarnings("error")
@QUICK
@given(data=judged(), bins=st.sampled_from([1, 3, 10, 15]))
def test_reliability_equals_a_naive_loop(data: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    """Shares of whole numbers often lie on an edge, which belongs to the lower bin."""
    ours, naive = reliability(*data, bins=bins), naive_reliability(*data, bins=bins)
    assert np.array_equal(ours.count, naive.count)
    assert ours.confidence == pytest.approx(naive.confidence, nan_ok=True)
    assert ours.accuracy == pytest.approx(naive.accuracy, nan_ok=True)


@pytest.mark.parametrize("bins", [3, 7, 10, 15, 49])
def test_edges_belong_to_the_lower_bin(bins: int) -> None:
    """Every k / bins, exactly; 0 to the first bin; and a sum that rounding makes a little more than 1 to the last."""
    edges = [k / bins for k in range(bins + 1)]
    probabilities = np.array([[edge, 0.0] for edge in [*edges, 1 + 1e-15]])
    count = reliability(probabilities, np.zeros(bins + 2, dtype=int), bins).count
    assert count.tolist() == ([3] if bins == 1 else [2, *[1] * (bins - 2), 2])


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@QUICK
@given(data=judged(), seed=st.integers(0, 9))
def test_calibration_scores_equal_a_naive_loop(data: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """At once, and draw by draw as of texts that stand there as often as drawn; a draw of nothing is nan."""
    probabilities, gold = data
    once = {name: float(score) for name, score in calibration_scores(probabilities, gold).items()}
    assert once == pytest.approx(naive_scores(probabilities, gold))
    counts = np.random.default_rng(seed).integers(0, 3, size=(4, len(gold)))
    counts[0], counts[3] = 1, 0
    scores = calibration_scores(probabilities, gold, counts)
    assert all(values.shape == (4,) and np.isnan(values[3]) for values in scores.values())
    for draw in range(3):
        if counts[draw].any():
            repeated = [np.repeat(values, counts[draw], axis=0) for values in (probabilities, gold)]
            drawn = {name: float(values[draw]) for name, values in scores.items()}
            assert drawn == pytest.approx(naive_scores(*repeated))


def test_scores_are_sklearns() -> None:
    """Its log loss, and half of its two-label Brier score, which it takes of one label."""
    from sklearn.metrics import brier_score_loss, log_loss

    rng = np.random.default_rng(0)
    probabilities, gold = softmax(rng.normal(size=(50, 2))), rng.integers(0, 2, 50)
    scores = calibration_scores(probabilities, gold)
    assert float(scores["negative_log_likelihood"]) == pytest.approx(log_loss(gold, probabilities))
    assert float(scores["brier"]) == pytest.approx(2 * brier_score_loss(gold, probabilities[:, 1]))


@pytest.mark.filterwarnings("error")
def test_sure_answers() -> None:
    """Certain and right costs nothing; certain and wrong costs what is most, and no infinity."""
    scores = calibration_scores(np.array([[1.0, 0.0]]), np.array([0]))
    assert [float(score) for score in scores.values()] == [0.0, 0.0, 0.0]
    scores = calibration_scores(np.array([[1.0, 0.0]]), np.array([1]))
    assert [float(score) for score in scores.values()] == pytest.approx([1.0, 12 * math.log(10), 2.0])


def test_few_texts_make_a_good_model_look_worse() -> None:
    """Gold drawn from the very probabilities: the error falls with the texts, and is no 0 with 200."""
    errors = []
    for texts in (200, 20_000):
        logits = np.random.default_rng(0).normal(size=(texts, 3)) * 2
        errors.append(float(calibration_scores(softmax(logits), drawn_from(logits, seed=1))["calibration_error"]))
    assert errors[0] > 0.03
    assert errors[1] < 0.015


def test_temperature_mends_sure_models_and_scores_go_into_intervals() -> None:
    """Logits three times too large: all three scores fall once they are divided by the temperature found."""
    true = np.random.default_rng(0).normal(size=(2000, 4)) * 2
    gold, logits = drawn_from(true, seed=1), true * 3
    mended = logits / fit_temperature(logits, gold)
    sure, fitted = (
        bootstrap_intervals(partial(calibration_scores, softmax(z), gold), len(gold), 100) for z in (logits, mended)
    )
    assert list(sure) == ["calibration_error", "negative_log_likelihood", "brier"]
    for name in sure:
        assert fitted[name][1] < sure[name][0], name


def test_shares_of_annotators_are_the_truth() -> None:
    """A model that gives each label the share that annotators gave it needs no temperature and has no error."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), size=500)
    assert fit_temperature(np.log(shares), shares) == pytest.approx(1, abs=1e-3)
    assert fit_temperature(2 * np.log(shares), shares) == pytest.approx(2, abs=1e-3)
    scores = calibration_scores(shares, shares)
    assert scores["calibration_error"] == pytest.approx(0, abs=1e-12)
    assert scores["brier"] == 0
    entropy = -(shares * np.log(shares)).sum(axis=1).mean()
    assert scores["negative_log_likelihood"] == pytest.approx(entropy)
    assert reliability(shares, shares).accuracy == pytest.approx(reliability(shares, shares).confidence, nan_ok=True)


def test_label_numbers_are_shares_of_one() -> None:
    """Whichever way gold labels are given, the scores and the temperature are the same."""
    rng = np.random.default_rng(1)
    logits, gold = rng.normal(size=(60, 4)), rng.integers(4, size=60)
    shares = np.eye(4)[gold]
    assert fit_temperature(logits, shares) == fit_temperature(logits, gold)
    for name, value in calibration_scores(softmax(logits), shares).items():
        assert value == calibration_scores(softmax(logits), gold)[name]
