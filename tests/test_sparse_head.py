"""The head at masked positions alone gives the loss and the gradient that the whole head gives."""

from pathlib import Path

import pytest
import torch
from transformers import BertForPreTraining

import run_pretraining as stage_one


def made_up_batch(masked: float, vocabulary: int) -> dict[str, torch.Tensor]:
    """Four rows of twelve tokens, some of them padding."""
    torch.manual_seed(1)
    ids = torch.randint(5, vocabulary, (4, 12))
    labels = torch.where(torch.rand(4, 12) < masked, torch.randint(5, vocabulary, (4, 12)), -100)
    attention = torch.ones_like(ids)
    attention[2, 7:], labels[2, 7:] = 0, -100
    types = (torch.arange(12) > 5).long().expand(4, 12)
    return {
        "input_ids": ids,
        "token_type_ids": types,
        "attention_mask": attention,
        "labels": labels,
        "next_sentence_label": torch.tensor([0, 1, 1, 0]),
    }


@pytest.mark.parametrize("masked", [0.15, 0.8])
def test_sparse_equals_dense(tiny_folder: Path, masked: float) -> None:
    """Loss and every gradient equal transformers' own BertForPreTraining."""
    dense = BertForPreTraining.from_pretrained(tiny_folder).train()
    sparse = stage_one.SparseBertForPreTraining.from_pretrained(tiny_folder).train()
    batch = made_up_batch(masked, dense.config.vocab_size)
    expected = dense(**batch).loss
    outputs = sparse(**batch)
    gold = batch["labels"][batch["labels"] != -100]
    assert outputs.prediction_logits.shape == (len(gold), dense.config.vocab_size)
    words = torch.nn.functional.cross_entropy(outputs.prediction_logits, gold)
    loss = words + torch.nn.functional.cross_entropy(outputs.seq_relationship_logits, batch["next_sentence_label"])
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    expected.backward()
    loss.backward()
    for (name, a), (_, b) in zip(dense.named_parameters(), sparse.named_parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_a_batch_without_a_masked_word_has_a_gradient(tiny_folder: Path) -> None:
    """No NaN, and every parameter still takes part, as data-parallel training needs."""
    model = stage_one.SparseBertForPreTraining.from_pretrained(tiny_folder).train()
    batch = made_up_batch(0.0, model.config.vocab_size)
    outputs = model(**batch)
    words = torch.nn.functional.cross_entropy(outputs.prediction_logits, batch["labels"][:0, 0], reduction="sum")
    pairs = torch.nn.functional.cross_entropy(outputs.seq_relationship_logits, batch["next_sentence_label"])
    (words + pairs).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_without_labels_every_position_is_predicted(tiny_folder: Path) -> None:
    """As BertForPreTraining itself does, for users who fill in masks."""
    dense = BertForPreTraining.from_pretrained(tiny_folder).eval()
    sparse = stage_one.SparseBertForPreTraining.from_pretrained(tiny_folder).eval()
    ids = torch.randint(5, 50, (2, 9))
    torch.testing.assert_close(sparse(ids).prediction_logits, dense(ids).prediction_logits)


def test_saved_folder_names_the_stock_class(tiny_folder: Path, tmp_path: Path) -> None:
    """What is saved loads as BertForPreTraining, tensor for tensor, and says so in its config."""
    sparse = stage_one.SparseBertForPreTraining.from_pretrained(tiny_folder)
    sparse.save_pretrained(tmp_path)
    loaded, info = BertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.config.architectures == ["BertForPreTraining"]
    assert not info["unexpected_keys"]
    for name, tensor in sparse.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
