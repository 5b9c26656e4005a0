"""Dropout and attention for training on a CPU, where torch's own cost more than they must.

torch spends up to a fifth of a step on drawing a CPU's dropout, a float an element, and its attention under dropout
keeps three matrices of floats, length × length, a head and layer. Here four draws share one 64-bit number, and what
was kept is remembered as bools. Parameters and saved folders stay as they were, and so does what a GPU, half
precision, a compiled model or an evaluation computes.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_cpu_dropout"  # what the model's config calls it in memory; no saved config does
DRAWS = 2**16  # a draw's 16 bits


def use_cpu_dropout(model: nn.Module) -> None:
    """Let `model` drop out and attend as below, wherever it would have taken torch's own."""
    for module in list(model.modules()):
        if getattr(getattr(module, "config", None), "_attn_implementation", None) == "sdpa":
            module.config._attn_implementation = ATTENTION
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, CpuDropout(child.p).train(child.training))


def drop_chance(probability: float) -> float:
    """The nearest chance to `probability` that 16 bits can have: 0.1 becomes 0.10001."""
    return round(probability * DRAWS) / DRAWS


def draw_kept(shape: torch.Size, probability: float) -> Tensor:
    """What dropout keeps: bool of `shape`, False with the chance `drop_chance(probability)`, from torch's generator."""
    count = math.prod(shape)
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    return (draws.view(torch.int16)[:count] >= round(probability * DRAWS) - DRAWS // 2).view(shape)


def takes_over(tensor: Tensor, probability: float) -> bool:
    """Whether this module has anything to gain over torch."""
    return (
        0 < drop_chance(probability) < 1
        and tensor.device.type == "cpu"
        and tensor.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class Dropout(torch.autograd.Function):
    """Inverted dropout (Srivastava et al. 2014, section 10) that remembers a byte an element."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, probability: float) -> Tensor:
        """What is kept, divided by the share that is."""
        kept = draw_kept(inputs.shape, probability)
        ctx.save_for_backward(kept)
        ctx.factor = 1 / (1 - drop_chance(probability))
        return (inputs * kept).mul_(ctx.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The same of the gradient."""
        (kept,) = ctx.saved_tensors
        return (gradient * kept).mul_(ctx.factor), None


class CpuDropout(nn.Dropout):
    """nn.Dropout with the draws of this module."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape in, the same out."""
        if self.training and takes_over(input, self.p):
            return Dropout.apply(input, self.p)
        return super().forward(input)


class DropoutAttention(torch.autograd.Function):
    """Attention with dropout on its weights (Vaswani et al. 2017, section 3.2.1).

    Of the matrices of length × length a head, the weights and a byte an element stay for the backward pass; torch keeps
    three of floats.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, probability: float, scaling: float
    ) -> Tensor:
        """(rows, heads, length, width) three times, and a mask that broadcasts over (rows, heads, length, length)."""
        rows = query.shape[0]
        query, key, value = (tensor.flatten(0, 1) for tensor in (query, key, value))  # one copy, for all products
        scores = torch.bmm(query * scaling, key.transpose(1, 2))
        if mask is not None:
            scores.view(rows, -1, *scores.shape[1:]).masked_fill_(~mask, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1)
        kept = draw_kept(weights.shape, probability)
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.rows, ctx.scaling, ctx.factor = rows, scaling, 1 / (1 - drop_chance(probability))
        return torch.bmm(weights * kept, value).mul_(ctx.factor).unflatten(0, (rows, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Through the product, the dropout, the softmax and the scores."""
        query, key, value, weights, kept = ctx.saved_tensors
        gradient = gradient.flatten(0, 1) * ctx.factor
        dropped = weights * kept
        to_value = torch.bmm(dropped.transpose(1, 2), gradient)
        # through the softmax go weights × (g - sum(weights × g)), where g is 0 for what was dropped
        to_scores = dropped.mul_(torch.bmm(gradient, value.transpose(1, 2)))
        to_scores.addcmul_(weights, to_scores.sum(dim=-1, keepdim=True), value=-1)
        to_query = torch.bmm(to_scores, key).mul_(ctx.scaling)
        to_key = torch.bmm(to_scores.transpose(1, 2), query).mul_(ctx.scaling)
        return *(tensor.unflatten(0, (ctx.rows, -1)) for tensor in (to_query, to_key, to_value)), None, None, None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention as transformers calls it; without dropout it is torch's own, which is then the faster."""
    is_plain = attention_mask is None or attention_mask.dtype == torch.bool
    if not is_plain or not takes_over(query, dropout):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return DropoutAttention.apply(query, key, value, attention_mask, dropout, scaling).transpose(1, 2), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
