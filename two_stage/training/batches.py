"""Which rows make a step, in which order, and how they become a batch: by (seed, epoch), and by no process."""

from collections.abc import Iterator, Sized
from itertools import count
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import Sampler

from two_stage.command_line.exits import say
from two_stage.training.training_arguments import FineTuningArguments, planned_steps

POOL_STEPS = 50  # rows are sorted by length within pools of 50 steps: little padding, and still a random order


class EpochSampler(Sampler[int]):
    """The order of one epoch's rows: shuffled by (seed, epoch), rows of like length in one step.

    The order knows only the rows of a whole global step, not how they are cut into batches, so every way to cut them
    sees the same rows in the same step. The last step is filled up with rows from the epoch's start.
    """

    def __init__(self, dataset: Sized, step_rows: int, seed: int) -> None:
        self.dataset, self.step_rows, self.seed, self.epoch = dataset, step_rows, seed, 0

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.step_rows) * self.step_rows

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        yield from grouped_order(row_lengths(self.dataset), self.step_rows, rng).tolist()


def grouped_order(lengths: np.ndarray, step_rows: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of rows in which those of a step are of like length.

    Args:
        lengths: tokens of each row: int (rows,).
        step_rows: rows of one step.
        rng: of the order.

    Returns:
        Row numbers: int (steps × step_rows,); the last step is filled up with rows from the order's start.
    """
    steps = -(-len(lengths) // step_rows)
    order = np.resize(rng.permutation(len(lengths)), steps * step_rows)
    pool = np.arange(len(order)) // (POOL_STEPS * step_rows)
    order = order[np.lexsort((-lengths[order], pool))]  # by pool, and longest first within it
    return rng.permutation(order.reshape(-1, step_rows)).ravel()


def row_lengths(dataset: Any) -> np.ndarray:
    """The number of tokens of each row, without reading the tokens."""
    if hasattr(dataset, "lengths"):
        return np.asarray(dataset.lengths)
    import pyarrow.compute

    table = dataset.select_columns("input_ids").with_format("arrow")[:]
    return pyarrow.compute.list_value_length(table["input_ids"]).to_numpy()


def longest_first(rows: Dataset) -> Dataset:
    """The rows by length, so that those of like length share a batch; each knows whose it is."""
    return rows.select(np.argsort(row_lengths(rows), kind="stable")[::-1])


def repeated_rows(rows: Dataset, training: FineTuningArguments) -> Dataset:
    """The rows of an epoch: each once, or as often as --min_steps asks for, which is said.

    On few rows, runs of the usual epochs end before they have learned, and differ by luck (Mosbach et al. 2021, On the
    stability of fine-tuning BERT, section 6). All that goes by epochs or by shares of the run keeps its meaning.

    Args:
        rows: to train on.
        training: its num_train_epochs over what is returned make min_steps optimizer steps at least.

    Returns:
        `rows` itself where they are enough; else whole copies of it, one behind the other, by number alone.
    """
    if training.num_train_epochs <= 0 or planned_steps(len(rows), training) >= training.min_steps:
        return rows
    copies = next(n for n in count(2) if planned_steps(n * len(rows), training) >= training.min_steps)
    steps = planned_steps(copies * len(rows), training)
    say(f"--min_steps {training.min_steps}: an epoch goes over the rows {copies:,} times, which makes {steps:,} steps")
    return rows.select(np.tile(np.arange(len(rows)), copies))


def pad_rows(rows: list[dict[str, Any]], padding: dict[str, int], fixed: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Stack rows into a batch as long as its longest row.

    Args:
        rows: each maps a name to a list or tensor of that row's tokens, or, for names in `fixed`, to one number or to a
            list as long in every row.
        padding: for each token-long name the value that fills it up.
        fixed: names of one number a row, or of so many.

    Returns:
        Tensors of shape (rows, longest), `attention_mask` among them, and (rows,) or (rows, so many) for the names in
        `fixed`.
    """
    batch = {
        name: nn.utils.rnn.pad_sequence(
            [torch.as_tensor(row[name], dtype=torch.long) for row in rows], batch_first=True, padding_value=value
        )
        for name, value in padding.items()
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return batch | {name: torch.tensor([row[name] for row in rows]) for name in fixed}
