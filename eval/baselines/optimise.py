"""3D Gaussian splatting, 3DGS-MCMC and Mip-Splatting: Gaussians optimised on the input views of one scene."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lrm_ttt.eval.baselines.config import OptimiseConfig
from lrm_ttt.eval.baselines.density import build_density
from lrm_ttt.eval.baselines.initialise import initial_values, make_cloud
from lrm_ttt.eval.baselines.seen import Seen
from lrm_ttt.eval.baselines.shots import NEAR, Shots, placed, seeded
from lrm_ttt.eval.baselines.smoothing import EPS2D as MIP_EPS2D
from lrm_ttt.eval.baselines.smoothing import filter_scales, smooth
from lrm_ttt.eval.baselines.splats import Splats, make_splats
from lrm_ttt.eval.task import Advance, Outcome, Task
from lrm_ttt.kernels.rasterizer.constants import EPS2D
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Views

# Steps between two looks at how finely the cameras sample (arXiv 2311.16493).
FILTER_EVERY = 100


class Optimise:
    """Optimise Gaussians on the inputs by gradient descent; what is random follows the seed of the task."""

    def __init__(self, config: OptimiseConfig, device: torch.device) -> None:
        self.config = config
        self.device = device

    def __call__(self, task: Task, advance: Advance) -> Outcome:
        """Optimise; steps are those of gradient descent."""
        to_scene, views, points = placed(task)
        generator = torch.Generator().manual_seed(task.seed)
        splats = begin(self.config, views, points, generator, self.device)
        with seeded(self.device, task.seed):
            run = _Run(self.config, task, views.to(self.device), splats, generator)
            gaussians = run.steps(advance).to("cpu")
        near = NEAR / float(to_scene.scale)
        return Outcome(gaussians.transform(to_scene.inverse()), near, run.eps2d, self.config.mip)


def begin(
    config: OptimiseConfig, views: Views, points: Tensor | None, generator: torch.Generator, device: torch.device
) -> Splats:
    """Return the Gaussians that the strategy begins with; views and points are on the CPU."""
    chosen = config.adaptive if config.strategy == "adaptive" else config.mcmc
    cloud = make_cloud(views, points, config.initial, NEAR, generator)
    values = initial_values(cloud, chosen.initial_opacity, chosen.initial_scale, generator)
    return make_splats({name: value.to(device) for name, value in values.items()}, config.rates)


class _Run:
    """One optimisation: what its steps share."""

    def __init__(
        self, config: OptimiseConfig, task: Task, views: Views, splats: Splats, generator: torch.Generator
    ) -> None:
        self.config, self.splats = config, splats
        self.shots = Shots(task, views, generator)
        self.eps2d = MIP_EPS2D if config.mip else EPS2D
        self.density = build_density(config, views.images.device, generator)
        self.widths = self._filter()

    def steps(self, advance: Advance) -> Gaussians:
        """Take all steps, and return what is drawn after the last, in the frame of the views."""
        config, splats = self.config, self.splats
        for step in range(config.iterations):
            degree = min(step // config.sh_degree_every, config.sh_degree)
            seen = self._backward(degree, self.density.watches(step))
            means_lr = config.rates.means * config.rates.final_means ** (step / config.iterations)
            splats.step(means_lr)
            self.density.after_step(splats, step, seen, means_lr)
            if self.widths is not None and (step % FILTER_EVERY == 0 or len(self.widths) != splats.num_gaussians):
                self.widths = self._filter()
            advance(step + 1, config.iterations)
        self.widths = self._filter()
        with torch.no_grad():
            scales, opacities, sh = self._activated(config.sh_degree)
        means, quats = (splats.parameters[name].detach() for name in ("means", "quats"))
        return Gaussians(means, scales, normalize(quats, dim=-1), opacities, sh)

    def _backward(self, degree: int, watched: bool) -> Seen | None:
        """Draw one view, and leave the gradients of its loss and what was seen of the Gaussians, where that matters."""
        parameters = self.splats.parameters
        scales, opacities, sh = self._activated(degree)
        gaussians = (parameters["means"], parameters["quats"], scales, opacities, sh)
        seen_through = {"eps2d": self.eps2d, "antialiased": self.config.mip}
        loss, seen = self.shots.loss(self.shots.next(), *gaussians, watched=watched, seen_through=seen_through)
        if self.config.strategy == "mcmc":
            mcmc = self.config.mcmc
            loss = loss + mcmc.opacity_weight * opacities.mean() + mcmc.scale_weight * scales.mean()
        loss.backward()
        return seen

    def _activated(self, degree: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return scales, opacities and spherical harmonics up to a degree, as they are drawn."""
        parameters = self.splats.parameters
        scales, opacities = parameters["scales"].exp(), parameters["opacities"].sigmoid()
        sh: Tensor = parameters["sh0"]
        if self.widths is not None:
            scales, opacities = smooth(scales, opacities, self.widths)
        if degree:
            sh = torch.cat([sh, parameters["shN"][:, : (degree + 1) ** 2 - 1]], 1)
        return scales, opacities, sh

    def _filter(self) -> Tensor | None:
        """Return the standard deviations of the 3D smoothing filters as they are now, where there are any."""
        means = self.splats.parameters["means"]
        return filter_scales(self.shots.cameras, means, NEAR) if self.config.mip else None
