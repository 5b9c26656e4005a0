"""Differences of two arms: Student's t by hand, naive twins, what the intervals promise, and the words for it all."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from two_stage.comparison.paired import (
    Difference,
    detectable_difference,
    holm,
    mean_interval,
    more_needed,
    paired_difference,
    verdict,
)
from two_stage.scoring.intervals import resampled_scores

T975 = {1: 12.7062, 2: 4.30265, 4: 2.77645, 9: 2.26216, 99: 1.98422, 999: 1.96234}  # from a printed table

differences = st.integers(2, 8).flatmap(
    lambda seeds: st.tuples(
        arrays(np.float64, seeds, elements=st.floats(-1, 1, width=16)),
        arrays(np.float64, seeds, elements=st.floats(-1, 1, width=16)),
        arrays(np.float64, 20, elements=st.floats(-1, 1, width=16)),
    )
)


def found(mean: float, seed_sd: float, item_error: float, seeds: int = 3, items: int = 1000) -> Difference:
    """A difference with these spreads, exactly."""
    each = np.linspace(-1, 1, seeds)
    each = mean + each / each.std(ddof=1) * seed_sd
    resampled = np.array([-1.0, 1.0]) * item_error * math.sqrt((items - 1) / items)
    return paired_difference(each, np.zeros(seeds), resampled, items)


# --- By hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_seeds_alone_are_students_t_test(seeds: int) -> None:
    """Where all items say the same, the interval and the p-value are scipy's paired test's."""
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(seeds)
    ours, base = rng.normal(0.1, 1, seeds), rng.normal(size=seeds)
    theirs = ttest_rel(ours, base)
    ends = theirs.confidence_interval(0.95)
    difference = paired_difference(ours, base, np.full(50, 0.3), items=100)
    assert (difference.low, difference.high) == pytest.approx((ends.low, ends.high))
    assert difference.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert difference.each == pytest.approx(tuple(ours - base))
    assert difference.items == 100
    assert difference.item_error < 1e-15


def test_items_alone_are_students_t_test() -> None:
    """With seeds that all agree, items whose mean is bootstrapped: scipy's test over items, but for 20,000 draws."""
    from scipy.stats import ttest_1samp

    gains = np.random.default_rng(0).normal(0.2, 1, size=40)
    theirs = ttest_1samp(gains, 0)
    ends = theirs.confidence_interval(0.95)
    resampled = resampled_scores(lambda counts: {"mean": counts @ gains / 40}, 40, 20_000)["mean"]
    difference = paired_difference(np.full(3, gains.mean()), np.zeros(3), resampled, 40)
    assert (difference.low, difference.high) == pytest.approx((ends.low, ends.high), abs=0.01)
    assert difference.p_value == pytest.approx(theirs.pvalue, rel=0.03)
    assert difference.seed_sd == pytest.approx(0)


@pytest.mark.parametrize(("seeds", "items"), [(2, 1000), (3, 100), (5, 10)])
def test_half_widths_by_hand(seeds: int, items: int) -> None:
    """Both terms, each with its own quantile, read from a table."""
    difference = found(0.5, 0.3, 0.2, seeds, items)
    half = math.sqrt(T975[seeds - 1] ** 2 * 0.3**2 / seeds + T975[items - 1] ** 2 * 0.2**2)
    assert (difference.low, difference.high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-5)
    assert (difference.mean, difference.seed_sd, difference.item_error) == pytest.approx((0.5, 0.3, 0.2))


@given(p=st.floats(1e-6, 0.9), share=st.floats(0, 1), seeds=st.integers(2, 20), items=st.integers(6, 2000))
def test_the_p_value_is_where_the_interval_ends_at_zero(p: float, share: float, seeds: int, items: int) -> None:
    """At one less that level, whatever it is."""
    spreads = found(0, math.sqrt(share), math.sqrt(1 - share), seeds, items)
    wide = paired_difference(np.array(spreads.each), np.zeros(seeds), resampled(spreads), items, level=1 - p)
    moved = paired_difference(np.array(spreads.each) + wide.high, np.zeros(seeds), resampled(spreads), items)
    assert moved.p_value == pytest.approx(p, rel=1e-6)


def resampled(difference: Difference) -> np.ndarray:
    """Two draws whose standard error is that of the difference."""
    return np.array([-1.0, 1.0]) * difference.item_error * math.sqrt((difference.items - 1) / difference.items)


def test_p_values_are_never_nan() -> None:
    """Not of a difference far beyond all noise, nor of one without any."""
    assert found(1.0, 0.0, 1e-12).p_value == 0.0
    assert 0 < found(1.0, 0.0, 0.05).p_value < 1e-50
    assert found(0.0, 0.0, 0.0).p_value == 1.0
    assert found(1e-3, 0.0, 0.0).p_value == 0.0


# --- Properties -------------------------------------------------------------------------------------------------------


@given(differences)
def test_swapping_the_arms_mirrors_the_interval(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """And leaves the p-value."""
    ours, base, draws = drawn
    there, back = paired_difference(ours, base, draws, 50), paired_difference(base, ours, -draws, 50)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low))
    assert back.p_value == pytest.approx(there.p_value)


@given(differences, st.floats(0.01, 100), st.randoms(use_true_random=False))
def test_unit_and_order_do_not_matter(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], scale: float, random: object
) -> None:
    """Points or shares, seeds in any order: the same p-value, and the interval in the same unit."""
    ours, base, draws = drawn
    order = np.random.default_rng(len(repr(random))).permutation(len(ours))
    one = paired_difference(ours, base, draws, 50)
    other = paired_difference(scale * ours[order], scale * base[order], scale * draws[::-1], 50)
    assert (other.low, other.high) == pytest.approx((scale * one.low, scale * one.high), abs=1e-9)
    assert other.p_value == pytest.approx(one.p_value, abs=1e-6)


@given(differences)
def test_a_claim_and_its_p_value_agree(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Below 0.05 where the interval leaves out 0, and nowhere else; it lies about the mean."""
    difference = paired_difference(*drawn, 50)
    assert difference.low <= difference.mean <= difference.high
    assert 0 <= difference.p_value <= 1
    if abs(difference.p_value - 0.05) > 1e-6:
        assert (difference.low > 0 or difference.high < 0) == (difference.p_value < 0.05)


def test_the_interval_of_a_mean_is_that_of_its_difference_from_nothing() -> None:
    """Both are made alike."""
    each, draws = np.array([0.7, 0.72, 0.69]), np.random.default_rng(0).normal(0.7, 0.01, 500)
    difference = paired_difference(each, np.zeros(3), draws, 400)
    assert mean_interval(each, draws, 400) == (difference.low, difference.high)
    assert all(map(math.isnan, mean_interval(each[:1], draws, 400)))


# --- What is promised -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("by_seed", [0.0, 0.1, 0.5, 0.7, 0.85, 0.95, 1.0])
def test_false_claims_are_rare(seeds: int, by_seed: float) -> None:
    """At most 5 % of comparisons without a difference, however the noise of variance 1 is shared; 5 % at the ends.

    The chance is exact: over what the seeds' spread may look like, by its quantiles, the normal tails beyond the
    interval. Without one of the two terms all is claimed where the noise is that one's, and with Satterthwaite's
    degrees of freedom up to 12 %.
    """
    from scipy.special import chdtri, ndtr

    looks = np.sqrt(chdtri(seeds - 1, (np.arange(200) + 0.5) / 200) / (seeds - 1))
    claims = 0.0
    for look in looks:
        difference = found(0.0, look * math.sqrt(by_seed * seeds), math.sqrt(1 - by_seed), seeds, 10**6)
        claims += 2 * float(ndtr(-difference.high)) / len(looks)
    assert claims < 0.0505
    assert claims > (0.0495 if by_seed in (0.0, 1.0) else 0.012)  # nor is it sure of nothing


@pytest.mark.slow
@pytest.mark.parametrize(("seed_sd", "item_sd", "power"), [(0.5, 0.3, 0.0), (0.02, 3.0, 0.0), (0.3, 1.0, 0.5)])
def test_false_claims_are_rare_from_items_on(seed_sd: float, item_sd: float, power: float) -> None:
    """With real resamples of 60 items, some noise of each item under each seed, and 3 seeds; ± 1.3 % of 300."""
    rng, claims = np.random.default_rng(7), {0.0: 0, 2.0: 0}
    for _ in range(300):
        gains = rng.normal(0, seed_sd, (3, 1)) + rng.normal(0, item_sd, 60) + rng.normal(0, 0.5, (3, 60))
        mean = gains.mean(axis=0)
        draws = resampled_scores(lambda counts, mean=mean: {"mean": counts @ mean / 60}, 60, 200)["mean"]
        for true in claims:
            difference = paired_difference(gains.mean(axis=1) + true, np.zeros(3), draws, 60)
            claims[true] += difference.low > 0 or difference.high < 0
    assert claims[0.0] / 300 < 0.05 + 3 * 0.013
    assert claims[2.0] / 300 > power


@pytest.mark.slow
def test_what_can_be_detected_is_found_four_times_of_five() -> None:
    """By simulation with the spreads as they are; of 1,500 ± 1 %."""
    design = found(0.0, 0.8, 0.4, seeds=4)
    true = detectable_difference(design)
    rng, finds = np.random.default_rng(0), 0
    for _ in range(1500):
        each = rng.normal(true, 0.8, size=4) + rng.normal(0, 0.4)
        difference = paired_difference(each, np.zeros(4), resampled(design), 1000)
        finds += difference.low > 0
    assert finds / 1500 == pytest.approx(0.8, abs=0.03)


def test_what_items_alone_can_detect_by_hand() -> None:
    """1.96 standard errors and 0.84 more: the normal distribution's table."""
    assert detectable_difference(found(0.3, 0.0, 0.01, items=10**6)) == pytest.approx(0.01 * (1.95996 + 0.84162), 1e-3)
    assert detectable_difference(found(0.3, 0.0, 0.0)) == 0.0


def test_what_seeds_alone_can_detect_is_the_noncentral_t() -> None:
    """Its power is 0.8 at the difference found."""
    from scipy.stats import nct

    for seeds in (2, 3, 5):
        true = detectable_difference(found(0.0, 1.0, 0.0, seeds)) * math.sqrt(seeds)
        power = nct.sf(T975[seeds - 1], seeds - 1, true)  # below -t there is next to nothing
        assert power == pytest.approx(0.8, abs=1e-3)


def test_more_items_by_hand() -> None:
    """Errors of 0.01 with 1,000 items, a difference of 0.015: 1,000 · (2.8016 · 0.01 / 0.015)² = 3,488 items."""
    seeds, items = more_needed(found(0.015, 0.0, 0.01, items=1000))
    assert seeds is None  # as they agree already
    assert items == pytest.approx(2488, abs=5)


def test_more_seeds_by_hand() -> None:
    """A true difference of one standard deviation needs 10 pairs (any table of the paired t-test's power)."""
    seeds, items = more_needed(found(1.0, 1.0, 1e-9, seeds=3))
    assert (seeds, items) == (7, None)


@pytest.mark.slow
def test_more_of_either_finds_it_four_times_of_five() -> None:
    """By simulation with so many, and three fewer do not; more than 20 times as many is no advice."""
    design = found(0.5, 0.6, 0.05, seeds=3, items=200)
    more_seeds, more_items = more_needed(design)
    assert more_seeds is not None
    for seeds, least, most in ((3 + more_seeds, 0.77, 0.92), (3 + more_seeds - 3, 0.4, 0.77)):
        rng = np.random.default_rng(1)
        each = rng.normal(0.5, 0.6, (1000, seeds)) + rng.normal(0, 0.05, (1000, 1))
        finds = [paired_difference(one, np.zeros(seeds), resampled(design), 200).low > 0 for one in each]
        assert least <= np.mean(finds) <= most
    assert more_items is None
    assert more_needed(found(0.001, 0.6, 0.1)) == (None, None)


# --- What cannot be told ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_one_seed_claims_nothing() -> None:
    """However far apart the arms are."""
    difference = paired_difference(np.array([0.9]), np.array([0.1]), np.linspace(0.79, 0.81, 50), 1000)
    assert math.isnan(difference.low)
    assert math.isnan(difference.high)
    assert math.isnan(difference.seed_sd)
    assert (difference.p_value, difference.mean) == (1.0, pytest.approx(0.8))
    assert difference.item_error == pytest.approx(0.0059, abs=1e-3)
    assert detectable_difference(difference) == math.inf
    assert more_needed(difference) == (None, None)
    word, sentence, more = verdict(difference, "stage one", "macro-F1", 100, higher_is_better=True)
    assert word == "cannot tell"
    assert sentence == (
        "Cannot tell: stage one changed macro-F1 by +80.0 points with one seed, and one seed does not say what another "
        "would do."
    )
    assert more == "Run at least 3 seeds, better 5."


@pytest.mark.filterwarnings("error")
def test_too_little_for_an_interval_claims_nothing() -> None:
    """One item, or a score that most draws lack; draws that lack it now and then are left out."""
    each, draws = np.array([0.5, 0.6]), np.array([1.0, np.nan, np.nan])
    for difference in (
        paired_difference(each, np.zeros(2), np.zeros(9), 1),
        paired_difference(each, np.zeros(2), draws, 10),
    ):
        assert math.isnan(difference.low)
        assert difference.p_value == 1.0
        assert "too little for an interval" in verdict(difference, "stage one", "F1", 100, True).sentence
    some = paired_difference(each, np.zeros(2), np.array([1.0, 2.0, np.nan]), 10)
    assert some == paired_difference(each, np.zeros(2), np.array([1.0, 2.0]), 10)


def test_arms_that_are_alike_claim_nothing() -> None:
    """All differences exactly 0: the interval has no width, and that is no claim."""
    difference = found(0.0, 0.0, 0.0)
    assert (difference.mean, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1)
    word, sentence, more = verdict(difference, "stage one", "macro-F1", 100, True)
    assert (word, more) == ("cannot tell", "")
    assert sentence == "Cannot tell: stage one left macro-F1 as it was with every seed."


@pytest.mark.parametrize(
    ("ours", "base", "draws", "items", "level"),
    [
        ([0.1, 0.2], [0.1], [0.0], 10, 0.95),
        ([], [], [0.0], 10, 0.95),
        ([0.1, math.nan], [0.1, 0.2], [0.0], 10, 0.95),
        ([0.1, 0.2], [0.1, 0.2], [], 10, 0.95),
        ([0.1, 0.2], [0.1, 0.2], [[0.0, 1.0]], 10, 0.95),
        ([0.1, 0.2], [0.1, 0.2], [0.0], 0, 0.95),
        ([0.1, 0.2], [0.1, 0.2], [0.0], 10, 95),
    ],
)
def test_what_is_no_comparison_is_refused(ours: list, base: list, draws: list, items: int, level: float) -> None:
    """Other seeds, no seed, no score, no draw, draws of each seed, no item, a level in percent."""
    with pytest.raises(ValueError, match=r"scores|no interval"):
        paired_difference(np.array(ours), np.array(base), np.array(draws), items, level)


# --- Holm -------------------------------------------------------------------------------------------------------------


def naive_holm(p_values: list[float]) -> list[float]:
    """Each the greatest of (those not smaller) · p among the p-values up to its own."""
    count = len(p_values)
    ranked = sorted(p_values)
    return [min(1.0, max((count - i) * q for i, q in enumerate(ranked) if q <= p)) for p in p_values]


@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.04, 0.3, 1.0]), max_size=8))
def test_holm_is_its_naive_twin(p_values: list[float]) -> None:
    """Ties, one, none, and in any order."""
    assert holm(p_values) == pytest.approx(naive_holm(p_values))


def test_holm_by_hand() -> None:
    """4 · 0.01, 3 · 0.015 = 0.045, 2 · 0.02 = 0.04 but not below 0.045, 0.5."""
    assert holm([0.02, 0.5, 0.01, 0.015]) == pytest.approx([0.045, 0.5, 0.04, 0.045])
    for wrong in ([0.1, 1.1], [-0.1], [math.nan]):
        with pytest.raises(ValueError, match="p-values"):
            holm(wrong)


# --- Words ------------------------------------------------------------------------------------------------------------


def test_gains_and_losses_of_a_score() -> None:
    """The same interval is a gain of a score and a loss of an error."""
    # half widths: 4.30265 · 0.004 / √3 = 0.00994
    up, down = found(0.021, 0.004, 0.0), found(-0.021, 0.004, 0.0)
    assert verdict(up, "stage one", "macro-F1", 100, True) == (
        "paid off",
        "Stage one added 2.1 macro-F1 points (95 % interval 1.1 to 3.1; 3 of 3 seeds gained): it paid off.",
        "",
    )
    assert verdict(down, "stage one", "macro-F1", 100, True) == (
        "cost",
        "Stage one took 2.1 macro-F1 points away (95 % interval -3.1 to -1.1; 0 of 3 seeds gained): it cost.",
        "",
    )
    assert verdict(down, "task-adaptive stage one", "mean absolute error", 1, False) == (
        "paid off",
        "Task-adaptive stage one lowered mean absolute error by 0.021 (95 % interval -0.031 to -0.011; 3 of 3 seeds "
        "gained): it paid off.",
        "",
    )
    assert verdict(up, "stage one", "error rate", 100, False) == (
        "cost",
        "Stage one raised error rate by 2.1 points (95 % interval 1.1 to 3.1; 0 of 3 seeds gained): it cost.",
        "",
    )
    assert verdict(up, "stage one", "kappa", 1, True).sentence.startswith("Stage one added 0.021 kappa (95 %")


def test_what_cannot_be_told_says_what_would() -> None:
    """More seeds, more items, either, both at once, or none of it: then what is ruled out."""
    by_seed = verdict(found(0.02, 0.02, 1e-6), "stage one", "F1", 100, True)
    assert by_seed == (
        "cannot tell",
        "Cannot tell: stage one changed F1 by +2.0 points (95 % interval -3.0 to 7.0; 2 of 3 seeds gained).",
        "If the true difference is what was seen, about 7 more seeds would most likely tell (4 times out of 5); more "
        "test items alone would hardly.",
    )
    by_item = verdict(found(-0.015, 0.0, 0.01), "stage one", "F1", 100, True)
    assert by_item.sentence == (
        "Cannot tell: stage one changed F1 by -1.5 points (95 % interval -3.5 to 0.5; 0 of 3 seeds gained)."
    )
    assert by_item.more == (
        "If the true difference is what was seen, about 2,500 more test items would most likely tell (4 times out of "
        "5); more seeds alone would hardly."
    )
    one_of_two = verdict(found(-0.015, 0.0, 0.01), "stage one", "F1", 100, True, items_each=2.0)
    assert "about 5,000 more test items would" in one_of_two.more
    both = verdict(found(0.02, 0.00166, 0.0069, seeds=2), "stage one", "F1", 100, True).more
    assert "more seeds would most likely tell (4 times out of 5), or about" in both
    assert both.endswith("more test items.")
    of_both = verdict(found(0.011, 0.01, 0.005, seeds=5), "stage one", "F1", 100, True)
    assert of_both.more == (
        "If the true difference is what was seen, neither more seeds nor more test items alone would tell; 4 times as "
        "many of both most likely would (4 times out of 5). As it is, it is unlikely to be larger than 2.7 points "
        "either way."
    )
    neither = verdict(found(0.001, 0.02, 0.01), "stage one", "F1", 100, True)
    assert neither.more == (
        "Not even 20 times the seeds and test items would tell a difference as small as this; it is unlikely to be "
        "larger than 5.4 points either way."
    )


def test_among_many_comparisons() -> None:
    """An adjusted p-value takes a claim away, or leaves it; it makes none."""
    up, dull = found(0.021, 0.004, 0.0), found(0.001, 0.004, 0.0)
    assert verdict(up, "stage one", "F1", 100, True, p_value=0.049).word == "paid off"
    assert verdict(up, "stage one", "F1", 100, True, p_value=0.05) == (
        "cannot tell",
        "Cannot tell: stage one changed F1 by +2.1 points (95 % interval 1.1 to 3.1; 3 of 3 seeds gained); alone it "
        "would count, among so many comparisons it does not.",
        "",
    )
    assert verdict(dull, "stage one", "F1", 100, True, p_value=0.01).word == "cannot tell"


def test_no_number_is_minus_nothing() -> None:
    """An end of -0.0004 is 0.0 in tenths of a point, or -0.04 as its sign tells; the level is the difference's own."""
    small = found(-0.0001, 0.0, 0.0001)._replace(level=0.9)
    assert "by -0.01 points (90 % interval -0.03 to 0.01;" in verdict(small, "stage one", "F1", 100, True).sentence
    none = found(-0.000001, 0.0, 0.000001)._replace(level=0.9)
    assert "by 0.0 points (90 % interval 0.0 to 0.0;" in verdict(none, "stage one", "F1", 100, True).sentence


@pytest.mark.parametrize("items", [1, 2, 5])
def test_of_few_items_nothing_is_claimed(items: int) -> None:
    """However alike their resamples are: five of five could be chance."""
    one = paired_difference(np.ones(3), np.zeros(3), np.ones(50), items)
    assert math.isnan(one.low)
    assert one.p_value == 1.0
    assert paired_difference(np.ones(3), np.zeros(3), np.ones(50), 6).p_value == 0.0
