"""Dropout and attention on a CPU: the formulas on the same draws, the right chance, nothing in a saved folder."""

import copy
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertForPreTraining, BertModel

from run_pretraining import PretrainingArguments, PretrainingTrainer
from two_stage.training import cpu_training
from two_stage.training import trainer as trainers
from two_stage.training.cpu_training import (
    ATTENTION,
    PART,
    CpuDropout,
    Dropout,
    DropoutAttention,
    cache_sized_parts,
    draw,
    drop_chance,
    least_kept,
    use_cpu_dropout,
)

SMALL = BertConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, dtype="float32"
)


def small_bert(**config: float) -> BertModel:
    """The same weights every time, ready to train."""
    torch.manual_seed(1)
    return BertModel(BertConfig(**SMALL.to_dict() | config)).train()


def tensors(queries: int = 5) -> list[Tensor]:
    """Query, key and value of 3 rows, 3 heads, 5 keys and width 4, laid out as a BERT lays them out."""
    torch.manual_seed(0)
    return [torch.randn(3, length, 3, 4).transpose(1, 2) for length in (queries, 5, 5)]


def kept_by(queries: int, probability: float) -> Tensor:
    """What DropoutAttention keeps of `tensors`: it draws part by part."""
    kept = torch.zeros(3, 3, queries, 5, dtype=torch.bool)
    for part in cache_sized_parts(3, 3, queries * 5):
        kept[part] = (draw(kept[part].numel()) >= least_kept(probability)).view_as(kept[part])
    return kept


def naive_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kept: Tensor, chance: float, scaling: float
) -> Tensor:
    """The formula, a line an operation."""
    scores = query @ key.transpose(-1, -2) * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) * kept / (1 - chance)) @ value


@given(st.integers(0, 50), st.integers(0, 1000))
def test_draws_are_repeatable(count: int, seed: int) -> None:
    """As many as there are elements, the same from the same seed."""
    torch.manual_seed(seed)
    first = draw(count)
    torch.manual_seed(seed)
    assert (first.shape, first.dtype) == ((count,), torch.int16)
    assert torch.equal(first, draw(count))


@pytest.mark.parametrize("probability", [0.02, 0.1, 0.5, 0.9])
def test_draws_are_independent(probability: float) -> None:
    """All four of a number have the chance asked for, and know nothing of their neighbours."""
    torch.manual_seed(0)
    kept = (draw(1_600_000) >= least_kept(probability)).view(-1, 4).double()
    spread = (probability * (1 - probability)) ** 0.5
    assert (kept.mean(0) - (1 - probability)).abs().max() < 5 * spread / 400_000**0.5
    centred = (kept - (1 - probability)).T / spread
    neighbours = torch.cat([(centred @ centred.T / 400_000).triu(1), (centred[:, :-1] @ centred[:, 1:].T) / 400_000])
    assert neighbours.abs().max() < 5 / 400_000**0.5


@given(st.integers(1, 40), st.integers(1, 16), st.integers(1, 10**6))
def test_parts_are_the_whole(rows: int, heads: int, each: int) -> None:
    """Each matrix is in one part, and a part fits the cache unless a matrix alone does not."""
    times = torch.zeros(rows, heads, dtype=torch.int64)
    for part in cache_sized_parts(rows, heads, each):
        times[part] += 1
        assert times[part].numel() in (1, *range(PART // each + 1))
    assert (times == 1).all()


def test_dropout_keeps_the_mean() -> None:
    """What is kept grows by as much as is lost."""
    torch.manual_seed(0)
    out = Dropout.apply(torch.ones(1_000_000), 0.1)
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - drop_chance(0.1))])
    assert out.mean().item() == pytest.approx(1, abs=5 * (0.1 / 0.9) ** 0.5 / 1000)


PADDING = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()[:, None, None, :]
MASKS = {"none": None, "padding": PADDING, "one for all rows": PADDING[1:2], "one a head": PADDING[:, [0, 0, 0]]}
# elements of a part; five queries and keys make 25
SIZES = {"a head": 1, "two heads, then one": 50, "a row": 80, "two rows, then one": 160, "all": PART}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("queries", [5, 2])
def test_attention_equals_its_naive_twin(queries: int, mask: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same draws, whatever is padding, as many queries as keys or fewer, and however large the parts are."""
    monkeypatch.setattr(cpu_training, "PART", SIZES[size] * queries // 5)
    ours, twins = ([tensor.clone().requires_grad_() for tensor in tensors(queries)] for _ in range(2))
    torch.manual_seed(7)
    out = DropoutAttention.apply(*ours, MASKS[mask], 0.3, 0.5)
    torch.manual_seed(7)
    twin = naive_attention(*twins, MASKS[mask], kept_by(queries, 0.3), drop_chance(0.3), 0.5)
    torch.testing.assert_close(out, twin)
    weights = torch.randn(out.shape)
    for one, other in zip(*(torch.autograd.grad(y, x, weights) for y, x in ((out, ours), (twin, twins))), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_right(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of finite differences, along a random direction; the naive twin has each of them."""
    monkeypatch.setattr(cpu_training, "PART", SIZES[size])
    query, key, value = (tensor.double().requires_grad_() for tensor in tensors())

    def attend(*tensors: Tensor) -> Tensor:
        torch.manual_seed(3)
        return DropoutAttention.apply(*tensors, PADDING, 0.3, 0.5)

    def drop(tensor: Tensor) -> Tensor:
        torch.manual_seed(3)
        return Dropout.apply(tensor, 0.3)

    assert torch.autograd.gradcheck(attend, (query, key, value), fast_mode=True)
    assert torch.autograd.gradcheck(drop, query, fast_mode=True)


@pytest.mark.parametrize("probability", [0.0, 1.0, 1 - 2**-20])
def test_chances_that_are_none(probability: float) -> None:
    """Where 16 bits make it 0 or 1, torch drops out."""
    torch.manual_seed(0)
    ours = CpuDropout(probability)(torch.ones(1000))
    torch.manual_seed(0)
    assert torch.equal(ours, nn.Dropout(probability)(torch.ones(1000)))


def test_without_dropout_nothing_changes() -> None:
    """Bit by bit, in training without dropout and in evaluation."""
    ids = torch.randint(0, 40, (2, 6))
    stock = small_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ours = small_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    use_cpu_dropout(ours)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    assert torch.equal(stock(ids, mask).last_hidden_state, ours(ids, mask).last_hidden_state)
    assert torch.equal(small_bert().eval()(ids, mask).pooler_output, ours.eval()(ids, mask).pooler_output)


def test_with_dropout_the_distribution_stays() -> None:
    """Mean and spread of what a model gives are those of torch's dropout, in every place of it."""
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


def test_a_model_in_evaluation_stays_in_it() -> None:
    """As from_pretrained gives it."""
    ids, model = torch.randint(0, 40, (2, 6)), small_bert().eval()
    use_cpu_dropout(model)
    assert torch.equal(model(ids).pooler_output, model(ids).pooler_output)


@pytest.mark.parametrize("way", ["checkpointing", "a copy", pytest.param("compiled", marks=pytest.mark.slow)])
def test_other_ways_to_run_a_model(way: str) -> None:
    """Activation checkpointing and a copy give the very gradients; a compiled model runs, with torch's own draws."""
    ids, mask = torch.randint(0, 40, (2, 6)), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    plain = small_bert()
    use_cpu_dropout(plain)
    other = copy.deepcopy(plain)
    if way == "checkpointing":
        other.gradient_checkpointing_enable({"use_reentrant": False})
    run = torch.compile(other, backend="eager") if way == "compiled" else other
    for model, called in ((plain, plain), (other, run)):
        torch.manual_seed(5)
        called(ids, mask).pooler_output.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    if way != "compiled":
        for one, two in zip(plain.parameters(), other.parameters(), strict=True):
            assert one.grad is two.grad is None or torch.equal(one.grad, two.grad)


def test_half_precision_and_compiled_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep torch's own dropout."""
    x = torch.ones(100)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        assert torch.equal(CpuDropout(0.5)(x), (torch.manual_seed(0), nn.functional.dropout(x, 0.5))[1])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.manual_seed(0)
    assert torch.equal(CpuDropout(0.5)(x), (torch.manual_seed(0), nn.functional.dropout(x, 0.5))[1])


def test_nothing_of_it_is_saved(tmp_path: Path) -> None:
    """A saved folder is that of the stock class, and opens as one."""
    model = BertForPreTraining(SMALL)
    names = list(model.state_dict())
    use_cpu_dropout(model)
    model.save_pretrained(tmp_path)
    assert list(model.state_dict()) == names
    assert ATTENTION not in (tmp_path / "config.json").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertForPreTraining"]
    again = BertForPreTraining.from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa"
    assert not any(isinstance(module, CpuDropout) for module in again.modules())


def test_the_trainer_asks_for_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU: dropout, attention and the memory that is kept."""
    asked: list[bool] = []
    monkeypatch.setattr(trainers, "keep_freed_memory", lambda: asked.append(True))
    model, training = BertForPreTraining(SMALL), PretrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    PretrainingTrainer(model=model, args=training, data_collator=list)
    assert asked
    assert model.config._attn_implementation == ATTENTION


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_kept() -> None:
    """100 MB given back before the call, and not after it."""
    code = """
from two_stage.training.memory import memory_gb
from two_stage.training.cpu_training import keep_freed_memory
left = []
for _ in range(2):
    before = memory_gb("VmRSS")
    bytearray(10**8)
    left.append(memory_gb("VmRSS") - before)
    keep_freed_memory()
print(left[0] < 0.01 and left[1] > 0.09, left)
"""
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.startswith("True"), done.stdout + done.stderr
