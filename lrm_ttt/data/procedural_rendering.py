"""Draw composed scenes: cast, texture, light, and composite, a few scenes at a time so that the work stays in cache."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.data.procedural_caster import Caster, Hits, row_of
from lrm_ttt.data.procedural_primitives import Primitives
from lrm_ttt.data.procedural_shading import Lights, shade
from lrm_ttt.data.procedural_shadows import ShadowMaps, cast_shadows
from lrm_ttt.data.procedural_textures import Textures, texture_colors
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.manipulable import Manipulable

# Rays of one chunk: on a CPU the temporary tensors should stay in the cache, on a GPU launches should be few.
_RAYS_PER_CHUNK = {"cpu": 1 << 17, "cuda": 1 << 22}

# Places of the finer samples within a pixel, in pixels from its centre: a turned grid, which serves near-horizontal
# and near-vertical edges better than an upright one.
_SAMPLES = ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125))

# Neighbouring pixels whose normals differ by more are sampled finely, as are those on different primitives.
_CREASE = 0.3


@dataclasses.dataclass(frozen=True)
class Composition(Manipulable):
    """Scenes ready to be drawn, all in native axes with z up.

    The balls `centres`, `radii` hold what matters most: cameras look at them, and shadows fall within them.
    """

    primitives: Primitives
    textures: Textures
    lights: Lights
    backgrounds: Float[Tensor, "*b 3"]
    centres: Float[Tensor, "*b 3"]
    radii: Float[Tensor, "*b"]

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions: scenes."""
        return self.radii.shape


@dataclasses.dataclass(frozen=True)
class Pictures(Manipulable):
    """What cameras see: colours 0..1 on the background, coverage 0..1, camera z and unit world normals.

    Depths and normals are those at the pixel's centre, 0 where nothing is there.
    """

    colors: Float[Tensor, "*b 3 h w"]
    masks: Float[Tensor, "*b 1 h w"]
    depths: Float[Tensor, "*b 1 h w"]
    normals: Float[Tensor, "*b 3 h w"]

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions: scenes and views."""
        return self.colors.shape[:-3]


def draw(
    composition: Composition, cameras: Cameras, lattice: Float[Tensor, " cells"], antialias: bool = True
) -> Pictures:
    """Draw scenes [b] as seen by cameras [b v]; `antialias` samples pixels at outlines and creases four times."""
    b, v = cameras.shape
    height, width = cameras.image_size
    step = max(1, _RAYS_PER_CHUNK.get(lattice.device.type, 1 << 22) // (v * height * width))
    starts = range(0, b, step)
    chunks = [_draw(composition[i : i + step], cameras[i : i + step], lattice, antialias) for i in starts]
    fields = zip(*((chunk.colors, chunk.masks, chunk.depths, chunk.normals) for chunk in chunks), strict=True)
    return Pictures(*(torch.cat(parts) for parts in fields))


def _draw(composition: Composition, cameras: Cameras, lattice: Tensor, antialias: bool) -> Pictures:
    b, v = cameras.shape
    height, width = cameras.image_size
    device = lattice.device
    caster = Caster(composition.primitives, cameras)
    shadows = cast_shadows(composition.primitives, composition.lights, composition.centres, composition.radii, cameras)
    keys = caster.grid()
    hits = caster.hits(keys)
    # Depth, normal, colour and coverage of the pixels, flattened [b v h w].
    canvas = torch.zeros(8, b * v * height * width, device=device)
    canvas[:4].index_copy_(1, hits.rays, torch.cat([hits.depths[None], hits.normals]))
    color = _colors(composition, cameras, shadows, hits, lattice)
    canvas[4:].index_copy_(1, hits.rays, torch.cat([color, torch.ones_like(color[:1])]))
    if antialias:
        rows = row_of(keys).view(b * v, height, width)
        fine = _edges(rows, canvas[1:4].view(3, b * v, height, width)).view(-1).nonzero().squeeze(1)
        canvas[4:].index_copy_(1, fine, _refine(composition, cameras, shadows, caster, rows, fine, lattice))

    def image(channels: Tensor) -> Tensor:
        return channels.view(-1, b, v, height, width).permute(1, 2, 0, 3, 4).contiguous()

    masks = image(canvas[7:])
    background = composition.backgrounds[:, None, :, None, None] * (1 - masks)
    return Pictures(image(canvas[4:7]) + background, masks, image(canvas[:1]), image(canvas[1:4]))


def _colors(composition: Composition, cameras: Cameras, shadows: ShadowMaps, hits: Hits, lattice: Tensor) -> Tensor:
    """Return the colours [3 n] of hits."""
    index = hits.scenes * composition.textures.shape[1] + hits.textures
    albedo, gloss = texture_colors(composition.textures, index, hits.points, hits.normals, lattice)
    eyes = cameras.centres.flatten(0, 1).T.contiguous().gather(1, hits.views.expand(3, -1))
    lit = shadows.lit(hits.points, hits.normals, hits.scenes)
    return shade(albedo, gloss, hits.normals, eyes - hits.points, composition.lights, hits.scenes, lit)


def _edges(rows: Tensor, normals: Tensor) -> Tensor:
    """Return which pixels [n h w] differ from a neighbour in what they show or where it faces."""
    edges = torch.zeros_like(rows, dtype=torch.bool)
    for dim in (1, 2):
        length = rows.shape[dim] - 1
        jump = rows.narrow(dim, 0, length) != rows.narrow(dim, 1, length)
        bend = (normals.narrow(dim + 1, 0, length) - normals.narrow(dim + 1, 1, length)).abs_().amax(0) > _CREASE
        jump |= bend
        edges.narrow(dim, 0, length).logical_or_(jump)
        edges.narrow(dim, 1, length).logical_or_(jump)
    return edges


def _refine(
    composition: Composition,
    cameras: Cameras,
    shadows: ShadowMaps,
    caster: Caster,
    rows: Tensor,
    fine: Tensor,
    lattice: Tensor,
) -> Tensor:
    """Return colour and coverage [4 n] of the pixels `fine`, the mean of samples of what the neighbours show."""
    height, width = cameras.image_size
    padded = torch.nn.functional.pad(rows[None].double(), (1, 1, 1, 1), mode="replicate")[0].long()
    image = torch.div(fine, height * width, rounding_mode="floor")
    pixel = fine - image * (height * width)
    corner = (image * (height + 2) + torch.div(pixel, width, rounding_mode="floor")) * (width + 2) + pixel % width
    steps = torch.tensor([i * (width + 2) + j for i in range(3) for j in range(3)], device=fine.device)
    candidates = padded.view(-1)[corner[:, None] + steps]
    offsets = torch.tensor(_SAMPLES, device=fine.device)
    x = caster.x[pixel] + offsets[:, :1] * (2 / width)
    y = caster.y[pixel] + offsets[:, 1:] * (2 / height)
    hits = caster.hits(caster.samples(candidates, x, y), x.flatten(), y.flatten())
    samples = torch.zeros(4, len(_SAMPLES) * fine.shape[0], device=fine.device)
    color = _colors(composition, cameras, shadows, hits, lattice)
    samples.index_copy_(1, hits.rays, torch.cat([color, torch.ones_like(color[:1])]))
    return samples.view(4, len(_SAMPLES), -1).mean(1)
