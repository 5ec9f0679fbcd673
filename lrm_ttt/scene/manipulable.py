"""The one base of all tensor dataclasses: move, index, reshape and join them field by field."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

M = TypeVar("M", bound="Manipulable")


@dataclasses.dataclass(frozen=True)
class Manipulable:
    """Act on every tensor field of a frozen dataclass at once.

    All tensor fields share the leading batch dimensions `shape`; fields that are not tensors (an image size) are kept
    as they are, nested `Manipulable` fields are treated alike and `None` stays `None`.
    """

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions that all fields share."""
        raise NotImplementedError

    def map(self: M, function: Callable[[Tensor], Tensor]) -> M:
        """Apply `function` to every tensor."""

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            return value.map(function) if isinstance(value, Manipulable) else value

        fields = dataclasses.fields(self)
        return dataclasses.replace(
            self, **{field.name: apply(getattr(self, field.name)) for field in fields if field.init}
        )

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Move or cast every tensor, as `Tensor.to` does."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self: M) -> M:
        """Cut every tensor off the autograd graph."""
        return self.map(Tensor.detach)

    def __getitem__(self: M, index: Any) -> M:
        """Index the batch dimensions; an index must not reach into the others."""
        return self.map(lambda tensor: tensor[index])

    def reshape(self: M, *shape: int) -> M:
        """Reshape the batch dimensions."""
        batch = len(self.shape)
        return self.map(lambda tensor: tensor.reshape(*shape, *tensor.shape[batch:]))

    def flatten(self: M) -> M:
        """Flatten the batch dimensions into one."""
        return self.reshape(self.shape.numel())


def stack(items: Sequence[M], dim: int = 0) -> M:
    """Stack equal dataclasses along a new batch dimension."""
    return _join(items, lambda tensors: torch.stack(list(tensors), dim))


def cat(items: Sequence[M], dim: int = 0) -> M:
    """Concatenate dataclasses along an existing batch dimension."""
    return _join(items, lambda tensors: torch.cat(list(tensors), dim))


def _join(items: Sequence[M], join: Callable[[Sequence[Tensor]], Tensor]) -> M:
    assert items, "nothing to join"
    first = items[0]

    def joined(name: str) -> Any:
        values = [getattr(item, name) for item in items]
        if isinstance(values[0], Tensor):
            return join(values)
        if isinstance(values[0], Manipulable):
            return _join(values, join)
        assert all(value == values[0] for value in values), (
            f"{type(first).__name__}.{name} differs between the items to join"
        )
        return values[0]

    return dataclasses.replace(
        first, **{field.name: joined(field.name) for field in dataclasses.fields(first) if field.init}
    )
