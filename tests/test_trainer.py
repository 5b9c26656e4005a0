"""The order of rows, the same for every way to cut a step; and the optimizer's groups, each at its own rate."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForPreTraining

import run_pretraining
from two_stage.command_line.exits import Refusal
from two_stage.training.batches import EpochSampler, pad_rows, repeated_rows, row_lengths
from two_stage.training.resumable import ResumableCallback
from two_stage.training.trainer import ExactTrainer
from two_stage.training.training_arguments import ExactTrainingArguments, FineTuningArguments, planned_steps


class Rows:
    """Rows that have nothing but lengths."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths)

    def __len__(self) -> int:
        return len(self.lengths)


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


def test_each_process_draws_its_own_dropout() -> None:
    """All are seeded alike; a process alone, and the first of several, draw what they always drew."""
    trainer = SimpleNamespace(take_up_losses=lambda: None, find_best_checkpoint=lambda: None)
    draws = []
    for rank in range(3):
        torch.manual_seed(42)
        ResumableCallback(trainer).on_train_begin(SimpleNamespace(process_index=rank, seed=42), None, None)
        draws.append(tuple(torch.rand(8).tolist()))
    torch.manual_seed(42)
    assert draws[0] == tuple(torch.rand(8).tolist())
    assert len(set(draws)) == 3


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


# --- Few rows, many steps ---------------------------------------------------------------------------------------------


def naive_steps(rows: int, step_rows: int, epochs: float) -> int:
    """Trainer's own count: steps an epoch, the last one filled up, times epochs, a part of an epoch rounded up."""
    steps = 0
    for first in range(0, rows, step_rows):
        steps += first < rows
    return math.ceil(epochs * steps)


@pytest.mark.slow
@given(
    rows=st.integers(1, 50),
    batch=st.integers(1, 8),
    accumulation=st.integers(1, 3),
    epochs=st.sampled_from([0.1, 0.3, 0.5, 1.0, 2.5, 3.0, 4.0]),
    least=st.integers(0, 120),
)
def test_rows_are_repeated_just_often_enough(
    rows: int, batch: int, accumulation: int, epochs: float, least: int
) -> None:
    """Whole copies, as few as make the steps; rows enough are the very rows."""
    data = Dataset.from_dict({"input_ids": [[i] * (i % 5 + 1) for i in range(rows)]})
    training = SimpleNamespace(rows_a_step=batch * accumulation, num_train_epochs=epochs, max_steps=-1, min_steps=least)
    made = repeated_rows(data, training)  # type: ignore[arg-type]
    copies = len(made) // rows
    assert made["input_ids"][:] == data["input_ids"][:] * copies
    assert planned_steps(len(made), training) == naive_steps(len(made), batch * accumulation, epochs) >= least  # type: ignore[arg-type]
    assert (made is data) == (copies == 1)
    if copies > 1:
        assert naive_steps((copies - 1) * rows, batch * accumulation, epochs) < least
    assert row_lengths(made).tolist() == row_lengths(data).tolist() * copies


def test_repeating_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """How often, and how many steps it makes; nothing where the rows are enough."""
    data = Dataset.from_dict({"input_ids": [[1]] * 10})
    training = SimpleNamespace(rows_a_step=4, num_train_epochs=2.0, max_steps=-1, min_steps=6)
    assert repeated_rows(data, training) is data  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""
    training.min_steps = 11  # 30 rows are 8 steps an epoch; 20 rows, 5, were one too few in all
    assert len(repeated_rows(data, training)) == 30  # type: ignore[arg-type]
    expected = "--min_steps 11: an epoch goes over the rows 3 times, which makes 16 steps"
    assert capsys.readouterr().out == f"{expected}\n"


def test_no_epoch_is_repeated_for_ever() -> None:
    """Zero epochs train nothing, however often the rows stand there."""
    data = Dataset.from_dict({"input_ids": [[1]] * 3})
    training = SimpleNamespace(rows_a_step=4, num_train_epochs=0.0, max_steps=-1, min_steps=6)
    assert repeated_rows(data, training) is data  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ({"min_steps": -1}, "--min_steps -1: must be at least 0"),
        ({"min_steps": 5, "max_steps": 5}, "--min_steps and --max_steps: give one or the other"),
        ({"freeze_encoder": True, "freeze_layers": 1}, "--freeze_encoder and --freeze_layers: "),
        ({"freeze_encoder": True, "unfreeze_epochs": 1.0}, "--freeze_encoder and --unfreeze_epochs: "),
    ],
)
def test_flags_of_fine_tuning_that_exclude_each_other(tmp_path: Path, flags: dict[str, Any], found: str) -> None:
    """Each is refused in one line; alone, each would do."""
    with pytest.raises(Refusal, match=found):
        FineTuningArguments(output_dir=str(tmp_path), use_cpu=True, **flags)
    if "must be" not in found:
        for name, value in flags.items():
            FineTuningArguments(output_dir=str(tmp_path), use_cpu=True, **{name: value})


# --- Parameter groups -------------------------------------------------------------------------------------------------


@pytest.fixture
def four_layers() -> BertForPreTraining:
    """A random BERT of four layers with all of stage one's heads."""
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 16}
    return BertForPreTraining(BertConfig(vocab_size=30, num_hidden_layers=4, **sizes))


def groups_of(model: BertForPreTraining, folder: Path, **flags: Any) -> dict[str, tuple[float, float]]:
    """Each parameter's learning rate and weight decay in the optimizer that the trainer makes.

    Fails where a parameter is in two groups or a group is empty.
    """
    defaults = {"learning_rate": 1e-4, "weight_decay": 0.01, "use_cpu": True, "report_to": []}
    training = ExactTrainingArguments(output_dir=str(folder), **defaults | flags)
    optimizer = ExactTrainer(model=model, args=training, data_collator=list).create_optimizer()
    assert all(group["params"] for group in optimizer.param_groups)
    assert len({group["name"] for group in optimizer.param_groups}) == len(optimizer.param_groups)
    listed = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(set(listed)) == len(listed)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("decay", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("head_rate", [None, 3e-3])
def test_learning_rates_by_hand(
    four_layers: BertForPreTraining, tmp_path: Path, decay: float, head_rate: float | None
) -> None:
    """Top layer and pooler at the full rate, each layer below at `decay` of the one above, the embeddings below all."""
    found = groups_of(four_layers, tmp_path, layer_decay=decay, head_learning_rate=head_rate)
    assert found.keys() == dict(four_layers.named_parameters()).keys()
    expected = {
        "bert.embeddings.": 1e-4 * decay**4,
        "bert.encoder.layer.0.": 1e-4 * decay**3,
        "bert.encoder.layer.1.": 1e-4 * decay**2,
        "bert.encoder.layer.2.": 1e-4 * decay,
        "bert.encoder.layer.3.": 1e-4,
        "bert.pooler.": 1e-4,
        "cls.": head_rate or 1e-4,
    }
    for name, (rate, weight_decay) in found.items():
        assert rate == pytest.approx(next(rate for start, rate in expected.items() if name.startswith(start))), name
        assert weight_decay == (0.0 if name.endswith(".bias") or "LayerNorm" in name else 0.01), name


def test_ten_layers_and_more_are_told_apart(tmp_path: Path) -> None:
    """Layer 1 is not layer 11."""
    sizes = {"hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4, "max_position_embeddings": 4}
    deep = BertForPreTraining(BertConfig(vocab_size=9, num_hidden_layers=12, **sizes))
    found = groups_of(deep, tmp_path, layer_decay=0.9)
    for layer in range(12):
        rate, _ = found[f"bert.encoder.layer.{layer}.output.dense.weight"]
        assert rate == pytest.approx(1e-4 * 0.9 ** (11 - layer))


@pytest.mark.parametrize("count", [0, 1, 3, 4])
@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_frozen_layers_are_in_no_group(
    four_layers: BertForPreTraining, tmp_path: Path, count: int, decay: float
) -> None:
    """Embeddings and the lowest layers stay still; all others, pooler and heads among them, learn as they would."""
    free = groups_of(four_layers, tmp_path, layer_decay=decay)
    found = groups_of(four_layers, tmp_path, layer_decay=decay, freeze_layers=count)
    frozen = ("bert.embeddings.", *(f"bert.encoder.layer.{layer}." for layer in range(count))) if count else ()
    assert found == {name: rates for name, rates in free.items() if not name.startswith(frozen)}
    for name, parameter in four_layers.named_parameters():
        assert parameter.requires_grad == (name in found), name
    decoder, words = four_layers.cls.predictions.decoder.weight, four_layers.bert.embeddings.word_embeddings.weight
    assert decoder is words


def test_more_frozen_layers_than_there_are_is_refused(four_layers: BertForPreTraining, tmp_path: Path) -> None:
    """Rather than that all are frozen in silence."""
    with pytest.raises(Refusal, match=r"--freeze_layers 5: the encoder has 4 layers"):
        groups_of(four_layers, tmp_path, freeze_layers=5)


@pytest.mark.parametrize("flag", [{"layer_decay": 1.1}, {"layer_decay": -0.1}, {"freeze_layers": -1}])
def test_rates_and_layers_out_of_range_are_refused(tmp_path: Path, flag: dict[str, float]) -> None:
    """The flag and its range are named."""
    with pytest.raises(Refusal, match=f"--{next(iter(flag))}"):
        ExactTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **flag)


def test_the_best_is_the_one_of_least_loss_unless_told(tmp_path: Path) -> None:
    """Trainer would end in a traceback, behind the corpus and the model."""
    training = ExactTrainingArguments(output_dir=str(tmp_path), use_cpu=True, save_strategy="best")
    assert (training.metric_for_best_model, training.greater_is_better) == ("loss", False)


@pytest.mark.parametrize("counted", ["non_padding", "all", "no"])
def test_tokens_are_told_only_where_they_are_counted(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, counted: str
) -> None:
    """No speed of 0 tokens a second, and none that counts padding."""
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "corpus.txt"), "--use_cpu"]
    call += ["--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--max_length", "32", "--save_strategy", "no"]
    scores = run_pretraining.main([*call, "--validation_fraction", "0", "--include_num_input_tokens_seen", counted])
    assert {"train_tokens", "train_tokens_per_second"} & scores.keys() == (
        {"train_tokens", "train_tokens_per_second"} if counted == "non_padding" else set()
    )


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--gradient_checkpointing", "true"]], ids=["plain", "checkpointing"])
def test_frozen_layers_stay_through_training(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, flags: list[str]
) -> None:
    """After steps with weight decay they and the tied word embeddings are bit-equal, and everything else has moved."""
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "corpus.txt"), "--use_cpu"]
    call += ["--output_dir", str(tmp_path / "run"), "--max_steps", "2", "--max_length", "32", "--freeze_layers", "1"]
    call += ["--learning_rate", "1e-3", "--weight_decay", "0.1", "--warmup_steps", "0", "--save_strategy", "no"]
    run_pretraining.main([*call, "--validation_fraction", "0", *flags])
    before = BertForPreTraining.from_pretrained(tiny_folder).state_dict()
    after = BertForPreTraining.from_pretrained(tmp_path / "run").state_dict()
    frozen = ("bert.embeddings.", "bert.encoder.layer.0.", "cls.predictions.decoder.weight")
    no_gradient = "attention.self.key.bias"  # softmax does not see what is added to all keys
    for name, tensor in before.items():
        if name.startswith(frozen):
            assert torch.equal(after[name], tensor), name
        elif no_gradient not in name:
            assert not torch.equal(after[name], tensor), name
