"""Features and plane-sweep evidence to one Gaussian per pixel.

The network weighs, denoises and fills in what matching already shows.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, normalize, pad

from lrm_ttt.layers.initialisation import fill_normal
from lrm_ttt.layers.norms import LayerNorm, Linear
from lrm_ttt.layers.patches import patchify, unpatchify
from lrm_ttt.model.config import EvidenceConfig, GaussianHeadConfig
from lrm_ttt.model.consistency import NUM_VERDICTS, judge, surfaces
from lrm_ttt.model.evidence import DistanceRange
from lrm_ttt.model.slices import WHOLE, Slices
from lrm_ttt.model.tokenizer import ViewTokens
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.gaussians import SH_C0, Gaussians
from lrm_ttt.scene.rotations import matrix_to_wxyz, multiply_wxyz

FEATURES_PER_PIXEL = 16
# Standard deviation of a Gaussian, in pixels of the view that it comes from, before anything is learned.
FOOTPRINT_PX = 0.6
# Bounds on how far learning may take it, as log factors.
FOOTPRINT_RANGE = 3.0
# Matching evidence speaks in logits of about ten; so must the network, to be heard against it.
LOGIT_GAIN = 8.0


class _Sight(NamedTuple):
    """What the head sees in views before it knows whether others agree."""

    hidden: Float[Tensor, "n c h w"]
    hulls: Float[Tensor, "n k h w"]
    planes: Float[Tensor, "n k h w"]
    share: Float[Tensor, "n h w"]


class _Witnesses(NamedTuple):
    """All query views, of all ranks, as `judge` hears them; `places` are those of this rank's."""

    cameras: Cameras
    ranges: DistanceRange
    surface: Float[Tensor, "b v h w"]
    places: Tensor


class EvidenceGaussianHead(nn.Module):
    """Per pixel: a distribution over the planes of the sweep, then offsets to colour, footprint and opacity.

    Before training the distance is a soft minimum of the matching costs inside the visual hull, the colour is the
    pixel's, the size its footprint, and what other views see through is faint; a small convolutional net, fed by the
    tokens' features, learns the rest.
    """

    def __init__(self, width: int, patch_size: int, config: GaussianHeadConfig, evidence: EvidenceConfig) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.num_sh = (config.sh_degree + 1) ** 2
        self.norm = LayerNorm(width)
        self.linear = Linear(width, patch_size**2 * FEATURES_PER_PIXEL, bias=False)
        inputs = FEATURES_PER_PIXEL + 2 * evidence.num_planes + 4
        self.gather = nn.Conv2d(inputs, config.hidden, 1)
        self.mix = nn.Conv2d(config.hidden, config.hidden, 3, padding=1)
        self.refine = nn.Conv2d(config.hidden, config.hidden, 3, padding=1)
        self.decode_planes = nn.Conv2d(config.hidden, evidence.num_planes, 1)
        self.settle = nn.Conv2d(config.hidden + NUM_VERDICTS, config.hidden, 3, padding=1)
        self.decode = nn.Conv2d(config.hidden, 1 + 3 * self.num_sh + 3 + 4 + 1, 1)
        # Weights of the pixel's cost, its means near and wider around, and of the silhouettes, as logs.
        self.evidence_weights = nn.Parameter(torch.tensor([math.log(weight) for weight in (80, 160, 80, 40)]))
        # What coverage, the silhouettes and each view that sees through a Gaussian do to its opacity logit.
        self.opacity_weights = nn.Parameter(torch.tensor([2.0, 4.0, -1.5]))
        fill_normal(self.linear.weight)
        for last in (self.decode_planes, self.decode):
            fill_normal(last.weight, 1e-2 / math.sqrt(config.hidden))
            assert last.bias is not None
            nn.init.zeros_(last.bias)

    def forward(
        self,
        features: Float[Tensor, "b v n d"],
        queries: ViewTokens,
        dtype: torch.dtype,
        slices: Slices = WHOLE,
    ) -> Gaussians:
        """Return Gaussians `[b, v * h * w]` in the order view, patch row, patch column, row, column.

        In slices every view is looked at twice: its opacities hang on the depth maps of the others.
        """
        num_views, (height, width) = queries.shape[1], queries.views.image_size

        def look(part: slice) -> _Sight:
            return self._look(features, queries, dtype, part)

        if slices.cut(num_views):
            found = slices.map(lambda part: self._surface(look(part), queries, part), num_views)
            witnesses = _gather_witnesses(queries, found)
            return slices.gaussians(
                lambda part: self._decide(look(part), queries, witnesses, dtype, part), num_views, height * width
            )
        sight = look(slice(0, num_views))
        witnesses = _gather_witnesses(queries, self._surface(sight, queries, slice(0, num_views)))
        return slices.gaussians(
            lambda part: self._decide(sight, queries, witnesses, dtype, part), num_views, height * width
        )

    def _look(self, features: Float[Tensor, "b v n d"], queries: ViewTokens, dtype: torch.dtype, part: slice) -> _Sight:
        """Weigh the planes of the sweep in the views `part`."""
        views = queries.views[:, part]
        height, width = views.image_size
        evidence = queries.evidence_of(part)
        costs, hulls = evidence.costs.flatten(0, 1), evidence.hulls.flatten(0, 1)
        images, masks = views.images.flatten(0, 1), views.coverage.flatten(0, 1)
        local = self.linear(self.norm(features[:, part], dtype)).flatten(0, 1)
        local = unpatchify(local, self.patch_size, height // self.patch_size, width // self.patch_size).movedim(-1, 1)
        seen = torch.cat([1 - 4 * costs, hulls * 2 - 1, images * 2 - 1, masks * 2 - 1], 1).to(dtype)
        hidden = self._convolve(torch.cat([local, seen], 1))
        learned = LOGIT_GAIN * _convolved(self.decode_planes, hidden).to(costs.dtype)
        planes = (learned + self._plane_logits(costs, hulls)).softmax(1)
        return _Sight(hidden, hulls, planes, self._expected_plane(planes))

    @staticmethod
    def _surface(sight: _Sight, queries: ViewTokens, part: slice) -> Float[Tensor, "b s h w"]:
        """Return the depth maps of the views `part`."""
        views = queries.views[:, part]
        return surfaces(sight.share, views.coverage.flatten(0, 1)).unflatten(0, views.shape)

    def _decide(
        self, sight: _Sight, queries: ViewTokens, witnesses: _Witnesses, dtype: torch.dtype, part: slice
    ) -> Gaussians:
        """Hear what all views say of what the views `part` see, and decode their Gaussians."""
        views = queries.views[:, part]
        masks = views.coverage.flatten(0, 1)
        cameras, ranges, surface, places = witnesses
        verdicts = judge(cameras, ranges, sight.share, surface, sight.planes.shape[1], places[part])
        settled = gelu(_convolved(self.settle, torch.cat([sight.hidden, verdicts.to(dtype)], 1)))
        raw = _convolved(self.decode, settled + sight.hidden).to(sight.share.dtype).movedim(1, -1)
        share = sight.share[..., None] + 0.1 * torch.tanh(raw[..., :1])
        on_mask, on_hull, on_seen_through = self.opacity_weights
        hull = (sight.hulls * sight.planes).sum(1)
        logit = on_mask * (2 * masks[:, 0] - 1) + on_hull * (hull - 1) + on_seen_through * verdicts[:, 0]
        colors = views.images.flatten(0, 1).movedim(1, -1)
        return self._gaussians(queries[:, part], share, raw[..., 1:], colors, logit[..., None])

    def _convolve(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h w"]:
        x = gelu(_convolved(self.gather, x))
        x = x + gelu(_convolved(self.mix, x))
        return x + gelu(_convolved(self.refine, x))

    def _plane_logits(
        self, costs: Float[Tensor, "n k h w"], hulls: Float[Tensor, "n k h w"]
    ) -> Float[Tensor, "n k h w"]:
        own, small, large, hull = self.evidence_weights.exp()
        near = _smoothed(costs)
        return hull * hulls - own * costs - small * near - large * _smoothed(_smoothed(near))

    @staticmethod
    def _expected_plane(probabilities: Float[Tensor, "n k h w"]) -> Float[Tensor, "n h w"]:
        num_planes = probabilities.shape[1]
        centres = (torch.arange(num_planes, device=probabilities.device, dtype=probabilities.dtype) + 0.5) / num_planes
        return (probabilities * centres[:, None, None]).sum(1)

    def _gaussians(
        self,
        queries: ViewTokens,
        share: Float[Tensor, "n h w 1"],
        raw: Float[Tensor, "n h w c"],
        colors: Float[Tensor, "n h w 3"],
        logit: Float[Tensor, "n h w 1"],
    ) -> Gaussians:
        cameras = queries.views.cameras.flatten()
        sh, scale, rotation, opacity = raw.split([3 * self.num_sh, 3, 4, 1], -1)
        base = torch.cat([(colors - 0.5) / SH_C0, torch.zeros_like(sh[..., 3:])], -1)
        origins, directions = cameras.rays()
        distance = queries.ranges.flatten().at(share[..., 0].flatten(1)).reshape(share.shape)
        footprint = distance / cameras.intrinsics[:, None, None, :1] * FOOTPRINT_PX
        bounded = FOOTPRINT_RANGE * torch.tanh(scale / FOOTPRINT_RANGE)
        upright = rotation + torch.tensor([1.0, 0.0, 0.0, 0.0], device=rotation.device)
        camera_wxyz = matrix_to_wxyz(cameras.cam_to_world[:, :3, :3])[:, None, None].expand_as(upright)
        parts = [
            origins + distance * directions,
            footprint * bounded.exp(),
            multiply_wxyz(camera_wxyz, normalize(upright, dim=-1)),
        ]
        parts += [torch.sigmoid(logit + opacity), base + sh]
        batch = queries.shape[0]
        means, scales, wxyz, opacities, sh = (self._in_order(part, batch) for part in parts)
        return Gaussians(means, scales, wxyz, opacities[..., 0], sh.unflatten(-1, (self.num_sh, 3)))

    def _in_order(self, part: Float[Tensor, "n h w c"], batch: int) -> Float[Tensor, "b m c"]:
        patches = patchify(part, self.patch_size)
        return patches.reshape(batch, -1, part.shape[-1])


def _convolved(layer: nn.Conv2d, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h w"]:
    """Convolve in the dtype of `x`."""
    assert layer.bias is not None
    return conv2d(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype), padding=layer.padding)


@torch.no_grad()
def _smoothed(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return means over 3 x 3 pixels, the border repeated; not differentiable.

    By shifted sums, ten times faster than pooling on a CPU, and one image at a time, which stays in its cache.
    """
    means = torch.empty_like(x)
    for image, mean in zip(x, means, strict=True):
        padded = pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
        rows = padded[..., :-2, :] + padded[..., 1:-1, :]
        rows += padded[..., 2:, :]
        torch.add(rows[..., :-2], rows[..., 1:-1], out=mean)
        mean += rows[..., 2:]
        mean /= 9
    return means


@torch.no_grad()
def _gather_witnesses(queries: ViewTokens, surface: Float[Tensor, "b v h w"]) -> _Witnesses:
    cameras, ranges, sharing = queries.views.cameras, queries.ranges, queries.sharing
    if sharing is None:
        return _Witnesses(cameras, ranges, surface, torch.arange(surface.shape[1], device=surface.device))
    places = torch.tensor(sharing.own, device=surface.device)
    return _Witnesses(cameras.map(sharing.gather), ranges.map(sharing.gather), sharing.gather(surface), places)
