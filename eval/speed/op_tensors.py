"""The tensors that the operations of a model are measured with, the same on every machine of a kind."""

import dataclasses

import torch
from torch import Tensor, nn

from lrm_ttt.eval.speed.config import SpeedConfig
from lrm_ttt.eval.speed.op import Tensors


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes noise for `tokens` tokens; what the products of a model take is in `dtype`, weights are in fp32."""

    config: SpeedConfig
    tokens: int
    dtype: torch.dtype
    device: torch.device

    @property
    def width(self) -> int:
        return self.config.backbone.width

    @property
    def side(self) -> int:
        return self.config.backbone.memory.head_dim

    @property
    def hidden(self) -> int:
        return self.config.backbone.memory.multiple * self.side

    @property
    def pixels(self) -> int:
        return self.tokens * self.config.patch_size**2

    def normal(self, *shape: int, seed: int = 0, deviation: float = 1.0) -> Tensor:
        """Return noise in fp32 that `dtype` can hold, so that it is the same in every dtype."""
        generator = torch.Generator(self.device).manual_seed(seed)
        noise = deviation * torch.randn(shape, generator=generator, device=self.device)
        return noise.to(self.dtype).float()

    def weights(self) -> Tensors:
        """Return gate, up and down in fp32, as a memory starts."""
        heads, side, hidden = self.width // self.side, self.side, self.hidden
        into, out = (1, heads, side, hidden), (1, heads, hidden, side)
        gate, up = (self.normal(*into, seed=seed, deviation=(2 / side) ** 0.5) for seed in (1, 2))
        return gate, up, self.normal(*out, seed=3, deviation=(2 / hidden) ** 0.5)

    def said(self, seed: int) -> Tensor:
        """Return rows of unit length."""
        rows = self.normal(1, self.width // self.side, self.tokens, self.side, seed=seed)
        return (rows / rows.norm(dim=-1, keepdim=True)).to(self.dtype)

    def written(self) -> Tensors:
        """Return keys, values, inner learning rates and the memory."""
        rates = (0.01 * self.normal(1, self.width // self.side, self.tokens, 1, seed=seed).exp() for seed in (6, 7, 8))
        values = self.normal(1, self.width // self.side, self.tokens, self.side, seed=5).to(self.dtype)
        return self.said(4), values, *(rate.to(self.dtype).float() for rate in rates), *self.weights()

    def read(self) -> Tensors:
        """Return queries and the memory."""
        return self.said(9), *self.weights()

    def steps(self) -> Tensors:
        """Return three matrices of one shape."""
        return (self.normal(3, 1, self.width // self.side, self.side, self.hidden, seed=10).to(self.dtype),)

    def committed(self) -> Tensors:
        """Return the memory and a step for each of its matrices."""
        return *self.weights(), *(0.1 * weight.to(self.dtype) for weight in self.weights())

    def of_module(self, module: nn.Module, views: int, window: int) -> Tensors:
        """Return tokens and the parameters of a module, in the order of `parameters`."""
        shapes = [parameter.shape for parameter in module.parameters()]
        made = [
            self.normal(*shape, seed=20 + index, deviation=shape[-1] ** -0.5)
            if len(shape) == 2
            else torch.ones(shape, device=self.device)
            for index, shape in enumerate(shapes)
        ]
        return self.normal(views, window, self.width, seed=19).to(self.dtype), *made

    def projected(self) -> Tensors:
        """Return what queries, keys and values are made of."""
        return (self.normal(1, self.tokens, 3 * self.width, seed=11).to(self.dtype),)

    def raw(self, views: int) -> Tensors:
        """Return the channels of Gaussians, and the rays that they lie on."""
        number = self.pixels // views
        channels = self.normal(views, number, 14, seed=12).to(self.dtype)
        directions = torch.nn.functional.normalize(self.normal(views, number, 3, seed=13), dim=-1)
        near = torch.ones(views, device=self.device)
        return channels, self.normal(views, 3, seed=14), directions, near, 4 * near
