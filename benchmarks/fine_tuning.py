"""Epochs of run_sentiment.py and run_ner.py, and their predictions, beside other ways to batch the same rows.

    python benchmarks/fine_tuning.py
    python benchmarks/fine_tuning.py --task sentiment --rows 256
    python benchmarks/fine_tuning.py --task sentiment -- --train_file labelled.csv --labels negative neutral positive

*ours* has rows of like length in a step, padded to the longest of them; *random batches* the same padding in random
order, as run_ner.py of transformers; *padded to 128* is what its run_glue.py does by default; *padded to 512* goes to
BERT's own limit: all with this project's model and trainer, and the same rows. *stock, padded to 128* is Trainer and
model of transformers; *a row a step* is the loop of tutorials: one row of 512, then AdamW. These two take rows of 30
made-up tokens, since all of theirs cost the same. The first step is not counted. Reads $REAL_DATA_DIR where it is set,
else the quickstart's data.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    pipeline,
)

sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone with no install

from measuring import (
    DEVICE,
    ON_GPU,
    PRECISION,
    StepClock,
    by_turns,
    checkpoint_folder,
    in_fresh_process,
    now,
    quietly,
    report,
    wait_for_device,
)

import run_ner
import run_sentiment
from two_stage.training import batches

SCRIPTS: dict[str, tuple[ModuleType, str]] = {
    "sentiment": (run_sentiment, "SentimentTrainer"),
    "ner": (run_ner, "NerTrainer"),
}
STOCK_MODELS: dict[str, type[PreTrainedModel]] = {
    "sentiment": BertForSequenceClassification,
    "ner": BertForTokenClassification,
}
DATA = Path(os.environ.get("REAL_DATA_DIR", ""))
QUICKSTART = Path(__file__).parent.parent / "recipes" / "quickstart" / "data"
BATCH = 16
FILL = {"input_ids": 0, "attention_mask": 0, "token_type_ids": 0, "labels": -100}  # 0 is BERT's [PAD]
FEW = 3  # steps of a fixed length, all alike


def data_flags(task: str) -> list[str]:
    """The flags of the task's data: real where it is there."""
    if DATA.name and task == "sentiment":
        folder = DATA / "sentiment" / "financial_phrasebank_50agree"
        split = ["--train_file", str(folder / "train.csv"), "--labels", "negative", "neutral", "positive"]
        return [*split, "--test_file", str(folder / "test.csv")]
    if DATA.name:
        folder = DATA / "ner" / "finer_ord"
        return ["--train_file", str(folder / "train.jsonl"), "--test_file", str(folder / "test.jsonl")]
    if task == "ner":
        return ["--train_file", str(QUICKSTART / "ner_train.jsonl"), "--test_file", str(QUICKSTART / "ner_test.jsonl")]
    shades = "strongly pessimistic,pessimistic,mildly pessimistic,neutral,cautiously optimistic,optimistic"
    files = [("train_file", "sentiment_train.csv"), ("test_file", "sentiment_test.csv")]
    found = [part for flag, file in files for part in (f"--{flag}", str(QUICKSTART / file))]
    return [*found, "--labels", *shades.split(","), "strongly optimistic"]


def data_name(flags: list[str], flag: str) -> str:
    """The name of the file behind `flag` and its folder's, for a table's title; of other data all their flags."""
    return "/".join(Path(flags[flags.index(flag) + 1]).parts[-2:]) if flag in flags else " ".join(flags)


def run_task(task: str, flags: list[str], folder: str, steps: int, length: int = 128) -> dict[str, float]:
    """The whole script, for so many steps."""
    aside = ["--save_strategy", "no", "--eval_strategy", "no", "--max_steps", str(steps), "--report_to", "none"]
    made = ["--checkpoint", checkpoint_folder(), "--output_dir", folder, "--max_length", str(length), "--allow_leakage"]
    return SCRIPTS[task][0].main([*flags, *made, *aside, "--disable_tqdm", "true"])


# --- Ways to batch ----------------------------------------------------------------------------------------------------


def filled_up(collate: Callable[..., dict[str, Tensor]], length: int, *rows: Any, **options: Any) -> dict[str, Tensor]:
    """A batch as long as `length`, whatever its rows are."""
    batch = collate(*rows, **options)
    for name in FILL.keys() & batch.keys():
        missing = length - batch[name].shape[1]
        batch[name] = torch.nn.functional.pad(batch[name], (0, missing), value=FILL[name])
    return batch


def watched_trainer(make: type, timer: StepClock, **parts: Any) -> Any:
    """The script's trainer, and a clock beside it."""
    trainer = make(**parts)
    trainer.add_callback(timer)
    return trainer


def step_seconds(task: str, flags: list[str], steps: int, length: int | None = None, pool: int = 0) -> list[float]:
    """Seconds of each step of a run of the script.

    Args:
        task: which script.
        flags: of its data.
        steps: how many.
        length: what every batch is filled up to; None leaves it as it is.
        pool: steps within which rows are sorted by length; 1 is random batches.
    """
    script, name = SCRIPTS[task]
    trainer, collate, pools, timer = getattr(script, name), script.collate, batches.POOL_STEPS, StepClock()
    setattr(script, name, partial(watched_trainer, trainer, timer))
    script.collate = partial(filled_up, collate, length) if length else collate
    batches.POOL_STEPS = pool or pools
    try:
        with TemporaryDirectory() as folder, quietly():
            run_task(task, [*flags, "--per_device_train_batch_size", str(BATCH)], f"{folder}/run", steps)
    finally:
        setattr(script, name, trainer)
        script.collate, batches.POOL_STEPS = collate, pools
    return np.diff(timer.ends).tolist()


def tutorial_seconds(task: str, steps: int) -> list[float]:
    """One row of 512 a step: encoder, linear head, cross-entropy, AdamW with two rates."""
    from transformers import BertModel

    torch.manual_seed(0)
    model = BertModel.from_pretrained(checkpoint_folder()).to(DEVICE).train()
    head = torch.nn.Linear(model.config.hidden_size, 3).to(DEVICE)
    optimizer = torch.optim.AdamW(
        [{"params": model.parameters(), "lr": 2e-5}, {"params": head.parameters(), "lr": 5e-5}]
    )
    ids = torch.randint(1000, 30_000, (1, 512), device=DEVICE)
    mask = (torch.arange(512, device=DEVICE) < 30).long()[None]
    ends = []
    for _ in range(steps + 1):
        with torch.autocast(DEVICE.type, PRECISION, enabled=ON_GPU):
            outputs = model(ids, mask)
            logits = head(outputs.pooler_output if task == "sentiment" else outputs.last_hidden_state).reshape(-1, 3)
        torch.nn.functional.cross_entropy(
            logits.float(), torch.zeros(len(logits), dtype=torch.long, device=DEVICE)
        ).backward()
        optimizer.step()
        optimizer.zero_grad()
        wait_for_device()
        ends.append(now())
    return np.diff(ends).tolist()


def stock_seconds(task: str, steps: int, length: int) -> list[float]:
    """Trainer and model of transformers, every row filled up to `length`."""
    torch.manual_seed(0)
    model = STOCK_MODELS[task].from_pretrained(checkpoint_folder(), num_labels=3)
    row = {
        "input_ids": torch.randint(1000, 30_000, (length,)),
        "attention_mask": (torch.arange(length) < 30).long(),
        "labels": torch.zeros((length,) if task == "ner" else (), dtype=torch.long),
    }
    timer = StepClock()
    with TemporaryDirectory() as folder, quietly():
        training = TrainingArguments(
            output_dir=folder,
            max_steps=steps + 1,
            per_device_train_batch_size=BATCH,
            learning_rate=2e-5,
            bf16=ON_GPU,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        Trainer(model, training, train_dataset=[row] * BATCH * (steps + 1), callbacks=[timer]).train()
    return np.diff(timer.ends).tolist()


def epoch_table(task: str, flags: list[str], rows: int, rounds: int) -> list[dict[str, Any]]:
    """A line a way to batch: rows a second."""
    steps, data = -(-rows // BATCH), [*without_test(flags), "--max_train_samples", str(rows)]
    ways = {
        "ours": ("step_seconds", task, data, steps),
        "random batches": ("step_seconds", task, data, steps, None, 1),
        "padded to 128": ("step_seconds", task, data, FEW, 128),
        "padded to 512": ("step_seconds", task, data, 2, 512),
        "stock, padded to 128": ("stock_seconds", task, FEW, 128),
        "a row a step": ("tutorial_seconds", task, FEW),
    }
    # each in a process of its own: what ours asks of the allocator is not for the others
    variants = {name: partial(in_fresh_process, __file__, *way) for name, way in ways.items()}
    found = by_turns(variants, rounds)
    table = []
    for name, times in found.items():
        rate = (1 if name == "a row a step" else BATCH) / statistics.mean(times)
        table.append({"batches": name, "rows a second": rate, "steps": len(times)})
    for line in table:
        line["ours is as fast"] = table[0]["rows a second"] / line["rows a second"]
    return table


def without_test(flags: list[str]) -> list[str]:
    """The flags without their test file, which would be predicted."""
    if "--test_file" not in flags:
        return flags
    place = flags.index("--test_file")
    return flags[:place] + flags[place + 2 :]


# --- Prediction -------------------------------------------------------------------------------------------------------


def prediction_table(task: str, flags: list[str], rounds: int) -> list[dict[str, Any]]:
    """Rows a second of the script that predicts, and of the stock pipeline over the same texts."""
    from two_stage.data.tables import read_rows

    test = flags[flags.index("--test_file") + 1]
    texts = [row["text"] if task == "sentiment" else " ".join(row["tokens"]) for _, row in read_rows(test)]
    with TemporaryDirectory() as folder:
        with quietly():
            run_task(task, without_test(flags), f"{folder}/model", 1)
        variants: dict[str, Callable[[], list[float]]] = {
            "the script": partial(predicted_seconds, task, test, f"{folder}/model"),
            "pipeline, 64 rows at once": partial(pipeline_seconds, task, f"{folder}/model", texts, 64),
            "pipeline, its default": partial(pipeline_seconds, task, f"{folder}/model", texts[:200], 1),
        }
        found = by_turns(variants, rounds)
    rates = {name: statistics.median(times) for name, times in found.items()}
    return [
        {"predicted by": name, "rows a second": 1 / seconds, "the script is as fast": seconds / rates["the script"]}
        for name, seconds in rates.items()
    ]


def predicted_seconds(task: str, test: str, model: str) -> list[float]:
    """Of the script: seconds a row, with its scores and their intervals and without its start."""
    script, seconds = SCRIPTS[task][0], list[float]()
    score = script.score_splits
    script.score_splits = partial(watched, score, seconds)
    try:
        with TemporaryDirectory() as folder:
            made = ["--checkpoint", model, "--test_file", test, "--output_dir", f"{folder}/run", "--allow_leakage"]
            script.main([*made, "--disable_tqdm", "true"])
    finally:
        script.score_splits = score
    return seconds


def watched(score: Callable[..., Any], seconds: list[float], trainer: Any, scored: dict[str, Any], *rest: Any) -> Any:
    """What it returns; how long it took a row of the test split goes to `seconds`."""
    began = now()
    scores = score(trainer, scored, *rest)
    seconds.append((now() - began) / len(scored["test"].split))
    return scores


def pipeline_seconds(task: str, model: str, texts: list[str], batch: int) -> list[float]:
    """Of the stock pipeline: seconds a row."""
    kind = {"sentiment": "text-classification", "ner": "token-classification"}[task]
    find = pipeline(kind, model=model, device=DEVICE, dtype=PRECISION)
    began = now()
    list(find(texts, batch_size=batch))
    return [(now() - began) / len(texts)]


def main() -> None:
    """Two tables a task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", default=list(SCRIPTS), choices=SCRIPTS)
    parser.add_argument("--rows", type=int, default=512, help="of the training file, drawn at random")
    parser.add_argument("--rounds", type=int, default=2, help="times that each variant has its turn")
    parser.add_argument("--measure", nargs="+", default=["epoch", "prediction"], choices=("epoch", "prediction"))
    parser.add_argument("flags", nargs="*", help="behind --: the data of one task, by the flags of its script")
    asked = parser.parse_args()
    tables: dict[str, list[dict[str, Any]]] = {}
    for task in asked.task:
        flags = asked.flags or data_flags(task)
        if "epoch" in asked.measure:
            title = f"An epoch of {task}, {data_name(flags, '--train_file')}"
            tables[title] = epoch_table(task, flags, asked.rows, asked.rounds)
        if "prediction" in asked.measure and "--test_file" in flags:
            title = f"Predictions, {task}, {data_name(flags, '--test_file')}"
            tables[title] = prediction_table(task, flags, asked.rounds)
    report("-".join(["fine_tuning", *asked.task, *asked.measure]), tables, rows=asked.rows, rounds=asked.rounds)


if __name__ == "__main__":
    main()
