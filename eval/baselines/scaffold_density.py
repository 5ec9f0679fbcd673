"""How the anchors of Scaffold-GS come and go: section 3.3 of arXiv 2312.00109."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrm_ttt.eval.baselines.config import ScaffoldConfig
from lrm_ttt.eval.baselines.initialise import Cloud
from lrm_ttt.eval.baselines.seen import Seen
from lrm_ttt.eval.baselines.splats import Splats, take

# Cells of three sizes, each a quarter of the one before, ask for twice the gradient of the one before.
LEVELS, FINER, STRICTER = 3, 4, 2.0
# What was seen in less than these shares of the steps since the last change is not judged: Gaussians, anchors.
SEEN_ENOUGH, ANCHOR_SEEN_ENOUGH = 0.4, 0.8
# Cells are counted from the origin, this many to each side.
MOST_CELLS = 2**20


def first_anchors(cloud: Cloud, config: ScaffoldConfig) -> dict[str, Tensor]:
    """Return an anchor for each cell in which there are points, as large as its points are apart."""
    keys = cell_keys(cloud.points, config.cell)
    found, cell_of = keys.unique(return_inverse=True)
    spacing = torch.zeros(len(found)).scatter_reduce(0, cell_of, cloud.spacing, "amax", include_self=False)
    return new_anchors(cell_centres(found, config.cell), spacing, torch.zeros(len(found), config.features), config)


def new_anchors(
    means: Float[Tensor, "m 3"], sizes: Float[Tensor, "m"], features: Float[Tensor, "m f"], config: ScaffoldConfig
) -> dict[str, Tensor]:
    """Return anchors of these places, sizes and features, whose Gaussians are all in the middle."""
    scales = sizes.log()[:, None].repeat(1, 6)
    return {
        "means": means,
        "scales": scales,
        "features": features,
        "offsets": means.new_zeros(len(means), config.offsets, 3),
    }


def cell_keys(points: Float[Tensor, "n 3"], side: float) -> Int[Tensor, "n"]:
    """Return one whole number for the cell of each point in a grid of cubes."""
    cells = (points / side).round().long().clamp(-MOST_CELLS, MOST_CELLS - 1) + MOST_CELLS
    x, y, z = cells.unbind(-1)
    return (x * (2 * MOST_CELLS) + y) * (2 * MOST_CELLS) + z


def cell_centres(keys: Int[Tensor, "n"], side: float) -> Float[Tensor, "n 3"]:
    """Return the middle of the cells that `cell_keys` has numbered."""
    width = 2 * MOST_CELLS
    cells = torch.stack([keys // width**2, keys // width % width, keys % width], -1) - MOST_CELLS
    return cells.float() * side


class AnchorDensity:
    """Give an anchor to Gaussians that the loss pulls at where there is none, and remove those that show nothing."""

    def __init__(self, config: ScaffoldConfig, generator: torch.Generator) -> None:
        self.config = config
        self.stop = round(config.stop * config.iterations)
        self.generator = generator
        # Of each Gaussian `[m k]` the gradients and how often it was seen, of each anchor `[m]` opacity and steps.
        self.gradients = self.counts = self.opacities = self.steps = torch.zeros(0)

    def watches(self, step: int) -> bool:
        """Say whether it wants to know what is seen in this step."""
        return self.config.start < step < self.stop

    @torch.no_grad()
    def after_step(
        self, splats: Splats, step: int, seen: Seen, places: Int[Tensor, "n"], opacities: Float[Tensor, "n"]
    ) -> None:
        """Note what step number `step` (from 0) saw of the Gaussians at `places`, and change anchors if it is time."""
        self._note(splats, seen, places, opacities)
        if step > 3 * self.config.start and step % self.config.every == 0:
            self._grow(splats)
            self._prune(splats)

    def _note(self, splats: Splats, seen: Seen, places: Tensor, opacities: Tensor) -> None:
        number, offsets = splats.parameters["offsets"].shape[:2]
        if not len(self.steps):
            zeros = splats.parameters["means"].new_zeros
            self.gradients, self.counts = zeros(number, offsets), zeros(number, offsets)
            self.opacities, self.steps = zeros(number), zeros(number)
        (height, width), gradient = seen.image_size, seen.screen.means2d.grad
        assert gradient is not None
        x, y = gradient[0].unbind(-1)
        drawn = (seen.screen.radii[0] > 0).to(x)
        self.gradients.view(-1).index_add_(0, places, torch.hypot(x * (width / 2), y * (height / 2)) * drawn)
        self.counts.view(-1).index_add_(0, places, drawn)
        parents = places.div(offsets, rounding_mode="floor")
        self.opacities.index_add_(0, parents, opacities)
        self.steps += 1

    def _grow(self, splats: Splats) -> None:
        config, parameters = self.config, splats.parameters
        judged = self.counts > SEEN_ENOUGH * config.every
        pull = self.gradients / self.counts.clamp(min=1)
        sizes = parameters["scales"][:, None, :3].exp()
        places = parameters["means"][:, None] + parameters["offsets"] * sizes
        features = parameters["features"].detach()
        for level in range(LEVELS):
            chance = torch.rand(judged.shape, generator=self.generator).to(pull)
            wanted = judged & (pull >= config.grow_gradient * STRICTER**level) & (chance > 0.5 ** (level + 1))
            self._add(splats, places, features, wanted, config.cell * FINER ** (LEVELS - 1 - level))
        grown = splats.num_gaussians - len(judged)
        self.gradients, self.counts = (
            _longer(values.masked_fill(judged, 0), grown) for values in (self.gradients, self.counts)
        )
        self.opacities, self.steps = _longer(self.opacities, grown), _longer(self.steps, grown)

    def _add(self, splats: Splats, places: Tensor, features: Tensor, wanted: Bool[Tensor, "m k"], side: float) -> None:
        """Put an anchor into each cell where a Gaussian asks for one and none is."""
        keys, taken = cell_keys(places[wanted], side), cell_keys(splats.parameters["means"], side)
        free = ~torch.isin(keys, taken)
        found, cell_of = keys[free].unique(return_inverse=True)
        if not len(found):
            return
        parents = wanted.nonzero()[free, 0]
        strongest = features.new_zeros(len(found), features.shape[1]).scatter_reduce(
            0, cell_of[:, None].expand(-1, features.shape[1]), features[parents], "amax", include_self=False
        )
        means = cell_centres(found, side)
        added = new_anchors(means, means.new_full((len(means),), side), strongest, self.config)
        everything = torch.arange(splats.num_gaussians, device=means.device)
        take(splats, torch.cat([everything, everything.new_zeros(len(found))]), len(found))
        for name, value in added.items():
            splats.parameters[name][-len(found) :] = value

    def _prune(self, splats: Splats) -> None:
        judged = self.steps > ANCHOR_SEEN_ENOUGH * self.config.every
        kept = ~(judged & (self.opacities < self.config.prune_opacity * self.steps))
        self.opacities, self.steps = (values.masked_fill(judged, 0) for values in (self.opacities, self.steps))
        # Where everything would go there would be nothing to grow from.
        if kept.any() and not kept.all():
            take(splats, kept.nonzero()[:, 0])
            self.gradients, self.counts = self.gradients[kept], self.counts[kept]
            self.opacities, self.steps = self.opacities[kept], self.steps[kept]


def _longer(values: Tensor, number: int) -> Tensor:
    """Return values with zeros for more anchors."""
    return torch.cat([values, values.new_zeros(number, *values.shape[1:])])
