"""Find points in images that can be found again in other images, and match them.

Corners at several scales (Harris and Stephens 1988) with SIFT descriptors (Lowe 2004; square roots as Arandjelovic and
Zisserman 2012), in plain torch: enough to check cameras by, without another dependency.
"""

import dataclasses
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, interpolate, max_pool2d, normalize, pad

SCALES = (1.0, 0.7071, 0.5, 0.3536)
POINTS_PER_SCALE = (450, 300, 200, 100)
# Corners weaker than this share of the image's strongest are noise.
WEAKEST = 1e-4
BORDER = 10
CELLS, ORIENTATIONS, PATCH = 4, 8, 16
# Of the distance to the runner-up; images of different things then have up to 20 matches, and mostly less than 10.
RATIO = 0.75


@dataclasses.dataclass(frozen=True)
class Features:
    """Points of an image in pixels (centres at +0.5), and unit descriptors."""

    points: Float[Tensor, "n 2"]
    descriptors: Float[Tensor, "n 128"]


def find_features(grey: Float[Tensor, "h w"]) -> Features:
    """Return the strongest corners of an image with values 0..1, at all scales, spread over it."""
    points, descriptors = [], []
    height, width = grey.shape
    for scale, most in zip(SCALES, POINTS_PER_SCALE, strict=True):
        size = round(height * scale), round(width * scale)
        if min(size) < 4 * BORDER:
            break
        image = grey[None, None] if scale == 1 else interpolate(grey[None, None], size, mode="bilinear", antialias=True)
        image = _blur(image, 1.0)
        across, down = _gradients(image)
        corners = _corners(across, down, most)
        if len(corners) == 0:
            continue
        descriptors.append(_describe(torch.cat([across, down], 1), corners))
        points.append(corners * corners.new_tensor([width / size[1], height / size[0]]))
    if not points:
        return Features(grey.new_zeros(0, 2), grey.new_zeros(0, CELLS * CELLS * ORIENTATIONS))
    return Features(torch.cat(points), torch.cat(descriptors))


def match(first: Features, second: Features) -> Int[Tensor, "m 2"]:
    """Return pairs of features, one of each image, that are each other's best match, by far."""
    if min(len(first.points), len(second.points)) < 3:
        return torch.zeros(0, 2, dtype=torch.long)
    likeness = first.descriptors @ second.descriptors.T
    best, at = likeness.topk(2, dim=1)
    distances = (2 - 2 * best).clamp(min=1e-12).sqrt()
    mutual = likeness.argmax(0)[at[:, 0]] == torch.arange(len(at))
    clear = distances[:, 0] < RATIO * distances[:, 1]
    kept = (mutual & clear).nonzero()[:, 0]
    return torch.stack([kept, at[kept, 0]], 1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None, :, None]
    image = conv2d(pad(image, (0, 0, radius, radius), mode="replicate"), kernel)
    return conv2d(pad(image, (radius, radius, 0, 0), mode="replicate"), kernel.transpose(2, 3))


def _gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    padded = pad(image, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return across, down


def _corners(across: Tensor, down: Tensor, most: int) -> Float[Tensor, "n 2"]:
    """Return where both eigenvalues of the structure tensor are large, to a fraction of a pixel."""
    xx, yy, xy = (_blur(product, 1.5) for product in (across * across, down * down, across * down))
    strength = (xx + yy) / 2 - (((xx - yy) / 2) ** 2 + xy**2).sqrt()
    peaks = (strength == max_pool2d(strength, 5, 1, 2))[0, 0]
    peaks[:BORDER], peaks[-BORDER:], peaks[:, :BORDER], peaks[:, -BORDER:] = False, False, False, False
    # Dividing by the neighbourhood's mean spreads the corners over the image.
    height, width = strength.shape[-2:]
    coarse = interpolate(strength, (max(1, height // 64), max(1, width // 64)), mode="area")
    local = strength / (interpolate(coarse, (height, width), mode="bilinear") + WEAKEST * strength.max() + 1e-12)
    row, column = (peaks & (strength[0, 0] > WEAKEST * strength.max())).nonzero(as_tuple=True)
    order = local[0, 0, row, column].argsort(descending=True)[:most]
    row, column = row[order], column[order]
    values = strength[0, 0]
    shifts = []
    for near, far in (
        (values[row, column - 1], values[row, column + 1]),
        (values[row - 1, column], values[row + 1, column]),
    ):
        curvature = near + far - 2 * values[row, column]
        shifts.append(
            torch.where(curvature < 0, (near - far) / (2 * curvature.clamp(max=-1e-20)), 0.0).clamp(-0.5, 0.5)
        )
    return torch.stack([column + 0.5 + shifts[0], row + 0.5 + shifts[1]], 1)


def _describe(gradients: Float[Tensor, "1 2 h w"], points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 128"]:
    """Return histograms of gradient directions in 4x4 cells around each point, turned to its main direction."""
    offsets = torch.arange(PATCH, dtype=points.dtype) - (PATCH - 1) / 2
    grid = torch.stack(torch.meshgrid(offsets, offsets, indexing="xy"), -1).reshape(-1, 2)
    weights = torch.exp(-0.5 * (grid.norm(dim=1) / (PATCH / 3)) ** 2)
    sampled = _sample(gradients, points[:, None] + grid)
    turn = _main_direction(sampled, weights)
    cosine, sine = turn.cos(), turn.sin()
    rotation = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
    sampled = _sample(gradients, points[:, None] + grid @ rotation.transpose(1, 2))
    length = sampled.norm(dim=-1) * weights
    angle = torch.atan2(sampled[..., 1], sampled[..., 0]) - turn[:, None]
    low, share = _nearest_bins(angle, ORIENTATIONS)
    directions = length.new_zeros(*length.shape, ORIENTATIONS)
    directions = directions.scatter_(2, low[..., None], (length * (1 - share))[..., None])
    directions = directions.scatter_(2, ((low + 1) % ORIENTATIONS)[..., None], (length * share)[..., None])
    # A sample counts for the cells around it, in proportion to its nearness.
    centres = (torch.arange(CELLS, dtype=points.dtype) - (CELLS - 1) / 2) * (PATCH / CELLS)
    near = (1 - (grid[:, None] - centres[None, :, None]).abs() / (PATCH / CELLS)).clamp(min=0)
    cells = (near[:, :, None, 0] * near[:, None, :, 1]).flatten(1)
    histogram = torch.einsum("nso,sc->nco", directions, cells).flatten(1)
    histogram = normalize(histogram, dim=1).clamp(max=0.2)
    return normalize(histogram, p=1, dim=1).sqrt()


def _main_direction(sampled: Float[Tensor, "n s 2"], weights: Float[Tensor, "s"]) -> Float[Tensor, "n"]:
    bins = 36
    angle = torch.atan2(sampled[..., 1], sampled[..., 0])
    length = sampled.norm(dim=-1) * weights
    low, share = _nearest_bins(angle, bins)
    histogram = length.new_zeros(len(length), bins)
    histogram = histogram.scatter_add(1, low, length * (1 - share)).scatter_add(1, (low + 1) % bins, length * share)
    for _ in range(2):
        histogram = (histogram.roll(1, 1) + histogram + histogram.roll(-1, 1)) / 3
    peak = histogram.argmax(1, keepdim=True)
    before, at, after = (histogram.gather(1, (peak + shift) % bins)[:, 0] for shift in (-1, 0, 1))
    shift = (before - after) / (2 * (before + after - 2 * at).clamp(max=-1e-12))
    return (peak[:, 0] + shift.clamp(-0.5, 0.5)) * (2 * math.pi / bins)


def _nearest_bins(angle: Float[Tensor, "n s"], bins: int) -> tuple[Int[Tensor, "n s"], Float[Tensor, "n s"]]:
    """Return the bin below each direction, and how far (0..1) the direction is on its way to the next."""
    position = (angle * (bins / (2 * math.pi))).remainder(bins)
    low = position.floor()
    return low.long() % bins, position - low


def _sample(gradients: Float[Tensor, "1 2 h w"], at: Float[Tensor, "n s 2"]) -> Float[Tensor, "n s 2"]:
    size = at.new_tensor([gradients.shape[-1], gradients.shape[-2]])
    sampled = grid_sample(
        gradients, (at / size * 2 - 1)[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0].permute(1, 2, 0)
