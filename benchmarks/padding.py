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


def texts_a_second(flags: list[str], length: int | None) -> float:
    """Of a run of so many steps; None pads to the batch."""
    run_sentiment.collate = collate if length is None else partial(collate_fixed, length=length)
    with TemporaryDirectory() as folder:
        aside = ["--max_steps", str(STEPS), "--save_strategy", "no", "--max_length", "128"]
        return run_sentiment.main([*flags, *aside, "--output_dir", f"{folder}/run"])["train_samples_per_second"]


def main(flags: list[str]) -> None:
    """Print a table of the ways."""
    rates = {length: texts_a_second(flags, length) for length in (None, *FIXED)}
    print("\n| padded to | texts a second | times as fast padded to its batch |\n|---|---|---|")
    for length, rate in rates.items():
        print(f"| {length or 'its batch'} | {rate:.1f} | {rates[None] / rate:.1f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
