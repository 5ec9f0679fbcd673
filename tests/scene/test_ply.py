"""Gaussians survive their .ply; foreign files are refused with one message."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch

from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene import ply
from lrm_ttt.scene.gaussians import SH_C0, Gaussians
from lrm_ttt.scene.ply import read_ply, read_points, write_ply
from lrm_ttt.scene.similarity import Similarity
from tests.helpers.shared import shared_path
from tests.scene.make import gaussians


def header_of(path: Path) -> list[str]:
    return path.read_bytes().split(b"end_header\n")[0].decode().splitlines()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_write_then_read_is_the_identity(tmp_path: Path, degree: int) -> None:
    some = gaussians(100, degree, dtype=torch.float32)
    write_ply(tmp_path / "scene.ply", some)
    again = read_ply(tmp_path / "scene.ply")
    assert torch.equal(again.means, some.means)
    assert torch.equal(again.sh, some.sh)
    assert torch.allclose(again.wxyz, some.wxyz, atol=1e-6)
    # The logarithm is stored in float32, so these come back to a few units in the last place of it.
    assert torch.allclose(again.scales, some.scales, rtol=2e-6, atol=0)
    assert torch.allclose(again.opacities, some.opacities, rtol=2e-6, atol=0)


@pytest.mark.parametrize(("degree", "num_rest"), [(0, 0), (1, 9), (2, 24), (3, 45)])
def test_the_columns_are_those_of_3dgs(tmp_path: Path, degree: int, num_rest: int) -> None:
    """Names, order and types; little endian; the values of one row by hand."""
    some = gaussians(3, degree, dtype=torch.float32)
    path = tmp_path / "scene.ply"
    write_ply(path, some)
    rest = [f"f_rest_{index}" for index in range(num_rest)]
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity"]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    expected = [
        "ply",
        "format binary_little_endian 1.0",
        "element vertex 3",
        *(f"property float {name}" for name in names),
    ]
    assert header_of(path) == expected
    body = path.read_bytes().split(b"end_header\n", 1)[1]
    assert len(body) == 3 * 4 * len(names)
    row = dict(zip(names, struct.unpack_from(f"<{len(names)}f", body, 4 * len(names)), strict=True))
    assert row["x"] == float(some.means[1, 0])
    assert row["nx"] == row["ny"] == row["nz"] == 0
    assert row["f_dc_1"] == float(some.sh[1, 0, 1])
    alpha = float(some.opacities[1])
    assert row["opacity"] == pytest.approx(np.log(alpha / (1 - alpha)), rel=1e-5)
    assert row["scale_2"] == pytest.approx(np.log(float(some.scales[1, 2])), rel=1e-6)
    assert [row[f"rot_{index}"] for index in range(4)] == pytest.approx(some.wxyz[1].tolist(), abs=1e-6)
    # Channel-major: coefficient k of channel c is f_rest[c * K + k].
    per_channel = num_rest // 3
    for channel in range(3):
        for k in range(per_channel):
            assert row[f"f_rest_{channel * per_channel + k}"] == float(some.sh[1, 1 + k, channel])


def test_extreme_values_stay_finite_and_come_back(tmp_path: Path) -> None:
    some = gaussians(6, 0, dtype=torch.float32)
    opacities = torch.tensor([0.0, 1.0, 1e-7, 1 - 6e-8, 0.5, 1e-20])
    scales = some.scales.clone()
    scales[0] = torch.tensor([0.0, 1e-20, 1e20])
    extreme = Gaussians(some.means, scales, some.wxyz, opacities, some.sh)
    write_ply(tmp_path / "scene.ply", extreme)
    table = plyfile.PlyData.read(tmp_path / "scene.ply")["vertex"].data
    assert all(np.isfinite(table[name]).all() for name in table.dtype.names)
    again = read_ply(tmp_path / "scene.ply")
    assert torch.allclose(again.opacities, opacities, rtol=1e-5, atol=1e-12)
    assert torch.allclose(again.scales, scales, rtol=1e-5, atol=1e-12)


def test_columns_in_any_order_with_strangers(tmp_path: Path) -> None:
    """Read by name: reordered, doubled in width, without normals, big endian or as text."""
    some = gaussians(20, 2, dtype=torch.float32)
    write_ply(tmp_path / "scene.ply", some)
    table = plyfile.PlyData.read(tmp_path / "scene.ply")["vertex"].data
    names = [name for name in reversed(table.dtype.names) if name not in ("nx", "ny", "nz")]
    mixed = np.empty(20, dtype=[("red", "u1"), *((name, "f8" if name == "x" else "f4") for name in names)])
    for name in names:
        mixed[name] = table[name]
    for options in ({"byte_order": "<"}, {"byte_order": ">"}, {"text": True}):
        other = tmp_path / "other.ply"
        plyfile.PlyData([plyfile.PlyElement.describe(mixed, "vertex")], **options).write(other)
        again, expected = read_ply(other), read_ply(tmp_path / "scene.ply")
        for name in ("means", "scales", "wxyz", "opacities", "sh"):
            assert torch.allclose(getattr(again, name), getattr(expected, name), rtol=1e-5, atol=1e-6), (options, name)


def test_quaternions_of_any_norm(tmp_path: Path) -> None:
    """Optimisers do not keep them unit; a zero one is no rotation."""
    some = gaussians(4, 0, dtype=torch.float32)
    wxyz = some.wxyz * torch.tensor([5.0, 0.01, 1, 0])[:, None]
    write_ply(tmp_path / "scene.ply", Gaussians(some.means, some.scales, wxyz, some.opacities, some.sh))
    again = read_ply(tmp_path / "scene.ply").wxyz
    assert torch.allclose(again[:3], some.wxyz[:3], atol=1e-5)
    assert again[3].tolist() == [1, 0, 0, 0]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scene.ply"
    write_ply(path, gaussians(5, 0, dtype=torch.float32))
    before = path.read_bytes()

    def stop(gaussians: object) -> bytes:
        raise KeyboardInterrupt

    # The header is written by then.
    monkeypatch.setattr(ply, "_encode", stop)
    with pytest.raises(KeyboardInterrupt):
        write_ply(path, gaussians(9, 0, dtype=torch.float32))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["scene.ply"]


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_parts_of_any_size_make_the_same_file_and_gaussians(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = gaussians(40, 1, dtype=torch.float32)
    write_ply(tmp_path / "whole.ply", some)
    whole = read_ply(tmp_path / "whole.ply")
    monkeypatch.setattr(ply, "ROWS_AT_ONCE", rows)
    write_ply(tmp_path / "parts.ply", some)
    assert (tmp_path / "parts.ply").read_bytes() == (tmp_path / "whole.ply").read_bytes()
    for name, tensor in vars(read_ply(tmp_path / "whole.ply")).items():
        assert torch.equal(tensor, getattr(whole, name)), name


def test_a_similarity_on_the_way_is_one_before(tmp_path: Path) -> None:
    some = gaussians(9, 1, dtype=torch.float32)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5))).Q
    moved = Similarity(rotation * torch.linalg.det(rotation), torch.tensor([7.0, -2.0, 3.0]), torch.tensor(4.5))
    write_ply(tmp_path / "first.ply", some.transform(moved))
    write_ply(tmp_path / "then.ply", some, moved)
    assert (tmp_path / "first.ply").read_bytes() == (tmp_path / "then.ply").read_bytes()


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    some = gaussians(5, 0, dtype=torch.float32)
    some.means[2, 1] = float("nan")
    with pytest.raises(AssertionError, match="not finite"):
        write_ply(tmp_path / "scene.ply", some)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_files_of_other_programs(degree: int) -> None:
    """splat-transform's order of columns; the same Gaussians at every degree, truncated."""
    folder = shared_path("data", "splat_files")
    some = read_ply(folder / f"garden8k_sh{degree}.ply")
    full = read_ply(folder / "garden8k_sh3.ply")
    assert some.sh_degree == degree
    assert some.num_gaussians > 7900
    # Splats may be ordered and chosen otherwise in the file of degree 3: compare by position.
    index = {tuple(mean): row for row, mean in enumerate(full.means.tolist())}
    pairs = [(row, index[tuple(mean)]) for row, mean in enumerate(some.means.tolist()) if tuple(mean) in index]
    assert len(pairs) > 7900
    rows, full_rows = (torch.tensor(side) for side in zip(*pairs, strict=True))
    kept = (degree + 1) ** 2
    assert torch.allclose(some.sh[rows], full.sh[full_rows][:, :kept], atol=1e-6)
    assert torch.allclose(some.opacities[rows], full.opacities[full_rows], atol=1e-6)
    assert torch.allclose(some.scales[rows], full.scales[full_rows], rtol=1e-4)


def test_colours_of_a_file_of_another_program() -> None:
    """The points' own colours come back through 0.5 + C0 f_dc."""
    some = read_ply(shared_path("data", "splat_files", "garden8k_sh0.ply"))
    cloud = np.load(shared_path("data", "garden", "test_garden.npz"))
    colours = {
        tuple(point): colour for point, colour in zip(cloud["means3d"].tolist(), cloud["colors"].tolist(), strict=True)
    }
    seen = [(row, colours[tuple(mean)]) for row, mean in enumerate(some.means.tolist()) if tuple(mean) in colours]
    assert len(seen) > 7900
    rows, expected = (torch.tensor(side) for side in zip(*seen, strict=True))
    error = (255 * (0.5 + SH_C0 * some.sh[rows, 0]) - expected).abs().amax(-1)
    # Some points lie at one place with two colours.
    assert (error < 0.01).double().mean() > 0.99


def test_points_of_a_cloud(tmp_path: Path) -> None:
    """Positions alone, of any precision, in the order of the file."""
    table = np.zeros(4, dtype=[("red", "u1"), ("z", "f4"), ("x", "f8"), ("y", "i2")])
    table["x"], table["y"], table["z"] = [0.1, 1e6, -2, 3], [1, 2, 3, 4], [5, 6, 7, 8.5]
    plyfile.PlyData([plyfile.PlyElement.describe(table, "vertex")]).write(tmp_path / "cloud.ply")
    points = read_points(tmp_path / "cloud.ply")
    assert points.tolist() == [[0.1, 1, 5], [1e6, 2, 6], [-2, 3, 7], [3, 4, 8.5]]
    write_ply(tmp_path / "scene.ply", gaussians(3, 0, dtype=torch.float32))
    assert torch.equal(read_points(tmp_path / "scene.ply"), read_ply(tmp_path / "scene.ply").means.double())
    flat = np.zeros(4, dtype=[("red", "u1"), ("x", "f4")])
    plyfile.PlyData([plyfile.PlyElement.describe(flat, "vertex")]).write(tmp_path / "cloud.ply")
    with pytest.raises(UnreadableScene, match="no positions"):
        read_points(tmp_path / "cloud.ply")


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UnreadableScene) as caught:
        read_ply(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "some.ply"
    refused(tmp_path / "nothing.ply", "no such file")
    refused(tmp_path, "cannot be read")
    for content in (b"", b"PK\x03\x04", b"\x89PNG\r\n"):
        path.write_bytes(content)
        refused(path, "not a .ply file")
    for content in (
        b"ply",
        b"ply\nformat binary_little_endian 1.0\n",
        b"ply\nnonsense\nend_header\n",
        b"ply\n\xff\xfe\nend_header\n",
    ):
        path.write_bytes(content)
        refused(path, "not a complete .ply file")
    points = np.zeros(3, dtype=[("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1")])
    plyfile.PlyData([plyfile.PlyElement.describe(points, "vertex")]).write(path)
    refused(path, "a point cloud or a mesh", "f_dc_0", "opacity")
    plyfile.PlyData([plyfile.PlyElement.describe(points, "face")]).write(path)
    refused(path, "without an element `vertex`")


def test_a_compressed_file() -> None:
    refused(shared_path("data", "splat_files", "garden8k.compressed.ply"), "compressed", "splat-transform")


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "scene.ply"
    write_ply(path, gaussians(50, 1, dtype=torch.float32))
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, whole.index(b"end_header") + 11):
        path.write_bytes(whole[:size])
        refused(path)
    path.write_bytes(whole.replace(b"f_rest_8", b"f_rest_9"))
    refused(path, "f_rest_")
    path.write_bytes(whole.replace(b"element vertex 50", b"element vertex 0"))
    refused(path, "no Gaussians")
    nan = struct.pack("<f", float("nan"))
    path.write_bytes(whole[:-4] + nan)
    refused(path, "not finite")


def test_a_header_that_announces_too_much_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "scene.ply"
    write_ply(path, gaussians(3, 0, dtype=torch.float32))
    binary = path.read_bytes()
    tracemalloc.start()
    for count in (b"999999999999", b"99999999999999999999999"):
        for text in (binary, binary.replace(b"binary_little_endian", b"ascii")):
            path.write_bytes(text.replace(b"vertex 3", b"vertex " + count))
            refused(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
