"""Scaffold-GS (arXiv 2312.00109): anchors carry features, and networks make Gaussians of them for every camera."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from lrm_ttt.eval.baselines.config import ScaffoldConfig
from lrm_ttt.eval.baselines.initialise import SH_CONSTANT, make_cloud
from lrm_ttt.eval.baselines.scaffold_density import AnchorDensity, first_anchors
from lrm_ttt.eval.baselines.shots import NEAR, Shots, placed, seeded
from lrm_ttt.eval.baselines.splats import with_optimisers
from lrm_ttt.eval.task import Advance, Outcome, Task
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.gaussians import Gaussians

# How a network sees an anchor besides its features: the direction from the camera. The distance, which the paper adds,
# costs 0.3 dB on held-out views of few inputs (CHANGELOG.md).
VIEWED = 3
# Of a Gaussian's shape: shares of its anchor's size along three axes, and a quaternion.
SHAPE, COLOR = 7, 3


class Decoded(NamedTuple):
    """The Gaussians that one camera sees, and the position of each among the offsets of all anchors, `[anchors k]`."""

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, "n"]
    colors: Float[Tensor, "n 3"]
    places: Int[Tensor, "n"]


class Networks(nn.Module):
    """What makes Gaussians of anchors: section 3.2 of the paper."""

    def __init__(self, config: ScaffoldConfig) -> None:
        super().__init__()

        def network(outputs: int, *last: nn.Module) -> nn.Sequential:
            hidden = nn.Linear(config.features + VIEWED, config.hidden)
            return nn.Sequential(hidden, nn.ReLU(), nn.Linear(config.hidden, config.offsets * outputs), *last)

        self.opacity = network(1, nn.Tanh())
        self.shape = network(SHAPE)
        self.color = network(COLOR, nn.Sigmoid())

    def forward(self, anchors: Mapping[str, Tensor], centre: Float[Tensor, "3"]) -> Decoded:
        """Return the Gaussians of opacity above zero, as a camera at `centre` sees them.

        `anchors` holds `means` `[m 3]`, which do not move, `features`, `offsets` `[m k 3]` in units of the anchor's
        size, and `scales` `[m 6]`: logarithms of the size by which offsets are multiplied, and of that of Gaussians.
        """
        means = anchors["means"].detach()
        away = means - centre
        distances = away.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-8)
        told = torch.cat([anchors["features"], away / distances], -1)
        opacities = self.opacity(told).flatten()
        places = (opacities > 0).nonzero()[:, 0]
        parents = places.div(anchors["offsets"].shape[1], rounding_mode="floor")
        shapes = self.shape(told).reshape(-1, SHAPE).index_select(0, places)
        sizes = anchors["scales"].exp().index_select(0, parents)
        offsets = anchors["offsets"].flatten(0, 1).index_select(0, places)
        return Decoded(
            means=means.index_select(0, parents) + offsets * sizes[:, :3],
            quats=normalize(shapes[:, 3:], dim=-1),
            scales=sizes[:, 3:] * shapes[:, :3].sigmoid(),
            opacities=opacities.index_select(0, places),
            colors=self.color(told).reshape(-1, COLOR).index_select(0, places),
            places=places,
        )


class Scaffold:
    """Optimise anchors and networks on the inputs; what is random follows the seed of the task."""

    def __init__(self, config: ScaffoldConfig, device: torch.device) -> None:
        self.config = config
        self.device = device

    def __call__(self, task: Task, advance: Advance) -> Outcome:
        """Optimise; steps are those of gradient descent. The Gaussians of the outcome are those of the first input."""
        to_scene, views, points = placed(task)
        generator = torch.Generator().manual_seed(task.seed)
        cloud = make_cloud(views, points, self.config.initial, NEAR, generator)
        with seeded(self.device, task.seed):
            networks = Networks(self.config).to(self.device)
        values = {name: value.to(self.device) for name, value in first_anchors(cloud, self.config).items()}
        anchors = self._optimise(Shots(task, views.to(self.device), generator), values, networks, generator, advance)
        to_capture = to_scene.inverse()

        @torch.no_grad()
        def seen_from(cameras: Cameras) -> Gaussians:
            found = networks(anchors, to_scene.cameras(cameras.to("cpu")).centres[0].to(self.device))
            sh = (found.colors - 0.5)[:, None] / SH_CONSTANT
            gaussians = Gaussians(found.means, found.scales, found.quats, found.opacities, sh)
            return gaussians.to("cpu").transform(to_capture).to(cameras.intrinsics.device)

        return Outcome(seen_from(task.inputs.cameras[:1]), NEAR / float(to_scene.scale), seen_from=seen_from)

    def _optimise(
        self,
        shots: Shots,
        values: Mapping[str, Tensor],
        networks: Networks,
        generator: torch.Generator,
        advance: Advance,
    ) -> dict[str, Tensor]:
        config, rates = self.config, dataclasses.asdict(self.config.rates)
        # Anchors stay where they are: their means have no gradient.
        splats = with_optimisers(values, {"means": 0.0, **{name: first for name, (first, _) in rates.items()}})
        layers = {name: list(getattr(networks, name).parameters()) for name in rates if name not in values}
        optimiser = torch.optim.Adam([{"params": own} for own in layers.values()], eps=1e-15, fused=True)
        groups = dict(zip(layers, optimiser.param_groups, strict=True))
        groups |= {name: splats.optimisers[name].param_groups[0] for name in rates if name in values}
        density = AnchorDensity(config, generator)
        for step in range(config.iterations):
            for name, (first, last) in rates.items():
                groups[name]["lr"] = first * (last / first) ** (step / config.iterations)
            index = shots.next()
            found = networks(splats.parameters, shots.centres[index])
            gaussians = (found.means, found.quats, found.scales, found.opacities)
            loss, seen = shots.loss(
                index, *gaussians, watched=density.watches(step), seen_through={"colors": found.colors}
            )
            loss = loss + config.volume_weight * found.scales.prod(-1).sum()
            loss.backward()
            splats.step(0.0)
            optimiser.step()
            optimiser.zero_grad()
            if seen is not None:
                density.after_step(splats, step, seen, found.places, found.opacities.detach())
            advance(step + 1, config.iterations)
        return {name: parameter.detach() for name, parameter in splats.parameters.items()}
