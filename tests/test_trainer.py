"""The order of rows: every row of every epoch, the same for every way to cut a step, like lengths together."""

import itertools

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import run_sentiment
from two_stage.trainer import EpochSampler, pad_rows, row_lengths


class Rows:
    """Rows that have nothing but lengths."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths)

    def __len__(self) -> int:
        return len(self.lengths)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=300), step=st.integers(1, 40), epoch=st.integers(0, 3))
def test_an_epoch_holds_every_row(lengths: list[int], step: int, epoch: int) -> None:
    """Whole steps; every row once, but for those that fill up the last step; again the same when asked again."""
    sampler = EpochSampler(Rows(lengths), step, seed=1)
    sampler.epoch = epoch
    order = list(sampler)
    assert len(order) == len(sampler)
    assert len(order) % step == 0
    assert len(order) - len(lengths) < step
    counts = np.bincount(order, minlength=len(lengths))
    assert counts.min() >= 1
    assert counts.max() <= -(-len(order) // len(lengths))
    assert order == list(sampler)


def test_epochs_and_seeds_differ() -> None:
    """Another epoch or seed, another order."""
    orders = []
    for seed, epoch in itertools.product((1, 2), (0, 1)):
        sampler = EpochSampler(Rows([5] * 100), 10, seed)
        sampler.epoch = epoch
        orders.append(tuple(sampler))
    assert len(set(orders)) == 4


def test_like_lengths_share_a_step() -> None:
    """Padding falls from a third of all tokens, in random order, to under 3 %."""
    lengths = np.random.default_rng(0).integers(5, 64, 5000)
    steps = lengths[list(EpochSampler(Rows(lengths.tolist()), 32, seed=1))].reshape(-1, 32)
    assert 1 - steps.sum() / (steps.max(axis=1) * 32).sum() < 0.03
    at_random = np.resize(lengths, (157, 32))
    assert 1 - at_random.sum() / (at_random.max(axis=1) * 32).sum() > 0.3


def test_lengths_are_those_of_the_rows() -> None:
    """Also behind a selection, which datasets keeps as a list of indices."""
    rows = Dataset.from_dict({"input_ids": [[1] * n for n in (3, 1, 4, 1, 5)], "labels": range(5)})
    assert row_lengths(rows).tolist() == [3, 1, 4, 1, 5]
    assert row_lengths(rows.select([4, 0])).tolist() == [5, 3]


def test_padding_by_hand() -> None:
    """Two rows of three and one tokens."""
    rows = [{"input_ids": [7, 8, 9], "labels": 2}, {"input_ids": [5], "labels": 0}]
    batch = pad_rows(rows, {"input_ids": 0}, fixed=("labels",))
    assert batch["input_ids"].tolist() == [[7, 8, 9], [5, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("text", "cell"),
    [("=1+2", "'=1+2"), ("+3%", "'+3%"), ("-5", "'-5"), ("@x", "'@x"), ("\tx", "'\tx"), ("x=1", "x=1"), ("", "")],
)
def test_no_cell_is_a_formula(text: str, cell: str) -> None:
    """What a spreadsheet would run gets a ' in front."""
    assert run_sentiment.safe_cell(text) == cell
