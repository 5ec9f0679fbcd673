"""Activated 3D Gaussians and what a similarity of the world does to them."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.gaussian_finish.selection import highest, positions
from lrm_ttt.scene.manipulable import Manipulable
from lrm_ttt.scene.rotations import matrix_to_wxyz, multiply_wxyz, rotate_sh
from lrm_ttt.scene.similarity import Similarity

SH_C0 = 0.28209479177387814


@dataclasses.dataclass(frozen=True)
class Gaussians(Manipulable):
    """Gaussians as renderers take them.

    `scales` are standard deviations in scene units, `wxyz` unit quaternions, `opacities` 0..1, `sh` real spherical
    harmonics up to some degree (k = (degree + 1)^2) in world directions with the +0.5 convention: colour = max(0.5 +
    sum_k sh_k Y_k, 0).
    """

    means: Float[Tensor, "*b n 3"]
    scales: Float[Tensor, "*b n 3"]
    wxyz: Float[Tensor, "*b n 4"]
    opacities: Float[Tensor, "*b n"]
    sh: Float[Tensor, "*b n k 3"]

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions, without the number of Gaussians."""
        return self.means.shape[:-2]

    @property
    def num_gaussians(self) -> int:
        """Gaussians of each scene."""
        return self.means.shape[-2]

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics."""
        return round(self.sh.shape[-2] ** 0.5) - 1

    def transform(self, similarity: Similarity) -> "Gaussians":
        """Map means, scales, rotations and spherical harmonics by a similarity of the world `[*b]`."""
        rotation = matrix_to_wxyz(similarity.rotation)[..., None, :].to(self.wxyz.dtype)
        return dataclasses.replace(
            self,
            means=similarity.points(self.means),
            scales=self.scales * similarity.scale[..., None, None],
            wxyz=multiply_wxyz(rotation.expand_as(self.wxyz), self.wxyz),
            sh=rotate_sh(self.sh, similarity.rotation),
        )

    def select(self, index: Tensor | slice) -> "Gaussians":
        """Keep the Gaussians at `index` (positions, a mask over n, or a range of n) of a single scene."""
        assert not self.shape, "select works on one scene: index the batch first"
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            # Counted once: a device would be waited for at every field.
            index = index.nonzero()[:, 0]
        return self.map(lambda tensor: tensor[index])

    def prune(
        self, keep_fraction: float, random_fraction: float = 0.0, generator: torch.Generator | None = None
    ) -> "Gaussians":
        """Keep the share `keep_fraction` of highest opacity, and `random_fraction` of the rest at random (tttLRM: 0.4
        and 0.1).

        The order of the Gaussians is kept, and of every scene `[*b]` the same number. The choice is not differentiable.
        """
        num_kept, num_more = kept_numbers(self.num_gaussians, keep_fraction, random_fraction)
        if num_kept + num_more == self.num_gaussians:
            return self
        kept = highest(self.opacities, num_kept)
        if num_more:
            kept |= highest(_chances(self.opacities, generator).masked_fill(kept, -1.0), num_more)
        batch, number = len(self.shape), num_kept + num_more
        index = positions(kept, number)
        return self.map(lambda part: part.flatten(0, batch).index_select(0, index).unflatten(0, (*self.shape, number)))


def _chances(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return uniform numbers 0..1, drawn on the device of `like`: a generator of another device gives the seed."""
    if generator is not None and generator.device != like.device:
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        generator = torch.Generator(like.device).manual_seed(int(seed))
    return torch.rand(like.shape, generator=generator, device=like.device)


def kept_numbers(num_gaussians: int, keep_fraction: float, random_fraction: float) -> tuple[int, int]:
    """Return how many Gaussians `Gaussians.prune` keeps for their opacity, and how many of the rest by chance."""
    assert 0 < keep_fraction <= 1 and 0 <= random_fraction <= 1
    num_kept = max(1, round(keep_fraction * num_gaussians))
    return num_kept, round(random_fraction * (num_gaussians - num_kept))
