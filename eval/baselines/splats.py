"""The parameters of one scene as gsplat keeps them, an Adam for each, and how both follow when Gaussians change."""

import dataclasses
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adam import adam

from lrm_ttt.eval.baselines.config import RatesConfig
from lrm_ttt.scene.rotations import rotate_by_wxyz

MOMENTS = ("exp_avg", "exp_avg_sq")
# What makes two Gaussians of one that is split smaller than it (arXiv 2308.04079, section 5.2).
SPLIT_SHRINKS = 1.6


@dataclasses.dataclass(frozen=True)
class Splats:
    """Means, log scales, quaternions (wxyz), opacity logits and harmonics of one scene, and their optimisers.

    Both dictionaries have the keys and layouts that gsplat's strategies ask for, and like these the functions below
    put new parameters into them.
    """

    parameters: dict[str, Parameter]
    optimisers: dict[str, torch.optim.Adam]

    @property
    def num_gaussians(self) -> int:
        """How many there are now."""
        return len(self.parameters["means"])

    @torch.no_grad()
    def step(self, means_lr: float) -> None:
        """Follow the gradients, the means at the rate `means_lr`, and forget them."""
        self.optimisers["means"].param_groups[0]["lr"] = means_lr
        for name, optimiser in self.optimisers.items():
            parameter, group = self.parameters[name], optimiser.param_groups[0]
            if parameter.grad is None:
                continue
            # The hooks and checks of `optimiser.step()` take as long as its arithmetic.
            state, (beta1, beta2) = optimiser.state[parameter], group["betas"]
            adam(
                [parameter],
                [parameter.grad],
                [state["exp_avg"]],
                [state["exp_avg_sq"]],
                [],
                [state["step"]],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=0.0,
                eps=group["eps"],
                maximize=False,
            )
            parameter.grad = None


def make_splats(values: dict[str, Tensor], rates: RatesConfig) -> Splats:
    """Return parameters with the values `means`, `scales`, `quats`, `opacities`, `sh0`, `shN`, as yet unmoved."""
    rate_of = {"means": rates.means, "scales": rates.scales, "quats": rates.quats, "opacities": rates.opacities}
    rate_of |= {"sh0": rates.sh0, "shN": rates.sh_rest}
    return with_optimisers(values, rate_of)


def with_optimisers(values: Mapping[str, Tensor], rate_of: Mapping[str, float]) -> Splats:
    """Return parameters of any names, `means` among them, each with an optimiser of its rate."""
    parameters = {name: Parameter(value.contiguous()) for name, value in values.items()}
    optimisers = {
        name: torch.optim.Adam([parameter], lr=rate_of[name], eps=1e-15, fused=True)
        for name, parameter in parameters.items()
    }
    for name, parameter in parameters.items():
        state = {key: torch.zeros_like(parameter, requires_grad=False) for key in MOMENTS}
        optimisers[name].state[parameter] = {"step": torch.zeros((), device=parameter.device), **state}
    return Splats(parameters, optimisers)


def replace(
    splats: Splats, name: str, value: Tensor, moment: Callable[[Tensor], Tensor] = lambda moment: moment
) -> None:
    """Put `value` in the place of a parameter, and what `moment` makes of them in that of its moments."""
    old, optimiser = splats.parameters[name], splats.optimisers[name]
    new = Parameter(value)
    splats.parameters[name] = new
    optimiser.param_groups[0]["params"] = [new]
    if state := optimiser.state.pop(old, None):
        optimiser.state[new] = {key: moment(part) if key in MOMENTS else part for key, part in state.items()}


@torch.no_grad()
def take(splats: Splats, index: Int[Tensor, "m"], num_new: int = 0) -> None:
    """Keep the Gaussians at `index`, in that order and as often; the last `num_new` begin with moments of zero."""
    num_old = len(index) - num_new

    def moment(part: Tensor) -> Tensor:
        taken = part[index]
        taken[num_old:] = 0
        return taken

    for name, parameter in list(splats.parameters.items()):
        replace(splats, name, parameter.detach()[index], moment)


def duplicate(splats: Splats, chosen: Int[Tensor, "m"]) -> None:
    """Add a copy of every chosen Gaussian."""
    everything = torch.arange(splats.num_gaussians, device=chosen.device)
    take(splats, torch.cat([everything, chosen]), len(chosen))


@torch.no_grad()
def split(splats: Splats, chosen: Int[Tensor, "m"], generator: torch.Generator | None) -> None:
    """Put two smaller Gaussians, at places drawn from it, where each chosen one was; they come last."""
    parameters = splats.parameters
    scales = parameters["scales"][chosen].exp()
    noise = torch.randn(2, len(chosen), 3, generator=generator, device=chosen.device)
    offsets = rotate_by_wxyz(parameters["quats"][chosen], noise * scales)
    rest = torch.ones(splats.num_gaussians, dtype=torch.bool, device=chosen.device)
    rest[chosen] = False
    take(splats, torch.cat([rest.nonzero()[:, 0], chosen, chosen]), 2 * len(chosen))
    first = splats.num_gaussians - 2 * len(chosen)
    parameters["means"][first:] += offsets.flatten(0, 1)
    parameters["scales"][first:] = (scales / SPLIT_SHRINKS).log().repeat(2, 1)


@torch.no_grad()
def lower_opacities(splats: Splats, most: float) -> None:
    """Let no opacity be above `most`, and forget how the opacities moved."""
    limit = torch.tensor(most).logit().item()
    replace(splats, "opacities", splats.parameters["opacities"].detach().clamp(max=limit), torch.zeros_like)
