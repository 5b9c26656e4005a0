"""How time and memory grow with the corpus, the length of a row, the number of labels and of processes; with a picture.

    python benchmarks/growth.py
    python benchmarks/growth.py --megabytes 10 100 1000 --picture docs/growth.png

The expected line starts at the first point: reading grows with the corpus, a step with its matrix products, speed with
the processes as long as there are cores; memory of reading stays, of a step grows with its tokens.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import BertForSequenceClassification

sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone with no install

import stage_one as benchmark
from corpus_memory import measure_apart, write_corpus
from measuring import (
    RESULTS,
    SHAPES,
    bert_config,
    checkpoint_folder,
    in_fresh_process,
    peak_memory,
    product_flops,
    report,
)

from two_stage.results.pictures import COLOURS, GREY, own_style, write_png

HOME = Path(__file__).parent.parent
Rows = list[dict[str, Any]]


def of_corpus(megabytes: list[int]) -> Rows:
    """Reading: seconds grow with its size, memory does not."""
    rows = []
    for size in megabytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "corpus.txt")
            write_corpus(path, size, checkpoint_folder())
            found = measure_apart(str(path), 1, checkpoint_folder())
        rows.append({"MB": size, "seconds": found["seconds"], "GB": found["peak RSS"] / 1000})
    return with_expected(rows, "MB", lambda row: row["MB"], lambda row: 1)


def of_length(lengths: list[int], tokens: int, steps: int, shape: str) -> Rows:
    """A step of stage one with as many tokens whatever the length: attention alone grows."""
    rows = []
    for length in lengths:
        setting = benchmark.Setting(shape, length, tokens // length, steps)
        found = in_fresh_process(benchmark.__file__, "step_costs", *setting)
        rows.append({"tokens a row": length, "seconds": median(found["seconds"]), "GB": found["step_gb"]})
    config = bert_config(shape)

    def products(row: dict[str, Any]) -> float:
        length = row["tokens a row"]
        read = 1 + round(0.15 * length)
        return product_flops(config, tokens // length, length, round(0.15 * tokens), config.vocab_size, read)

    return with_expected(rows, "tokens a row", products, lambda row: 1)


def of_labels(counts: list[int], steps: int, shape: str) -> Rows:
    """A step of 16 texts of 32 tokens; a label is one more row of a small matrix."""
    rows = []
    for count in counts:
        found = in_fresh_process(__file__, "label_step", count, steps, shape)
        rows.append({"labels": count, "seconds": median(found["seconds"]), "GB": found["step_gb"]})
    return with_expected(rows, "labels", lambda row: 1, lambda row: 1)


def label_step(count: int, steps: int, shape: str) -> dict[str, Any]:
    """Seconds of some steps with so many labels, and their memory, in this process."""
    config = bert_config(shape)
    config.num_labels = count
    torch.manual_seed(0)
    batch = {"input_ids": torch.randint(1000, 30_000, (16, 32)), "labels": torch.randint(count, (16,))}
    seconds: list[float] = []

    def run() -> None:
        model = BertForSequenceClassification(config)
        seconds.extend(benchmark.loop_seconds(model, iter([batch] * (steps + 1)), benchmark.dense_loss, fused=True))

    return peak_memory(run) | {"seconds": seconds}


def of_processes(counts: list[int], steps: int) -> Rows:
    """Seconds a step of the quickstart's stage one, as many rows a step whatever the processes, a thread each."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(count), "run_pretraining.py"]
            made = ["--recipe", "recipes/quickstart/pretraining.yaml", "--use_cpu", "true", "--output_dir", folder]
            batch = ["--per_device_train_batch_size", str(64 // count), "--max_steps", str(steps)]
            aside = ["--eval_strategy", "no", "--save_strategy", "no", "--validation_fraction", "0"]
            command = [sys.executable, *launch, *made, *batch, *aside, "--disable_tqdm", "true"]
            subprocess.run(
                command, cwd=HOME, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True
            )
            results = json.loads(Path(folder, "all_results.json").read_text(encoding="utf-8"))
        rows.append({"processes": count, "seconds": results["train_runtime"] / steps, "GB": None})
    return with_expected(rows, "processes", lambda row: 1 / row["processes"], lambda row: 1)


def with_expected(rows: Rows, axis: str, of_time: Any, of_memory: Any) -> Rows:
    """Each row with what the first one lets expect."""
    first = rows[0]
    for row in rows:
        row["seconds expected"] = first["seconds"] * of_time(row) / of_time(first)
        row["GB expected"] = first["GB"] and first["GB"] * of_memory(row) / of_memory(first)
    return rows


@own_style()
def draw(tables: dict[str, Rows], path: Path) -> None:
    """Time above memory, measured as dots and expected as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((3.1 * len(tables), 5.2), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    labelled: dict[str, Any] = {}
    for column, (title, rows) in enumerate(tables.items()):
        axis = next(iter(rows[0]))
        for line, what in enumerate(("seconds", "GB")):
            axes = figure.add_subplot(2, len(tables), line * len(tables) + column + 1)
            places = [row[axis] for row in rows]
            if rows[0][what] is None:
                axes.set_axis_off()
                continue
            axes.plot(places, [row[f"{what} expected"] for row in rows], color=GREY, linestyle="--", label="expected")
            axes.plot(places, [row[what] for row in rows], "o", color=COLOURS[line], label=f"{what} measured")
            values = [row[name] for row in rows for name in (what, f"{what} expected")]
            axes.set(xscale="log", xticks=places, xticklabels=[f"{place:,}" for place in places])
            if max(values) > 20 * min(values):  # of what grows by decades nothing would be seen at the small end
                axes.set(yscale="log")
                axes.yaxis.set_major_formatter("{x:,g}")
            else:
                axes.set(ylim=(0, 1.25 * max(values)))
            axes.minorticks_off()
            axes.set(xlabel=axis, ylabel=what, title=title if line == 0 else "")
            labelled |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=len(labelled))
    write_png(path, figure)


def main() -> None:
    """Four tables and a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="minilm", choices=SHAPES)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 30, 100], help="of made-up corpora")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512], help="tokens a row")
    parser.add_argument("--tokens", type=int, default=2048, help="a step, whatever the length")
    parser.add_argument("--labels", type=int, nargs="+", default=[2, 7, 100, 1000])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=3, help="measured for a point")
    parser.add_argument("--measure", nargs="+", default=list(WHAT), choices=WHAT)
    parser.add_argument("--picture", type=Path, default=RESULTS / "growth.png")
    asked = parser.parse_args()
    tables = {WHAT[name][0]: WHAT[name][1](asked) for name in asked.measure}
    report("growth", tables, steps=asked.steps)
    draw(tables, asked.picture)


WHAT = {
    "corpus": ("reading a corpus", lambda asked: of_corpus(asked.megabytes)),
    "length": ("a step of stage one", lambda asked: of_length(asked.lengths, asked.tokens, asked.steps, asked.shape)),
    "labels": ("a step of sentiment", lambda asked: of_labels(asked.labels, 3 * asked.steps, asked.shape)),
    "processes": ("a step by processes", lambda asked: of_processes(asked.processes, 20 * asked.steps)),
}

if __name__ == "__main__":
    main()
