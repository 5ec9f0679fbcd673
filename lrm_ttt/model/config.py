"""Which model.

Plain data, checked when made, stored in every checkpoint. Free of torch modules, so loading it costs nothing.
"""

import dataclasses
from typing import Literal

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.layers.config import MemoryConfig, at_least, one_of

Schedule = Literal["single", "chunked", "causal"]
SCHEDULES = ("single", "chunked", "causal")


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """The stack of blocks. The schedule is part of the checkpoint: the three are different computations (MODEL.md).

    `mixer` is what mixes across views: the fast weights of tttLRM, or the softmax attention of GS-LRM, to compare with;
    `memory` configures the former.
    """

    width: int = 768
    num_blocks: int = 24
    attention_head_dim: int = 64
    feed_forward_multiple: int = 4
    memory: MemoryConfig = dataclasses.field(default_factory=MemoryConfig)
    schedule: Schedule = "single"
    views_per_update: int = 4
    scale_outputs: bool = False
    mixer: Literal["fast_weight", "softmax"] = "fast_weight"

    def __post_init__(self) -> None:
        at_least(
            "backbone", 1, width=self.width, num_blocks=self.num_blocks, attention_head_dim=self.attention_head_dim
        )
        at_least(
            "backbone", 1, feed_forward_multiple=self.feed_forward_multiple, views_per_update=self.views_per_update
        )
        one_of("backbone.schedule", self.schedule, SCHEDULES)
        one_of("backbone.mixer", self.mixer, ("fast_weight", "softmax"))
        for name, part in (("attention_head_dim", self.attention_head_dim), ("memory.head_dim", self.memory.head_dim)):
            if self.width % part:
                raise InvalidConfig(f"backbone.{name} {part} does not divide the width {self.width}.")


@dataclasses.dataclass(frozen=True)
class EvidenceConfig:
    """Plane-sweep matching evidence (evidence.py): `num_planes` distances, each compared in the nearest views."""

    num_planes: int = 48
    num_neighbours: int = 4
    num_silhouettes: int = 8

    def __post_init__(self) -> None:
        at_least("tokenizer.evidence", 1, num_neighbours=self.num_neighbours, num_silhouettes=self.num_silhouettes)
        at_least("tokenizer.evidence", 2, num_planes=self.num_planes)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Patches of rays and colours; `evidence` adds matching costs as channels (absent in the published models)."""

    patch_size: int = 8
    evidence: EvidenceConfig | None = None

    def __post_init__(self) -> None:
        at_least("tokenizer", 1, patch_size=self.patch_size)
        if self.evidence is not None and self.patch_size % 2:
            raise InvalidConfig(
                f"tokenizer.patch_size is {self.patch_size}: evidence enters at half resolution and needs an even one."
            )


@dataclasses.dataclass(frozen=True)
class GaussianHeadConfig:
    """How features become Gaussians (MODEL.md, Gaussian head). The constants are sensitive, so they are configuration.

    `distance`: `far` places Gaussians at far * sigmoid along the ray (scenes), `range` between the near and far
    distance of the capture (objects, and scenes whose range is known), `evidence` weighs the planes of the sweep, and
    takes colours from the pixels.
    """

    sh_degree: int = 0
    distance: Literal["far", "range", "evidence"] = "far"
    far: float = 500.0
    scale_shift: float = -2.3
    max_log_scale: float = -1.2
    opacity_shift: float = -2.0
    hidden: int = 32

    def __post_init__(self) -> None:
        if not 0 <= self.sh_degree <= 3:
            raise InvalidConfig(f"head.sh_degree must be 0 to 3, not {self.sh_degree}.")
        one_of("head.distance", self.distance, ("far", "range", "evidence"))
        at_least("head", 1, hidden=self.hidden)
        if self.far <= 0:
            raise InvalidConfig(f"head.far must be positive, not {self.far}.")


@dataclasses.dataclass(frozen=True)
class TriplaneConfig:
    """Three feature planes read from the memory by learned tokens, and how they are rendered (MODEL.md, Triplane
    queries).

    The plane size and the MLP are not published: these are ours, for small models (the paper's patches are 16 wide).
    Planes of `resolution` squared pixels with `channels` features each, cut into tokens of `patch_size`, cover the
    cube that reaches `extent` scene units from the focus to each side; what lies outside is not represented. Rays take
    `num_stratified` samples over the cube and `num_importance` where those found something, `rays_per_chunk` rays at
    a time, which bounds memory and changes no result.
    """

    resolution: int = 64
    patch_size: int = 8
    channels: int = 16
    hidden: int = 64
    hidden_layers: int = 2
    extent: float = 1.0
    num_stratified: int = 48
    num_importance: int = 48
    rays_per_chunk: int = 4096

    def __post_init__(self) -> None:
        at_least("triplane", 1, patch_size=self.patch_size, channels=self.channels, hidden=self.hidden)
        at_least("triplane", 1, hidden_layers=self.hidden_layers, rays_per_chunk=self.rays_per_chunk)
        at_least("triplane", 2, resolution=self.resolution, num_stratified=self.num_stratified)
        at_least("triplane", 0, num_importance=self.num_importance)
        if self.resolution % self.patch_size:
            raise InvalidConfig(
                f"triplane.patch_size {self.patch_size} does not divide the resolution {self.resolution}."
            )
        if self.extent <= 0:
            raise InvalidConfig(f"triplane.extent must be positive, not {self.extent}.")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A feed-forward model and the frame that it expects its scenes in (scene/similarity.py).

    `representation` is what the queries become: Gaussians (virtual views and `head`), images (target rays, the
    novel-view model) or a triplane (`triplane`). Everything before the head is the same, and carries over from one to
    another.
    """

    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    head: GaussianHeadConfig = dataclasses.field(default_factory=GaussianHeadConfig)
    normalisation: Literal["focus", "mean_camera", "first_camera", "none"] = "mean_camera"
    representation: Literal["gaussians", "images", "triplane"] = "gaussians"
    triplane: TriplaneConfig = dataclasses.field(default_factory=TriplaneConfig)

    def __post_init__(self) -> None:
        one_of("representation", self.representation, ("gaussians", "images", "triplane"))
        one_of("normalisation", self.normalisation, ("focus", "mean_camera", "first_camera", "none"))
        if self.representation == "triplane" and self.normalisation not in ("focus", "none"):
            raise InvalidConfig(
                f"representation 'triplane' covers a cube around the origin, where '{self.normalisation}' "
                "puts the cameras; take normalisation 'focus'."
            )
        if self.head.distance == "evidence" and self.tokenizer.evidence is None:
            raise InvalidConfig("head.distance 'evidence' needs tokenizer.evidence.")
