"""The scripts on a device that is not the CPU: nothing that a step, a score or a file needs is left on the other."""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertModel

from tests.test_exact import SCRIPTS, curve, flags
from tests.test_many_processes import Calls, end, scores_of, start

pytestmark = pytest.mark.slow

SAVED = ["--save_strategy", "steps", "--save_steps", "2", "--max_steps", "4", "--eval_steps", "2"]
SAVED += ["--eval_strategy", "steps", "--save_total_limit", "3"]
WHOLE = ["--whole_word_masking", "--keep_at", "50", "--gradient_accumulation_steps", "2"]
STREAM = ["--streaming", "--max_steps", "3", "--validation_file", "DATA/texts.csv"]
ORDINAL = ["--loss", "ordinal", "--class_weights", "balanced", "--pooling", "mean", "--head_hidden_size", "8"]
WINDOWS = ["--long_text", "windows", "--max_length", "8", "--stride", "2", "--calibrate"]
FOCAL = ["--loss", "focal", "--layer_decay", "0.5", "--unfreeze_epochs", "0.3"]
WORDS = ["--loss", "focal", "--class_weights", "balanced", "--calibrate", "--label_pieces", "first"]
TESTED = ["--test_file", "DATA/texts.csv"], ["--test_file", "DATA/sentences.jsonl"]
# a run's name → the flags that make it what it is
RUNS = {
    "pretraining-saved": [*SAVED, *WHOLE, "--forgetting_file", "DATA/texts.csv"],
    "pretraining-streamed": STREAM,
    "pretraining-bare": ["--head_warmup_steps", "2", "--validation_fraction", "0"],
    "sentiment-saved": [*SAVED, *FOCAL, *TESTED[0]],
    "sentiment-ordinal": [*ORDINAL, *WINDOWS, *TESTED[0]],
    "sentiment-cls": ["--pooling", "cls", "--label_smoothing_factor", "0.1", "--freeze_encoder", *TESTED[0]],
    "ner-saved": [*SAVED, *WORDS, *TESTED[1]],
    "ner-windows": ["--max_length", "8", "--stride", "2", "--decoding", "argmax", "--freeze_layers", "1", *TESTED[1]],
}
CUT_OFF = ["pretraining-saved", "sentiment-saved", "ner-saved"]
PREDICTED = {"sentiment-saved": "texts.csv", "ner-saved": "sentences.jsonl"}


def call(name: str, checkpoint: Path, data: Path, output: Path) -> list[str]:
    """A run's flags, without a word on the device."""
    checkpoint = checkpoint / "encoder" if name == "pretraining-bare" else checkpoint
    given = flags(name.split("-")[0], checkpoint, data, output, 8, 1)
    given.remove("--use_cpu")
    return [*given, *(part.replace("DATA", str(data)) for part in RUNS[name])]


@pytest.fixture(scope="module")
def on_both(tiny_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all runs as the device made them, in gpu, and in cpu as the CPU did.

    In gpu also each of CUT_OFF, gone on with from its first checkpoint, …-again, and the …-answers of PREDICTED; and
    in bf16 all runs as the CPU did in half precision.
    """
    folder = tmp_path_factory.mktemp("on_both")
    shutil.copytree(tiny_folder, folder / "bert")
    BertModel.from_pretrained(tiny_folder).save_pretrained(folder / "bert" / "encoder")
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder / "bert" / "encoder")
    calls: Calls = {name: call(name, folder / "bert", data_folder, folder / "gpu" / name) for name in RUNS}
    for name in CUT_OFF:
        again = folder / "gpu" / f"{name}-again"
        calls[f"halve-{name}"] = [str(folder / "gpu" / name), str(again)]
        calls[f"{name}-again"] = call(name, folder / "bert", data_folder, again)
    for name, file in PREDICTED.items():
        trained, answers = folder / "gpu" / name, folder / "gpu" / f"{name}-answers"
        calls[f"{name}-answers"] = ["--checkpoint", str(trained), "--output_dir", str(answers)]
        calls[f"{name}-answers"] += ["--predict_file", str(data_folder / file)]
    half: Calls = {name: call(name, folder / "bert", data_folder, folder / "bf16" / name) for name in RUNS}
    running = [
        start([sys.executable], folder / "gpu", calls, PRETEND="gpu"),
        start([sys.executable], folder / "bf16", half, PRETEND="bf16"),
    ]
    try:
        for name in RUNS:
            SCRIPTS[name.split("-")[0]]([*call(name, folder / "bert", data_folder, folder / "cpu" / name), "--use_cpu"])
    except BaseException:
        for each in running:
            each.kill()
        raise
    end(*running)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_a_gpu_is_the_cpus(on_both: Path, name: str) -> None:
    """Its scores and its weights."""
    gpu, cpu = (scores_of(on_both / device / name) for device in ("gpu", "cpu"))
    assert gpu == pytest.approx(cpu, rel=1e-3, abs=1e-4)
    assert_same_weights(on_both / "gpu" / name, on_both / "cpu" / name, 1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_half_precision_is_nearly_the_same(on_both: Path, name: str) -> None:
    """Loss and gradient of the first step differ by roundings of 8 bits, and weights stay whole."""
    (loss, norm), *_ = curve(on_both / "bf16" / name)
    (expected_loss, expected_norm), *_ = curve(on_both / "cpu" / name)
    assert loss == pytest.approx(expected_loss, rel=1e-3)
    assert norm == pytest.approx(expected_norm, rel=2e-2)
    assert (loss, norm) != (expected_loss, expected_norm)
    assert {tensor.dtype for tensor in load_file(on_both / "bf16" / name / "model.safetensors").values()} == {
        torch.float
    }
    assert json.loads((on_both / "bf16" / name / "lineage.json").read_text())["precision"] == "bf16"


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_run_on_a_gpu_goes_on(on_both: Path, name: str) -> None:
    """From the checkpoint that it finds, to the same weights."""
    kept, found = (on_both / "gpu" / run / "checkpoint-2" / "model.safetensors" for run in (name, f"{name}-again"))
    assert found.stat().st_mtime_ns == kept.stat().st_mtime_ns  # a run from its start would write it anew
    assert_same_weights(on_both / "gpu" / f"{name}-again", on_both / "gpu" / name, 0)


def assert_same_weights(run: Path, other: Path, tolerance: float) -> None:
    """The same tensors, each within the tolerance."""
    weights, expected = (load_file(folder / "model.safetensors") for folder in (run, other))
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert tensor.sub(expected[name]).abs().max() <= tolerance, name


@pytest.mark.parametrize("name", PREDICTED)
def test_a_gpu_predicts_part_by_part(on_both: Path, name: str) -> None:
    """The same shades and tags as when it was trained."""
    answers, expected = (predicted(on_both / "gpu" / run) for run in (f"{name}-answers", name))
    assert len(answers) == 48
    assert answers == expected


def predicted(run: Path) -> list[tuple[Any, ...]]:
    """Of each text what it was, and what was said of it."""
    if (run / "predictions.csv").exists():
        with open(run / "predictions.csv", encoding="utf-8", newline="") as file:
            return [(row["text"], row["predicted"]) for row in csv.DictReader(file)]
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    return [(row["tokens"], row["predicted_tags"]) for row in rows]
