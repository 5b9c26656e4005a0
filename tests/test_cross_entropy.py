"""The cross-entropy that overwrites its logits: torch's values and gradients, at the ends of fp32 too."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from two_stage.training.cross_entropy import SummedCrossEntropy


@given(st.integers(0, 20), st.integers(1, 50), st.sampled_from([0.01, 1.0, 30.0, 1e4]), st.floats(0.01, 100))
def test_loss_and_gradient_are_those_of_torch(rows: int, vocabulary: int, spread: float, factor: float) -> None:
    """For logits small and large."""
    torch.manual_seed(rows)
    logits, gold = torch.randn(rows, vocabulary) * spread, torch.randint(0, vocabulary, (rows,))
    stock, ours = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = F.cross_entropy(stock, gold, reduction="sum")
    found = SummedCrossEntropy.apply(ours * 1, gold)  # what it overwrites is no leaf
    (expected * factor).backward()
    (found * factor).backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.grad, stock.grad, rtol=1e-5, atol=1e-6 * factor)


def test_no_gradient_of_a_gradient() -> None:
    """It would be wrong, and is refused."""
    leaf = torch.randn(3, 4, requires_grad=True)
    (first,) = torch.autograd.grad(SummedCrossEntropy.apply(leaf * 1, torch.tensor([0, 1, 2])), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        first.sum().backward()


def test_what_torch_notices() -> None:
    """A second pass is refused, and so is one through what was overwritten."""
    leaf = torch.randn(4, 6, requires_grad=True)
    loss = SummedCrossEntropy.apply(leaf * 1, torch.tensor([0, 5, 2, 2]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()
    logits = leaf.exp()
    loss = SummedCrossEntropy.apply(logits, torch.tensor([0, 5, 2, 2]))
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()  # through exp, whose gradient is its result


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_broken_logits(broken: float) -> None:
    """A logit that is no number makes the loss none."""
    logits = torch.zeros(2, 3)
    logits[1, 1] = broken
    assert not SummedCrossEntropy.apply(logits, torch.tensor([0, 0])).isfinite()


def test_without_gradients() -> None:
    """The loss is the same."""
    with torch.no_grad():
        logits = torch.randn(3, 5)
        gold = torch.tensor([1, 2, 3])
        expected = F.cross_entropy(logits, gold, reduction="sum")
        torch.testing.assert_close(SummedCrossEntropy.apply(logits, gold), expected)
