"""Read and write Gaussians as .ply files of 3D Gaussian splatting; the stored encoding is known to this file alone."""

import dataclasses
import mmap
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.similarity import Similarity

NUM_REST_OF_DEGREE = (0, 9, 24, 45)

# Below and above these an opacity or a scale has no finite logarithm in float32; both ends read back as the float32
# that was written.
SMALLEST = 1e-30
LARGEST_OPACITY = 1 - 2.0**-25
# Gaussians that are encoded or decoded at a time, so that a file takes no memory beside the Gaussians themselves.
ROWS_AT_ONCE = 2**16


def write_ply(path: Path | str, gaussians: Gaussians, similarity: Similarity | None = None) -> None:
    """Write one scene as a binary .ply that every viewer of splats reads; the file appears at once or not at all.

    Positions and scales are written in the frame and units they are in, or in that to which `similarity` leads: undo
    the normalisation. Columns are `x y z nx ny nz f_dc_* f_rest_* opacity scale_* rot_*`, all float32, with 0, 9, 24
    or 45 columns `f_rest` for degree 0, 1, 2, 3, channel by channel.
    """
    assert not gaussians.shape, "write_ply takes one scene: index the batch first"
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(_header(gaussians))
            for start in range(0, gaussians.num_gaussians, ROWS_AT_ONCE):
                part = gaussians.select(slice(start, start + ROWS_AT_ONCE))
                stream.write(_encode(part if similarity is None else part.transform(similarity)))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_ply(path: Path | str) -> Gaussians:
    """Read a .ply of Gaussians, with its columns in any order, into activated float32 values on the CPU.

    Raises `UnreadableScene` for a file that is missing, truncated, not a .ply, or a .ply of something else.
    """
    path = Path(path)
    columns = _read_columns(path)
    num_rest = _checked_names(path, columns)
    gaussians = _joined(columns, num_rest)
    broken = sum(int((~torch.isfinite(tensor)).sum()) for tensor in vars(gaussians).values())
    if broken:
        raise UnreadableScene(
            f"{path}: {broken} values are not finite numbers. The program that wrote it failed; write it again."
        )
    return gaussians


def read_points(path: Path | str) -> Float[Tensor, "n 3"]:
    """Return the positions of a .ply of points (float64), whatever else it holds. Raises `UnreadableScene`."""
    path = Path(path)
    columns = _read_columns(path)
    if not {"x", "y", "z"} <= columns.keys():
        raise UnreadableScene(f"{path}: no positions: it has no x, y, z. Give a .ply of points.")
    return torch.from_numpy(np.stack([np.asarray(columns[name], dtype=np.float64) for name in "xyz"], -1))


def _names(num_rest: int) -> list[str]:
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{index}" for index in range(num_rest)]
    return [*names, "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


def _header(gaussians: Gaussians) -> bytes:
    assert gaussians.sh.shape[-2] in (1, 4, 9, 16), "the .ply format knows degrees 0 to 3"
    names = _names(3 * (gaussians.sh.shape[-2] - 1))
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {gaussians.num_gaussians}"]
    return "\n".join([*lines, *(f"property float {name}" for name in names), "end_header", ""]).encode("ascii")


def _encode(gaussians: Gaussians) -> bytes:
    """Return a row for each Gaussian."""
    scene = gaussians.detach().to(device="cpu", dtype=torch.float64)
    assert all(torch.isfinite(tensor).all() for tensor in vars(scene).values()), (
        "Gaussians with values that are not finite"
    )
    opacities = scene.opacities.clamp(SMALLEST, LARGEST_OPACITY)
    blocks = [
        scene.means,
        torch.zeros_like(scene.means),
        scene.sh[:, 0],
        # Channel-major: all coefficients of red, then of green, then of blue.
        scene.sh[:, 1:].transpose(1, 2).flatten(1),
        (opacities.log() - torch.log1p(-opacities))[:, None],
        scene.scales.clamp(min=SMALLEST).log(),
        scene.wxyz,
    ]
    return torch.cat(blocks, 1).to(torch.float32).numpy().astype("<f4", order="C").tobytes()


def _read_columns(path: Path) -> dict[str, Any]:
    """Return the columns of the element `vertex` by name, of a file that is still on disk where that is possible."""
    # plyfile is GPL-3: it is imported here and nowhere else, and only when a file is read.
    import plyfile

    try:
        _check_header(path)
        with path.open("rb") as stream:
            content = plyfile.PlyData.read(stream)
        if "vertex" not in content:
            raise UnreadableScene(f"{path}: a .ply without an element `vertex`. Give a .ply of Gaussians.")
        data = content["vertex"].data
    except FileNotFoundError as error:
        raise UnreadableScene(f"{path}: there is no such file. Check the path.") from error
    except OSError as error:
        raise UnreadableScene(
            f"{path}: cannot be read ({error.strerror or error}). Check the path and its permissions."
        ) from error
    except (plyfile.PlyParseError, UnicodeDecodeError, ValueError, MemoryError, OverflowError) as error:
        if isinstance(error, UnreadableScene):
            raise
        raise UnreadableScene(f"{path}: not a complete .ply file ({error}). Write or download it again.") from error
    return {name: data[name] for name in data.dtype.names or () if data.dtype[name].kind in "fiu"}


def _check_header(path: Path) -> None:
    """Refuse a header that announces more rows than the file has bytes, before memory is taken for them."""
    with path.open("rb") as stream:
        start = stream.read(1 << 16)
    if not start.startswith(b"ply"):
        raise UnreadableScene(f"{path}: not a .ply file. Give a .ply of Gaussians, as `lrm-ttt reconstruct` writes it.")
    size = path.stat().st_size
    header = start.split(b"end_header", 1)[0]
    for count in re.findall(rb"^element\s+\S+\s+(\d{1,18})", header, re.MULTILINE):
        if int(count) > size:
            raise UnreadableScene(
                f"{path}: announces {int(count)} rows in {size} bytes. It is truncated: write or download it again."
            )


def _checked_names(path: Path, columns: dict[str, Any]) -> int:
    """Return the number of `f_rest` columns of a file that holds Gaussians."""
    missing = [name for name in _names(0) if name not in columns and name not in ("nx", "ny", "nz")]
    if "packed_position" in columns:
        raise UnreadableScene(f"{path}: a compressed .ply. Convert it to a plain one first (splat-transform does).")
    if missing:
        kind = "a point cloud or a mesh, not Gaussians" if {"x", "y", "z"} <= columns.keys() else "a foreign .ply"
        raise UnreadableScene(f"{path}: {kind}: it has no {', '.join(missing)}. Give a .ply of Gaussians.")
    num_rest = sum(re.fullmatch(r"f_rest_\d+", name) is not None for name in columns)
    if num_rest not in NUM_REST_OF_DEGREE or any(f"f_rest_{index}" not in columns for index in range(num_rest)):
        raise UnreadableScene(
            f"{path}: {num_rest} columns f_rest_*, where 0, 9, 24 or 45 belong. Write it again with degree 0 to 3."
        )
    if len(columns["x"]) == 0:
        raise UnreadableScene(f"{path}: holds no Gaussians. Write it again.")
    return num_rest


def _joined(columns: dict[str, Any], num_rest: int) -> Gaussians:
    """Decode the rows in parts."""
    count = len(columns["x"])
    # What was read of a file that is mapped into memory can be given back at once.
    mapped = getattr(columns["x"], "_mmap", None) if hasattr(mmap, "MADV_DONTNEED") else None
    joined: Gaussians | None = None
    for start in range(0, count, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, count))
        values = {name: np.ascontiguousarray(column[rows], dtype=np.float32) for name, column in columns.items()}
        part = _decode(values, num_rest)
        if joined is None:
            joined = part.map(lambda tensor: tensor.new_empty(count, *tensor.shape[1:]))
        for field in dataclasses.fields(part):
            getattr(joined, field.name)[rows] = getattr(part, field.name)
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)
    assert joined is not None
    return joined


def _decode(values: dict[str, np.ndarray], num_rest: int) -> Gaussians:
    def block(*names: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([values[name] for name in names], -1))

    constant = block("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    rest = constant[:, :0]
    if num_rest:
        rest = block(*(f"f_rest_{index}" for index in range(num_rest))).unflatten(1, (3, -1)).transpose(1, 2)
    wxyz = block("rot_0", "rot_1", "rot_2", "rot_3")
    # A quaternion of zeros means no rotation to the renderers that add a small number before they normalise.
    wxyz = torch.where(wxyz.abs().amax(-1, keepdim=True) == 0, torch.tensor([1.0, 0.0, 0.0, 0.0]), wxyz)
    return Gaussians(
        means=block("x", "y", "z"),
        scales=block("scale_0", "scale_1", "scale_2").double().exp().float(),
        wxyz=torch.nn.functional.normalize(wxyz.double(), dim=-1).float(),
        opacities=torch.from_numpy(values["opacity"]).double().sigmoid().float(),
        sh=torch.cat([constant, rest], 1),
    )
