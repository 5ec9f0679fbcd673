"""How many views are worked on at a time: an execution plan, which changes memory and time but no result.

All that a model does to views is done to each view alone (windows of attention, MLP, evidence, head), or is a sum over
tokens (the gradients of the fast weights): slices of views give what all views at once give, to rounding.
"""

import dataclasses
import math
import mmap
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.scene.gaussians import Gaussians


@dataclasses.dataclass(frozen=True)
class Slices:
    """Work on `views` views of each scene at a time; None: on all of them at once, which alone is differentiable.

    `keep` chooses among the Gaussians `[b n]` of every slice, before they are stored.
    """

    views: int | None = None
    keep: Callable[[Gaussians], Gaussians] | None = None

    def __post_init__(self) -> None:
        assert self.views is None or self.views >= 1

    def cut(self, num_views: int) -> bool:
        """Return whether so many views are more than one slice."""
        return self.views is not None and self.views < num_views

    def of(self, stop: int, start: int = 0) -> list[slice]:
        """Return the slices of the views from `start` to `stop`."""
        step = self.views or max(stop - start, 1)
        return [slice(first, min(first + step, stop)) for first in range(start, stop, step)]

    def map(self, function: Callable[[slice], Tensor], num_views: int) -> Float[Tensor, "b v *c"]:
        """Join what `function` returns for each slice, `[b s *c]`, along the views, and hold nothing of it twice."""
        if not self.cut(num_views):
            return function(slice(0, num_views))
        first, *others = self.of(num_views)
        value = function(first)
        joined = value.new_empty(value.shape[0], num_views, *value.shape[2:])
        joined[:, first] = value
        for part in others:
            joined[:, part] = function(part)
        return joined

    def gaussians(self, function: Callable[[slice], Gaussians], num_views: int, per_view: int) -> Gaussians:
        """Join the Gaussians that `function` makes of each slice, `per_view` of each view, as far as they are kept.

        Memory is taken once and only as far as it is written: no more than the result and one slice are ever held.
        """

        def kept(part: slice) -> Gaussians:
            made = function(part)
            return made if self.keep is None else self.keep(made)

        first, *others = self.of(num_views)
        made = kept(first)
        if not others:
            return made
        size = (made.shape[0], num_views * per_view)
        joined = made.map(lambda tensor: _untouched(tensor, (*size, *tensor.shape[2:])))
        end = _store(joined, made, 0)
        for part in others:
            end = _store(joined, kept(part), end)
        return joined.map(lambda tensor: tensor[:, :end])


def _untouched(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return memory for a tensor of this shape, of which what is never written is never taken.

    Fresh pages on a CPU: what an allocator gives may have been written before, and counts in full.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape)
    pages = mmap.mmap(-1, max(math.prod(shape), 1) * like.element_size())
    return torch.frombuffer(pages, dtype=like.dtype, count=math.prod(shape)).reshape(shape)


def _store(joined: Gaussians, made: Gaussians, start: int) -> int:
    """Write Gaussians into others from `start` on, and return where they end."""
    end = start + made.num_gaussians
    for field in dataclasses.fields(made):
        getattr(joined, field.name)[:, start:end] = getattr(made, field.name)
    return end


WHOLE = Slices()
