"""One model a seed from one command, and the mean and spread of their scores.

The spread between seeds is as large as many a reported gain (Dodge et al. 2020, Fine-tuning pretrained language
models), so that a score of one seed says little.
"""

import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from two_stage.checkpoints import RECIPE, write_results
from two_stage.recipe import Refusal, say
from two_stage.report import HEADLINES, headline_split

Main = Callable[[list[str]], dict[str, float]]
TIMES = ("_runtime", "_per_second", "_low", "_high")  # of no interest, or of each seed's own


def check_seeds(seeds: list[int], output_dir: str) -> None:
    """Refuse what cannot be a folder a seed.

    Raises:
        Refusal: a seed twice or below 0, or the folder holds a single run.
    """
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise Refusal(f"--seeds {' '.join(map(str, seeds))}: each must be there once, and none below 0")
    if Path(output_dir, RECIPE).exists():
        raise Refusal(f"{output_dir}: holds a single run; give another --output_dir")


def run_seeds(main: Main, argv: list[str] | None, seeds: list[int], output_dir: str) -> dict[str, float]:
    """Run a script once a seed, in `output_dir`/seed-N, and tell the mean and the standard deviation of all scores.

    Called again, it leaves finished seeds as they are and goes on with the others.

    Args:
        main: the script's.
        argv: its typed flags; None takes them from `sys.argv`. Seed and folder are put behind them, and win.
        seeds: at least two.
        output_dir: gets a folder a seed, and all_results.json.

    Returns:
        Score → its mean, and score_sd → its standard deviation over the seeds (of a sample: divided by seeds - 1).

    Raises:
        Refusal: see `check_seeds`, and whatever the script refuses.
    """
    check_seeds(seeds, output_dir)
    typed = list(sys.argv[1:] if argv is None else argv)
    found = []
    for seed in seeds:
        say(f"\nSeed {seed}: {output_dir}/seed-{seed}")
        flags = ["--seeds", str(seed), "--seed", str(seed), "--output_dir", f"{output_dir}/seed-{seed}"]
        found.append(main([*typed, *flags]))
    scores = mean_and_spread(found)
    if scores:
        from accelerate import PartialState

        if PartialState().is_main_process:
            write_results(Path(output_dir), scores | {"seeds": len(seeds)})
        say(f"\n{seeds_table(found, scores, seeds)}\n\nA folder a seed lies in {output_dir}")
    return scores


def mean_and_spread(found: list[dict[str, float]]) -> dict[str, float]:
    """Of each score that every run has, its mean, and under NAME_sd its standard deviation over the runs."""
    names = [name for name in found[0] if all(name in scores for scores in found) and not name.endswith(TIMES)]
    scores = {}
    for name in names:
        values = [scores[name] for scores in found]
        scores[name], scores[f"{name}_sd"] = statistics.fmean(values), statistics.stdev(values)
    return scores


def seeds_table(found: list[dict[str, float]], scores: dict[str, float], seeds: list[int]) -> str:
    """The headline scores: mean, standard deviation, and each seed's own, one score a line."""
    split, prefix = headline_split(scores)
    lines = [f"{split:<34}  mean ± sd        " + "  ".join(f"seed {seed}" for seed in seeds)]
    for name, spoken in HEADLINES.items():
        if (key := prefix + name) in scores and not math.isnan(scores[key]):
            own = "  ".join(
                f"{one[key]:.3f}".ljust(len(f"seed {seed}")) for one, seed in zip(found, seeds, strict=True)
            )
            lines.append(f"{spoken:<34}  {scores[key]:.3f} ± {scores[key + '_sd']:.3f}    {own}".rstrip())
    return "\n".join(lines)
