"""Dropout and attention for training on a CPU, where torch's own cost more than they must.

torch spends up to a fifth of a step on drawing a CPU's dropout, a float an element, and its attention under dropout
keeps three matrices of floats, queries × keys, a head and layer. Here four draws share one 64-bit number, attention
goes through parts that fit the cache, and keeps one such matrix. Parameters and saved folders stay as they were, and so
does what a GPU, half precision, a compiled model or an evaluation computes.

glibc gives large pieces of freed memory back at once, so that every step takes its own anew from the kernel, page by
page: a twentieth of a step of stage one.
"""

import ctypes
import os
import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_cpu_dropout"  # what the model's config calls it in memory; no saved config does
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's names, from malloc.h
DRAWS = 2**16  # a draw's 16 bits
PART = 2**19  # elements of attention's matrices at a time: 2 MB of floats, two or three times; measured on two cores


def keep_freed_memory() -> None:
    """From now on, this process keeps what it frees for what it takes next, where Python is built on glibc.

    Nothing changes for whoever has told glibc otherwise.
    """
    is_told = "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ)
    if platform.libc_ver()[0] == "glibc" and not is_told:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never give back what is free at the heap's end
        libc.mallopt(M_MMAP_MAX, 0)  # and take large pieces from there too


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


def draw(count: int) -> Tensor:
    """int16 of (count,), each of its values as likely, from torch's generator."""
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    return draws.view(torch.int16)[:count]


def least_kept(probability: float) -> int:
    """The least draw that is kept."""
    return round(probability * DRAWS) - DRAWS // 2


def takes_over(tensor: Tensor, probability: float) -> bool:
    """Whether the draws are made here; else torch makes them."""
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
        kept = (draw(inputs.numel()) >= least_kept(probability)).view(inputs.shape)
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


def cache_sized_parts(rows: int, heads: int, each: int) -> list[tuple[slice, slice]]:
    """(rows, heads) whose matrices of `each` elements have about PART together: whole rows, or some heads of one."""
    some_heads = min(heads, max(1, PART // each))
    some_rows = max(1, PART // (each * heads)) if some_heads == heads else 1
    return [
        (slice(row, row + some_rows), slice(head, head + some_heads))
        for row in range(0, rows, some_rows)
        for head in range(0, heads, some_heads)
    ]


def product(left: Tensor, right: Tensor, scale: float, out: Tensor) -> Tensor:
    """Write scale × left @ right, matrix by matrix, to `out`."""
    return torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)


class DropoutAttention(torch.autograd.Function):
    """Attention with dropout on its weights (Vaswani et al. 2017, section 3.2.1).

    Of the matrices of queries × keys a head, one stays for the backward pass; torch keeps three. It holds the softmax,
    which is never negative, and in the sign whether dropout kept an element.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, probability: float, scaling: float
    ) -> Tensor:
        """(rows, heads, queries or keys, width) thrice; a mask that broadcasts over (rows, heads, queries, keys)."""
        rows, heads, queries, _ = query.shape
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        signed, out = query.new_empty(rows, heads, queries, key.shape[2]), torch.empty_like(query)
        parts = cache_sized_parts(rows, heads, queries * key.shape[2])
        ctx.parts, ctx.scaling, ctx.factor = parts, scaling, 1 / (1 - drop_chance(probability))
        scratch = torch.empty_like(signed[parts[0]]).flatten(0, 1)
        if mask is not None:  # as numbers to add, which is faster than filling in
            mask = (~mask).to(query.dtype).mul_(torch.finfo(query.dtype).min).expand(signed.shape)
        for part in parts:
            q, k, v, weights, result = (tensor[part].flatten(0, 1) for tensor in (query, key, value, signed, out))
            buffer = product(q, k.transpose(1, 2), scaling, scratch[: len(q)])
            if mask is not None:
                buffer.view(signed[part].shape).add_(mask[part])
            torch.softmax(buffer, dim=-1, out=weights)
            buffer.view(-1).copy_(draw(buffer.numel()))
            weights.copysign_(buffer.sub_(least_kept(probability) - 0.5))
            product(torch.clamp(weights, min=0, out=buffer), v, ctx.factor, result)
        ctx.save_for_backward(query, key, value, signed)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Through the product, the dropout, the softmax and the scores."""
        query, key, value, signed = ctx.saved_tensors
        gradients = [torch.empty_like(tensor) for tensor in (query, key, value)]
        whole = [query, key, value, signed, gradient.contiguous(), *gradients]
        scratch = signed.new_empty(2, *signed[ctx.parts[0]].shape).flatten(1, 2)
        for part in ctx.parts:
            q, k, v, weights, of_result, of_query, of_key, of_value = (tensor[part].flatten(0, 1) for tensor in whole)
            dropped, buffer = scratch[:, : len(q)]
            torch.clamp(weights, min=0, out=dropped)
            product(dropped.transpose(1, 2), of_result, ctx.factor, of_value)
            # through the softmax go weights × (g - sum(weights × g)), where g is 0 for what was dropped
            of_scores = dropped.mul_(product(of_result, v.transpose(1, 2), ctx.factor, buffer))
            total = of_scores.sum(dim=-1, keepdim=True)
            of_scores.addcmul_(torch.abs(weights, out=buffer), total, value=-1)
            product(of_scores, k, ctx.scaling, of_query)
            product(of_scores.transpose(1, 2), q, ctx.scaling, of_key)
        return *gradients, None, None, None


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
    is_plain &= key.shape == value.shape and query[:, :, 0].shape == key[:, :, 0].shape  # heads and widths alike
    if not is_plain or not takes_over(query, dropout):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return DropoutAttention.apply(query, key, value, attention_mask, dropout, scaling).transpose(1, 2), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
