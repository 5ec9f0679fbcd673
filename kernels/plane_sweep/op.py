"""The public function, and how it runs."""

import functools
import logging

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.kernels.plane_sweep.cpu import library, plane_sweep_cpu
from lrm_ttt.kernels.plane_sweep.reference import SweepResult, plane_sweep_reference

_log = logging.getLogger(__name__)

__all__ = ["SweepResult", "plane_sweep"]


def plane_sweep(
    images: Float[Tensor, "v 3 h w"],
    masks: Float[Tensor, "v 1 h w"],
    world_to_pixel: Float[Tensor, "v 3 4"],
    origins: Float[Tensor, "swept 3"],
    directions: Float[Tensor, "swept h w 3"],
    distances: Float[Tensor, "swept planes"],
    neighbours: Int[Tensor, "swept colours"],
    silhouettes: Int[Tensor, "swept silhouettes"],
) -> SweepResult:
    """Compare each pixel, at each of the distances along its unit ray, with what other views show there.

    `plane_sweep_reference` says what the arguments and the result are. Float32 tensors on the CPU take the native
    library; anything else takes the reference, and one line in the log says why.
    """
    inputs = (images, masks, world_to_pixel, origins, directions, distances)
    reason = _why_not_native(inputs)
    if reason is None:
        return plane_sweep_cpu(*inputs, neighbours, silhouettes)
    _say_once(reason)
    return plane_sweep_reference(*inputs, neighbours, silhouettes)


def _why_not_native(inputs: tuple[Tensor, ...]) -> str | None:
    for tensor in inputs:
        if tensor.device.type != "cpu":
            return f"tensors are on {tensor.device.type}"
        if tensor.dtype != torch.float32:
            return f"tensors are {str(tensor.dtype).removeprefix('torch.')}"
    return "its library is not built (reinstall where a C++ compiler is at hand)" if library() is None else None


@functools.cache
def _say_once(reason: str) -> None:
    _log.warning("plane_sweep: the slower torch reference serves, because %s", reason)
