"""The plane sweep in C++, called by ctypes: float32 on the CPU, about a hundred times faster than the reference."""

import ctypes
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.kernels.native import INSTRUCTION_SETS, load_library
from lrm_ttt.kernels.plane_sweep.reference import SweepResult


class _Task(ctypes.Structure):
    """The caller's description of a sweep, as in native/task.h."""

    _fields_ = (
        *[(name, ctypes.c_int32) for name in ("views", "swept", "height", "width", "planes")],
        *[(name, ctypes.c_int32) for name in ("neighbours", "silhouettes", "threads", "instructions")],
        *[
            (name, ctypes.c_void_p)
            for name in ("images", "masks", "world_to_pixel", "origins", "directions", "distances")
        ],
        *[(name, ctypes.c_void_p) for name in ("neighbour_views", "silhouette_views", "costs", "hulls")],
    )


def library() -> ctypes.CDLL | None:
    """Return the compiled library, or None where it was not built."""
    return load_library(Path(__file__).parent)


def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets that this processor has, best last."""
    built = library()
    return INSTRUCTION_SETS[: built.lrm_sweep_instructions() + 1] if built else ()


def plane_sweep_cpu(
    images: Float[Tensor, "v 3 h w"],
    masks: Float[Tensor, "v 1 h w"],
    world_to_pixel: Float[Tensor, "v 3 4"],
    origins: Float[Tensor, "swept 3"],
    directions: Float[Tensor, "swept h w 3"],
    distances: Float[Tensor, "swept planes"],
    neighbours: Int[Tensor, "swept colours"],
    silhouettes: Int[Tensor, "swept silhouettes"],
    threads: int | None = None,
    instruction_set: str | None = None,
) -> SweepResult:
    """Do what `plane_sweep_reference` does for float32 tensors on the CPU.

    The result does not depend on the number of threads, which is torch's unless given. The library must be built.
    """
    built = library()
    assert built is not None, "the native library is not built"
    chosen = instruction_set or instruction_sets()[-1]
    assert chosen in instruction_sets(), f"{chosen} is not among {instruction_sets()}"
    num_views, _, height, width = images.shape
    for others in (neighbours, silhouettes):
        assert others.numel() == 0 or (others.min() >= 0 and others.max() < num_views), "views are counted from 0"
    num_swept, num_planes = distances.shape
    assert num_swept <= num_views, "the views that are swept are the first of all"
    shape = (num_swept, num_planes, height, width)
    result = SweepResult(torch.empty(shape), torch.empty(shape))
    inputs = (images, masks, world_to_pixel, origins, directions, distances)
    assert all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in inputs)
    # The contiguous copies must live until the call returns.
    arrays = [tensor.contiguous() for tensor in (*inputs, neighbours.long(), silhouettes.long(), *result)]
    task = _Task(
        *(num_views, num_swept, height, width, num_planes, neighbours.shape[1], silhouettes.shape[1]),
        *(threads or torch.get_num_threads(), INSTRUCTION_SETS.index(chosen)),
        *(array.data_ptr() for array in arrays),
    )
    if built.lrm_plane_sweep(ctypes.byref(task)):
        raise MemoryError(f"no memory for the textures of {num_views} views of {height}x{width}")
    return result
