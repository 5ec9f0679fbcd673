"""Reading the planes, and their file."""

from pathlib import Path

import pytest
import torch

from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.similarity import Similarity
from lrm_ttt.scene.triplanes import PLANE_AXES, FieldNetwork, Triplanes
from lrm_ttt.scene.triplanes_file import read_triplanes, write_triplanes


def _network(width: int, batch: int = 1) -> FieldNetwork:
    sizes = ((2, width), (2,), (0, 2, 2), (0, 2), (4, 2), (4,))
    return FieldNetwork(*(torch.zeros(batch, *size) for size in sizes))


def test_linear_planes_are_reproduced() -> None:
    """Bilinear interpolation is exact for linear functions, so each plane shows which coordinates it spans."""
    resolution, extent = 8, 1.5
    centres = ((torch.arange(resolution) + 0.5) / resolution * 2 - 1) * extent
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    planes = torch.stack([torch.stack([columns, rows, 2 * columns - rows + 1])] * 3)[None]
    triplanes = Triplanes(planes, _network(9), extent)
    reach = extent * (1 - 1 / resolution)
    points = (torch.rand(1, 100, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * reach
    features = triplanes.features(points).reshape(3, 3, 100)
    for plane, (first, second) in enumerate(PLANE_AXES):
        a, b = points[0, :, first], points[0, :, second]
        torch.testing.assert_close(features[plane], torch.stack([a, b, 2 * a - b + 1]), rtol=0, atol=1e-5)
    corner = triplanes.features(torch.full((1, 1, 3), extent)).reshape(3, 3)
    torch.testing.assert_close(corner[:, :2], torch.full((3, 2), reach))


def test_scenes_have_their_own_planes_and_network() -> None:
    generator = torch.Generator().manual_seed(1)
    network = _network(6, 2).map(lambda tensor: torch.randn(tensor.shape, generator=generator))
    both = Triplanes(torch.randn(2, 3, 2, 4, 4, generator=generator), network, 1.0)
    points = torch.rand(2, 30, 3, generator=generator) * 2 - 1
    density, color = both.radiance(points)
    assert (density >= 0).all() and (color >= 0).all() and (color <= 1).all()
    for i in range(2):
        alone = both[i : i + 1].radiance(points[i : i + 1])
        torch.testing.assert_close(alone[0], density[i : i + 1])
        torch.testing.assert_close(alone[1], color[i : i + 1])
        expected = torch.relu(network.enter[i] @ both.features(points)[i] + network.enter_bias[i][:, None])
        expected = network.leave[i] @ expected + network.leave_bias[i][:, None]
        torch.testing.assert_close(torch.sigmoid(expected[1:]), color[i])


def test_the_file_keeps_every_bit(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    network = _network(6).map(lambda tensor: torch.randn(tensor.shape, generator=generator))
    triplanes = Triplanes(torch.randn(1, 3, 2, 4, 4, generator=generator), network, 1.1)[0]
    similarity = Similarity(torch.eye(3).roll(1, 0), torch.tensor([7.0, -2.0, 1 / 3]), torch.tensor(0.3))
    write_triplanes(tmp_path / "triplanes.safetensors", triplanes, similarity)
    read, world_to_scene = read_triplanes(tmp_path / "triplanes.safetensors")
    assert read.extent == 1.1 and torch.equal(read.planes, triplanes.planes)
    for name, tensor in vars(network).items():
        assert torch.equal(getattr(read.network, name), tensor[0])
    for name, tensor in vars(similarity).items():
        assert torch.equal(getattr(world_to_scene, name), tensor)
    assert [path.name for path in tmp_path.iterdir()] == ["triplanes.safetensors"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    with pytest.raises(UnreadableScene, match="other"):
        read_triplanes(path)
    path.write_bytes(b"no safetensors at all")
    with pytest.raises(UnreadableScene, match="other"):
        read_triplanes(path)
