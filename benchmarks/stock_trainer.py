"""What transformers' own Trainer does, beside the table of tests/README.md: `python benchmarks/stock_trainer.py`.

A small BertForPreTraining on the quickstart's corpus, under Trainer and DataCollatorForLanguageModeling as they come,
in under two minutes on one core. Nothing here is ours but the faults.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

QUICKSTART = Path(__file__).parent.parent / "recipes" / "quickstart"
# the order in which Trainer writes a checkpoint; a kill leaves those before it, and perhaps half of one
WRITTEN = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
KILLS = [
    (0, True),
    (1, False),
    (1, True),
    (2, False),
    (3, False),
    (4, False),
    (4, True),
]  # files there, half a next one


class CutOff(BaseException):
    """As kill -9."""


class CutAt(TrainerCallback):
    """Cuts a run off when a step begins."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Steps are counted from 0."""
        if state.global_step == self.step:
            raise CutOff


class BrokenLoss(Trainer):
    """A loss that is no number, once."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """NaN at the third step."""
        loss = super().compute_loss(*args, **kwargs)
        return loss * math.nan if self.state.global_step == 2 else loss


class Stock:
    """The same tiny model and rows for every trainer."""

    def __init__(self, folder: Path, dropout: float = 0.0) -> None:
        self.folder, self.dropout = folder, dropout
        self.tokenizer = AutoTokenizer.from_pretrained(QUICKSTART / "tiny-bert", trust_remote_code=False)
        lines = (QUICKSTART / "data" / "corpus.txt").read_text(encoding="utf-8").split("\n")
        self.lines = [line for line in lines if line][:64]

    def trainer(
        self,
        name: str,
        batch: int = 8,
        accumulation: int = 1,
        model_class: type[PreTrainedModel] = BertForPreTraining,
        trainer_class: type[Trainer] = Trainer,
        **options: Any,
    ) -> Trainer:
        """A trainer of six steps in a folder of this name."""
        config = BertConfig.from_pretrained(QUICKSTART / "tiny-bert", num_labels=3)
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = self.dropout
        set_seed(0)
        arguments = TrainingArguments(
            str(self.folder / name), use_cpu=True, per_device_train_batch_size=batch, logging_steps=1, max_steps=6,
            gradient_accumulation_steps=accumulation, save_steps=2, disable_tqdm=True, report_to="none",
            learning_rate=1e-3, lr_scheduler_type="constant", **options,
        )  # fmt: skip
        made = trainer_class(model_class(config), arguments, self.collator(model_class), self.rows(model_class))
        made.remove_callback(PrinterCallback)
        return made

    def rows(self, model_class: type[PreTrainedModel]) -> list[dict[str, Any]]:
        """Rows of one length, with the labels that the class wants."""
        rows = []
        for place, line in enumerate(self.lines):
            row = dict(self.tokenizer(line, truncation=True, padding="max_length", max_length=32))
            if model_class is BertForPreTraining:
                row["next_sentence_label"] = place % 2
            else:
                is_words = model_class is BertForTokenClassification
                row["labels"] = [place % 3] * 32 if is_words else place % 3
            rows.append(row)
        return rows

    def collator(self, model_class: type[PreTrainedModel]) -> Any:
        """Transformers' own for this class."""
        if model_class is BertForPreTraining:
            return DataCollatorForLanguageModeling(self.tokenizer, seed=1)
        is_words = model_class is BertForTokenClassification
        return (
            DataCollatorForTokenClassification(self.tokenizer) if is_words else DataCollatorWithPadding(self.tokenizer)
        )


def first_step(trainer: Trainer) -> tuple[float, float]:
    """Loss and gradient norm that are logged of the first step."""
    trainer.train()
    entry = trainer.state.log_history[0]
    return entry["loss"], entry["grad_norm"]


def accumulation(stock: Stock) -> dict[str, Any]:
    """How loss and gradient grow with accumulation, where they should not."""
    ratios = {}
    for model_class in (BertForPreTraining, BertForSequenceClassification, BertForTokenClassification):
        name = model_class.__name__
        whole = first_step(stock.trainer(f"{name}-8", model_class=model_class, save_strategy="no"))
        parts = first_step(stock.trainer(f"{name}-2", 2, 4, model_class=model_class, save_strategy="no"))
        ratios[name] = [round(part / one, 3) for part, one in zip(parts, whole, strict=True)]
    return ratios


def processes(stock: Stock) -> list[float] | str:
    """The same with two processes, by torchrun."""
    whole = first_step(stock.trainer("one", model_class=BertForSequenceClassification, save_strategy="no"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = stock.folder / "two.json"
    subprocess.run([*launch, "--of_two", str(output)], check=True, capture_output=True, env=environment, timeout=300)
    parts = json.loads(output.read_text(encoding="ascii"))
    return [round(part / one, 3) for part, one in zip(parts, whole, strict=True)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The final weights of a run."""
    return load_file(folder / "model.safetensors")


def resumed(stock: Stock) -> float:
    """The largest difference between the weights of a masked-word run that was cut off and one that was not."""
    whole = stock.trainer("whole")
    whole.train()
    cut = stock.trainer("cut")
    cut.add_callback(CutAt(3))
    with suppress(CutOff):
        cut.train()
    again = stock.trainer("cut")
    again.train(resume_from_checkpoint=True)
    pairs = zip(whole.model.parameters(), again.model.parameters(), strict=True)
    return max((one - other).abs().max().item() for one, other in pairs)


def killed(stock: Stock) -> list[int]:
    """How many of the kills during a save a run recovers from by itself, and of how many."""
    stock.trainer("saved").train()
    recovered = 0
    for number, (files, has_half) in enumerate(KILLS):
        run = stock.folder / f"killed-{number}"
        shutil.copytree(stock.folder / "saved", run)
        shutil.rmtree(run / "checkpoint-6")
        for path in (run / "checkpoint-4" / name for name in WRITTEN[files + has_half :]):
            path.unlink()
        if has_half:
            path = run / "checkpoint-4" / WRITTEN[files]
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        recovered += succeeds(lambda name=run.name: again_exactly(stock, name))
    return [recovered, len(KILLS)]


def again_exactly(stock: Stock, name: str) -> None:
    """The same command again, as a script has it that asks for the last checkpoint."""
    trainer = stock.trainer(name)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(trainer.args.output_dir))


def succeeds(work: Callable[[], None]) -> bool:
    """Whether it raises nothing."""
    try:
        work()
    except Exception:
        return False
    return True


def finished_again(stock: Stock) -> int:
    """The steps of a finished run of six that is started once more."""
    stock.trainer("finished").train()
    again = stock.trainer("finished")
    again.train(resume_from_checkpoint=True)
    return again.state.global_step


def broken_loss(stock: Stock) -> dict[str, Any]:
    """What a single NaN makes of a run."""
    trainer = stock.trainer("broken", trainer_class=BrokenLoss)
    trainer.train()
    trainer.save_model()
    tensors = weights(stock.folder / "broken")
    share = sum(int((~t.isfinite()).sum()) for t in tensors.values()) / sum(t.numel() for t in tensors.values())
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"raised": False, "logged losses": logged, "share of saved weights that are NaN": round(share, 3)}


def main() -> None:
    """Measure all of it and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of_two", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stock = Stock(Path(folder))
        if options.of_two:
            found = first_step(stock.trainer("two", 4, model_class=BertForSequenceClassification, save_strategy="no"))
            if int(os.environ["RANK"]) == 0:
                options.of_two.write_text(json.dumps(found), encoding="ascii")
            return
        made: dict[str, Any] = {"R1 loss and gradient, 2 x 4 against 8 x 1": accumulation(stock)}
        made["R2 loss and gradient, two processes against one"] = processes(stock)
        stock.dropout = 0.1
        made["R3 largest weight difference after a resume"] = resumed(stock)
        made["R4 kills during a save that it recovers from"] = killed(stock)
        made["R9 steps of a finished run of 6, started again"] = finished_again(stock)
        made["R10 one NaN"] = broken_loss(stock)
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
