"""Norms and linears whose precision is explicit: parameters stay fp32, the work is done in the dtype of the input."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Linear(nn.Linear):
    """A linear map that casts its fp32 parameters to the dtype of the input."""

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Apply the map in the dtype of `x`."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, self.weight.to(x.dtype), bias)


class LayerNorm(nn.Module):
    """Layer norm with a weight and no bias, computed in fp32 (or better) and returned in `dtype`."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"], dtype: torch.dtype | None = None) -> Float[Tensor, "*b d"]:
        """Normalise the last dimension."""
        dtype = dtype or x.dtype
        x = x if x.dtype == self.weight.dtype else x.to(self.weight.dtype)
        return functional.layer_norm(x, x.shape[-1:], self.weight, None, self.eps).to(dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight, computed in fp32 (or better) and returned in the dtype of the input."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Normalise the last dimension."""
        wide = x if x.dtype == self.weight.dtype else x.to(self.weight.dtype)
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)
