"""Batches and captures: reproducible, normalised, in range, and fast."""

import dataclasses
import time

import pytest
import torch

from lrm_ttt.data.procedural import ProceduralConfig, procedural_capture, sample_batch
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.scene.similarity import focus_point
from lrm_ttt.scene.views import SceneBatch

OBJECTS = ProceduralConfig(image_size=(32, 40), num_inputs=(3, 6), num_targets=2, room_fraction=0.0)
ROOMS = dataclasses.replace(OBJECTS, room_fraction=1.0)


def _sample(config: ProceduralConfig, seed: int, batch_size: int = 6, device: str = "cpu") -> SceneBatch:
    return sample_batch(config, batch_size, torch.Generator().manual_seed(seed), device)


@pytest.mark.parametrize("config", [OBJECTS, ROOMS])
def test_a_seed_is_a_scene(config: ProceduralConfig) -> None:
    first, second, other = _sample(config, 1), _sample(config, 1), _sample(config, 2)
    assert first.targets is not None and second.targets is not None
    for a, b in ((first.inputs, second.inputs), (first.targets, second.targets)):
        assert torch.equal(a.images, b.images)
        assert a.depths is not None and b.depths is not None
        assert torch.equal(a.depths, b.depths)
        assert torch.equal(a.cameras.cam_to_world, b.cameras.cam_to_world)
    assert first.names == second.names
    assert not set(first.names) & set(other.names)
    assert len(set(first.names)) == 6


def test_chunks_do_not_change_a_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _sample(OBJECTS, 3)
    monkeypatch.setattr("lrm_ttt.data.procedural_rendering._RAYS_PER_CHUNK", {"cpu": 1})
    torch.testing.assert_close(_sample(OBJECTS, 3).inputs.images, whole.inputs.images, atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("config", [OBJECTS, ROOMS])
def test_devices_agree(config: ProceduralConfig) -> None:
    here, there = _sample(config, 4).inputs, _sample(config, 4, device="cuda").inputs.to("cpu")
    assert here.depths is not None and there.depths is not None
    # Rounding tips a ray over an outline here and there.
    assert ((here.images - there.images).abs() < 1e-3).float().mean() > 0.998
    assert ((here.depths - there.depths).abs() < 1e-4).float().mean() > 0.998


@pytest.mark.parametrize("config", [OBJECTS, ROOMS])
def test_inputs_are_normalised_by_their_focus(config: ProceduralConfig) -> None:
    batch = _sample(config, 5)
    cameras = batch.inputs.cameras
    assert focus_point(cameras).abs().max() < 1e-3
    torch.testing.assert_close(cameras.centres.norm(dim=-1).mean(1), torch.full((6,), 2.0), atol=1e-4, rtol=0)
    rotations = cameras.cam_to_world[..., :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=1e-5, rtol=0)
    # The world, which the normalisation leads back to, has axes and units of its own.
    assert (batch.world_to_scene.scale - 1).abs().min() > 1e-4


@pytest.mark.parametrize("config", [OBJECTS, ROOMS])
def test_depths_are_in_the_units_of_the_normalised_cameras(config: ProceduralConfig) -> None:
    """A point unprojected from one view is never in front of what another view sees."""
    views = _sample(dataclasses.replace(config, image_size=(64, 64), antialias=False), 6).inputs
    assert views.depths is not None
    cameras = views.cameras
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], -1).view(1, -1, 2).expand(6, -1, -1)
    points = cameras[:, 0].unproject(pixels, views.depths[:, 0].flatten(1))
    place, depth = cameras[:, 1].project(points)
    grid = (place / 32 - 1)[:, None]
    inside = (views.depths[:, 0].flatten(1) > 0) & (depth > 0) & (grid[:, 0].abs() < 0.95).all(-1)
    other = views.depths[:, 1]
    nearest = -torch.nn.functional.max_pool2d(-torch.where(other > 0, other, 0), 3, 1, 1)
    floor = torch.nn.functional.grid_sample(nearest, grid, mode="nearest", align_corners=False)[:, 0, 0]
    # The nearest of nine pixels bounds the surface between them, but for things that fall between the rays.
    assert ((depth > floor - 1e-3) | ~inside).float().mean() > 0.98
    # Depths in other units would nowhere agree.
    agree = (torch.nn.functional.grid_sample(other, grid, align_corners=False)[:, 0, 0] - depth).abs() < 0.01
    assert agree[inside].float().mean() > 0.1


def test_objects_are_composited_and_rooms_fill_the_image() -> None:
    batch, seen = _sample(OBJECTS, 7, batch_size=12), 0.0
    views = batch.inputs
    assert views.masks is not None and views.depths is not None
    assert views.images.min() >= 0 and views.images.max() <= 1
    assert views.masks.min() == 0 and views.masks.max() == 1
    empty = (views.masks == 0).expand_as(views.images)
    background = batch.backgrounds[:, None, :, None, None].expand_as(views.images)
    assert torch.equal(views.images[empty], background[empty])
    assert (views.depths[views.masks == 1] > 0).float().mean() > 0.995
    assert (views.depths[views.masks == 0] == 0).all()
    seen = float(views.masks.mean())
    assert 0.08 < seen < 0.5
    rooms = _sample(ROOMS, 7).inputs
    assert rooms.masks is None and rooms.depths is not None
    assert (rooms.depths > 0).all()
    assert rooms.images.min() >= 0 and rooms.images.max() <= 1


def test_targets_are_other_views_of_the_same_place() -> None:
    batch = _sample(OBJECTS, 8)
    assert batch.targets is not None
    apart = torch.cdist(batch.targets.cameras.centres, batch.inputs.cameras.centres)
    assert apart.min() > 1e-3
    assert batch.targets.shape == (6, 2)
    assert 3 <= batch.inputs.shape[1] <= 6
    assert (batch.targets.masks is not None) and float(batch.targets.masks.mean()) > 0.05


def test_a_capture_keeps_its_own_frame() -> None:
    views = procedural_capture(3, 6, (24, 32))
    again = procedural_capture(3, 6, (24, 32))
    assert torch.equal(views.images, again.images)
    assert views.image_size == (24, 32) and views.shape == (6,)
    up = -views.cameras.cam_to_world[:, 2, 1]
    assert up.mean() > 0.5
    assert (focus_point(views.cameras).norm() > 0.1) and views.masks is not None
    assert procedural_capture(3, 2, (24, 32), kind="room").masks is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": (0, 8)},
        {"num_inputs": (5, 4)},
        {"num_targets": -1},
        {"room_fraction": 1.5},
        {"max_primitives": 0},
    ],
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig):
        ProceduralConfig(**wrong)  # type: ignore[arg-type]


def test_sampling_is_fast_enough_to_train_from() -> None:
    config = ProceduralConfig(num_inputs=(8, 8), num_targets=0, room_fraction=0.0)
    generator = torch.Generator().manual_seed(0)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        sample_batch(config, 8, generator)
        seconds.append((time.process_time() - start) / 8)
    # 20 scenes a second on two cores; idle cores without shape checks reach 150.
    assert min(seconds) < 0.1
