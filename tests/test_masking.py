"""Masks: drawn row by row from the row's key, 15 % of the pieces, 80/10/10, never a special token."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import run_pretraining as stage_one


@pytest.fixture(scope="module")
def collator(tiny_folder: Path) -> stage_one.RowKeyedMasking:
    """The product's collator over the tiny tokenizer."""
    return stage_one.RowKeyedMasking(AutoTokenizer.from_pretrained(tiny_folder), mlm_probability=0.15)


def made_up_rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Rows as SentencePairs gives them."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        ids = np.concatenate([[2], rng.integers(5, 90, rng.integers(4, 20)), [3], rng.integers(5, 90, 9), [3]])
        rows.append({"input_ids": ids, "token_type_ids": 0 * ids, "next_sentence_label": i % 2, "mask_key": 2**63 + i})
    return rows


def test_masks_do_not_know_their_batch(collator: stage_one.RowKeyedMasking) -> None:
    """A row is masked alike alone, in any batch, and again."""
    rows = made_up_rows(12)
    together = collator(rows)
    for i, row in enumerate(rows):
        alone, length = collator([row]), len(row["input_ids"])  # type: ignore[arg-type]
        for name in ("input_ids", "labels"):
            assert torch.equal(together[name][i, :length], alone[name][0])
    assert torch.equal(together["labels"], collator(rows)["labels"])


def test_another_key_gives_another_mask(collator: stage_one.RowKeyedMasking) -> None:
    """The key, and nothing else, decides."""
    row = made_up_rows(1)[0]
    masks = {tuple(collator([{**row, "mask_key": key}])["labels"][0].tolist()) for key in range(20)}
    assert len(masks) > 10


def test_padding_is_masked_out(collator: stage_one.RowKeyedMasking) -> None:
    """Padding has attention 0, type 0, label -100, and the rows are as given where nothing is masked."""
    rows = made_up_rows(8)
    batch = collator(rows)
    for i, row in enumerate(rows):
        ids = torch.from_numpy(row["input_ids"])  # type: ignore[arg-type]
        assert batch["attention_mask"][i].tolist() == [1] * len(ids) + [0] * (batch["labels"].shape[1] - len(ids))
        assert batch["labels"][i, len(ids) :].eq(-100).all()
        assert batch["input_ids"][i, len(ids) :].eq(0).all()
        kept = batch["labels"][i, : len(ids)] == -100
        assert torch.equal(batch["input_ids"][i, : len(ids)][kept], ids[kept])
        assert torch.equal(batch["labels"][i, : len(ids)][~kept], ids[~kept])


def test_shares_and_special_tokens(collator: stage_one.RowKeyedMasking) -> None:
    """Over 3,000 rows: 15 % of the pieces; of those 80 % [MASK], 10 % kept; [CLS] and [SEP] never; [UNK] may be."""
    rows = made_up_rows(3000)
    for row in rows:
        row["input_ids"][2] = 1  # type: ignore[index]
    batch = collator(rows)
    ids, labels = batch["input_ids"], batch["labels"]
    masked = labels != -100
    pieces = batch["attention_mask"].sum() - 3 * len(rows)
    assert masked.sum() / pieces == pytest.approx(0.15, abs=0.005)
    assert not torch.isin(labels[masked], torch.tensor([0, 2, 3, 4])).any()
    assert labels[:, 2].eq(1).float().mean() == pytest.approx(0.15, abs=0.03)
    assert ids[masked].eq(4).float().mean() == pytest.approx(0.8, abs=0.02)
    assert ids[masked].eq(labels[masked]).float().mean() == pytest.approx(0.1, abs=0.015)
