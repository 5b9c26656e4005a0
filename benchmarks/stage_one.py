"""A step of stage one beside stock Trainer's, a loop of one's own, and what the machine's matrix products allow.

    python benchmarks/stage_one.py
    python benchmarks/stage_one.py --length 512 --rows 8
    python benchmarks/stage_one.py --shape bert-base --length 128 512 --rows 64 16    # on a GPU, in bf16 by itself

All variants see the same sentence pairs of made-up documents, nearly all as long as a row. *ours* is the trainer,
collator and head of run_pretraining.py; *bare* is the same model on batches made beforehand, in a loop with nothing
around it; *stock* is Trainer, DataCollatorForLanguageModeling and the head over all positions, as run_mlm.py of
transformers has them; *a row of 512 a step* is the plain loop that tutorials show: a row filled up, the head over all
of its positions, AdamW.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import BertForPreTraining, DataCollatorForLanguageModeling, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone with no install

from measuring import (
    DEVICE,
    ON_GPU,
    PRECISION,
    SHAPES,
    StepClock,
    bert_config,
    by_turns,
    in_fresh_process,
    now,
    open_tokenizer,
    peak_memory,
    product_flops,
    product_rate,
    report,
    wait_for_device,
)

import run_pretraining as stage_one
from two_stage.data.corpus import TOKENS
from two_stage.training.batches import EpochSampler
from two_stage.training.cpu_training import keep_freed_memory, use_cpu_dropout
from two_stage.training.cross_entropy import SummedCrossEntropy

TUTORIAL, TUTORIAL_LENGTH = "a row of 512 a step", 512
NO_RUN = {"save_strategy": "no", "eval_strategy": "no", "report_to": [], "disable_tqdm": True, "logging_steps": 50}


SEED = 42  # Trainer's own


class Setting(NamedTuple):
    """What all variants share."""

    shape: str
    length: int
    rows: int
    steps: int  # measured; one more goes before them


# --- Data -------------------------------------------------------------------------------------------------------------


def made_up_pairs(setting: Setting) -> stage_one.SentencePairs:
    """Pairs of documents of some 12 rows of tokens each, sentences of 10 to 40 tokens."""
    rng = np.random.default_rng(0)
    wanted = setting.rows * (setting.steps + 4) * setting.length
    rows = []
    while wanted > 0:
        lengths = rng.integers(10, 40, size=max(2, 12 * setting.length // 25)).tolist()
        rows.append({"input_ids": rng.integers(2000, 30_000, size=sum(lengths)).tolist(), "sentence_lengths": lengths})
        wanted -= sum(lengths)
    rows += rows[:1] if len(rows) == 1 else []  # a random next sentence comes from another document
    columns = {name: [row[name] for row in rows] for name in TOKENS}
    chosen = stage_one.Settings(max_length=setting.length, short_pair_probability=0.0)
    return stage_one.SentencePairs(Dataset.from_dict(columns, features=TOKENS), open_tokenizer(), chosen, key=0)


class StockRows(torch.utils.data.Dataset):
    """The same pairs with nothing that the stock collator does not know."""

    def __init__(self, pairs: stage_one.SentencePairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> dict[str, Any]:
        pair = self.pairs[row]
        label = max(pair["next_sentence_label"], 0)  # the stock loss of a batch that has none is no number
        return {name: pair[name] for name in ("input_ids", "token_type_ids")} | {"next_sentence_label": label}


# --- Variants: each returns the seconds of its steps ------------------------------------------------------------------


def ours(setting: Setting) -> list[float]:
    """run_pretraining.py's own trainer."""
    pairs, tokenizer = made_up_pairs(setting), open_tokenizer()
    with TemporaryDirectory() as folder:
        training = stage_one.PretrainingArguments(
            output_dir=folder, max_steps=setting.steps + 1, per_device_train_batch_size=setting.rows, **NO_RUN
        )
        trainer = stage_one.PretrainingTrainer(
            model=stage_one.SparseBertForPreTraining(bert_config(setting.shape)),
            args=training,
            train_dataset=pairs,
            processing_class=tokenizer,
            data_collator=stage_one.RowKeyedMasking(tokenizer),
        )
        return trained_seconds(trainer)


def stock(setting: Setting) -> list[float]:
    """Trainer and collator of transformers, the head over all positions."""
    pairs, tokenizer = made_up_pairs(setting), open_tokenizer()
    with TemporaryDirectory() as folder:
        training = TrainingArguments(
            output_dir=folder,
            max_steps=setting.steps + 1,
            per_device_train_batch_size=setting.rows,
            remove_unused_columns=False,
            bf16=ON_GPU,
            **NO_RUN,
        )
        trainer = Trainer(
            model=BertForPreTraining(bert_config(setting.shape)),
            args=training,
            train_dataset=StockRows(pairs),
            processing_class=tokenizer,
            data_collator=DataCollatorForLanguageModeling(tokenizer),
        )
        return trained_seconds(trainer)


def trained_seconds(trainer: Trainer) -> list[float]:
    """From the end of a step to the end of the next: data, callbacks and update counted."""
    timer = StepClock()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(timer)
    trainer.train()
    return np.diff(timer.ends).tolist()


def loop_seconds(
    model: torch.nn.Module,
    batches: Iterator[dict[str, torch.Tensor]],
    loss_of: Callable[..., torch.Tensor],
    **adam: Any,
) -> list[float]:
    """A training loop with nothing around it; the first step is not counted."""
    optimizer = torch.optim.AdamW(model.to(DEVICE).train().parameters(), lr=3e-5, **adam)
    ends = []
    for batch in batches:
        with torch.autocast(DEVICE.type, PRECISION, enabled=ON_GPU):
            loss = loss_of(model, {name: tensor.to(DEVICE) for name, tensor in batch.items()})
        loss.backward()
        if adam:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait_for_device()
        ends.append(now())
    return np.diff(ends).tolist()


def sparse_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean over masked words and the mean over labelled pairs, the head at masked positions alone."""
    outputs = model(**batch)
    gold = batch["labels"].flatten()[batch["masked_positions"]]
    words = SummedCrossEntropy.apply(outputs.prediction_logits.float(), gold) / len(gold)
    return words + F.cross_entropy(outputs.seq_relationship_logits.float(), batch["next_sentence_label"])


def dense_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The stock model's own."""
    return model(**batch).loss


def bare(setting: Setting) -> list[float]:
    """Our model and batches, made before the clock runs."""
    pairs, collator = made_up_pairs(setting), stage_one.RowKeyedMasking(open_tokenizer())
    order = list(EpochSampler(pairs, setting.rows, SEED))
    starts = range(0, setting.rows * (setting.steps + 1), setting.rows)
    batches = [collator([pairs[row] for row in order[start : start + setting.rows]]) for start in starts]
    model = stage_one.SparseBertForPreTraining(bert_config(setting.shape))
    if not ON_GPU:
        use_cpu_dropout(model)  # as the trainer does
        keep_freed_memory()
    return loop_seconds(model, iter(batches), sparse_loss, fused=True)


def padded(setting: Setting) -> list[float]:
    """The tutorial's loop: one row filled up to 512, the head over all positions, plain AdamW."""
    rows, tokenizer = StockRows(made_up_pairs(setting)), open_tokenizer()
    collator = DataCollatorForLanguageModeling(tokenizer, pad_to_multiple_of=TUTORIAL_LENGTH)
    loader = torch.utils.data.DataLoader(rows, batch_size=1, shuffle=True, collate_fn=collator)
    steps = islice((dict(batch) for batch in loader), setting.steps + 1)
    return loop_seconds(BertForPreTraining(bert_config(setting.shape)), steps, dense_loss)


VARIANTS = {"ours": ours, "bare": bare, "stock": stock, TUTORIAL: padded}


def step_seconds(variant: str, *setting: Any) -> list[float]:
    """Of each step, for a process of its own: what ours asks of the allocator is not for the others."""
    return VARIANTS[variant](Setting(*setting))


def step_memory(variant: str, *setting: Any) -> dict[str, float]:
    """The peak of two steps, for a process of its own."""
    return peak_memory(partial(VARIANTS[variant], Setting(*setting)._replace(steps=1)))


def step_costs(*setting: Any) -> dict[str, Any]:
    """The seconds of each step of ours, and the peak, for a process of its own."""
    seconds: list[float] = []
    found = peak_memory(lambda: seconds.extend(ours(Setting(*setting))))
    return found | {"seconds": seconds}


# --- The head alone ---------------------------------------------------------------------------------------------------


def head_seconds(setting: Setting, is_sparse: bool) -> list[float]:
    """Forward and backward of the masked-word head and its loss, on hidden states that are there."""
    model = BertForPreTraining(bert_config(setting.shape)).to(DEVICE)
    torch.manual_seed(0)
    tokens, width = setting.rows * setting.length, model.config.hidden_size
    hidden = torch.randn(tokens, width, device=DEVICE, requires_grad=True)
    positions = torch.randperm(tokens, device=DEVICE)[: round(0.15 * tokens)]
    labels = torch.full((tokens,), -100, device=DEVICE)
    labels[positions] = torch.randint(1000, 30_000, (len(positions),), device=DEVICE)
    ends = [now()]
    for _ in range(setting.steps + 1):
        with torch.autocast(DEVICE.type, PRECISION, enabled=ON_GPU):
            logits = model.cls.predictions(hidden[positions] if is_sparse else hidden)
        F.cross_entropy(logits.float(), labels[positions] if is_sparse else labels).backward()
        model.zero_grad()
        wait_for_device()
        ends.append(now())
        del logits
    return np.diff(ends).tolist()[1:]


def head_memory(is_sparse: bool, *setting: Any) -> dict[str, float]:
    """The peak of two passes through the head, for a process of its own."""
    return peak_memory(partial(head_seconds, Setting(*setting)._replace(steps=1), is_sparse))


# --- Tables -----------------------------------------------------------------------------------------------------------


def step_table(setting: Setting, rounds: int) -> tuple[list[dict[str, Any]], float]:
    """A line a variant, and the rate of plain matrix products, tried between them."""
    pairs = made_up_pairs(setting)
    config, tokens_a_row = bert_config(setting.shape), float(pairs.lengths.mean())
    rates = partial(lambda: [product_rate(setting.shape, setting.rows * setting.length, 0.5)])
    runs = {name: partial(in_fresh_process, __file__, "step_seconds", name, *setting) for name in VARIANTS}
    seconds = by_turns(runs | {"limit": rates}, rounds)
    rate = statistics.median(seconds.pop("limit"))
    table = []
    for name, times in seconds.items():
        is_padded = name == TUTORIAL
        rows = 1 if is_padded else setting.rows
        length = max(TUTORIAL_LENGTH, setting.length) if is_padded else setting.length
        is_ours = name in ("ours", "bare")
        masked_a_row = round(0.15 * tokens_a_row)
        predicted, read = (rows * masked_a_row, 1 + masked_a_row) if is_ours else (rows * length, None)
        step = statistics.median(times)
        share = product_flops(config, rows, length, predicted, config.vocab_size, read) / step / rate
        table.append(
            {
                "variant": name,
                "seconds a step": step,
                "spread": (max(times) - min(times)) / step,
                "steps": len(times),
                "tokens a second": rows * tokens_a_row / step,
                "of the product rate": share,
            }
        )
    first = table[0]["tokens a second"]
    for line in table:
        line["ours is as fast"] = first / line["tokens a second"]
    return table, rate


def memory_table(setting: Setting) -> list[dict[str, Any]]:
    """A line a variant, each in a process of its own; the bare loop's is that of ours."""
    table = []
    for name in ("ours", "stock", TUTORIAL):
        table.append({"variant": name} | in_fresh_process(__file__, "step_memory", name, *setting))
    for line in table:
        line["ours takes"] = table[0]["step_gb"] / line["step_gb"]
    return table


def head_table(setting: Setting, rounds: int) -> list[dict[str, Any]]:
    """Masked positions against all, and what their products would take at the machine's rate."""
    ways = {"masked positions": True, "all positions": False}
    found = by_turns({name: partial(head_seconds, setting, is_sparse) for name, is_sparse in ways.items()}, rounds)
    rate = product_rate(setting.shape, setting.rows * setting.length)
    config, tokens = bert_config(setting.shape), setting.rows * setting.length
    table = []
    for name, times in found.items():
        predicted = round(0.15 * tokens) if name == "masked positions" else tokens
        flops = 6 * predicted * (config.hidden_size**2 + config.hidden_size * config.vocab_size)
        line = {"head over": name, "seconds": statistics.median(times), "products alone": flops / rate}
        table.append(line | in_fresh_process(__file__, "head_memory", ways[name], *setting))
    return table


def main() -> None:
    """A table a length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="minilm", choices=SHAPES)
    parser.add_argument("--length", type=int, nargs="+", default=[128], help="tokens a row")
    parser.add_argument("--rows", type=int, nargs="+", default=[32], help="rows a step, one for each length")
    parser.add_argument("--steps", type=int, default=3, help="measured each time")
    parser.add_argument("--rounds", type=int, default=3, help="times that each variant has its turn")
    parser.add_argument("--measure", nargs="+", default=["step", "head", "memory"], choices=("step", "head", "memory"))
    flags = parser.parse_args()
    if len(flags.length) != len(flags.rows):
        parser.error(f"--rows: {len(flags.rows)} for {len(flags.length)} of --length; give one for each")
    tables: dict[str, list[dict[str, Any]]] = {}
    rates = {}
    for length, rows in zip(flags.length, flags.rows, strict=True):
        setting, what = (
            Setting(flags.shape, length, rows, flags.steps),
            f"{rows} rows of {length} tokens, {flags.shape}",
        )
        if "step" in flags.measure:
            tables[f"A step of {what}"], rate = step_table(setting, flags.rounds)
            rates[f"product_gflops_at_{length}"] = rate / 1e9
        if "head" in flags.measure:
            tables[f"The masked-word head alone, {what}"] = head_table(setting, flags.rounds)
        if "memory" in flags.measure:
            tables[f"Memory of a step of {what}"] = memory_table(setting)
    name = "-".join(["stage_one", flags.shape, *map(str, flags.length), *flags.measure])
    report(name, tables, rounds=flags.rounds, **rates)


if __name__ == "__main__":
    main()
