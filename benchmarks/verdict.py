"""How often a comparison claims what is not so, and how often it finds what is: made-up models with a known truth.

    python benchmarks/verdict.py
    python benchmarks/verdict.py --runs 1000 --output outputs/verdict.json

Each run makes up a test set and the predictions of two arms with several seeds, and judges them as `run_comparison.py`
does: predictions, counts, resamples, `paired_difference`, `verdict`. Without a true difference the two arms are drawn
from the same distribution, so that they are equal in expectation over seeds and items, whatever came out in one run.
"""

import argparse
import json
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone with no install

from two_stage.comparison.paired import detectable_difference, more_needed, paired_difference, verdict
from two_stage.scoring.entity_scores import entity_scores, resampled_counts
from two_stage.scoring.intervals import resampled_scores
from two_stage.scoring.scores import confusion_matrix, shade_scores

RESAMPLES = 300  # a seventh of what a comparison draws, so that there is time for more runs
NULL_TIMES = 4  # so many more runs without a true difference: 5 % is to be told from 3 %

# --- Made-up models ---------------------------------------------------------------------------------------------------


class Noise(NamedTuple):
    """Standard deviations, in logits, of what makes two arms differ beside the truth."""

    seed: float  # of a seed, on each class alike for all items; 0.6 of its variance is the arm's own
    item: float  # of an item under an arm, whatever the seed
    both: float  # of an item under an arm and a seed


NOISES = {
    "seeds": Noise(0.35, 0.1, 0.2),
    "items": Noise(0.02, 0.8, 0.1),
    "seeds and items": Noise(0.2, 0.5, 0.5),
    "each item under each seed": Noise(0.0, 0.0, 1.0),
    "hardly any": Noise(0.0, 0.0, 0.05),
}
TASKS = {  # how often each class is gold
    "3 shades": (1 / 3,) * 3,
    "7 shades": (1 / 7,) * 7,
    "3 shades, one rare": (0.5, 0.47, 0.03),
    "entities": (0.5, 0.3, 0.2),
}
SCORES = {"entities": "f1"}  # else macro_f1
ENTITIES_A_SENTENCE, INVENTED_A_SENTENCE = 1.2, 0.15


def seed_effects(rng: np.random.Generator, seeds: int, classes: int, sd: float) -> tuple[np.ndarray, np.ndarray]:
    """Those of the two arms, (seeds, 1, classes) each: partly shared, as the same seed draws the same rows and head."""
    shared = rng.normal(size=(seeds, 1, classes)) * math.sqrt(0.4)
    first, second = (sd * (shared + rng.normal(size=(seeds, 1, classes)) * math.sqrt(0.6)) for _ in range(2))
    return first, second


def shade_statistics(
    rng: np.random.Generator, task: str, noise: Noise, seeds: int, items: int, edge: float, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Macro-F1 of both arms, base first: as they are (2, seeds), and resampled (2, seeds, draws)."""
    shares = TASKS[task]
    classes = len(shares)
    gold = rng.choice(classes, size=items, p=shares)
    hardness = rng.normal(size=(items, classes)) * 1.2  # shared by all models
    predicted = []
    for arm, of_seed in enumerate(seed_effects(rng, seeds, classes, noise.seed)):
        right = (1.8 + arm * edge) * np.eye(classes)[gold]
        of_item = rng.normal(size=(items, classes)) * noise.item
        of_both = rng.normal(size=(seeds, items, classes)) * noise.both
        predicted += list((right + hardness + of_item + of_seed + of_both).argmax(axis=-1))
    whole = [float(shade_scores(confusion_matrix(gold, one, classes))["macro_f1"]) for one in predicted]

    def statistic(counts: np.ndarray) -> dict[str, np.ndarray]:
        matrices = (confusion_matrix(gold, one, classes, counts) for one in predicted)
        return {str(number): shade_scores(matrix)["macro_f1"] for number, matrix in enumerate(matrices)}

    drawn = np.stack(list(resampled_scores(statistic, items, resamples).values()))
    return np.reshape(whole, (2, seeds)), drawn.reshape(2, seeds, -1)


def entity_statistics(
    rng: np.random.Generator, task: str, noise: Noise, seeds: int, items: int, edge: float, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Entity F1 of both arms, as `shade_statistics` gives macro-F1: right, missed or taken for another type; invented.

    What makes an entity hard is its sentence's as much as its own, so sentences, not entities, are the items.
    """
    types = len(TASKS[task])
    gold_sentence = np.repeat(np.arange(items), rng.poisson(ENTITIES_A_SENTENCE, size=items))
    gold_kind = rng.choice(types, size=len(gold_sentence), p=TASKS[task])
    hardness = rng.normal(size=items)[gold_sentence] + rng.normal(size=len(gold_sentence))
    counts = []
    for arm, of_seed in enumerate(seed_effects(rng, seeds, types, noise.seed)):
        of_item = (rng.normal(size=items) * noise.item)[gold_sentence]
        for seed in range(seeds):
            logit = 1.2 + arm * edge + hardness + of_item + of_seed[seed, 0, gold_kind]
            logit += rng.normal(size=len(logit)) * noise.both
            kind = np.where(logit > -0.3, gold_kind, (gold_kind + 1) % types)  # a near miss is another type
            is_right, is_predicted = logit > 0, logit > -0.6
            kind = np.where(is_right, gold_kind, kind)
            tables = np.zeros((items, types, 3), dtype=np.int64)
            np.add.at(tables[..., 2], (gold_sentence, gold_kind), 1)
            np.add.at(tables[..., 0], (gold_sentence[is_right], gold_kind[is_right]), 1)
            np.add.at(tables[..., 1], (gold_sentence[is_predicted], kind[is_predicted]), 1)
            tables[:, 0, 1] += rng.poisson(INVENTED_A_SENTENCE, size=items)
            counts.append(tables)
    whole = [float(entity_scores(one.sum(axis=0))["f1"]) for one in counts]

    def statistic(draws: np.ndarray) -> dict[str, np.ndarray]:
        return {str(number): entity_scores(resampled_counts(one, draws))["f1"] for number, one in enumerate(counts)}

    drawn = np.stack(list(resampled_scores(statistic, items, resamples).values()))
    return np.reshape(whole, (2, seeds)), drawn.reshape(2, seeds, -1)


def comparison(
    rng: np.random.Generator, task: str, noise: str, seeds: int, items: int, edge: float, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Of any task: the base's scores and the arm's, (2, seeds), and their resamples (2, seeds, draws)."""
    make = entity_statistics if task == "entities" else shade_statistics
    return make(rng, task, NOISES[noise], seeds, items, edge, resamples)


@cache
def edge_of(task: str, noise: str, points: float) -> tuple[float, float]:
    """The edge in logits that is worth so many points on average, and what it is worth: by halving, on large sets."""
    if points == 0:
        return 0.0, 0.0

    def gain(edge: float) -> float:
        rngs = (np.random.default_rng([1, number]) for number in range(4))
        scores = [comparison(rng, task, noise, 10, 20_000, edge, resamples=1)[0] for rng in rngs]
        return 100 * float(np.mean([ours.mean() - base.mean() for base, ours in scores]))

    luck = gain(0.0)  # of these draws, which are the same for every edge
    low, high = 0.0, 2.0
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (low, middle) if gain(middle) - luck > points else (middle, high)
    return high, gain(high) - luck


# --- Ways to judge ----------------------------------------------------------------------------------------------------

WAYS = ("this project", "noise counted once", "Satterthwaite", "t over seeds", "one seed's items", "percentiles")


def other_claims(rng: np.random.Generator, each: np.ndarray, drawn: np.ndarray, items: int) -> dict[str, bool]:
    """What others would claim from differences of each seed (seeds,) and their resamples (seeds, draws)."""
    from scipy.special import stdtrit

    seeds, mean = len(each), abs(float(each.mean()))
    by_seed, by_item = each.var(ddof=1) / seeds, drawn.mean(axis=0).var() * items / (items - 1)
    together = max(by_seed + by_item, 1e-300)
    degrees = together**2 / max(by_seed**2 / (seeds - 1) + by_item**2 / (items - 1), 1e-300)
    covariances = np.cov(drawn)
    shared = max(covariances.sum() - np.trace(covariances), 0.0) / (seeds * (seeds - 1))  # by all seeds
    t_seed, t_item = stdtrit(seeds - 1, 0.975), stdtrit(items - 1, 0.975)
    # seeds drawn with replacement as well, anew for each draw of the items
    weights = rng.multinomial(seeds, [1 / seeds] * seeds, size=drawn.shape[1]) / seeds
    low, high = np.quantile((weights.T * drawn).sum(axis=0), [0.025, 0.975])
    one_low, one_high = np.quantile(drawn[0], [0.025, 0.975])
    return {
        "noise counted once": mean > math.hypot(t_seed * math.sqrt(by_seed), t_item * math.sqrt(shared)),
        "Satterthwaite": mean > stdtrit(degrees, 0.975) * math.sqrt(together),
        "t over seeds": mean > t_seed * math.sqrt(by_seed),
        "one seed's items": bool(one_low > 0 or one_high < 0),
        "percentiles": bool(low > 0 or high < 0),
    }


def judge(task: str, noise: str, seeds: int, items: int, points: float, runs: int) -> dict[str, Any]:
    """One line of the table: shares of runs that claim, and whose interval holds the truth."""
    edge, true = edge_of(task, noise, points)
    score = SCORES.get(task, "macro_f1")
    claims, words = dict.fromkeys(WAYS, 0), {"paid off": 0, "cost": 0, "cannot tell": 0}
    held, width, seeds_share, detectable, told_seeds = 0, 0.0, 0.0, 0.0, list[int]()
    for run in range(runs):
        rng = np.random.default_rng([run, seeds, items, len(task), len(noise), int(points)])
        (base, ours), drawn = comparison(rng, task, noise, seeds, items, edge)
        apart = drawn[1] - drawn[0]
        found = paired_difference(ours, base, apart.mean(axis=0), items)
        word = verdict(found, "stage one", score, 100, higher_is_better=True).word
        words[word] += 1
        claims["this project"] += word != "cannot tell"
        for way, claim in other_claims(rng, ours - base, apart, items).items():
            claims[way] += claim
        held += found.low <= true / 100 <= found.high
        width += 50 * (found.high - found.low) / runs
        variance = found.seed_sd**2 / seeds
        seeds_share += variance / max(variance + found.item_error**2, 1e-300) / runs
        detectable += 100 * detectable_difference(found) / runs
        if word == "cannot tell" and (more := more_needed(found)[0]) is not None:
            told_seeds.append(more)
    return {
        "task": task,
        "noise": noise,
        "seeds": seeds,
        "items": items,
        "true_points": true,
        "runs": runs,
        "paid_off": words["paid off"] / runs,
        "cost": words["cost"] / runs,
        "held": held / runs,
        "half_width_points": width,
        "seeds_share": seeds_share,
        "detectable_points": detectable,
        "median_more_seeds": float(np.median(told_seeds)) if told_seeds else None,
    } | {way: claim / runs for way, claim in claims.items()}


def advice_power(task: str, noise: str, seeds: int, items: int, points: float, runs: int) -> list[dict[str, Any]]:
    """Comparisons with as many seeds, and as many items, as 40 smaller ones say would find the true difference.

    Their mean variances are taken, as what is in question is the reckoning, not the luck of one pilot.
    """
    edge, true = edge_of(task, noise, points)
    pilots = []
    for run in range(40):
        (base, ours), drawn = comparison(np.random.default_rng([2, run]), task, noise, seeds, items, edge)
        pilots.append(paired_difference(ours, base, (drawn[1] - drawn[0]).mean(axis=0), items))
    typical = pilots[0]._replace(
        mean=true / 100,
        seed_sd=float(np.mean([pilot.seed_sd**2 for pilot in pilots])) ** 0.5,
        item_error=float(np.mean([pilot.item_error**2 for pilot in pilots])) ** 0.5,
    )
    more_seeds, more_items = more_needed(typical)
    designs = []
    if more_seeds:
        designs.append((seeds + more_seeds, items))
    if more_items:
        designs.append((seeds, items + more_items))
    return [
        {"from_seeds": seeds, "from_items": items} | judge(task, noise, *design, points, runs) for design in designs
    ]


# --- The table --------------------------------------------------------------------------------------------------------


def settings(runs: int) -> list[tuple[str, str, int, int, float, int]]:
    """What is tried: task, noise, seeds, items, true points, runs."""
    null = [
        (task, noise, seeds, items, 0.0, NULL_TIMES * runs)
        for task, noise in [
            ("3 shades", "seeds"),
            ("3 shades", "items"),
            ("3 shades", "hardly any"),
            ("3 shades, one rare", "seeds and items"),
            ("3 shades, one rare", "items"),
            ("7 shades", "each item under each seed"),
            ("entities", "seeds and items"),
            ("entities", "items"),
        ]
        for seeds, items in [(2, 300), (3, 30), (3, 300), (5, 300), (5, 1000)]
    ]
    power = [
        ("3 shades", "seeds and items", seeds, items, points, runs)
        for points in (1.0, 2.0, 3.0, 5.0)
        for seeds in (3, 5, 10)
        for items in (100, 500, 1000)
    ]
    return null + power


ADVICE = [
    ("3 shades", "seeds", 3, 1000, 3.0),
    ("3 shades", "seeds and items", 3, 1000, 4.0),
    ("3 shades", "each item under each seed", 3, 500, 5.0),
    ("3 shades", "items", 3, 300, 3.0),
]


def main(flags: list[str]) -> None:
    """Print a line a setting as it comes, and leave them all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="a setting; 4 times as many with no true difference")
    parser.add_argument("--output", type=Path, help="JSON file for the table")
    asked = parser.parse_args(flags)
    print("Shares of runs in %. A claim with no true difference is false; 95 % of the intervals should hold the truth.")
    ways = " | ".join(WAYS[1:])
    print(f"\n| task | noise | seeds × items | true | paid off | cost | ± | interval holds | half width | {ways} |")
    print("|" + "---|" * (9 + len(WAYS)))
    lines = []
    for setting in settings(asked.runs):
        line = judge(*setting)
        lines.append(line)
        error = 100 * math.sqrt(0.05 * 0.95 / line["runs"])
        cells = [line["task"], line["noise"], f"{line['seeds']} × {line['items']}", f"{line['true_points']:.1f}"]
        cells += [f"{100 * line[name]:.1f}" for name in ("paid_off", "cost")] + [f"{error:.1f}"]
        cells += [f"{100 * line['held']:.1f}", f"{line['half_width_points']:.1f}"]
        cells += [f"{100 * line[way]:.1f}" for way in WAYS[1:]]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print("\n| a pilot of seeds × items | true | advised | found (said: 80 or more) |\n|---|---|---|---|")
    for pilot_setting in ADVICE:
        for line in advice_power(*pilot_setting, asked.runs):
            lines.append(line)
            pilot, design = (f"{line[p + 'seeds']} × {line[p + 'items']}" for p in ("from_", ""))
            print(f"| {pilot} | {line['true_points']:.1f} | {design} | {100 * line['paid_off']:.0f} |", flush=True)
    if asked.output:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(json.dumps(lines, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
