"""Dropout and attention on a CPU: torch's own formulas on the same draws, the right chance, nothing left in a folder."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, BertForPreTraining, BertModel

from two_stage.cpu_training import (
    ATTENTION,
    CpuDropout,
    Dropout,
    DropoutAttention,
    draw_kept,
    drop_chance,
    use_cpu_dropout,
)

SMALL = BertConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, dtype="float32"
)


def small_bert(**config) -> BertModel:
    torch.manual_seed(1)
    return BertModel(BertConfig(**SMALL.to_dict() | config)).train()


def parts(rows=3, heads=2, length=5, width=4, **kwargs) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(rows, length, heads, width, **kwargs).transpose(1, 2) for _ in range(3)]


def naive_attention(query, key, value, mask, kept, chance, scaling):
    scores = query @ key.transpose(-1, -2) * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) * kept.view_as(scores) / (1 - chance)) @ value


@given(st.integers(0, 50), st.floats(0.001, 0.999), st.integers(0, 1000))
def test_as_many_draws_as_elements_the_same_from_the_same_seed(count, probability, seed):
    torch.manual_seed(seed)
    first = draw_kept(torch.Size([count]), probability)
    torch.manual_seed(seed)
    assert first.shape == (count,) and first.dtype == torch.bool
    assert torch.equal(first, draw_kept(torch.Size([count]), probability))


@pytest.mark.parametrize("probability", [0.02, 0.1, 0.5, 0.9])
def test_each_of_the_four_draws_of_a_number_has_the_chance_asked_for_and_knows_nothing_of_its_neighbours(probability):
    torch.manual_seed(0)
    kept = draw_kept(torch.Size([400_000, 4]), probability).double()
    spread = (probability * (1 - probability)) ** 0.5
    assert (kept.mean(0) - (1 - probability)).abs().max() < 5 * spread / 400_000**0.5
    centred = (kept - (1 - probability)).T / spread
    neighbours = torch.cat([(centred @ centred.T / 400_000).triu(1), (centred[:, :-1] @ centred[:, 1:].T) / 400_000])
    assert neighbours.abs().max() < 5 / 400_000**0.5


def test_what_is_kept_grows_so_that_the_mean_stays():
    torch.manual_seed(0)
    out = Dropout.apply(torch.ones(1_000_000), 0.1)
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - drop_chance(0.1))])
    assert out.mean().item() == pytest.approx(1, abs=5 * (0.1 / 0.9) ** 0.5 / 1000)


@pytest.mark.parametrize("mask", ["none", "padding"])
def test_attention_is_the_naive_formula_on_the_same_draws(mask):
    query, key, value = parts()
    real = None if mask == "none" else torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    real = None if real is None else real[:, None, None, :]
    torch.manual_seed(7)
    ours = DropoutAttention.apply(query, key, value, real, 0.3, 0.5)
    torch.manual_seed(7)
    kept = draw_kept(torch.Size([6, 5, 5]), 0.3)
    torch.testing.assert_close(ours, naive_attention(query, key, value, real, kept, drop_chance(0.3), 0.5))


def test_gradients_are_those_of_finite_differences():
    query, key, value = (part.double().requires_grad_() for part in parts())
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()[:, None, None, :]

    def attend(*tensors):
        torch.manual_seed(3)
        return DropoutAttention.apply(*tensors, real, 0.3, 0.5)

    def drop(tensor):
        torch.manual_seed(3)
        return Dropout.apply(tensor, 0.3)

    assert torch.autograd.gradcheck(attend, (query, key, value))
    assert torch.autograd.gradcheck(drop, query)


@pytest.mark.parametrize("probability", [0.0, 1.0, 1 - 2**-20])
def test_where_sixteen_bits_cannot_say_the_chance_torch_drops_out(probability):
    torch.manual_seed(0)
    ours = CpuDropout(probability)(torch.ones(1000))
    torch.manual_seed(0)
    assert torch.equal(ours, nn.Dropout(probability)(torch.ones(1000)))


def test_a_model_without_dropout_computes_what_it_did_bit_by_bit():
    ids = torch.randint(0, 40, (2, 6))
    stock = small_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ours = small_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    use_cpu_dropout(ours)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    assert torch.equal(stock(ids, mask).last_hidden_state, ours(ids, mask).last_hidden_state)
    assert torch.equal(small_bert().eval()(ids, mask).pooler_output, ours.eval()(ids, mask).pooler_output)


def test_a_model_with_dropout_has_the_mean_that_it_had():
    ids, mask = torch.randint(0, 40, (400, 6), generator=torch.Generator().manual_seed(0)), torch.ones(400, 6)
    ids[:], mask[:, 4:] = ids[0].clone(), 0
    stock, ours = small_bert(), small_bert()
    use_cpu_dropout(ours)
    assert ours.config._attn_implementation == ATTENTION
    assert sum(type(module) is CpuDropout for module in ours.modules()) == 1 + 2 * 3
    (one, many), (other, others) = (
        (out.mean(0), out) for out in (model(ids, mask).last_hidden_state[:, 0].detach() for model in (stock, ours))
    )
    sigma = ((many.var(0) + others.var(0)) / 400).sqrt()
    assert ((one - other) / sigma).abs().max() < 5
    torch.testing.assert_close(many.std(0), others.std(0), rtol=0.25, atol=0)


def test_half_precision_and_compiled_models_keep_torchs_own(monkeypatch):
    x = torch.ones(100)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        assert torch.equal(CpuDropout(0.5)(x), (torch.manual_seed(0), nn.functional.dropout(x, 0.5))[1])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.manual_seed(0)
    assert torch.equal(CpuDropout(0.5)(x), (torch.manual_seed(0), nn.functional.dropout(x, 0.5))[1])


def test_nothing_of_it_is_saved(tmp_path):
    model = BertForPreTraining(SMALL)
    names = list(model.state_dict())
    use_cpu_dropout(model)
    model.save_pretrained(tmp_path)
    assert list(model.state_dict()) == names
    assert ATTENTION not in (tmp_path / "config.json").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertForPreTraining"]
    again = BertForPreTraining.from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa" and not any(isinstance(m, CpuDropout) for m in again.modules())
