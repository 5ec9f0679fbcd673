"""States as files: what is loaded is what was saved, bit for bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.backbone import Backbone, Precision
from lrm_ttt.model.config import BackboneConfig
from lrm_ttt.model.state import FORMAT, SceneState


def _backbone(mixer: str, elastic: float) -> Backbone:
    torch.manual_seed(0)
    memory = MemoryConfig(head_dim=16, multiple=2, elastic=elastic)
    config = BackboneConfig(32, 2, 16, 2, memory, "causal", 2, mixer=mixer)  # type: ignore[arg-type]
    return Backbone(config)


def _tokens(seed: int) -> torch.Tensor:
    return torch.randn(1, 2, 6, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("mixer", "elastic"), [("fast_weight", 0.0), ("fast_weight", 0.05), ("softmax", 0.0)])
@torch.no_grad()
def test_saving_and_loading_in_the_middle_changes_no_bit(tmp_path: Path, mixer: str, elastic: float) -> None:
    backbone = _backbone(mixer, elastic)
    states = [backbone.start(1), backbone.start(1)]
    for step in range(3):
        states = [backbone.update(_tokens(step), state, Precision())[0] for state in states]
        states[1].save(tmp_path / "state.safetensors")
        states[1] = SceneState.load(tmp_path / "state.safetensors")
        assert states[1].num_views == states[0].num_views == 2 * (step + 1)
    ours, theirs = states[0].tensors(), states[1].tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_state_before_any_view_can_be_saved(tmp_path: Path) -> None:
    state = _backbone("fast_weight", 0.0).start(2)
    state.save(tmp_path / "state.safetensors")
    loaded = SceneState.load(tmp_path / "state.safetensors")
    assert all(torch.equal(loaded.tensors()[name], tensor) for name, tensor in state.tensors().items())


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="cannot be read"):
        SceneState.load(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("not a tensor file")
    with pytest.raises(IncompatibleCheckpoint, match="cannot be read"):
        SceneState.load(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match="no state"):
        SceneState.load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(("mixer", "elastic"), [("fast_weight", 0.05), ("softmax", 0.0)])
def test_a_state_without_any_of_its_parts_is_refused(tmp_path: Path, mixer: str, elastic: float) -> None:
    path = tmp_path / "state.safetensors"
    _backbone(mixer, elastic).start(1).save(path)
    whole, format_ = load_file(path), {"format": FORMAT}
    for name in whole:
        save_file({other: whole[other] for other in whole if other != name}, path, format_ | {"num_views": "0"})
        with pytest.raises(IncompatibleCheckpoint, match="broken"):
            SceneState.load(path)
    for tensors, metadata in ((whole, {}), (whole, {"num_views": "many"}), ({}, {"num_views": "0"})):
        save_file(tensors, path, format_ | metadata)
        with pytest.raises(IncompatibleCheckpoint, match="broken"):
            SceneState.load(path)
