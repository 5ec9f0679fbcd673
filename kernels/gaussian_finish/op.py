"""The public function, and how it runs."""

from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.kernels.backend import choose
from lrm_ttt.kernels.gaussian_finish.reference import Activations, Finished, Rays, finish_reference

__all__ = ["Activations", "Finished", "Rays", "finish_gaussians"]


def finish_gaussians(
    raw: Float[Tensor, "s n c"],
    rays: Rays,
    activations: Activations,
    keep: Int[Tensor, "m"] | None = None,
    backend: str | None = None,
) -> Finished:
    """Return the Gaussians of `s` views with `n` pixels each, or those at the positions `keep` among all s n.

    `finish_reference` says what the channels are. The result is float32, or wider if `raw` is; `keep` has no position
    twice. Differentiable in `raw`. What is not kept costs nothing: choose it by the opacity channel alone
    (kernels/gaussian_finish/selection.py).
    """
    # Cameras may be optimised.
    lacks = "it passes no gradients to rays" if any(part.requires_grad for part in rays) else ""
    if choose("gaussian_finish", raw.device, raw.dtype, lacks, backend).backend == "triton":
        from lrm_ttt.kernels.gaussian_finish.triton_finish import finish_triton

        return finish_triton(raw, rays, activations, keep)
    return finish_reference(raw, rays, activations, keep)
