"""Model folders: what is written comes back, and what does not fit is listed."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.build import MODELS, build
from lrm_ttt.model.checkpoint import from_pretrained, load_matching, save_pretrained
from lrm_ttt.model.config import BackboneConfig, GaussianHeadConfig, ModelConfig, TokenizerConfig, TriplaneConfig
from lrm_ttt.model.origin import Origin
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.scene_model import SceneModel

CONFIG = ModelConfig(
    TokenizerConfig(4), BackboneConfig(16, 1, 16, 2, MemoryConfig(16, 1)), GaussianHeadConfig(distance="range")
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pretrained(Reconstructor(CONFIG), tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(tmp_path: Path) -> None:
    model = Reconstructor(CONFIG)
    save_pretrained(model, tmp_path)
    loaded = from_pretrained(tmp_path)
    assert loaded.config == CONFIG and not loaded.training
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    save_pretrained(model, tmp_path, dtype=torch.bfloat16)
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_file(tmp_path / "model.safetensors").values())
    assert all(tensor.dtype == torch.float32 for tensor in from_pretrained(tmp_path).state_dict().values())


def test_what_differs_is_listed(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    state["surplus"] = torch.zeros(1)
    del state["head.norm.weight"]
    state["head.linear.weight"] = torch.zeros(2, 2)
    save_file(state, path)
    with pytest.raises(IncompatibleCheckpoint) as caught:
        from_pretrained(folder)
    for part in ("1 missing: head.norm.weight", "1 unexpected: surplus", "head.linear.weight is [2, 2] instead of"):
        assert part in str(caught.value)


def test_corrupt_and_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="no folder"):
        from_pretrained(tmp_path / "nowhere")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(IncompatibleCheckpoint, match="safetensors"):
        from_pretrained(folder)
    config = folder / "config.json"
    config.write_text(json.dumps({"format": "other"}))
    with pytest.raises(IncompatibleCheckpoint, match="not the configuration"):
        from_pretrained(folder)
    config.unlink()
    with pytest.raises(IncompatibleCheckpoint, match="cannot be read"):
        from_pretrained(folder)


def test_pickles_are_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match="safetensors"):
        from_pretrained(folder)


def test_configuration_of_another_version_is_refused_by_key(folder: Path) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    data["model"]["backbone"]["widht"] = 3
    path.write_text(json.dumps(data))
    with pytest.raises(IncompatibleCheckpoint, match="did you mean 'width'"):
        from_pretrained(folder)


def test_matching_weights_carry_over_by_name(folder: Path) -> None:
    other = Reconstructor(dataclasses.replace(CONFIG, head=GaussianHeadConfig(sh_degree=1)))
    head = other.head.linear.weight.detach().clone()
    left_over = load_matching(other, folder)
    assert left_over == [f"1 of another shape: head.linear.weight is [224, 16] instead of [{4**2 * 23}, 16]"]
    assert torch.equal(other.tokenizer.embed.weight, load_file(folder / "model.safetensors")["tokenizer.embed.weight"])
    assert torch.equal(other.head.linear.weight, head)


def test_all_but_the_head_carries_over_to_another_representation(tmp_path: Path) -> None:
    pretrained = build(dataclasses.replace(CONFIG, representation="images"))
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.normal_()
    save_pretrained(pretrained, tmp_path)
    model = build(CONFIG)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    notes = load_matching(model, tmp_path)
    assert notes[0] == "the head is not that of 'images', and begins anew"
    assert notes[1:] == ["2 missing: head.norm.weight, head.linear.weight"]
    for name, tensor in model.state_dict().items():
        source = before if name.startswith("head.") else pretrained.state_dict()
        assert torch.equal(tensor, source[name])


@pytest.mark.parametrize(("theirs", "ours"), [("fast_weight", "softmax"), ("softmax", "fast_weight")])
def test_memories_do_not_carry_over_to_another_mixer(theirs: str, ours: str, tmp_path: Path) -> None:
    """Projections of both have one name and may have one shape."""
    configs = [
        dataclasses.replace(CONFIG, backbone=dataclasses.replace(CONFIG.backbone, mixer=mixer), normalisation=frame)  # type: ignore[arg-type]
        for mixer, frame in ((theirs, "focus"), (ours, "first_camera"))
    ]
    pretrained, model = (build(config) for config in configs)
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.normal_()
    save_pretrained(pretrained, tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    notes = load_matching(model, tmp_path)
    assert notes[0] == f"the memories are not those of '{theirs}', and begin anew"
    assert "'focus'" in notes[1] and "'first_camera'" in notes[1]
    name = "backbone.blocks.0.memory.qkv.weight"
    assert pretrained.state_dict()[name].shape == before[name].shape
    for name, tensor in model.state_dict().items():
        source = before if ".memory." in name else pretrained.state_dict()
        assert torch.equal(tensor, source[name])


@pytest.mark.parametrize("representation", MODELS)
def test_every_kind_of_model_comes_back(representation: str, tmp_path: Path) -> None:
    triplane = TriplaneConfig(resolution=16, channels=4, hidden=8)
    config = dataclasses.replace(CONFIG, representation=representation, triplane=triplane, normalisation="focus")
    model = build(config)
    model.save_pretrained(tmp_path)
    loaded = SceneModel.from_pretrained(tmp_path)
    assert type(loaded) is MODELS[representation] and loaded.config == config and not loaded.training
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    for other in set(MODELS.values()) - {type(model)}:
        with pytest.raises(IncompatibleCheckpoint, match=f"holds a {type(model).__name__}, not a {other.__name__}"):
            other.from_pretrained(tmp_path)


def test_the_first_format_is_still_read(folder: Path) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    del data["model"]["representation"], data["model"]["triplane"]
    path.write_text(json.dumps(data | {"format": "lrm-ttt reconstructor 1"}))
    assert from_pretrained(folder).config == CONFIG


def test_files_are_as_readable_as_any(folder: Path) -> None:
    modes = {path.stat().st_mode for path in folder.iterdir()}
    (folder / "other").touch()
    assert modes == {(folder / "other").stat().st_mode}


ORIGIN = Origin("program", "file.pt", "0" * 64, "research only")


def test_the_licence_stays_with_the_weights(tmp_path: Path) -> None:
    model = Reconstructor(CONFIG)
    model.origin = ORIGIN
    save_pretrained(model, tmp_path / "first")
    assert "research only" in (tmp_path / "first" / "NOTICE").read_text()
    loaded = Reconstructor.from_pretrained(tmp_path / "first")
    assert loaded.origin == ORIGIN
    trained_on = build(dataclasses.replace(CONFIG, representation="images"))
    notes = load_matching(trained_on, tmp_path / "first")
    assert "the weights came from file.pt; licence: research only" in notes
    trained_on.save_pretrained(tmp_path / "second")
    assert SceneModel.from_pretrained(tmp_path / "second").origin == ORIGIN
    card = (tmp_path / "second" / "README.md").read_text()
    assert "license: other" in card and "research only" in card
