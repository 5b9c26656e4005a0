"""Seconds until --help answers and until a first step is done, beside what importing torch and TrainingArguments takes.

    python benchmarks/start_up.py

Every figure is of fresh processes, by turns; files and compiled modules are in the machine's cache. The first step is
on the quickstart's data, which have been read once before, and is timed by the line that logs it.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from measuring import by_turns, checkpoint_folder, report

HOME = Path(__file__).parent.parent
BASE = "torch and TrainingArguments"
IMPORTS = {
    BASE: "import torch; from transformers import TrainingArguments",
    "Trainer": "from transformers import Trainer",
}
SCRIPTS = ("run_pretraining.py", "run_sentiment.py", "run_ner.py", "run_comparison.py")
ONE_STEP = ["--max_steps", "1", "--logging_steps", "1", "--save_strategy", "no", "--eval_strategy", "no"]
LOGGED = "{'loss'"  # how Trainer's line of a step begins


def whole_seconds(command: list[str]) -> list[float]:
    """Until a process ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, cwd=HOME, capture_output=True)
    return [time.perf_counter() - began]


def first_step_seconds(command: list[str], cache: str) -> list[float]:
    """Until a run logs its first step, in a folder of its own."""
    environment = os.environ | {"HF_DATASETS_CACHE": cache, "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
    with TemporaryDirectory() as folder:
        whole = [sys.executable, *command, *ONE_STEP, "--output_dir", f"{folder}/run"]
        began, seconds, said = time.perf_counter(), None, []
        with subprocess.Popen(
            whole, cwd=HOME, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as run:
            for line in run.stdout or ():
                said.append(line)
                if LOGGED in line and seconds is None:
                    seconds = time.perf_counter() - began
    if seconds is None:
        raise RuntimeError("".join(said[-20:]))
    return [seconds]


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times that each has its turn")
    asked = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a second call finds this project's modules compiled
    tiny = ["--recipe", "recipes/quickstart/pretraining.yaml"]
    sentiment = ["--recipe", "recipes/quickstart/sentiment.yaml", "--checkpoint", checkpoint_folder()]
    ner = ["--recipe", "recipes/quickstart/ner.yaml", "--checkpoint", checkpoint_folder()]
    with TemporaryDirectory() as cache:
        for command in (["run_pretraining.py", *tiny], ["run_sentiment.py", *sentiment], ["run_ner.py", *ner]):
            first_step_seconds(command, cache)
        ways: dict[str, Callable[[], list[float]]] = {
            f"import of {name}": partial(whole_seconds, ["-c", code]) for name, code in IMPORTS.items()
        }
        ways |= {f"{script} --help": partial(whole_seconds, [script, "--help"]) for script in SCRIPTS}
        ways["first step of stage one, tiny"] = partial(first_step_seconds, ["run_pretraining.py", *tiny], cache)
        ways["first step of sentiment, six layers"] = partial(
            first_step_seconds, ["run_sentiment.py", *sentiment], cache
        )
        ways["first step of entities, six layers"] = partial(first_step_seconds, ["run_ner.py", *ner], cache)
        found = {name: median(times) for name, times in by_turns(ways, asked.rounds).items()}
    base = found[f"import of {BASE}"]
    table: list[dict[str, Any]] = [
        {"until": name, "seconds": seconds, f"over {BASE}": seconds - base, "as a ratio": seconds / base}
        for name, seconds in found.items()
    ]
    report("start_up", {"Start-up": table}, rounds=asked.rounds)


if __name__ == "__main__":
    main()
