"""Differentiable sums and gathers over a view group.

Their backward passes sum over the ranks: where every rank computes its own loss and the mean over all ranks of the
gradients is taken, as data parallelism does, the result is the gradient of the mean of the losses (MODEL.md, Many GPUs
on one scene).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lrm_ttt.parallel.view_group import ViewGroup


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, process_group: dist.ProcessGroup) -> Tensor:
        ctx.process_group = process_group
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=process_group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.process_group)
        return total, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: ViewGroup) -> Tensor:
        ctx.group = group
        gathered = tensor.new_empty(group.size * tensor.shape[0], *tensor.shape[1:])
        dist.all_gather_into_tensor(gathered, tensor.contiguous(), group=group.process_group)
        return gathered.unflatten(0, (group.size, -1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own = gradient.new_empty(gradient.shape[1:])
        dist.reduce_scatter_tensor(own, gradient.flatten(0, 1).contiguous(), group=ctx.group.process_group)
        return own, None


def _summed(tensor: Tensor, group: ViewGroup) -> Tensor:
    return _Sum.apply(tensor, group.process_group)


def _gathered(tensor: Tensor, group: ViewGroup) -> Tensor:
    return _Gather.apply(tensor, group)


def _sizes(size: int, group: ViewGroup, device: torch.device) -> list[int]:
    sizes = torch.empty(group.size, dtype=torch.long, device=device)
    dist.all_gather_into_tensor(sizes, torch.tensor([size], device=device), group=group.process_group)
    return [int(each) for each in sizes]


def keep_out_of_graphs() -> None:
    """Let torch.compile break its graphs at collectives. To be called by who compiles: it imports the compiler."""
    global _summed, _gathered, _sizes
    _summed, _gathered, _sizes = (torch.compiler.disable(each) for each in (_summed, _gathered, _sizes))


def sum_over(group: ViewGroup, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the sums of `tensors` (of one dtype) over the ranks of a group, by a single all-reduce."""
    if not group.is_shared:
        return list(tensors)
    packed = torch.cat([tensor.flatten() for tensor in tensors])
    parts = _summed(packed, group).split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def sizes_over(group: ViewGroup, size: int, device: torch.device) -> list[int]:
    """Return the number that each rank has."""
    return _sizes(size, group, device)


def gather(group: ViewGroup, tensor: Tensor, sizes: Sequence[int], dim: int) -> Tensor:
    """Concatenate along `dim` what each rank has; rank r has `sizes[r]` there, which all ranks know."""
    if not group.is_shared:
        return tensor
    assert tensor.shape[dim] == sizes[group.rank] and len(sizes) == group.size
    front = tensor.movedim(dim, 0)
    short = max(sizes) - front.shape[0]
    # A collective moves equal pieces: shorter ones are filled up, and cut again.
    filled = torch.cat([front, front.new_zeros(short, *front.shape[1:])]) if short else front
    pieces = _gathered(filled, group)
    return torch.cat([piece[:size] for piece, size in zip(pieces, sizes, strict=True)]).movedim(0, dim)
