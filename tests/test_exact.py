"""The promise of ExactTrainer: one loss, one gradient, whatever batch × accumulation × processes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertModel

import run_ner
import run_pretraining
import run_sentiment
from tests.conftest import REPOSITORY, SHADES

Main = Callable[[list[str]], dict[str, float]]
SCRIPTS: dict[str, Main] = {"pretraining": run_pretraining.main, "sentiment": run_sentiment.main, "ner": run_ner.main}
ONE_PROCESS = [(16, 1), (4, 4), (2, 8)]  # per-device batch × accumulation: 16 rows a step
TWO_PROCESSES = [(8, 1), (4, 2)]


def flags(script: str, checkpoint: Path, data: Path, output: Path, batch: int, accumulation: int) -> list[str]:
    """A call of two steps of 16 rows, logged step by step."""
    files = {"pretraining": "corpus.txt", "sentiment": "texts.csv", "ner": "sentences.jsonl"}
    call = ["--checkpoint", str(checkpoint), "--train_file", str(data / files[script]), "--output_dir", str(output)]
    call += ["--per_device_train_batch_size", str(batch), "--gradient_accumulation_steps", str(accumulation)]
    call += ["--max_steps", "2", "--logging_steps", "1", "--max_length", "32", "--use_cpu", "--learning_rate", "1e-3"]
    call += ["--warmup_steps", "0", "--save_strategy", "no"]
    call += ["--labels", *SHADES] if script == "sentiment" else []
    held_out = {"pretraining": [], "sentiment": ["--validation_file", str(data / "texts.csv"), "--allow_leakage"]}
    return call + held_out.get(script, ["--validation_file", str(data / "sentences.jsonl"), "--allow_leakage"])


def curve(output: Path) -> list[tuple[float, float]]:
    """(loss, gradient norm) of every step of a finished run."""
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [(entry["loss"], entry["grad_norm"]) for entry in history if "grad_norm" in entry]


def evaluation(output: Path) -> dict[str, float]:
    """The eval scores and the mean training loss of a finished run, without its timings."""
    scores = json.loads((output / "all_results.json").read_text())
    timings = ("runtime", "second", "time")
    kept = {name: value for name, value in scores.items() if name.startswith("eval_") and not name.endswith(timings)}
    return kept | {"train_loss": scores["train_loss"]}


@pytest.fixture(scope="module")
def reference(tiny_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each script's run at 16 × 1 × 1."""
    outputs = {}
    for script, main in SCRIPTS.items():
        outputs[script] = tmp_path_factory.mktemp("reference") / script
        main(flags(script, tiny_folder, data_folder, outputs[script], 16, 1))
    return outputs


def assert_same_run(output: Path, reference: Path) -> None:
    """Loss and gradient norm of step 1 within 1e-5, of step 2 after one update within 1e-4, and all eval scores."""
    steps, expected = curve(output), curve(reference)
    assert len(steps) == len(expected) == 2
    assert steps[0] == pytest.approx(expected[0], rel=1e-5)
    assert steps[1] == pytest.approx(expected[1], rel=1e-4)
    scores = evaluation(output)
    assert {"eval_loss", "train_loss"} <= scores.keys()
    assert scores == pytest.approx(evaluation(reference), rel=1e-4)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("batch", "accumulation"), ONE_PROCESS[1:])
def test_accumulation_changes_nothing(
    script: str,
    batch: int,
    accumulation: int,
    tiny_folder: Path,
    data_folder: Path,
    reference: dict[str, Path],
    tmp_path: Path,
) -> None:
    """16 rows a step, cut into 4 × 4 or 8 × 2, are one step."""
    SCRIPTS[script](flags(script, tiny_folder, data_folder, tmp_path / "run", batch, accumulation))
    assert_same_run(tmp_path / "run", reference[script])


def test_the_data_seed_draws_all_of_the_data(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Order, pairs and masks: where nothing drops out, the other seed changes nothing."""
    curves = []
    for seed, data_seed in ((1, 7), (2, 7), (2, 8)):
        output = tmp_path / f"{seed}-{data_seed}"
        seeds = ["--seed", str(seed), "--data_seed", str(data_seed)]
        run_pretraining.main([*flags("pretraining", tiny_folder, data_folder, output, 16, 1), *seeds])
        curves.append(curve(output))
    assert curves[0] == curves[1] != curves[2]


# Flags of stage one that change what a step is made of
STAGE_ONE = {
    "masked words alone": ["--no_next_sentence", "true"],
    "whole words": ["--whole_word_masking", "true", "--mask_probability", "0.3"],
    "rates by layer": ["--layer_decay", "0.5", "--freeze_layers", "1", "--head_learning_rate", "1e-2"],
    "checkpointing": ["--gradient_checkpointing", "true", "--random_next_probability", "0.2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("more", STAGE_ONE.values(), ids=STAGE_ONE)
def test_accumulation_changes_nothing_of_stage_one(
    more: list[str], tiny_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    """Nor where rows have no next sentence, words are masked whole, or layers learn at rates of their own."""
    for batch, accumulation in ((16, 1), (2, 8)):
        call = flags("pretraining", tiny_folder, data_folder, tmp_path / str(batch), batch, accumulation)
        run_pretraining.main([*call, *more])
    assert_same_run(tmp_path / "2", tmp_path / "16")


# And of stage two; the tiny data's texts have up to 12 words
STAGE_TWO = {
    "weights in windows": ["--class_weights", "balanced", "--long_text", "windows", "--max_length", "8"],
    "ordinal": ["--loss", "ordinal", "--class_weights", "3", "1", "0.2", "--pooling", "mean"],
    "focal": ["--loss", "focal", "--head_hidden_size", "8", "--unfreeze_epochs", "0.5"],
    "smoothed": ["--label_smoothing_factor", "0.2", "--text_pair_column", "text", "--layer_decay", "0.5"],
}


@pytest.mark.slow
@pytest.mark.parametrize("more", STAGE_TWO.values(), ids=STAGE_TWO)
def test_accumulation_changes_nothing_of_stage_two(
    more: list[str], tiny_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    """Nor where texts weigh differently, are read in windows or in pairs, or parts of the encoder join later."""
    for batch, accumulation in ((16, 1), (2, 8)):
        call = flags("sentiment", tiny_folder, data_folder, tmp_path / str(batch), batch, accumulation)
        run_sentiment.main([*call, *more])
    assert_same_run(tmp_path / "2", tmp_path / "16")


@pytest.mark.slow
def test_two_processes_change_nothing(
    tiny_folder: Path, data_folder: Path, reference: dict[str, Path], tmp_path: Path
) -> None:
    """The same step on two processes over gloo: all scripts and shapes in one pair of processes, world size checked."""
    calls = {
        f"{script}-{batch}-{accumulation}": flags(
            script, tiny_folder, data_folder, tmp_path / f"{script}-{batch}-{accumulation}", batch, accumulation
        )
        for script in SCRIPTS
        for batch, accumulation in TWO_PROCESSES
    }
    bare = Path(shutil.copytree(tiny_folder, tmp_path / "bare"))
    BertModel.from_pretrained(tiny_folder).save_pretrained(bare)  # no head, so that these learn first
    warm = ["--head_warmup_steps", "2"]
    calls["pretraining-warm"] = [*flags("pretraining", bare, data_folder, tmp_path / "warm", 8, 1), *warm]
    run_pretraining.main([*flags("pretraining", bare, data_folder, tmp_path / "warm alone", 16, 1), *warm])
    for name, more in STAGE_TWO.items():
        calls[f"sentiment-{name}"] = [*flags("sentiment", tiny_folder, data_folder, tmp_path / name, 8, 1), *more]
        alone = flags("sentiment", tiny_folder, data_folder, tmp_path / f"{name} alone", 16, 1)
        run_sentiment.main([*alone, *more])
    (tmp_path / "calls.json").write_text(json.dumps(calls))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    worker = [str(Path(__file__).parent / "two_processes.py"), str(tmp_path / "calls.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*launch, *worker], capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.glob("world_2_rank_*")) == ["world_2_rank_0", "world_2_rank_1"]
    for script in SCRIPTS:
        for batch, accumulation in TWO_PROCESSES:
            assert_same_run(tmp_path / f"{script}-{batch}-{accumulation}", reference[script])
    assert_same_run(tmp_path / "warm", tmp_path / "warm alone")
    for name in STAGE_TWO:
        assert_same_run(tmp_path / name, tmp_path / f"{name} alone")


def test_the_loss_is_the_plain_mean(tiny_folder: Path, data_folder: Path, reference: dict[str, Path]) -> None:
    """Step 1's loss and gradient norm equal one dense forward pass of transformers' own class over the step's rows."""
    from transformers import AutoTokenizer, BertForPreTraining

    from two_stage.training.batches import EpochSampler

    settings = run_pretraining.Settings(train_file=[str(data_folder / "corpus.txt")], max_length=32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    train = run_pretraining.read_corpora(settings, tokenizer).train
    pairs = run_pretraining.SentencePairs(train, tokenizer, settings, 42)
    rows = list(EpochSampler(pairs, 16, 42))[:16]
    collator = run_pretraining.RowKeyedMasking(tokenizer, mlm_probability=0.15)
    batch: dict[str, Any] = collator([pairs[row] for row in rows])
    assert 0 < batch["next_sentence_label"].ne(-100).sum() < 16  # rows with and without a next sentence
    for name in ("masked_positions", "read_positions", "masked_reads"):
        del batch[name]  # the dense class looks at all
    model = BertForPreTraining.from_pretrained(tiny_folder).train()
    loss = model(**batch).loss
    loss.backward()
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
    assert curve(reference["pretraining"])[0] == pytest.approx((loss.item(), norm.item()), rel=1e-5)


@pytest.mark.slow  # it trains whole runs
@pytest.mark.parametrize("script", SCRIPTS)
def test_scores_do_not_know_the_evaluation_batch(
    script: str, tiny_folder: Path, data_folder: Path, reference: dict[str, Path], tmp_path: Path
) -> None:
    """Batches of 5 give the loss and scores that batches of 64 give."""
    call = flags(script, tiny_folder, data_folder, tmp_path / "run", 16, 1)
    SCRIPTS[script]([*call, "--per_device_eval_batch_size", "5"])
    assert evaluation(tmp_path / "run") == pytest.approx(evaluation(reference[script]), rel=1e-5)
