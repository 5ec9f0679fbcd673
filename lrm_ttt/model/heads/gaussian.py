"""Features to one Gaussian per pixel of each query view, as published (MODEL.md, Gaussian head)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrm_ttt.kernels.gaussian_finish.op import Activations, Rays, finish_gaussians
from lrm_ttt.layers.initialisation import fill_normal
from lrm_ttt.layers.norms import LayerNorm, Linear
from lrm_ttt.layers.patches import patchify
from lrm_ttt.model.config import GaussianHeadConfig
from lrm_ttt.model.slices import WHOLE, Slices
from lrm_ttt.model.tokenizer import ViewTokens
from lrm_ttt.scene.gaussians import Gaussians


class GaussianHead(nn.Module):
    """Layer norm and one linear map; per pixel position 3, SH [k, 3], scale 3, rotation 4, opacity 1."""

    def __init__(self, width: int, patch_size: int, config: GaussianHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_size = patch_size
        self.num_sh = (config.sh_degree + 1) ** 2
        self.norm = LayerNorm(width)
        self.linear = Linear(width, patch_size**2 * (11 + 3 * self.num_sh), bias=False)
        fill_normal(self.linear.weight)

    def forward(
        self,
        features: Float[Tensor, "b v n d"],
        queries: ViewTokens,
        dtype: torch.dtype,
        slices: Slices = WHOLE,
    ) -> Gaussians:
        """Return Gaussians `[b, v * h * w]` in the order view, patch row, patch column, row, column."""
        num_views, (height, width) = queries.shape[1], queries.views.image_size
        return slices.gaussians(
            lambda part: self._decode(features[:, part], queries[:, part], dtype), num_views, height * width
        )

    def _decode(self, features: Float[Tensor, "b v n d"], queries: ViewTokens, dtype: torch.dtype) -> Gaussians:
        config, cameras, (batch, num_views) = self.config, queries.views.cameras, features.shape[:2]
        raw = self.linear(self.norm(features, dtype)).reshape(batch * num_views, -1, 11 + 3 * self.num_sh)
        directions = patchify(cameras.rays()[1], self.patch_size).reshape(batch * num_views, -1, 3)
        if config.distance == "far":
            near, far = (torch.full_like(queries.ranges.far, bound) for bound in (0.0, config.far))
        else:
            near, far = queries.ranges.near, queries.ranges.far
        rays = Rays(cameras.centres.flatten(0, 1), directions, near.flatten(), far.flatten())
        activations = Activations(config.scale_shift, config.max_log_scale, config.opacity_shift)
        return Gaussians(*(part.unflatten(0, (batch, -1)) for part in finish_gaussians(raw, rays, activations)))
