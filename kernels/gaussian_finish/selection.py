"""The choice of the highest of many values, without sorting them and without waiting for the device."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def highest(values: Float[Tensor, "*b n"], number: int) -> Bool[Tensor, "*b n"]:
    """Mark the `number` highest values of each row: exactly so many, of equal ones any."""
    marked = torch.zeros_like(values, dtype=torch.bool)
    return marked.scatter_(-1, values.detach().topk(number, sorted=False).indices, True)


def positions(marked: Bool[Tensor, "*b n"], number: int) -> Int[Tensor, "m"]:
    """Return where the marks are in the flattened rows, in order; `number` of each row are known to be marked."""
    return torch.nonzero_static(marked.flatten(), size=marked.shape[:-1].numel() * number)[:, 0]
