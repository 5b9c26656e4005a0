"""Cross-entropy over a vocabulary that takes no room but that of the logits in fp32."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class SummedCrossEntropy(torch.autograd.Function):
    """The sum over rows of log(sum(exp(logits))) - logits[gold], in nats.

    F.cross_entropy holds three matrices as large as the logits (rows × 30,522) when its backward pass begins: the log
    probabilities and two gradients. Here the gradient, softmax - one-hot, is written over the logits themselves.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, gold: Tensor) -> Tensor:
        """fp32 (rows, vocabulary), which nobody may read afterwards, and int64 (rows,) → a scalar."""
        gold = gold[:, None]
        logits.sub_(logits.amax(dim=1, keepdim=True))
        of_gold = logits.gather(1, gold)
        total = logits.exp_().sum(dim=1, keepdim=True)
        gradient = logits.div_(total).scatter_add_(1, gold, torch.full_like(of_gold, -1))
        ctx.save_for_backward(gradient.detach())  # the logits' own history would make it look differentiable
        return (total.log() - of_gold).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_sum: Tensor) -> tuple[Tensor, None]:
        """Once: torch refuses a second pass, which would find it scaled already."""
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(of_sum), None
