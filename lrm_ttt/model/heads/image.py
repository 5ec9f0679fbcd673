"""Features to pixels: the head of novel-view synthesis."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrm_ttt.layers.initialisation import fill_normal
from lrm_ttt.layers.norms import LayerNorm, Linear
from lrm_ttt.layers.patches import unpatchify
from lrm_ttt.scene.cameras import ImageSize


class ImageHead(nn.Module):
    """Layer norm, one linear map to the colours of a patch, sigmoid (LaCT-NVS, LVSM)."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.norm = LayerNorm(width)
        self.linear = Linear(width, 3 * patch_size**2, bias=False)
        fill_normal(self.linear.weight)

    def forward(
        self, features: Float[Tensor, "b v n d"], image_size: ImageSize, dtype: torch.dtype
    ) -> Float[Tensor, "b v 3 h w"]:
        """Return images in 0..1."""
        colors = torch.sigmoid(self.linear(self.norm(features, dtype)).to(features.dtype))
        rows, cols = image_size.height // self.patch_size, image_size.width // self.patch_size
        return unpatchify(colors, self.patch_size, rows, cols).movedim(-1, -3)
