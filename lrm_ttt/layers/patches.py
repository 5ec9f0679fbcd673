"""Images to patches and back, in the order (view, patch row, patch column, row, column, channel)."""

from jaxtyping import Float
from torch import Tensor


def patchify(images: Float[Tensor, "*b h w c"], patch_size: int) -> Float[Tensor, "*b n p"]:
    """Cut channels-last images into flat patches; `n` runs over rows then columns, `p` over (row, column, channel)."""
    *batch, height, width, channels = images.shape
    rows, cols = height // patch_size, width // patch_size
    assert rows * patch_size == height and cols * patch_size == width, "images must be whole patches"
    cut = images.reshape(*batch, rows, patch_size, cols, patch_size, channels).transpose(-4, -3)
    return cut.reshape(*batch, rows * cols, patch_size * patch_size * channels)


def unpatchify(patches: Float[Tensor, "*b n p"], patch_size: int, rows: int, cols: int) -> Float[Tensor, "*b h w c"]:
    """Undo `patchify`."""
    *batch, num_patches, size = patches.shape
    channels = size // patch_size**2
    assert num_patches == rows * cols and channels * patch_size**2 == size
    cut = patches.reshape(*batch, rows, cols, patch_size, patch_size, channels).transpose(-4, -3)
    return cut.reshape(*batch, rows * patch_size, cols * patch_size, channels)
