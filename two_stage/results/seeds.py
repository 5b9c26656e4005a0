"""One model a seed from one command, and the mean and spread of their scores.

The spread between seeds is as large as many a reported gain (Dodge et al. 2020, Fine-tuning pretrained language
models), so that a score of one seed says little.
"""

import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from two_stage.checkpointing.checkpoints import write_whole
from two_stage.command_line.exits import Refusal, say
from two_stage.results.report import SEEDS, seeds_table
from two_stage.training.trackers import LOCAL

if TYPE_CHECKING:
    from two_stage.training.training_arguments import ExactTrainingArguments

Main = Callable[[list[str]], dict[str, float]]
LEFT_OUT = ("_runtime", "_per_second", "_low", "_high")  # times, and the ends of intervals, whose mean is no end of one


def check_seeds(seeds: list[int], output_dir: str) -> None:
    """Refuse what cannot be a folder a seed.

    Raises:
        Refusal: a folder that holds something else, or seeds that are left out now.
    """
    folder = Path(output_dir)
    there = sorted(path.name for path in folder.glob("[!.]*") if path.name not in LOCAL) if folder.is_dir() else []
    if others := [name for name in there if name != SEEDS and not re.fullmatch(r"seed-\d+", name)]:
        raise Refusal(f"{folder}: holds {others[0]}, which is no seed's folder; give another --output_dir")
    if left_out := [name for name in there if name not in {SEEDS, *(f"seed-{seed}" for seed in seeds)}]:
        raise Refusal(f"{folder}: holds {left_out[0]} too; name its seed in --seeds, or give another --output_dir")


def run_seeds(
    main: Main, argv: list[str] | None, seeds: list[int], training: "ExactTrainingArguments"
) -> dict[str, float]:
    """Run a script once a seed, in OUTPUT_DIR/seed-N, and tell the mean and the standard deviation of all scores.

    Called again, it leaves finished seeds as they are and goes on with the others; more seeds may join.

    Args:
        main: the script's.
        argv: its typed flags; None takes them from `sys.argv`. Seed and folder are put behind them, and win.
        seeds: at least two.
        training: its output_dir gets a folder a seed, and seeds.json: `seeds`, and `scores`, each with its mean, its
            standard deviation `sd` (of a sample: divided by seeds - 1), and `each`, in the order of the seeds.

    Returns:
        Score → its mean over the seeds.

    Raises:
        Refusal: see `check_seeds`, and whatever the script refuses; several models cannot go to one repository.
    """
    output_dir = training.output_dir
    if training.push_to_hub:
        raise Refusal("--push_to_hub: these are several models; choose one, and give --seed with its number alone")
    check_seeds(seeds, output_dir)
    typed = list(sys.argv[1:] if argv is None else argv)
    found = []
    for seed in seeds:
        say(f"\nSeed {seed}: {output_dir}/seed-{seed}")
        found.append(main([*typed, "--seeds", str(seed), "--output_dir", f"{output_dir}/seed-{seed}"]))
    names = [name for name in found[0] if all(name in scores for scores in found) and not name.endswith(LEFT_OUT)]
    spread = {name: mean_and_spread([scores[name] for scores in found]) for name in names}
    summary = {"seeds": seeds, "scores": spread}
    if names:
        if PartialState().is_main_process:
            write_whole(Path(output_dir, SEEDS), json.dumps(summary, indent=1) + "\n")
        say(f"\n{seeds_table(summary)}\n\nA folder a seed lies in {output_dir}")
    return {name: score["mean"] for name, score in spread.items()}


def mean_and_spread(values: list[float]) -> dict[str, Any]:
    """The mean of a score over the seeds, its standard deviation, and each."""
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values), "each": values}
