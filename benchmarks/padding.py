"""Training texts a second: padded to their batch, as run_sentiment.py does it, against padded to a fixed length.

    python benchmarks/padding.py --checkpoint DIR --train_file labelled.csv --labels negative neutral positive

Takes the flags of run_sentiment.py. Each way trains the same rows in the same order; only the padding differs.
"""

import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone with no install

import run_sentiment
from two_stage.labelled_texts import collate

STEPS = 6
FIXED = (128, 512)  # what tutorials pad to: a usual maximum, and BERT's own


def collate_fixed(examples: list[dict[str, Any]], pad_token_id: int, length: int) -> dict[str, Tensor]:
    """A batch as long as `length`, whatever its texts are."""
    batch = collate(examples, pad_token_id)
    for name, value in {"input_ids": pad_token_id, "attention_mask": 0, "token_type_ids": 0}.items():
        if name in batch:
            batch[name] = torch.nn.functional.pad(batch[name], (0, length - batch[name].shape[1]), value=value)
    return batch


def texts_a_second(flags: list[str], length: int | None) -> tuple[float, float]:
    """Of a run of so many steps, and the share of padding in what it computed; None pads to the batch."""
    masks: list[Tensor] = []

    def watched(examples: list[dict[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        fixed = partial(collate_fixed, length=length) if length else collate
        batch = fixed(examples, pad_token_id=pad_token_id)
        masks.append(batch["attention_mask"])
        return batch

    run_sentiment.collate = watched
    with TemporaryDirectory() as folder:
        aside = ["--max_steps", str(STEPS), "--save_strategy", "no", "--max_length", "128"]
        scores = run_sentiment.main([*flags, *aside, "--output_dir", f"{folder}/run"])
    padding = 1 - sum(mask.sum().item() for mask in masks) / sum(mask.numel() for mask in masks)
    return scores["train_samples_per_second"], padding


def main(flags: list[str]) -> None:
    """Print a table of the ways."""
    rates = {length: texts_a_second(flags, length) for length in (None, *FIXED)}
    print("\n| padded to | padding | texts a second | times as fast padded to its batch |\n|---|---|---|---|")
    for length, (rate, padding) in rates.items():
        print(f"| {length or 'its batch'} | {padding:.1%} | {rate:.1f} | {rates[None][0] / rate:.1f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
