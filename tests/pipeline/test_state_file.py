"""A state goes to a file and back with its frame, and no other model reads it."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.config import BackboneConfig, ModelConfig
from lrm_ttt.model.novel_view import NovelViewModel
from lrm_ttt.model.state import SceneState
from lrm_ttt.pipeline.reconstruct import normalise
from lrm_ttt.pipeline.saved_field import show_state
from lrm_ttt.pipeline.state_file import SavedState, fingerprint, load_state, read_record, save_state
from lrm_ttt.scene.similarity import normalising_similarity
from lrm_ttt.scene.views import Views
from tests.pipeline.make import make_views

IMAGES = ModelConfig(
    backbone=BackboneConfig(64, 2, 32, 2, memory=MemoryConfig(32, 2)), normalisation="focus", representation="images"
)


def make_images_model(seed: int = 0, config: ModelConfig = IMAGES) -> NovelViewModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NovelViewModel(config).eval()


@pytest.fixture(scope="module")
def views() -> Views:
    return make_views(7)


def remember(model: NovelViewModel, views: Views) -> SavedState:
    world_to_scene = normalising_similarity(views.cameras, "focus").map(torch.Tensor.contiguous)
    with torch.inference_mode():
        state = model.update(model.start(1), normalise(views, world_to_scene)[None])
    extra = {"poses": views.cameras.cam_to_world.mT}
    return SavedState(state, world_to_scene, fingerprint(model), {"image_size": [48, 64], "scale": 0.1}, extra)


def test_what_is_saved_comes_back_bit_for_bit(views: Views, tmp_path: Path) -> None:
    model, path = make_images_model(), tmp_path / "state.safetensors"
    saved = remember(model, views)
    save_state(path, saved)
    read = load_state(path, model)
    before, after = saved.state.tensors(), read.state.tensors()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert read.state.num_views == 7
    for name, tensor in vars(saved.world_to_scene).items():
        assert torch.equal(getattr(read.world_to_scene, name), tensor)
    assert read.record == saved.record == read_record(path)
    assert torch.equal(read.extra["poses"], saved.extra["poses"])
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    alone = SceneState.load(path)
    assert alone.num_views == 7
    assert alone.tensors().keys() == before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in alone.tensors().items())


def test_the_file_shows_what_the_state_showed(views: Views, tmp_path: Path) -> None:
    """Cameras are given in the capture's frame, and no input is seen again."""
    model, path = make_images_model(), tmp_path / "state.safetensors"
    saved, camera = remember(model, views), make_views(9).cameras[3:4]
    with torch.inference_mode():
        before = model.query(saved.state, saved.world_to_scene.cameras(camera)[None])[0, 0]
        save_state(path, saved)
        shown = show_state(path, model)(camera)
    assert torch.equal(shown, before)
    assert shown.std() > 0.001


def test_a_foreign_state_is_refused(views: Views, tmp_path: Path) -> None:
    model, path = make_images_model(), tmp_path / "state.safetensors"
    save_state(path, remember(model, views))
    elastic = dataclasses.replace(IMAGES.backbone, memory=MemoryConfig(32, 2, elastic=0.05))
    for other in (make_images_model(1), make_images_model(0, dataclasses.replace(IMAGES, backbone=elastic))):
        with pytest.raises(IncompatibleCheckpoint, match=r"another model.*--checkpoint"):
            load_state(path, other)


def test_other_files_are_refused(views: Views, tmp_path: Path) -> None:
    model, path = make_images_model(), tmp_path / "state.safetensors"
    model.start(1).save(path)
    with pytest.raises(IncompatibleCheckpoint, match="is no state of a scene"):
        load_state(path, model)
    for broken in (path.read_bytes()[:-100], b"no safetensors"):
        path.write_bytes(broken)
        with pytest.raises(IncompatibleCheckpoint, match="cannot be read"):
            load_state(path, model)


def test_a_file_without_any_of_its_parts_is_refused(views: Views, tmp_path: Path) -> None:
    model, path = make_images_model(), tmp_path / "state.safetensors"
    save_state(path, remember(model, views))
    whole = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    for name in whole.keys() - {"extra.poses"}:
        save_file({other: whole[other] for other in whole if other != name}, path, metadata)
        with pytest.raises(IncompatibleCheckpoint, match="broken"):
            load_state(path, model)
    first = {name: tensor for name, tensor in whole.items() if not name.startswith("state.1.")}
    save_file(first, path, metadata)
    with pytest.raises(IncompatibleCheckpoint, match="layers are missing"):
        load_state(path, model)
    for name in metadata:
        save_file(whole, path, {other: metadata[other] for other in metadata if other != name})
        with pytest.raises(IncompatibleCheckpoint):
            load_state(path, model)
    for record in ("{", "[]"):
        save_file(whole, path, metadata | {"record": record})
        for read in (read_record, lambda path: load_state(path, model)):
            with pytest.raises(IncompatibleCheckpoint, match="broken"):
                read(path)
