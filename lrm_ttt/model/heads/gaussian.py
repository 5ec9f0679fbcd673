"""Features to one Gaussian per pixel of each query view, as published (MODEL.md, Gaussian head)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

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
        config = self.config
        raw = self.linear(self.norm(features, dtype)).to(features.dtype)
        raw = raw.reshape(*features.shape[:2], -1, 11 + 3 * self.num_sh)
        position, sh, scale, rotation, opacity = raw.split([3, 3 * self.num_sh, 3, 4, 1], -1)
        origins, directions = queries.views.cameras.rays()
        rays = patchify(torch.cat([origins, directions], -1), self.patch_size)
        origin, direction = rays.reshape(*features.shape[:2], -1, 6).split(3, -1)
        share = position.mean(-1, keepdim=True)
        if config.distance == "far":
            distance = config.far * torch.sigmoid(share)
        else:
            near, far = (bound[..., None, None] for bound in (queries.ranges.near, queries.ranges.far))
            distance = near + torch.sigmoid(share) * (far - near)
        return Gaussians(
            means=(origin + distance * direction).flatten(1, 2),
            scales=torch.exp((scale + config.scale_shift).clamp(max=config.max_log_scale)).flatten(1, 2),
            wxyz=normalize(rotation, dim=-1).flatten(1, 2),
            opacities=torch.sigmoid(opacity + config.opacity_shift)[..., 0].flatten(1, 2),
            sh=sh.unflatten(-1, (self.num_sh, 3)).flatten(1, 2),
        )
