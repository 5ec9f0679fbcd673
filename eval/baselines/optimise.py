"""3D Gaussian splatting, 3DGS-MCMC and Mip-Splatting: Gaussians optimised on the input views of one scene."""

import dataclasses

import torch
from torch import Tensor

from lrm_ttt.eval.baselines.adaptive import AdaptiveDensity
from lrm_ttt.eval.baselines.config import OptimiseConfig
from lrm_ttt.eval.baselines.density import Density, Seen
from lrm_ttt.eval.baselines.initialise import initial_values, make_cloud
from lrm_ttt.eval.baselines.mcmc import McmcDensity
from lrm_ttt.eval.baselines.smoothing import EPS2D as MIP_EPS2D
from lrm_ttt.eval.baselines.smoothing import filter_scales, smooth
from lrm_ttt.eval.baselines.splats import Splats, make_splats
from lrm_ttt.eval.task import Advance, Outcome, Task
from lrm_ttt.kernels.rasterizer.constants import EPS2D
from lrm_ttt.kernels.rasterizer.op import rasterize
from lrm_ttt.pipeline.refine_loss import RefineLoss
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.similarity import Similarity, normalising_similarity
from lrm_ttt.scene.views import Views

# Nothing nearer to a camera is drawn, in units of the mean distance between the cameras and what they look at: as much
# as in lrm_ttt.pipeline.reconstruct.
NEAR = 0.05
# Steps between two looks at how finely the cameras sample (arXiv 2311.16493).
FILTER_EVERY = 100


class Optimise:
    """Optimise Gaussians on the inputs by gradient descent; what is random follows the seed of the task."""

    def __init__(self, config: OptimiseConfig, device: torch.device) -> None:
        self.config = config
        self.device = device

    def __call__(self, task: Task, advance: Advance) -> Outcome:
        """Optimise; steps are those of gradient descent."""
        to_scene = normalising_similarity(task.inputs.cameras, "focus", distance=1.0)
        gaussians = _Run(self.config, task, to_scene, self.device).run(advance)
        return Outcome(
            gaussians.transform(to_scene.inverse()),
            NEAR / float(to_scene.scale),
            MIP_EPS2D if self.config.mip else EPS2D,
            self.config.mip,
        )


class _Run:
    """One scene's optimisation: all that the steps share."""

    def __init__(self, config: OptimiseConfig, task: Task, to_scene: Similarity, device: torch.device) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(task.seed)
        views = dataclasses.replace(task.inputs, cameras=to_scene.cameras(task.inputs.cameras)).to("cpu")
        self.splats = begin(config, views, None if task.points is None else to_scene.points(task.points), self.generator)
        self.views = views
        cameras = views.cameras
        self.world_to_cam, self.intrinsics = cameras.world_to_cam.split(1), cameras.intrinsics.split(1)
        self.images = views.images.split(1)
        self.background, self.backend = task.background, task.backend
        self.loss = RefineLoss(*views.image_size, device)
        self.density = build_density(config, self.generator)
        self.widths: Tensor | None = None

    def run(self, advance: Advance) -> Gaussians:
        """Take all steps."""
        config, splats = self.config, self.splats
        order: list[int] = []
        for step in range(config.iterations):
            if config.mip and step % FILTER_EVERY == 0:
                self.widths = filter_scales(self.views.cameras, splats.parameters["means"], NEAR)
            order = order or torch.randperm(len(self.images), generator=self.generator).tolist()
            degree = min(step // config.sh_degree_every, 3)
            seen = self.backward(order.pop(), degree)
            means_lr = config.rates.means * config.rates.final_means ** (step / config.iterations)
            splats.optimisers["means"].param_groups[0]["lr"] = means_lr
            for optimiser in splats.optimisers.values():
                optimiser.step()
                optimiser.zero_grad()
            self.density.after_step(splats, step, seen, means_lr)
            advance(step + 1, config.iterations)
        if config.mip:
            self.widths = filter_scales(self.views.cameras, splats.parameters["means"], NEAR)
        with torch.no_grad():
            scales, opacities, sh = self.activated(3)
        return Gaussians(
            means=splats.parameters["means"].detach(),
            scales=scales,
            wxyz=torch.nn.functional.normalize(splats.parameters["quats"].detach(), dim=-1),
            opacities=opacities,
            sh=sh,
        )

    def activated(self, degree: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return scales, opacities and spherical harmonics up to a degree, as they are drawn."""
        parameters = self.splats.parameters
        scales, opacities = parameters["scales"].exp(), parameters["opacities"].sigmoid()
        if self.widths is not None:
            scales, opacities = smooth(scales, opacities, self.widths)
        sh = parameters["sh0"]
        if degree:
            sh = torch.cat([sh, parameters["shN"][:, : (degree + 1) ** 2 - 1]], 1)
        return scales, opacities, sh

    def backward(self, index: int, degree: int) -> Seen:
        """Draw one view and leave the gradients of its loss."""
        parameters = self.splats.parameters
        scales, opacities, sh = self.activated(degree)
        drawn = rasterize(
            parameters["means"],
            parameters["quats"],
            scales,
            opacities,
            sh,
            world_to_cam=self.world_to_cam[index],
            intrinsics=self.intrinsics[index],
            image_size=self.views.image_size,
            background=self.background,
            near=NEAR,
            eps2d=MIP_EPS2D if self.config.mip else EPS2D,
            antialiased=self.config.mip,
            render_depth=False,
            backend=self.backend,
        )
        loss = self.loss(drawn.colors, self.images[index])
        if self.config.strategy == "mcmc":
            loss = loss + self.config.mcmc.opacity_weight * opacities.mean() + self.config.mcmc.scale_weight * scales.mean()
        loss.backward()
        return Seen(torch.zeros(1, 0, 2), torch.zeros(1, 0), self.views.image_size)


def begin(config: OptimiseConfig, views: Views, points: Tensor | None, generator: torch.Generator) -> Splats:
    """Return the Gaussians that the strategy begins with."""
    chosen = config.adaptive if config.strategy == "adaptive" else config.mcmc
    cloud = make_cloud(views, points, config.initial, NEAR, generator)
    values = initial_values(cloud, chosen.initial_opacity, chosen.initial_scale, generator)
    return make_splats(values, config.rates)


def build_density(config: OptimiseConfig, generator: torch.Generator) -> Density:
    """Return the strategy."""
    if config.strategy == "adaptive":
        return AdaptiveDensity(config.adaptive, config.iterations, generator)
    return McmcDensity(config.mcmc, config.iterations, generator)
