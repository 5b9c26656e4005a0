"""The head at masked positions alone gives the loss, the gradient and the scores that the whole head gives."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import BertForPreTraining

import run_pretraining as stage_one
from two_stage.scoring.scores import PretrainingScores

Batch = dict[str, torch.Tensor]
POSITIONS = ("masked_positions", "read_positions", "masked_reads")
LABELS = {"all rows labelled": [0, 1, 1, 0], "two rows": [-100, 1, -100, 0], "none": [-100] * 4}


def made_up_batch(masked: float, vocabulary: int, next_sentences: list[int]) -> Batch:
    """Four rows of twelve tokens, some of them padding, as the collator gives them."""
    torch.manual_seed(1)
    ids = torch.randint(5, vocabulary, (4, 12))
    labels = torch.where(torch.rand(4, 12) < masked, torch.randint(5, vocabulary, (4, 12)), -100)
    attention = torch.ones_like(ids)
    attention[2, 7:], labels[2, 7:] = 0, -100
    labels[1] = -100  # a row may have nothing to predict
    types = (torch.arange(12) > 5).long().expand(4, 12)
    return {
        "input_ids": ids,
        "token_type_ids": types,
        "attention_mask": attention,
        "labels": labels,
        "next_sentence_label": torch.tensor(next_sentences),
        **stage_one.positions_to_read(labels != -100),
    }


def without_positions(batch: Batch) -> Batch:
    """What the stock class takes, which looks at all."""
    return {name: tensor for name, tensor in batch.items() if name not in POSITIONS}


def stock_loss(model: BertForPreTraining, batch: Batch) -> torch.Tensor:
    """What transformers' own class computes; where it has nothing to take a mean of, it gives NaN, and here 0."""
    stock = without_positions(batch)
    if batch["next_sentence_label"].ne(-100).any() and batch["labels"].ne(-100).any():
        return model(**stock).loss
    words, sentences = model(**stock)[1:3]
    losses = [
        F.cross_entropy(logits.flatten(0, -2), gold.flatten())
        for logits, gold in ((words, batch["labels"]), (sentences, batch["next_sentence_label"]))
        if gold.ne(-100).any()
    ]
    return sum(losses, 0 * sentences.sum())


@pytest.fixture
def trainer(tiny_folder: Path, tmp_path: Path) -> stage_one.PretrainingTrainer:
    """The product's trainer over its own model, on a CPU."""
    model = stage_one.SparseBertForPreTraining.from_pretrained(tiny_folder).train()
    training = stage_one.PretrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    return stage_one.PretrainingTrainer(model=model, args=training, data_collator=lambda rows: rows)


@pytest.mark.parametrize("masked", [0.15, 0.8])
@pytest.mark.parametrize("next_sentences", LABELS.values(), ids=LABELS)
def test_sparse_equals_dense(
    tiny_folder: Path, trainer: stage_one.PretrainingTrainer, masked: float, next_sentences: list[int]
) -> None:
    """Loss and every gradient equal transformers' own, whichever rows have a next-sentence label."""
    dense, sparse = BertForPreTraining.from_pretrained(tiny_folder).train(), trainer.model
    batch = made_up_batch(masked, dense.config.vocab_size, next_sentences)
    outputs = sparse(**batch)
    assert outputs.prediction_logits.shape == (len(batch["masked_positions"]), dense.config.vocab_size)
    assert outputs.loss is None  # a loss needs the counts of the whole step
    items = trainer.count_items(batch)
    assert items.tolist() == [len(batch["masked_positions"]), sum(label != -100 for label in next_sentences)]
    loss, expected = trainer.compute_loss(sparse, batch, num_items_in_batch=items), stock_loss(dense, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    expected.backward()
    loss.backward()
    for (name, a), (_, b) in zip(dense.named_parameters(), sparse.named_parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("next_sentences", [LABELS["all rows labelled"], LABELS["none"]], ids=["labelled", "none"])
def test_a_batch_without_a_masked_word_has_a_gradient(
    trainer: stage_one.PretrainingTrainer, next_sentences: list[int]
) -> None:
    """No NaN, and every parameter still takes part, as data-parallel training needs."""
    model = trainer.model
    batch = made_up_batch(0.0, model.config.vocab_size, next_sentences)
    loss = trainer.compute_loss(model, batch, num_items_in_batch=trainer.count_items(batch))
    assert loss.isfinite()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("next_sentences", LABELS.values(), ids=LABELS)
def test_row_results_equal_the_dense_logits(
    tiny_folder: Path, trainer: stage_one.PretrainingTrainer, next_sentences: list[int]
) -> None:
    """Each row's six sums, one word at a time from transformers' own logits, and the scores that they add up to."""
    dense = BertForPreTraining.from_pretrained(tiny_folder).eval()
    batch = made_up_batch(0.4, dense.config.vocab_size, next_sentences)
    with torch.no_grad():
        rows, label_ids = trainer.row_results(trainer.model.eval(), batch)
        stock = without_positions(batch)
        words, sentences = dense(**stock)[1:3]
        expected_loss = stock_loss(dense, batch)
    expected = []
    for row in range(4):
        sums = [0.0] * 6
        for place, gold in enumerate(batch["labels"][row].tolist()):
            if gold != -100:
                sums[0] += 1
                sums[1] -= words[row, place].log_softmax(-1)[gold].item()
                sums[2] += words[row, place].argmax().item() == gold
        if next_sentences[row] != -100:
            sums[3] = 1
            sums[4] = -sentences[row].log_softmax(-1)[next_sentences[row]].item()
            sums[5] = float(sentences[row].argmax().item() == next_sentences[row])
        expected.append(sums)
    torch.testing.assert_close(rows, torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert label_ids.shape[0] == 4
    scores = PretrainingScores(keep_in_memory=True).compute(rows=rows.tolist())
    assert scores["loss"] == pytest.approx(expected_loss.item(), rel=1e-5)


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
