"""From captures to normalised scenes and batches."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from lrm_ttt.data.files import DepthFile
from lrm_ttt.data.images import load_views
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.data.procedural import ProceduralConfig, sample_batch
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.training_scene import collate, load_scene, renormalised
from lrm_ttt.data.view_sampler import ViewChoice
from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.cameras import ImageSize
from lrm_ttt.scene.similarity import Normalisation, normalising_similarity
from lrm_ttt.scene.views import SceneBatch, Views
from tests.data.captures import make_capture, save_images, transforms

SIZE = (24, 32)
CHOICE = ViewChoice((4, 0, 2), (1, 2), (4, 0, 2))
FRAMES: tuple[Normalisation, ...] = ("focus", "mean_camera", "first_camera")


def write_capture(folder: Path, *, alpha: bool = False) -> Path:
    """Write five views of the textured plane."""
    capture, names = make_capture(5), [f"images/{index}.png" for index in range(5)]
    save_images(capture, folder, names, alpha=alpha)
    (folder / "transforms.json").write_text(json.dumps(transforms(capture, names)))
    return folder


@pytest.fixture(scope="module")
def opaque(tmp_path_factory: pytest.TempPathFactory) -> SceneSource:
    return open_scene(write_capture(tmp_path_factory.mktemp("opaque")))


@pytest.fixture(scope="module")
def transparent(tmp_path_factory: pytest.TempPathFactory) -> SceneSource:
    return open_scene(write_capture(tmp_path_factory.mktemp("transparent"), alpha=True))


def load(
    source: SceneSource,
    choice: ViewChoice = CHOICE,
    by: Normalisation = "mean_camera",
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> SceneBatch:
    return load_scene(source, choice, SIZE, patch_size=8, normalisation=by, background=background)


def targets(batch: SceneBatch) -> Views:
    assert batch.targets is not None
    return batch.targets


def points(views: Views, scene: SceneBatch) -> torch.Tensor:
    """Return where the pixels of views `[1 v]` with depths lie in the world."""
    assert views.depths is not None
    pixels = torch.stack(torch.meshgrid(torch.arange(32) + 0.5, torch.arange(24) + 0.5, indexing="xy"), -1)
    flat = pixels.reshape(1, 1, -1, 2).expand(1, views.shape[1], -1, 2)
    behind = views.cameras.unproject(flat, views.depths.flatten(2))
    return scene.world_to_scene.inverse().points(behind.flatten(1, 2))


@pytest.mark.parametrize("by", FRAMES)
def test_views_are_those_chosen_and_cameras_lead_back(opaque: SceneSource, by: Normalisation) -> None:
    scene = load(opaque, by=by)
    for views, chosen in ((scene.inputs, CHOICE.inputs), (targets(scene), CHOICE.targets)):
        plain = load_views(opaque, chosen, ImageSize(*SIZE))
        assert torch.equal(views.images[0], plain.images)
        assert torch.equal(views.cameras.intrinsics[0], plain.cameras.intrinsics)
        back = scene.world_to_scene.inverse().cameras(views.cameras)
        # float32 against float64.
        torch.testing.assert_close(back.cam_to_world[0], plain.cameras.cam_to_world, atol=3e-6, rtol=0)
    again = normalising_similarity(scene.inputs.cameras, by)
    torch.testing.assert_close(again.scale, torch.ones(1), atol=3e-6, rtol=0)
    torch.testing.assert_close(again.translation, torch.zeros(1, 3), atol=3e-6, rtol=0)
    torch.testing.assert_close(again.rotation, torch.eye(3)[None], atol=3e-6, rtol=0)


@pytest.mark.parametrize("by", FRAMES)
def test_only_inputs_take_part_in_the_normalisation(opaque: SceneSource, by: Normalisation) -> None:
    other = dataclasses.replace(CHOICE, targets=(3,))
    ours, theirs = load(opaque, by=by), load(opaque, other, by)
    assert torch.equal(ours.inputs.cameras.cam_to_world, theirs.inputs.cameras.cam_to_world)
    assert torch.equal(ours.world_to_scene.scale, theirs.world_to_scene.scale)


def test_a_capture_far_from_its_origin_loses_nothing(opaque: SceneSource) -> None:
    """Surveyors' coordinates have seven digits before the point, of which float32 keeps no centimetre."""
    moved = opaque.cam_to_world.clone()
    moved[:, :3, 3] += torch.tensor([4e6, -5e5, 300.0], dtype=torch.float64)
    far = load(dataclasses.replace(opaque, cam_to_world=moved))
    expected = load(opaque).inputs.cameras.cam_to_world
    # float64 has 1e-9 left at 4e6.
    torch.testing.assert_close(far.inputs.cameras.cam_to_world, expected, atol=1e-6, rtol=0)


def test_transparent_images_lie_on_the_background(transparent: SceneSource) -> None:
    white, blue = load(transparent), load(transparent, background=(0.1, 0.2, 0.9))
    assert blue.backgrounds.tolist() == [pytest.approx([0.1, 0.2, 0.9])]
    masks = white.inputs.masks
    assert masks is not None and blue.inputs.masks is not None and torch.equal(masks, blue.inputs.masks)
    assert float(masks.min()) < 0.5
    change = (torch.tensor([0.1, 0.2, 0.9]) - 1)[:, None, None] * (1 - masks)
    torch.testing.assert_close(blue.inputs.images, white.inputs.images + change, atol=1e-5, rtol=0)


def test_opaque_images_do_not_see_the_background(opaque: SceneSource) -> None:
    assert load(opaque).inputs.masks is None
    assert torch.equal(load(opaque).inputs.images, load(opaque, background=(0.0, 0.0, 0.0)).inputs.images)


def test_a_view_that_is_input_and_target_is_the_same_twice(opaque: SceneSource) -> None:
    scene = load(opaque)
    assert torch.equal(scene.inputs.images[:, 2], targets(scene).images[:, 1])
    assert torch.equal(scene.inputs.cameras.cam_to_world[:, 2], targets(scene).cameras.cam_to_world[:, 1])


@pytest.mark.parametrize("by", FRAMES)
def test_depths_follow_the_scale(opaque: SceneSource, tmp_path: Path, by: Normalisation) -> None:
    """Unprojected, all pixels lie on the plane z = 0 of the capture."""
    files = []
    for index in range(5):
        size, (fx, fy, cx, cy) = opaque.image_sizes[index], opaque.intrinsics[index].tolist()
        x, y = (torch.arange(size.width) + 0.5 - cx) / fx, (torch.arange(size.height) + 0.5 - cy) / fy
        plane = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        directions = (
            torch.cat([plane, torch.ones_like(plane[..., :1])], -1).double() @ opaque.cam_to_world[index, :3, :3].T
        )
        depths = -opaque.cam_to_world[index, 2, 3] / directions[..., 2]
        path = tmp_path / f"{index}.png"
        Image.fromarray((depths * 10000).round().to(torch.uint16).numpy()).save(path)
        files.append(DepthFile(path, 1e-4))
    scene = load(dataclasses.replace(opaque, depths=tuple(files)), by=by)
    for views in (scene.inputs, targets(scene)):
        # The nearest of 48x72 depths for each of 24x32 pixels: half a stored pixel beside the ray.
        assert float(points(views, scene)[..., 2].abs().max()) < 0.04


def test_scenes_with_and_without_masks_make_a_batch(opaque: SceneSource, transparent: SceneSource) -> None:
    scenes = [load(opaque), load(transparent, background=(0.0, 1.0, 0.0)), load(opaque)]
    batch = collate(scenes)
    assert batch.shape == (3,) and batch.names == (opaque.name, transparent.name, opaque.name)
    for index, scene in enumerate(scenes):
        for joined, alone in ((batch.inputs, scene.inputs), (targets(batch), targets(scene))):
            assert torch.equal(joined.images[index], alone.images[0])
            assert torch.equal(joined.cameras.cam_to_world[index], alone.cameras.cam_to_world[0])
            assert torch.equal(joined.coverage[index], alone.coverage[0])
        assert torch.equal(batch.backgrounds[index], scene.backgrounds[0])
        assert torch.equal(batch.world_to_scene.scale[index], scene.world_to_scene.scale[0])
    assert collate([scenes[0], scenes[2]]).inputs.masks is None
    known = dataclasses.replace(scenes[0].inputs, depths=torch.ones(1, 3, 1, *SIZE))
    some = collate([dataclasses.replace(scenes[0], inputs=known), scenes[1]])
    assert some.inputs.depths is not None and some.inputs.depths.mean((1, 2, 3, 4)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("by", [*FRAMES, "none"])
def test_another_frame_shows_the_same_world(by: Normalisation) -> None:
    batch = sample_batch(ProceduralConfig(SIZE, (3, 3), 2), 1, torch.Generator().manual_seed(1))
    other = renormalised(batch, by)
    for ours, theirs in ((batch.inputs, other.inputs), (targets(batch), targets(other))):
        assert ours.depths is not None
        seen = (ours.depths > 0).flatten()
        expected, found = points(ours, batch)[0][seen], points(theirs, other)[0][seen]
        torch.testing.assert_close(found, expected, atol=3e-5, rtol=0)
        assert torch.equal(ours.images, theirs.images)
    again = normalising_similarity(other.inputs.cameras, by)
    torch.testing.assert_close(again.scale, torch.ones(1), atol=1e-5, rtol=0)
    if by == "focus":
        torch.testing.assert_close(other.inputs.cameras.cam_to_world, batch.inputs.cameras.cam_to_world)


def test_broken_captures_are_named(opaque: SceneSource, tmp_path: Path) -> None:
    cameras = opaque.cam_to_world.clone()
    cameras[2, 0, 3] = float("nan")
    with pytest.raises(UnreadableScene, match=f"{opaque.name}: a camera is not made of finite numbers"):
        load(dataclasses.replace(opaque, cam_to_world=cameras))
    still = opaque.cam_to_world[:1].repeat(5, 1, 1)
    still[:, :3, 3] += 1e-9 * torch.arange(5)[:, None]
    with pytest.raises(UnreadableScene, match=f"{opaque.name}: all input cameras stand in one place"):
        load(dataclasses.replace(opaque, cam_to_world=still))
    for words, content in {"truncated": 2000, "cannot be decoded": 20}.items():
        path = tmp_path / f"{content}.png"
        first = opaque.image_paths[0]
        assert isinstance(first, Path)
        path.write_bytes(first.read_bytes()[:content])
        paths = (path, *opaque.image_paths[1:])
        with pytest.raises(UnreadableScene, match=words):
            load(dataclasses.replace(opaque, image_paths=paths))
    Image.new("RGB", (72, 40)).save(tmp_path / "low.png")
    with pytest.raises(UnreadableScene, match=r"low\.png: the image changed its size"):
        load(dataclasses.replace(opaque, image_paths=(tmp_path / "low.png", *opaque.image_paths[1:])))
