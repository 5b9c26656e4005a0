"""Memory and speed of `--predict_file` on made-up texts: each file is predicted by a fresh process.

    python benchmarks/predict_memory.py outputs/quickstart/sentiment 10 100 1000

Arguments: a folder of run_sentiment.py, and how many thousand texts each file has. Prints the peak resident memory of
the process and the rows a second that the script itself reports. `--test_file` reads the same files for comparison.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
WORDS = "profit loss margin order cash cost debt sales rose fell grew sank held slid jumped in Oslo Lima Turin".split()
CALL = """import json, sys
import run_sentiment
from two_stage.training.memory import memory_gb
scores = run_sentiment.main(sys.argv[1:])
print(json.dumps({"mb": 1000 * memory_gb(), "scores": scores}))
"""


def measured(folder: str, flag: str, texts: Path, output: Path) -> dict[str, float]:
    """Peak memory in MB, and the scores, of a process of its own."""
    call = [sys.executable, "-c", CALL, "--checkpoint", folder, flag, str(texts), "--output_dir", str(output)]
    done = subprocess.run([*call, "--disable_tqdm", "true"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print one line a file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("thousands", type=int, nargs="+")
    parser.add_argument("--whole", action="store_true", help="by --test_file, which keeps the whole file in memory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for thousands in given.thousands:
            texts, rng = Path(folder, f"{thousands}.csv"), random.Random(0)
            with open(texts, "w", encoding="utf-8") as file:
                file.write("text\n")
                for _ in range(1000 * thousands):
                    file.write(" ".join(rng.choices(WORDS, k=rng.randint(4, 12))) + "\n")
            flag = "--test_file" if given.whole else "--predict_file"
            found = measured(given.checkpoint, flag, texts, Path(folder, f"out-{thousands}"))
            scores = found["scores"]
            speed = scores.get("predict_samples_per_second", scores.get("test_samples_per_second"))
            print(f"{thousands:>6},000 texts: peak {found['mb']:,.0f} MB, {speed:,.0f} texts a second", flush=True)


if __name__ == "__main__":
    main()
