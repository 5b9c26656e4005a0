"""Bootstrap intervals against a naive loop, scipy's own, and what they promise: to hold the true score."""

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_stage.scoring import intervals
from two_stage.scoring.intervals import bootstrap_intervals, resampled_scores

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]


def mean_of(values: np.ndarray) -> Statistic:
    """The statistic whose only score is the mean."""
    return lambda counts: {"mean": counts @ values / counts.sum(axis=1)}


class Kept:
    """A statistic that keeps the counts it is asked for."""

    def __init__(self, statistic: Statistic) -> None:
        self.statistic, self.chunks = statistic, list[np.ndarray]()

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The scores."""
        self.chunks.append(counts)
        return self.statistic(counts)

    @property
    def counts(self) -> np.ndarray:
        """Those of all resamples: (resamples, items)."""
        return np.concatenate(self.chunks)


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.floats(-10, 10), min_size=1, max_size=12).map(np.array),
    resamples=st.integers(1, 60),
    level=st.sampled_from([0.5, 0.9, 0.95]),
    seed=st.integers(0, 5),
)
def test_intervals_equal_a_naive_loop(values: np.ndarray, resamples: int, level: float, seed: int) -> None:
    """Items written out as often as they were drawn, scored one resample at a time, and two quantiles by hand."""
    kept = Kept(
        lambda counts: {
            "mean": counts @ values / len(values),
            "greatest": np.where(counts > 0, values, -np.inf).max(axis=1),
        }
    )
    found = bootstrap_intervals(kept, len(values), resamples, level, seed)
    assert kept.counts.shape == (resamples, len(values))
    assert (kept.counts.sum(axis=1) == len(values)).all()
    drawn = [np.repeat(values, counts) for counts in kept.counts]
    for name, score in (("mean", np.mean), ("greatest", np.max)):
        scores = sorted(float(score(resample)) for resample in drawn)
        ends = []
        for share in ((1 - level) / 2, 1 - (1 - level) / 2):
            place = share * (resamples - 1)
            low, high = scores[math.floor(place)], scores[math.ceil(place)]
            ends.append(low + (place - math.floor(place)) * (high - low))
        assert found[name] == pytest.approx(tuple(ends), abs=1e-9)


@pytest.mark.parametrize(("items", "resamples"), [(1, 5), (7, 100), (100, 2000)])
def test_draws_are_those_of_sampling_with_replacement(items: int, resamples: int) -> None:
    """Every item is drawn alike, and as often as not as chance has it; no two resamples are the same draw."""
    kept = Kept(mean_of(np.zeros(items)))
    bootstrap_intervals(kept, items, resamples)
    assert kept.counts.mean() == 1
    if items == 100:
        assert (kept.counts == 0).mean() == pytest.approx((1 - 1 / items) ** items, abs=0.005)
        assert kept.counts.var() == pytest.approx(1 - 1 / items, abs=0.02)
        assert np.abs(kept.counts.mean(axis=0) - 1).max() < 4.5 / resamples**0.5  # standard errors of a mean
        assert len(np.unique(kept.counts, axis=0)) == resamples


@pytest.mark.parametrize("cells", [1, 30, 1000])
def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    """The same items are drawn one resample, some, or all at a time; the last chunk may be shorter."""
    values = np.arange(10) ** 2
    whole, parts = Kept(mean_of(values)), Kept(mean_of(values))
    expected = bootstrap_intervals(whole, 10, 107, seed=3)
    assert len(whole.chunks) == 1
    monkeypatch.setattr(intervals, "CHUNK_CELLS", cells)
    assert bootstrap_intervals(parts, 10, 107, seed=3)["mean"] == pytest.approx(expected["mean"])
    assert [len(chunk) for chunk in parts.chunks[:-1]] == [max(cells // 10, 1)] * (len(parts.chunks) - 1)
    assert np.array_equal(parts.counts, whole.counts)


def test_two_models_are_scored_on_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """So their scores can be subtracted: the difference's own scores, whatever the chunks, and intervals of these."""
    ours, base = np.random.default_rng(0).normal(size=(2, 30))
    apart = resampled_scores(mean_of(ours - base), 30, 200, seed=4)["mean"]
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 100)
    first, second = (resampled_scores(mean_of(values), 30, 200, seed=4)["mean"] for values in (ours, base))
    assert first.shape == (200,)
    assert first - second == pytest.approx(apart)
    assert apart.std() > 0.1
    ends = bootstrap_intervals(mean_of(ours - base), 30, 200, seed=4)["mean"]
    assert ends == pytest.approx(tuple(np.quantile(apart, [0.025, 0.975])))
    other = resampled_scores(mean_of(ours - base), 30, 200, seed=5)["mean"]
    assert not np.isin(apart, other).any()


def test_a_score_that_is_nan_keeps_its_place() -> None:
    """Dropped, it would shift one model's resamples against another's."""
    found = resampled_scores(lambda counts: {"first": np.where(counts[:, 0] > 0, 1.0, np.nan)}, 3, 50)["first"]
    kept = Kept(mean_of(np.zeros(3)))
    resampled_scores(kept, 3, 50)
    assert np.array_equal(np.isnan(found), kept.counts[:, 0] == 0)
    assert np.isnan(found).any()


def test_a_seed_is_a_draw() -> None:
    """The same one gives the same interval, another a little different one."""
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (bootstrap_intervals(mean_of(values), 50, seed=seed)["mean"] for seed in (1, 1, 2))
    assert first == again != other
    assert first == pytest.approx(other, abs=0.05)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_are_scipys(level: float) -> None:
    """Its percentile method, on draws of its own, is apart from ours by the noise of 10,000 draws."""
    from scipy.stats import bootstrap

    values = np.random.default_rng(5).exponential(size=80)
    theirs = bootstrap(
        (values,),
        np.mean,
        n_resamples=10_000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = bootstrap_intervals(mean_of(values), 80, 10_000, level)["mean"]
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.05 * (theirs.high - theirs.low))


@pytest.mark.slow
@pytest.mark.parametrize(("items", "share"), [(100, 0.813), (200, 0.713)])
def test_intervals_hold_the_true_accuracy(items: int, share: float) -> None:
    """Of 400 test sets of known accuracy, some 95 % give an interval around it: 4 standard errors are 4 %."""
    rng, held = np.random.default_rng(0), 0
    for trial in range(400):
        is_right = (rng.random(items) < share).astype(float)
        lower, upper = bootstrap_intervals(mean_of(is_right), items, 400, seed=trial)["mean"]
        held += lower <= share <= upper
    assert 0.90 <= held / 400 <= 0.985


def test_one_item_has_an_interval_of_no_width() -> None:
    """It is drawn again and again."""
    assert bootstrap_intervals(mean_of(np.array([0.3])), 1, 10)["mean"] == (0.3, 0.3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("undefined", "ends"), [(0, (0.0, 99.0)), (50, (50.0, 99.0)), (51, None), (100, None)])
def test_resamples_without_a_score_are_left_out(undefined: int, ends: tuple[float, float] | None) -> None:
    """Up to half of them; if more are nan, the score has no interval, and the others keep theirs."""

    def statistic(counts: np.ndarray) -> dict[str, np.ndarray]:
        order = np.arange(len(counts), dtype=float)
        return {"rare": np.where(order < undefined, np.nan, order), "common": order}

    found = bootstrap_intervals(statistic, 5, 100, level=0.9999999)
    assert found["common"] == pytest.approx((0.0, 99.0), abs=1e-3)
    assert found.get("rare") == (ends if ends is None else pytest.approx(ends, abs=1e-3))


def test_a_million_items_fit_in_memory() -> None:
    """Below 100 MB, the statistic's own float copy of the counts included."""
    values = np.zeros(1_000_000)
    tracemalloc.start()
    try:
        bootstrap_intervals(mean_of(values), len(values), 3)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_many_resamples_fit_in_memory() -> None:
    """A quarter of a billion counts, of which few stand in memory at once."""
    values = np.zeros(125)
    tracemalloc.start()
    try:
        bootstrap_intervals(mean_of(values), len(values), 100_000)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "wrong",
    [{"items": 0}, {"resamples": 0}, {"level": 0.0}, {"level": 1.0}, {"level": 95.0}, {"level": math.nan}],
    ids=str,
)
def test_what_has_no_interval_is_refused(wrong: dict[str, float]) -> None:
    """No item, no resample, or a level that is no share."""
    asked = {"items": 1, "resamples": 10, "level": 0.95} | wrong
    if asked["level"] == 0.95:
        with pytest.raises(ValueError, match="no interval"):
            resampled_scores(mean_of(np.zeros(1)), int(asked["items"]), int(asked["resamples"]))
    with pytest.raises(ValueError, match="no interval"):
        bootstrap_intervals(mean_of(np.zeros(1)), int(asked["items"]), int(asked["resamples"]), asked["level"])


def test_a_statistic_of_the_wrong_shape_is_refused() -> None:
    """One score for all draws would be taken for a resample."""
    with pytest.raises(ValueError, match=r"mean: scores of shape \(\) for 10 draws"):
        bootstrap_intervals(lambda counts: {"mean": counts.mean()}, 3, 10)
