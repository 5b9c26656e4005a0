"""A device that is not the CPU, on a machine that has no other: tensors on it take part in no sum with the CPU's.

After `pretend`, scripts run in this process as on a GPU: Trainer moves the model and each batch to the device, and what
mixes the two, or reads a tensor there as an array, raises as on a GPU. The sums are the CPU's own.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)
CPU = torch.device("cpu")
aten = torch.ops.aten
LIBRARY = torch.library.Library("aten", "IMPL")
FACTORIES = (("empty", "memory_format"), ("empty_strided", "default"))  # what all that make a tensor come down to
MAY_MIX = {aten.copy_.default, aten.index.Tensor}  # as in CUDA


class PretendTensor(Tensor):
    """A tensor on the device; `raw` is the CPU's that holds its numbers."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type["PretendTensor"], raw: Tensor) -> "PretendTensor":
        """Wrap the CPU's tensor, whose shape and strides it has."""
        tensor = Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=DEVICE
        )
        tensor.raw = raw
        return tensor

    def untyped_storage(self) -> torch.UntypedStorage:
        """What is asked which tensors are tied."""
        return self.raw.untyped_storage()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A checkpoint holds plain tensors."""
        return self.raw.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation that one of them takes part in."""
        return calculate(operation, *args, **kwargs or {})


def on_cpu(value: Any) -> Any:
    """What the CPU works with in place of a tensor of the device, or of the device."""
    if isinstance(value, PretendTensor):
        return value.raw
    return CPU if isinstance(value, torch.device) and value.type == NAME else value


def calculate(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Do on the CPU what was asked of the device.

    Raises:
        RuntimeError: tensors of both take part. Numbers (no axis) may come from the CPU, and so may indices.
    """
    if operation is aten._fused_sdp_choice.default:
        return 0  # by products and softmax
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    elsewhere = [value for value in tensors if not isinstance(value, PretendTensor) and value.dim()]
    if elsewhere and len(elsewhere) < len(tensors) and operation not in MAY_MIX:
        raise RuntimeError(f"Expected all tensors to be on the same device: {operation} of {DEVICE} and cpu")
    result = operation(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs))
    changed = {id(value.raw): value for value in tensors if isinstance(value, PretendTensor)}

    def back(value: Any) -> Any:
        if not isinstance(value, Tensor) or kwargs.get("device") == CPU:
            return value
        return changed[id(value)] if id(value) in changed else PretendTensor(value)

    return tree_map(back, result)


def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """What a copy between devices comes down to."""
    on_cpu(target).copy_(on_cpu(source))
    return target


def pretend() -> None:
    """Let Trainer find the device, for as long as this process lives."""
    LIBRARY.impl("_copy_from", copy_from, "PrivateUse1")
    for packet, overload in FACTORIES:
        make: Callable[..., Any] = partial(calculate, getattr(getattr(aten, packet), overload))
        LIBRARY.impl(f"{packet}.{overload}".removesuffix(".default"), make, "PrivateUse1")
    torch.__future__.set_swap_module_params_on_conversion(True)  # so that tied weights stay tied on their way
    os.environ["ACCELERATE_TORCH_DEVICE"] = f"{NAME}:0"  # what Trainer takes where it finds no GPU
