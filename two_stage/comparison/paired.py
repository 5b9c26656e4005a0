"""Whether an arm of a comparison beats the base: the same seeds, the same test items, and two kinds of chance.

Other seeds would have given other scores, and so would other test items. A verdict is about both, so both are counted:
the spread over seeds, and the bootstrap's over items.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

POWER = 0.8  # "would most likely tell": in four of five comparisons like this one
FEWEST_ITEMS = 6  # of fewer, a sign test cannot reach 5 %, and resamples of one or two are all alike
MOST_TIMES = 20  # so many times the seeds or items that are there, and no more, are worth a word of advice


class Difference(NamedTuple):
    """What an arm adds to a score of the base, both fine-tuned with the same seeds and tested on the same items."""

    mean: float  # arm minus base, over seeds
    low: float  # of the interval at `level`; nan where there is none
    high: float
    p_value: float  # two-sided, of no difference; 1 where nothing can be claimed
    each: tuple[float, ...]  # arm minus base of each seed
    seed_sd: float  # standard deviation of `each`; nan with one seed
    item_error: float  # standard error of `mean` over draws of the test items; nan where hardly a draw has a score
    items: int
    level: float


class Verdict(NamedTuple):
    """A difference in words."""

    word: str  # "paid off", "cost" or "cannot tell"
    sentence: str
    more: str  # what would tell, where nothing can be told yet; else empty


# --- Two kinds of chance ----------------------------------------------------------------------------------------------


def paired_difference(
    ours: np.ndarray, base: np.ndarray, resampled: np.ndarray, items: int, level: float = 0.95
) -> Difference:
    """The difference of two arms over seeds and test items at once, with an interval that errs on the safe side.

    Its variance is seed_sd² / seeds + item_error². The noise of one item under one seed is counted in both, as in Owen
    2007 (The pigeonhole bootstrap), so the sum is never too small on average. The interval's half width is

        sqrt(t(seeds - 1)² · seed_sd² / seeds + t(items - 1)² · item_error²)

    with t the quantile of Student's distribution: Banerjee 1960 (Approximate confidence interval for linear functions
    of means of k populations when the population variances are not equal, Sankhyā 22). For normal noise it holds the
    true difference at least as often as `level` says, however the variance is shared: the chance is concave in the
    squared half width (Jensen), and each term alone would be exact. Satterthwaite's degrees of freedom give no such
    promise. Where most of the variance is the seeds', but not all, their 95 % intervals miss in 12 % of the cases with
    2 seeds, 7.7 with 3 and 5.8 with 5: when the seeds lie close by chance, they take the spread for known. Of 100 true
    differences of 3.5 standard errors Banerjee's finds up to 5 fewer with 5 seeds, 20 with 3 and 50 with 2.

    Args:
        ours: the arm's score of each seed, (seeds,).
        base: the base's, of the same seeds in the same order.
        resampled: the mean over seeds of ours - base in each resample of the items, (draws,), from
            `intervals.resampled_scores` with the same seed for all models. Draws that are nan are left out.
        items: how many were scored: texts, or sentences.
        level: the share of intervals that are to hold the true difference.

    Returns:
        The difference. With one seed, fewer than FEWEST_ITEMS items, or a score that is nan in most draws nothing can
        be claimed: the interval is nan and the p-value 1.

    Raises:
        ValueError: arms of different seeds or none, a score that is nan, no draw, no item, or a level out of range.
    """
    ours, base = np.asarray(ours, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if ours.shape != base.shape:
        raise ValueError(f"scores of shape {ours.shape} against {base.shape}: one a seed, of the same seeds")
    each = ours - base
    seed_sd, item_error = _two_spreads(each, resampled, items, level)
    mean = float(each.mean())
    low, high = _interval(mean, seed_sd, item_error, len(each), items, level)
    return Difference(
        mean=mean,
        low=low,
        high=high,
        p_value=_p_value(mean, seed_sd, item_error, len(each), items),
        each=tuple(each.tolist()),
        seed_sd=seed_sd,
        item_error=item_error,
        items=items,
        level=level,
    )


def mean_interval(each: np.ndarray, resampled: np.ndarray, items: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of one arm's mean score over seeds and test items, as `paired_difference` makes it.

    It is for a curve of one arm. Whether two arms differ, the intervals of both do not tell: what is hard for one is
    hard for the other, and that cancels out in the difference alone.

    Args:
        each: the score of each seed, (seeds,).
        resampled: the mean over seeds in each resample of the items, (draws,).
        items: how many were scored.
        level: the share of intervals that are to hold the true mean.

    Returns:
        (lower, upper), which may lie a little beyond a score's range; (nan, nan) with one seed or too few items.

    Raises:
        ValueError: as in `paired_difference`.
    """
    each = np.asarray(each, dtype=np.float64)
    seed_sd, item_error = _two_spreads(each, resampled, items, level)
    return _interval(float(each.mean()), seed_sd, item_error, len(each), items, level)


def _two_spreads(each: np.ndarray, resampled: np.ndarray, items: int, level: float) -> tuple[float, float]:
    """The standard deviation over seeds and the standard error over items; nan where there is none."""
    resampled = np.asarray(resampled, dtype=np.float64)
    if each.ndim != 1 or not len(each) or not np.isfinite(each).all():
        raise ValueError(f"scores {each.tolist()}: there must be one for each seed, and a number")
    if resampled.ndim != 1 or not len(resampled) or items < 1 or not 0 < level < 1:
        raise ValueError(f"no interval at level {level} from draws of shape {resampled.shape} of {items} items")
    seed_sd = float(each.std(ddof=1)) if len(each) > 1 else math.nan
    defined = resampled[~np.isnan(resampled)]
    if items < FEWEST_ITEMS or 2 * len(defined) < len(resampled):
        return seed_sd, math.nan
    # a bootstrap's variance is that of n draws from n items about their own mean, too small by (n - 1) / n
    return seed_sd, float(defined.std()) * math.sqrt(items / (items - 1))


def _half_width(tail: float, seed_sd: float, item_error: float, seeds: int, items: int) -> float:
    """Banerjee's, of the interval that leaves out `tail` on either side; nan where a spread is."""
    from scipy.special import stdtrit

    if math.isnan(seed_sd) or math.isnan(item_error):
        return math.nan
    by_seed = float(stdtrit(seeds - 1, tail)) * seed_sd / math.sqrt(seeds)
    return math.hypot(by_seed, float(stdtrit(items - 1, tail)) * item_error)


def _interval(
    mean: float, seed_sd: float, item_error: float, seeds: int, items: int, level: float
) -> tuple[float, float]:
    """The mean less and plus half the width."""
    half = _half_width((1 - level) / 2, seed_sd, item_error, seeds, items)
    return mean - half, mean + half


def _p_value(mean: float, seed_sd: float, item_error: float, seeds: int, items: int) -> float:
    """One less the level of the interval that ends at 0; 1 where nothing can be claimed, 0 below 1e-100."""
    if mean == 0 or math.isnan(_half_width(0.025, seed_sd, item_error, seeds, items)):
        return 1.0
    low, high = math.log(1e-100), 0.0  # of the p-value's logarithm; the narrowest interval is the mean itself
    if _half_width(math.exp(low) / 2, seed_sd, item_error, seeds, items) < abs(mean):
        return 0.0
    for _ in range(40):  # halves 230 to 2e-10
        middle = (low + high) / 2
        is_wide = _half_width(math.exp(middle) / 2, seed_sd, item_error, seeds, items) > abs(mean)
        low, high = (middle, high) if is_wide else (low, middle)
    return math.exp(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, so that a false claim among them all is as rare as one alone (Holm 1979).

    Args:
        p_values: of the comparisons that are made beside the headline.

    Returns:
        The adjusted ones in the same order, at most 1: to be compared with 0.05 as they are.

    Raises:
        ValueError: a p-value that is none.
    """
    found = np.asarray(p_values, dtype=np.float64)
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f"p-values {found.tolist()}: they are 0 to 1")
    order = np.argsort(found)
    steps = found[order] * np.arange(len(found), 0, -1)
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)  # none below one that was smaller
    return [float(p) for p in adjusted]


# --- What a design can find -------------------------------------------------------------------------------------------


def detectable_difference(difference: Difference) -> float:
    """The true difference, up or down, that seeds and items like these find four times out of five.

    It holds if the two spreads are what they seem; of 2 or 3 seeds that is a rough guess.

    Args:
        difference: as measured; its mean does not matter.

    Returns:
        The difference, at least 0, in the score's own unit; infinite where nothing can be claimed.
    """
    if math.isnan(difference.low):
        return math.inf
    low, high = 0.0, 1.0  # in half widths
    seeds, items = len(difference.each), difference.items
    half = (difference.high - difference.low) / 2
    if half == 0:
        return 0.0
    while _power(difference, high * half, seeds, items) < POWER:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        finds = _power(difference, middle * half, seeds, items) >= POWER
        low, high = (low, middle) if finds else (middle, high)
    return high * half


def _power(difference: Difference, true: float, seeds: int, items: int) -> float:
    """The chance that so many seeds and items claim a true difference, if the two spreads are what they seem.

    Neither spread is taken to shrink with the other's number, though the noise that both count does: a lower bound.
    """
    from scipy.special import chdtri, ndtr

    item_error = difference.item_error * math.sqrt(difference.items / items)
    error = math.hypot(difference.seed_sd / math.sqrt(seeds), item_error)
    if error == 0:
        return float(true != 0)
    tail = (1 - difference.level) / 2
    by_seed = _half_width(tail, difference.seed_sd, 0.0, seeds, items)
    by_item = _half_width(tail, 0.0, item_error, seeds, items)
    # over what the spread of so few seeds may look like, by its quantiles; that of the items is as good as known
    seen = np.sqrt(chdtri(seeds - 1, (np.arange(200) + 0.5) / 200) / (seeds - 1))
    half = np.hypot(by_seed * seen, by_item)
    return float(np.mean(ndtr((true - half) / error) + ndtr((-true - half) / error)))


def _fewest(is_enough: Callable[[int], bool], there: int) -> int | None:
    """The least number above what is there that is enough; None where MOST_TIMES as many are not."""
    low, high = there, MOST_TIMES * there
    if not is_enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def more_needed(difference: Difference) -> tuple[int | None, int | None]:
    """How many more seeds, or more test items, would find the difference that was seen, were it true.

    With so many more a new comparison finds it four times out of five, at least: `POWER`, by the reckoning of
    `detectable_difference`.

    Args:
        difference: one that cannot be told from 0.

    Returns:
        More seeds with the same number of items, and more items with the same number of seeds; None where 20 times as
        many as there are would not do.
    """
    seeds, items, true = len(difference.each), difference.items, abs(difference.mean)
    if math.isnan(difference.low):
        return None, None
    enough_seeds = _fewest(lambda number: _power(difference, true, number, items) >= POWER, seeds)
    enough_items = _fewest(lambda number: _power(difference, true, seeds, number) >= POWER, items)
    return (
        None if enough_seeds is None else enough_seeds - seeds,
        None if enough_items is None else enough_items - items,
    )


# --- Words ------------------------------------------------------------------------------------------------------------


def verdict(
    difference: Difference,
    name: str,
    score_name: str,
    points: float,
    higher_is_better: bool,
    p_value: float | None = None,
    items_each: float = 1.0,
) -> Verdict:
    """Say what a difference is worth.

    Args:
        difference: of the arm and the base.
        name: the arm's, as it is spoken: "stage one".
        score_name: the score's: "macro-F1".
        points: what a score of 1 is called: 100 points for a share; 1 for a score in a unit of its own.
        higher_is_better: False for an error.
        p_value: adjusted for the number of comparisons, where this is one of many.
        items_each: how many test items hold one that counts: sentences without an entity count for nothing, but whoever
            gives more of them gives such ones, too.

    Returns:
        The verdict. It is "paid off" or "cost" only where the interval leaves out 0, and the adjusted p-value too is
        below 0.05 (one less the level).
    """
    sign = 1.0 if higher_is_better else -1.0
    is_apart = difference.low > 0 or difference.high < 0
    at_most = round(1 - difference.level, 12)  # 0.05, where the subtraction leaves a little more
    if is_apart and (p_value is None or p_value < at_most):
        word = "paid off" if difference.mean * sign > 0 else "cost"
        done = _what_it_did(difference.mean, name, score_name, points, higher_is_better)
        return Verdict(word, f"{done} {_found(difference, points, sign)}: it {word}.", "")
    spoken = f"Cannot tell: {name} changed {score_name} by {_amount(difference.mean, points, '+')}"
    if is_apart:
        reason = "; alone it would count, among so many comparisons it does not."
        return Verdict("cannot tell", f"{spoken} {_found(difference, points, sign)}{reason}", "")
    if len(difference.each) == 1:
        return Verdict(
            "cannot tell",
            f"{spoken} with one seed, and one seed does not say what another would do.",
            "Run at least 3 seeds, better 5.",
        )
    if math.isnan(difference.low):
        return Verdict("cannot tell", f"{spoken}, measured on too little for an interval.", "Give more test items.")
    if not any(difference.each) and difference.item_error == 0:
        return Verdict("cannot tell", f"Cannot tell: {name} left {score_name} as it was with every seed.", "")
    more = _what_would_tell(difference, points, items_each)
    return Verdict("cannot tell", f"{spoken} {_found(difference, points, sign)}.", more)


def _what_it_did(mean: float, name: str, score_name: str, points: float, higher_is_better: bool) -> str:
    """The claim itself: more or less of a score, and of an error."""
    who, amount = name[:1].upper() + name[1:], _amount(abs(mean), points)
    if not higher_is_better:
        return f"{who} {'raised' if mean > 0 else 'lowered'} {score_name} by {amount}"
    number, unit = (amount.removesuffix(" points"), " points") if amount.endswith(" points") else (amount, "")
    return f"{who} added {number} {score_name}{unit}" if mean > 0 else f"{who} took {number} {score_name}{unit} away"


def _found(difference: Difference, points: float, sign: float) -> str:
    """What the claim rests on: the interval, and how many seeds agree."""
    low, high = (spoken_difference(end, points, "") for end in (difference.low, difference.high))
    gained = sum(sign * each > 0 for each in difference.each)
    return f"({difference.level * 100:g} % interval {low} to {high}; {gained} of {len(difference.each)} seeds gained)"


def _what_would_tell(difference: Difference, points: float, items_each: float) -> str:
    """More seeds or more items; where neither alone would do, more of both, and what the data rule out."""
    seeds, items = more_needed(difference)
    items = None if items is None else math.ceil(items * items_each)
    by_seeds = None if seeds is None else f"about {seeds:,} more seed{'s' * (seeds != 1)}"
    by_items = None if items is None else f"about {_two_digits(items):,} more test item{'s' * (items != 1)}"
    if by_seeds or by_items:
        ways = f"{by_seeds or by_items} would most likely tell (4 times out of 5)"
        if by_seeds and by_items:
            ways += f", or {by_items}"
        else:
            ways += f"; more {'test items' if by_seeds else 'seeds'} alone would hardly"
        return f"If the true difference is what was seen, {ways}."
    most = max(abs(difference.low), abs(difference.high))
    most = min(most, 1.0) if points > 1 else most  # a share is 1 at most
    unlikely = f"it is unlikely to be larger than {_amount(most, points)} either way."
    if times := _times_both(difference):
        return (
            f"If the true difference is what was seen, neither more seeds nor more test items alone would tell; "
            f"{times} times as many of both most likely would (4 times out of 5). As it is, {unlikely}"
        )
    return f"Not even {MOST_TIMES} times the seeds and test items would tell a difference as small as this; {unlikely}"


def _times_both(difference: Difference) -> int | None:
    """How many times the seeds and the items at once would find the difference that was seen, were it true."""
    seeds, items, true = len(difference.each), difference.items, abs(difference.mean)
    return _fewest(lambda times: _power(difference, true, times * seeds, times * items) >= POWER, 1)


def _two_digits(count: int) -> int:
    """A count of which more digits would be made up, rounded up."""
    unit = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // unit) * unit


def spoken_difference(score: float, points: float, sign: str = "+") -> str:
    """A difference of scores as it is told everywhere: 0.021 is "+2.1" in points of 100, "+0.021" in those of 1.

    What would be rounded to 0 keeps one digit more, as its sign says whether an interval leaves 0 out; 0 has no sign.

    Args:
        score: the difference.
        points: what a score of 1 is called.
        sign: "+" gives one to what is above 0 too, "" to what is below alone.
    """
    digits = 1 if points >= 10 else 3
    if round(score * points, digits) == 0 != round(score * points, digits + 1):
        digits += 1
    told = round(score * points, digits)
    return f"{told:{sign}.{digits}f}" if told else f"{0:.{digits}f}"


def _amount(score: float, points: float, sign: str = "") -> str:
    """With its unit, where it has one."""
    return spoken_difference(score, points, sign) + (" points" if points != 1 else "")
