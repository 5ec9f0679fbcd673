"""Where the Gaussians lie, compared with the depth of the view that each of them comes from."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from lrm_ttt.layers.patches import patchify
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.views import Views

LEAST_DEPTH = 1e-3
MASK_THRESHOLD = 0.5


def in_gaussian_order(images: Float[Tensor, "b v 1 h w"], patch_size: int) -> Float[Tensor, "b v m"]:
    """Return the pixels of each view in the order in which its Gaussians come: patch row, patch column, row, column."""
    return patchify(images.movedim(-3, -1), patch_size).flatten(-2)


def own_depths(means: Float[Tensor, "b n 3"], cameras: Cameras) -> Float[Tensor, "b v m"]:
    """Return the camera z of each Gaussian's centre in its own view; n = v * m Gaussians come view by view."""
    batch, num_views = cameras.shape
    offsets = means.reshape(batch, num_views, -1, 3) - cameras.centres[:, :, None]
    return (offsets * cameras.forward[:, :, None]).sum(-1)


def surface(views: Views, patch_size: int) -> tuple[Float[Tensor, "b v m"], Bool[Tensor, "b v m"]]:
    """Return the true depths in the order of the Gaussians, and where they are known and on the object."""
    assert views.depths is not None
    depths = in_gaussian_order(views.depths, patch_size)
    known = depths > 0
    if views.masks is not None:
        known = known & (in_gaussian_order(views.masks, patch_size) > MASK_THRESHOLD)
    return depths, known


def position_error(
    z: Float[Tensor, "b v m"], depths: Float[Tensor, "b v m"], known: Bool[Tensor, "b v m"], beta: float
) -> Float[Tensor, ""]:
    """Return the mean smooth L1 of log depth where it is known; 0 (with zero gradients) where no pixel is."""
    error = smooth_l1_loss(_log(z), _log(depths), reduction="none", beta=beta)
    return (error * known).sum() / known.sum().clamp(min=1)


def log_depth_error(
    z: Float[Tensor, "b v m"], depths: Float[Tensor, "b v m"], known: Bool[Tensor, "b v m"]
) -> Float[Tensor, ""]:
    """Return the mean absolute difference of log depth where it is known: a measure, not a loss."""
    return ((_log(z) - _log(depths)).abs() * known).sum() / known.sum().clamp(min=1)


def relative_disparity_error(
    z: Float[Tensor, "b v m"], depths: Float[Tensor, "b v m"], known: Bool[Tensor, "b v m"]
) -> Float[Tensor, ""]:
    """Return the papers' depth term (MODEL.md, Losses): smooth L1 of disparities, each normalised per view.

    Both are shifted by their median and divided by their mean absolute deviation, so that `depths` may come from a
    monocular network and need neither scale nor offset. Views without a known pixel do not count.
    """
    error = smooth_l1_loss(_normalised_disparity(z, known), _normalised_disparity(depths, known), reduction="none")
    return (error * known).sum() / known.sum().clamp(min=1)


def _normalised_disparity(z: Float[Tensor, "b v m"], known: Bool[Tensor, "b v m"]) -> Float[Tensor, "b v m"]:
    disparity = 1 / z.clamp(min=LEAST_DEPTH)
    median = disparity.masked_fill(~known, float("nan")).nanmedian(-1, keepdim=True).values
    centred = (disparity - median.nan_to_num(0.0)) * known
    count = known.sum(-1, keepdim=True).clamp(min=1)
    return centred / (centred.abs().sum(-1, keepdim=True) / count).clamp(min=1e-6)


def _log(z: Float[Tensor, "b v m"]) -> Float[Tensor, "b v m"]:
    return z.clamp(min=LEAST_DEPTH).log()
