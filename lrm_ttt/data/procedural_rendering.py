"""Draw composed scenes: cast, texture, light, and composite, a few scenes at a time so that the work stays in cache."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.data.procedural_caster import Primitives, cast
from lrm_ttt.data.procedural_shading import Lights, shade
from lrm_ttt.data.procedural_textures import Textures, texture_colors
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.manipulable import Manipulable

# Rays of one chunk: on a CPU the temporary tensors should stay in the cache, on a GPU launches should be few.
_RAYS_PER_CHUNK = {"cpu": 1 << 16, "cuda": 1 << 22}


@dataclasses.dataclass(frozen=True)
class Composition(Manipulable):
    """Scenes ready to be drawn, all in native axes with z up."""

    primitives: Primitives
    textures: Textures
    lights: Lights
    backgrounds: Float[Tensor, "*b 3"]

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions: scenes."""
        return self.backgrounds.shape[:-1]


@dataclasses.dataclass(frozen=True)
class Pictures(Manipulable):
    """What cameras see: colours 0..1 on the background, coverage, camera z and unit world normals (both 0 where
    nothing is)."""

    colors: Float[Tensor, "*b 3 h w"]
    masks: Float[Tensor, "*b 1 h w"]
    depths: Float[Tensor, "*b 1 h w"]
    normals: Float[Tensor, "*b 3 h w"]

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions: scenes and views."""
        return self.colors.shape[:-3]


def draw(composition: Composition, cameras: Cameras, lattice: Float[Tensor, " cells"]) -> Pictures:
    """Draw scenes [b] as seen by cameras [b v]."""
    b, v = cameras.shape
    height, width = cameras.image_size
    step = max(1, _RAYS_PER_CHUNK.get(lattice.device.type, 1 << 22) // (v * height * width))
    chunks = [_draw(composition[i : i + step], cameras[i : i + step], lattice) for i in range(0, b, step)]
    return Pictures(
        *(torch.cat(parts) for parts in zip(*((c.colors, c.masks, c.depths, c.normals) for c in chunks), strict=True))
    )


def _draw(composition: Composition, cameras: Cameras, lattice: Tensor) -> Pictures:
    b, v = cameras.shape
    height, width = cameras.image_size
    hits = cast(composition.primitives, cameras)
    num_textures = composition.textures.shape[1]
    albedo, gloss = texture_colors(
        composition.textures, hits.scenes * num_textures + hits.textures, hits.points, hits.normals, lattice
    )
    view = torch.div(hits.rays, height * width, rounding_mode="floor")
    eyes = cameras.centres.flatten(0, 1).T.contiguous().gather(1, view.expand(3, -1))
    colors = shade(albedo, gloss, hits.normals, eyes - hits.points, composition.lights, hits.scenes)

    def image(values: Tensor) -> Tensor:
        flat = values.new_zeros(values.shape[0], b * v * height * width)
        flat.index_copy_(1, hits.rays, values)
        return flat.view(-1, b, v, height, width).permute(1, 2, 0, 3, 4)

    masks = image(torch.ones_like(gloss)[None])
    background = composition.backgrounds[:, None, :, None, None] * (1 - masks)
    return Pictures(image(colors) + background, masks, image(hits.depths[None]), image(hits.normals))
