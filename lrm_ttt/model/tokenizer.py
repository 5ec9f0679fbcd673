"""Views to tokens: rays, colours and, where configured, matching evidence, cut into patches."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lrm_ttt.layers.norms import LayerNorm, Linear
from lrm_ttt.layers.patches import patchify
from lrm_ttt.model.config import TokenizerConfig
from lrm_ttt.model.evidence import DistanceRange, Evidence, Part, distance_range, gather_evidence
from lrm_ttt.model.slices import WHOLE, Slices
from lrm_ttt.parallel.sharing import Sharing
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.manipulable import Manipulable
from lrm_ttt.scene.views import Views

RAY_CHANNELS = 12
# Evidence enters the tokens at half resolution: the pixels' own costs reach the head directly.
EVIDENCE_POOL = 2


@dataclasses.dataclass(frozen=True)
class ViewTokens(Manipulable):
    """Embedded views `[b v]` with what the head needs to know of them; tokens run over patch rows, then columns.

    Evidence is kept, or gathered when it is asked for: then `places` are the positions of the views, the same in every
    scene, among those that `gather` sweeps. In a view group `sharing` says what this rank's views are part of.
    """

    tokens: Float[Tensor, "*b n d"]
    views: Views
    ranges: DistanceRange
    evidence: Evidence | None
    places: Int[Tensor, "*b"] | None = None
    gather: Callable[[Tensor], Evidence] | None = None
    sharing: Sharing | None = None

    @property
    def shape(self) -> torch.Size:
        """Scenes and views."""
        return self.tokens.shape[:-2]

    @property
    def num_tokens(self) -> int:
        """Tokens of one view."""
        return self.tokens.shape[-2]

    def evidence_of(self, part: slice) -> Evidence:
        """Return the evidence of the views `part` of `[b v]`, for a model that has any."""
        if self.evidence is not None:
            return self.evidence[:, part]
        assert self.gather is not None and self.places is not None
        return self.gather(self.places[0, part])


def ray_channels(cameras: Cameras, images: Float[Tensor, "*b 3 h w"] | None) -> Float[Tensor, "*b h w 12"]:
    """Return origin, unit direction, origin x direction and 2 rgb - 1 of every pixel.

    Zeros for colours where there is no image.
    """
    origins, directions = cameras.rays()
    colors = torch.zeros_like(origins) if images is None else images.movedim(-3, -1) * 2 - 1
    return torch.cat([origins, directions, torch.linalg.cross(origins, directions), colors], -1)


class Tokenizer(nn.Module):
    """One linear map per patch without bias, then a layer norm without bias (MODEL.md, Tokens)."""

    def __init__(self, width: int, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Linear(config.patch_size**2 * RAY_CHANNELS, width, bias=False)
        if config.evidence is not None:
            pooled = (config.patch_size // EVIDENCE_POOL) ** 2
            # The last channel is the mask.
            self.embed_evidence = Linear(pooled * (2 * config.evidence.num_planes + 1), width, bias=False)
        self.norm = LayerNorm(width)

    def forward(
        self,
        views: Views,
        dtype: torch.dtype,
        slices: Slices = WHOLE,
        inputs: Cameras | None = None,
        own: Sequence[int] | None = None,
    ) -> ViewTokens:
        """Embed views `[b v]`, in scene coordinates, whose height and width are multiples of the patch size.

        In slices the evidence is not kept, but gathered again when it is asked for. `inputs` as in `distance_range`.
        Only the views at the positions `own` (None: all) are embedded; the others are evidence.
        """
        ranges = distance_range(views.cameras, views.masks is not None, inputs)
        place = torch.arange(views.shape[1], device=views.images.device)
        mine, own_ranges = views, ranges
        part: Part = slice(None)
        if own is not None:
            place = place[list(own)]
            mine, own_ranges, part = views[:, place], ranges[:, place], place
        count = mine.shape[1]
        if self.config.evidence is None:
            tokens = slices.map(lambda some: self._embed(mine[:, some], None, dtype), count)
            return ViewTokens(tokens, mine, own_ranges, None)
        if not slices.cut(count):
            evidence = gather_evidence(views, ranges, self.config.evidence, part)
            return ViewTokens(self._embed(mine, evidence, dtype), mine, own_ranges, evidence)
        gather = functools.partial(gather_evidence, views, ranges, self.config.evidence)
        tokens = slices.map(lambda some: self._embed(mine[:, some], gather(place[some]), dtype), count)
        return ViewTokens(tokens, mine, own_ranges, None, place.expand(*mine.shape), gather)

    def _embed(self, views: Views, evidence: Evidence | None, dtype: torch.dtype) -> Float[Tensor, "b v n d"]:
        channels = ray_channels(views.cameras, views.images)
        tokens = self.embed(patchify(channels, self.config.patch_size).to(dtype))
        if evidence is not None:
            tokens = tokens + self.embed_evidence(self._evidence_patches(views, evidence).to(dtype))
        return self.norm(tokens, self.norm.weight.dtype)

    def embed_rays(self, cameras: Cameras, dtype: torch.dtype) -> Float[Tensor, "b v n d"]:
        """Embed cameras `[b v]` without images: zeros in place of colours (LVSM), and no evidence."""
        channels = patchify(ray_channels(cameras, None), self.config.patch_size)
        return self.norm(self.embed(channels.to(dtype)), self.norm.weight.dtype)

    def _evidence_patches(self, views: Views, evidence: Evidence) -> Float[Tensor, "b v n p"]:
        channels = torch.cat([1 - 4 * evidence.costs, evidence.hulls * 2 - 1, views.coverage * 2 - 1], -3)
        pooled = avg_pool2d(channels.flatten(0, 1), EVIDENCE_POOL)
        patches = patchify(pooled.movedim(1, -1), self.config.patch_size // EVIDENCE_POOL)
        return patches.reshape(*views.shape, *patches.shape[1:])
