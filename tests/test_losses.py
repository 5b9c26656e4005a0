"""Every loss against arithmetic by hand, and against torch's own where torch has it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F

from two_stage.command_line.exits import Refusal
from two_stage.training.losses import (
    LOSSES,
    check_focal,
    chosen_loss,
    class_weights,
    cross_entropy,
    focal,
    ordinal,
    squared_error,
)

# Three shades with shares 1/2, 1/4, 1/4
LOGITS = torch.tensor([[math.log(2.0), 0.0, 0.0]])


def one_hot(*shades: int, labels: int = 3) -> Tensor:
    """Targets of gold labels."""
    return F.one_hot(torch.tensor(shades), labels).float()


def test_cross_entropy_by_hand() -> None:
    """-log of the gold label's share; of soft labels the shares' mean of it."""
    assert cross_entropy(LOGITS, one_hot(0)).tolist() == pytest.approx([math.log(2)])
    assert cross_entropy(LOGITS, one_hot(2)).tolist() == pytest.approx([math.log(4)])
    shares = torch.tensor([[0.5, 0.25, 0.25]])
    assert cross_entropy(LOGITS, shares).tolist() == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(4)])


def test_label_smoothing_by_hand() -> None:
    """A smoothing of 0.3 leaves the gold label 0.8 and gives each other one 0.1."""
    expected = 0.8 * math.log(2) + 0.2 * math.log(4)
    assert cross_entropy(LOGITS, one_hot(0), label_smoothing=0.3).tolist() == pytest.approx([expected])


def test_focal_by_hand() -> None:
    """(1 - 1/2)^2 log 2 where the gold label has a half, (3/4)^2 log 4 where it has a quarter."""
    expected = [0.25 * math.log(2), 0.5625 * math.log(4)]
    assert focal(LOGITS.repeat(2, 1), one_hot(0, 1)).tolist() == pytest.approx(expected)
    assert focal(LOGITS, one_hot(0), gamma=1.0).tolist() == pytest.approx([0.5 * math.log(2)])


def test_focal_of_what_is_surely_right_has_a_slope() -> None:
    """Of a gamma below 1 too, whose power has none at 0; elsewhere the slope is that of the formula."""
    logits = torch.tensor([[20.0, -20.0, 0.0], [1.0, 0.0, -1.0]], requires_grad=True)
    focal(logits, one_hot(0, 0), gamma=0.5).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    plain = logits.detach()[1].double().requires_grad_()
    share = plain.softmax(0)[0]
    (-((1 - share) ** 0.5) * share.log()).backward()
    assert logits.grad[1].tolist() == pytest.approx(plain.grad.tolist(), rel=1e-5)


def test_focal_at_zero_is_cross_entropy() -> None:
    """For any logits, also such as round a share to 1."""
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 30
    targets = one_hot(*range(7), *[3] * 43, labels=7)
    assert focal(logits, targets, gamma=0.0).tolist() == pytest.approx(cross_entropy(logits, targets).tolist())


def test_ordinal_by_hand() -> None:
    """Of gold shade 0 the target is 1, e^-1.5, e^-3 over their sum; of gold shade 1 it is e^-1.5, 1, e^-1.5."""
    near, far = math.exp(-1.5), math.exp(-3)
    first = (math.log(2) + (near + far) * math.log(4)) / (1 + near + far)
    second = (near * math.log(2) + (1 + near) * math.log(4)) / (1 + 2 * near)
    assert ordinal(LOGITS.repeat(2, 1), one_hot(0, 1)).tolist() == pytest.approx([first, second])
    shares = torch.tensor([[0.5, 0.5, 0.0]])
    assert ordinal(LOGITS, shares).tolist() == pytest.approx([(first + second) / 2])


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
def test_a_miss_further_off_costs_more(gold: int, one: int, other: int) -> None:
    """The same certainty, one and another number of shades away on the same side of the gold one."""
    losses = [ordinal(5.0 * one_hot(shade, labels=7), one_hot(gold, labels=7)).item() for shade in (one, other)]
    if (one - gold) * (other - gold) >= 0:
        assert (losses[0] < losses[1]) == (abs(one - gold) < abs(other - gold))


def test_ordinal_without_neighbours_is_cross_entropy() -> None:
    """Where shares fall at once, nothing is left to the neighbours."""
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    targets = one_hot(*range(5), *[2] * 15, labels=5)
    assert ordinal(logits, targets, fall=50.0).tolist() == pytest.approx(cross_entropy(logits, targets).tolist())


def test_squared_error_by_hand() -> None:
    """(0.5 - 2)^2 and (−1 − −1)^2."""
    assert squared_error(torch.tensor([[0.5], [-1.0]]), torch.tensor([[2.0], [-1.0]])).tolist() == [2.25, 0.0]


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "ordinal"])
def test_a_loss_of_half_precision_is_worked_out_in_full(name: str) -> None:
    """bf16 logits give float32 losses, finite for logits of any size, and so are their gradients."""
    logits = torch.tensor([[300.0, -300.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = LOSSES[name](logits, one_hot(1))
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "ordinal"])
def test_the_right_answer_costs_least(name: str) -> None:
    """A step down each loss's gradient raises the gold label's share."""
    logits = torch.zeros(1, 5, requires_grad=True)
    LOSSES[name](logits, one_hot(3, labels=5)).sum().backward()
    assert torch.softmax(logits - logits.grad, dim=-1)[0, 3] > 0.2


# --- As the flags ask -------------------------------------------------------------------------------------------------


def test_the_loss_of_the_flags() -> None:
    """Each with its own option; what a loss does not have is refused."""
    assert torch.equal(
        chosen_loss("cross_entropy", 0.3, None)(LOGITS, one_hot(0)), cross_entropy(LOGITS, one_hot(0), 0.3)
    )
    assert torch.equal(chosen_loss("focal", 0.0, 3.0)(LOGITS, one_hot(1)), focal(LOGITS, one_hot(1), 3.0))
    assert torch.equal(chosen_loss("focal", 0.0, None)(LOGITS, one_hot(1)), focal(LOGITS, one_hot(1)))
    with pytest.raises(Refusal, match=r"--label_smoothing_factor 0\.1: only --loss cross_entropy has it"):
        chosen_loss("ordinal", 0.1, None)
    with pytest.raises(Refusal, match=r"--focal_gamma 1\.0: only --loss focal has it"):
        check_focal("ordinal", 1.0)
    check_focal("focal", 1.0)


@given(gold=st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_balanced_class_weights(gold: list[int]) -> None:
    """scikit-learn's where all labels occur; else each that occurs has the same weight in all, and items count 1."""
    items = np.array(gold)
    weights = class_weights(["balanced"], 4, items)
    assert weights.shape == (4,)
    assert weights[items].mean() == pytest.approx(1)
    there = sorted(set(gold))
    assert weights[there] == pytest.approx(compute_class_weight("balanced", classes=np.array(there), y=items))


def test_class_weights_as_typed() -> None:
    """A number a label, in their order, brought to a mean of 1 over the items; without the flag every item counts 1."""
    gold = np.array([0, 0, 2])
    assert class_weights(["1", "2.5", "4"], 3, gold).tolist() == [0.5, 1.25, 2]
    assert class_weights(None, 3, gold).tolist() == [1, 1, 1]
    assert class_weights(None, 0, np.zeros(3, dtype=int))[np.zeros(3, dtype=int)].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "typed",
    ["1 2", "1 2 3 4", "1 0 2", "1 -1 2", "1 nan 2", "1 inf 2", "heavy", "balanced 1 1", "1 x 1"],
)
def test_other_class_weights_are_refused(typed: str) -> None:
    """Neither `balanced` nor a positive number a label."""
    with pytest.raises(Refusal, match="--class_weights: `balanced`, or 3 numbers above 0"):
        class_weights(typed.split(), 3, np.array([0, 1, 2]))
