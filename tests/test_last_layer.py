"""A last layer that answers for few positions gives what the whole layer gives there, gradients included."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, BertModel

import run_pretraining
from run_sentiment import SentimentModel
from two_stage.training.cpu_training import use_cpu_dropout
from two_stage.training.last_layer import FewPositionsLayer, can_read_few, let_last_layer_read_few

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def two_berts(layers: int = 2, attention: str = "sdpa", **config: float) -> tuple[BertModel, BertModel]:
    """A stock one, and one with the same weights whose last layer may read few positions."""
    torch.manual_seed(1)
    whole = BertModel(BertConfig(**SIZES, num_hidden_layers=layers, attn_implementation=attention, **config)).train()
    few = copy.deepcopy(whole)
    let_last_layer_read_few(few)
    return whole, few


def made_up_rows() -> tuple[Tensor, Tensor, Tensor]:
    """Ids and mask of three rows, the last two padded, and what is read of each."""
    ids = torch.randint(0, 40, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 2 + [0] * 5])
    return ids, mask, torch.tensor([[0, 3, 6], [0, 4, 0], [0, 1, 0]])


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layers", [1, 2])
def test_few_positions_equal_the_whole(layers: int, attention: str, padded: bool) -> None:
    """Hidden states, what the pooler makes of them, and every gradient."""
    whole, few = (bert.double() for bert in two_berts(layers, attention, **NO_DROPOUT))
    ids, mask, read = made_up_rows()
    mask = mask if padded else torch.ones_like(mask)
    expected, found = whole(ids, mask), few(ids, mask, read_positions=read)
    states = expected.last_hidden_state[torch.arange(3)[:, None], read]
    torch.testing.assert_close(found.last_hidden_state, states)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output)
    weights = torch.randn(states.shape, dtype=torch.double)
    (states * weights).sum().backward()
    (found.last_hidden_state * weights).sum().backward()
    for (name, one), other in zip(whole.named_parameters(), few.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-9, atol=1e-11, msg=name)


def test_without_positions_it_is_the_stock_layer() -> None:
    """Bit by bit, and under the same names."""
    whole, few = two_berts(**NO_DROPOUT)
    ids, mask, _ = made_up_rows()
    assert torch.equal(whole(ids, mask).last_hidden_state, few(ids, mask).last_hidden_state)
    assert list(whole.state_dict()) == list(few.state_dict())


def test_dropout_falls_where_it_is_read() -> None:
    """The last layer's own draws spread what it gives as those of the whole layer do; checkpointing repeats them."""
    whole, few = two_berts()
    ids, mask, read = (tensor[1:2].expand(2000, -1) for tensor in made_up_rows())
    for model in (whole, few):
        use_cpu_dropout(model)
        model.embeddings.eval()
        model.encoder.layer[0].eval()
    with torch.no_grad():
        expected = whole(ids, mask).last_hidden_state[:, [0, 4]].flatten(1)
        found = few(ids, mask, read_positions=read).last_hidden_state[:, :2].flatten(1)
    sigma = ((expected.var(0) + found.var(0)) / 2000).sqrt()
    assert ((expected.mean(0) - found.mean(0)) / sigma).abs().max() < 5
    torch.testing.assert_close(found.std(0), expected.std(0), rtol=0.15, atol=0)
    again = copy.deepcopy(few.train())
    again.gradient_checkpointing_enable({"use_reentrant": False})
    for model in (few, again):
        torch.manual_seed(2)
        model(ids[:3], mask[:3], read_positions=read[:3]).pooler_output.sum().backward()
    for one, other in zip(few.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_who_can_read_few() -> None:
    """Not a stock model, which would take the argument in silence, and not flash attention, whose masks do not fit."""
    whole, few = two_berts()
    assert (can_read_few(whole), can_read_few(few)) == (False, True)
    few.config._attn_implementation = "flash_attention_2"
    assert not can_read_few(few)


@pytest.mark.parametrize("script", ["run_pretraining", "run_sentiment"])
def test_who_cannot_looks_at_all(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the same, from the same batch."""
    torch.manual_seed(1)
    config = BertConfig(**SIZES, num_hidden_layers=2, **NO_DROPOUT)
    ids, mask, _ = made_up_rows()
    if script == "run_pretraining":
        model, positions = run_pretraining.SparseBertForPreTraining(config), run_pretraining.positions_to_read(ids > 20)
    else:
        model, positions = SentimentModel(config), {}
    few = model.train()(ids, mask, **positions)
    monkeypatch.setattr(f"{script}.can_read_few", lambda bert: False)
    for one, other in zip(few.to_tuple(), model(ids, mask, **positions).to_tuple(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_a_sentiment_head_reads_what_it_pools(pooling: str) -> None:
    """In training one position a row, where that is all it pools; the logits are those of an evaluation."""
    torch.manual_seed(1)
    config = BertConfig(**SIZES, num_hidden_layers=2, **NO_DROPOUT)
    config.pooling = pooling
    model, seen = SentimentModel(config), []
    model.bert.encoder.layer[-1].register_forward_hook(lambda *call: seen.append(call[-1].shape[1]))
    ids, mask, _ = made_up_rows()
    torch.testing.assert_close(model.train()(ids, mask).logits, model.eval()(ids, mask).logits)
    assert seen == [7 if pooling == "mean" else 1, 7]


@pytest.mark.slow
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5))
def test_pretraining_reads_its_masked_words(is_masked: list[list[bool]]) -> None:
    """Logits at masked positions and of next sentences equal those of a model whose last layer looks at all."""
    torch.manual_seed(1)
    model = run_pretraining.SparseBertForPreTraining(BertConfig(**SIZES, num_hidden_layers=2)).eval()
    assert type(model.bert.encoder.layer[-1]) is FewPositionsLayer
    where = torch.tensor(is_masked)
    ids = torch.randint(0, 40, where.shape)
    few = model(ids, **run_pretraining.positions_to_read(where))
    whole = model(ids)
    torch.testing.assert_close(few.prediction_logits, whole.prediction_logits[where])
    torch.testing.assert_close(few.seq_relationship_logits, whole.seq_relationship_logits)
