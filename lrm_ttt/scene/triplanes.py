"""A radiance field as three feature planes and the small network that reads them."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, softplus

from lrm_ttt.scene.manipulable import Manipulable

# The coordinates that run along the columns and the rows of each plane.
PLANE_AXES = ((0, 1), (0, 2), (1, 2))
# Density over the half-extent at raw 0 is DENSITY_SCALE * softplus(DENSITY_SHIFT), about 0.2: thin fog, which every
# sample of a ray can thicken or clear. The scale lets raw values of a few make a surface.
DENSITY_SCALE, DENSITY_SHIFT = 10.0, -4.0


@dataclasses.dataclass(frozen=True)
class FieldNetwork(Manipulable):
    """A perceptron with rectified hidden layers, as weights `[out, in]`; one for each scene, or one expanded.

    It maps the features of the three planes, concatenated (a sum would tie the planes' weights), to raw density and
    raw colour.
    """

    enter: Float[Tensor, "*b f c3"]
    enter_bias: Float[Tensor, "*b f"]
    hidden: Float[Tensor, "*b l f f"]
    hidden_bias: Float[Tensor, "*b l f"]
    leave: Float[Tensor, "*b 4 f"]
    leave_bias: Float[Tensor, "*b 4"]

    @property
    def shape(self) -> torch.Size:
        """The batch dimension."""
        return self.enter.shape[:-2]

    def apply(self, features: Float[Tensor, "b c3 n"]) -> Float[Tensor, "b 4 n"]:
        """Return raw density and raw colour for each column of features."""
        x = torch.baddbmm(self.enter_bias[..., None], self.enter, features).relu_()
        for weight, bias in zip(self.hidden.unbind(1), self.hidden_bias.unbind(1), strict=True):
            x = torch.baddbmm(bias[..., None], weight, x).relu_()
        return torch.baddbmm(self.leave_bias[..., None], self.leave, x)


@dataclasses.dataclass(frozen=True)
class Triplanes(Manipulable):
    """All that is needed to render a scene: three planes of features and the network that reads them.

    The field fills the cube -extent..extent around the origin of the scene frame. The planes span (x, y), (x, z) and
    (y, z), the first coordinate along the columns; pixels tile the cube's sides, so the centre of the first lies half
    a pixel inside (`align_corners=False`).
    """

    planes: Float[Tensor, "*b 3 c r r"]
    network: FieldNetwork
    extent: float

    @property
    def shape(self) -> torch.Size:
        """The batch dimension."""
        return self.planes.shape[:-4]

    def features(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b c3 n"]:
        """Gather the planes bilinearly at points of the scene; past the outermost pixel centres they are constant."""
        batch, num_points, _ = points.shape
        axes = torch.tensor(PLANE_AXES, device=points.device)
        grid = (points / self.extent)[..., axes].movedim(-2, 1).reshape(batch * 3, 1, num_points, 2)
        gathered = grid_sample(self.planes.flatten(0, 1), grid, padding_mode="border", align_corners=False)
        return gathered.reshape(batch, -1, num_points)

    def radiance(self, points: Float[Tensor, "b n 3"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b 3 n"]]:
        """Return density (per scene unit, at least 0) and colour (0..1) at points of the scene."""
        density, color = self.network.apply(self.features(points)).split([1, 3], 1)
        return DENSITY_SCALE / self.extent * softplus(density[:, 0] + DENSITY_SHIFT), torch.sigmoid(color)
