"""Optimise Gaussians on the input views, from where the model put them (3D Gaussian splatting, arXiv 2308.04079)."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lrm_ttt.kernels.rasterizer.op import rasterize_tracked
from lrm_ttt.kernels.ssim.op import l1_ssim_loss
from lrm_ttt.pipeline.refine_density import split, split_steps, thin_out
from lrm_ttt.render.render import arguments
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.similarity import focus_point
from lrm_ttt.scene.views import Views

NEIGHBOURS = 3
WIDTH, MOST_GROWTH = 0.8, 4.0


@dataclasses.dataclass(frozen=True)
class RefineConfig:
    """Learning rates of Adam, per parameter in the usual encoding.

    `means_lr` is in units of the mean distance between the cameras and what they look at, and falls exponentially to
    the share `final_means_lr` of itself. The rates are up to 8 times those of 3D Gaussian splatting, which takes a
    hundred times as many steps; that of the opacities is 4 times, so that floaters vanish in time. Where `start_share`
    is below 1, all others grow by its inverse square root, as the distances between Gaussians on a surface do.
    """

    steps: int = 300
    means_lr: float = 1.2e-3
    final_means_lr: float = 0.01
    log_scales_lr: float = 1.5e-2
    wxyz_lr: float = 5e-3
    logits_lr: float = 0.2
    sh_lr: float = 2.5e-3
    sh_rest_lr: float = 1.25e-4
    start_share: float = 1.0
    """The share of the Gaussians to begin with (lrm_ttt/pipeline/refine_density.py); below 1 their number grows."""


def refine(
    gaussians: Gaussians,
    views: Views,
    background: Tensor,
    config: RefineConfig,
    *,
    generator: torch.Generator,
    near: float,
    backend: str = "auto",
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Gaussians:
    """Return Gaussians of one scene that fit the views `[v]` better, in the same frame.

    Each step draws one view, in an order that `generator` (on the CPU) shuffles anew when all have had their turn.
    `near` is in the units of the Gaussians, `advance` hears how many steps are done. Their number stays, unless
    `config.start_share` is below 1.
    """
    extent = float((views.cameras.centres - focus_point(views.cameras)).norm(dim=-1).mean())
    gaussians = widened(thin_out(gaussians, config.start_share, generator))
    stored = {name: tensor.requires_grad_() for name, tensor in encode(gaussians).items()}
    optimiser = torch.optim.Adam(parameter_groups(stored, config, extent), eps=1e-15, fused=True)
    means_lr = optimiser.param_groups[0]["lr"]
    order: list[int] = []
    splits = split_steps(config.steps, config.start_share)
    pull = torch.zeros_like(stored["logits"])
    for step in range(config.steps):
        order = order or torch.randperm(views.shape[0], generator=generator).tolist()
        index = order.pop()
        optimiser.param_groups[0]["lr"] = means_lr * config.final_means_lr ** (step / config.steps)
        view = views[index : index + 1]
        uncovered = None if view.masks is None else 1 - view.masks
        color, image = behind(view.images, uncovered, background, generator)
        scene = arguments(decode(stored), view.cameras)
        drawn, screen = rasterize_tracked(**scene, background=color, near=near, render_depth=False, backend=backend)
        loss = l1_ssim_loss(drawn.colors, image)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if splits:
            assert screen.means2d.grad is not None
            pull = pull + screen.means2d.grad[0].norm(dim=-1)
        if step + 1 in splits:
            stored = split(stored, optimiser, pull, generator)
            pull = torch.zeros_like(stored["logits"])
        advance(step + 1, config.steps)
    return decode(stored).detach()


def behind(
    image: Tensor, uncovered: Tensor | None, background: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return a background and the image `[v 3 h w]` on it: another one every time where something is `uncovered`.

    That is one minus the mask `[v 1 h w]`. Nothing can then pass for the background by having its colour. The code of
    3D Gaussian splatting offers it, too: 0.9 dB on held-out views of objects for adaptive density control.
    """
    if uncovered is None:
        return background, image
    color = torch.rand(3, generator=generator).to(background)
    return color, torch.addcmul(image, uncovered, (color - background)[:, None, None])


def widened(gaussians: Gaussians) -> Gaussians:
    """Return the Gaussians of one scene grown until neighbours overlap.

    A model places them a pixel apart in its own views; from other views gaps show, which optimisation on the inputs
    does not see. Each gets at least WIDTH times its distance to the nearest NEIGHBOURS (root mean square, as in the
    start of 3D Gaussian splatting), at most MOST_GROWTH times what it had; none shrinks. CHANGELOG.md has the gain.
    """
    from sklearn.neighbors import NearestNeighbors

    if gaussians.num_gaussians <= NEIGHBOURS:
        return gaussians
    means = gaussians.means.detach().cpu().numpy()
    apart = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(means).kneighbors()[0]
    wanted = WIDTH * torch.from_numpy(np.sqrt((apart**2).mean(-1))).to(gaussians.scales)
    growth = (wanted / gaussians.scales.mean(-1).clamp(min=1e-12)).clamp(1, MOST_GROWTH)
    return dataclasses.replace(gaussians, scales=gaussians.scales * growth[:, None])


def parameter_groups(stored: dict[str, Tensor], config: RefineConfig, extent: float) -> list[dict[str, object]]:
    """Return one group a parameter, the means first."""
    rates = {"means": config.means_lr * extent, "log_scales": config.log_scales_lr, "wxyz": config.wxyz_lr}
    rates |= {"sh": config.sh_lr, "sh_rest": config.sh_rest_lr}
    rates = {name: rate * config.start_share**-0.5 for name, rate in rates.items()} | {"logits": config.logits_lr}
    return [{"params": [tensor], "lr": rates[name]} for name, tensor in stored.items()]


def encode(gaussians: Gaussians) -> dict[str, Tensor]:
    """Return unbounded parameters: means, log scales, quaternions, opacity logits and harmonics, the constant apart."""
    opacities = gaussians.opacities.clamp(1e-6, 1 - 1e-6)
    parameters = {
        "means": gaussians.means,
        "log_scales": gaussians.scales.clamp(min=1e-12).log(),
        "wxyz": gaussians.wxyz,
        "logits": opacities.logit(),
        "sh": gaussians.sh[:, :1],
        "sh_rest": gaussians.sh[:, 1:],
    }
    return {name: tensor.detach().clone() for name, tensor in parameters.items()}


def decode(stored: dict[str, Tensor]) -> Gaussians:
    """Return the Gaussians that the parameters stand for."""
    return Gaussians(
        means=stored["means"],
        scales=stored["log_scales"].exp(),
        wxyz=normalize(stored["wxyz"], dim=-1),
        opacities=stored["logits"].sigmoid(),
        sh=torch.cat([stored["sh"], stored["sh_rest"]], 1),
    )
