"""Equality with the published programs of tttLRM and LaCT, tensor by tensor.

LRM_TTT_PARITY=DIR runs the fixtures in DIR instead of the shared ones.
"""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lrm_ttt.model.backbone import Precision
from lrm_ttt.model.config import BackboneConfig, ModelConfig
from lrm_ttt.model.import_weights import lact_config, rename, tttlrm_config
from lrm_ttt.model.novel_view import NovelViewModel
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.state import SceneState
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.views import Views
from tests.helpers.shared import shared_path

SCHEDULES = {"full": "single", "ar": "chunked"}
# Newton-Schulz in float32 on both sides; measured 2e-6 to 2e-5.
TOLERANCE_FP32 = 1e-4
# Newton-Schulz in bfloat16 on both sides, rounded differently by every processor.
TOLERANCE_BF16 = 5e-2


def _folder() -> Path | None:
    given = os.environ.get("LRM_TTT_PARITY")
    if given:
        return Path(given)
    beside = Path(__file__).resolve().parents[3] / "shared" / "parity"
    return beside if beside.is_dir() else None


def _files() -> list[Path]:
    folder = _folder()
    return sorted(folder.glob("*.safetensors")) if folder else []


def test_fixtures_are_there() -> None:
    if not os.environ.get("LRM_TTT_PARITY"):
        shared_path("parity")
    assert _files(), "no parity fixtures found"


@pytest.mark.parametrize("path", _files(), ids=lambda path: path.stem)
def test_every_tensor_matches(path: Path) -> None:
    with safe_open(path, "pt") as file:
        meta = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if meta["kind"] not in RUNNERS:
        pytest.skip(f"{path.stem}: the kind {meta['kind']} is not built yet")
    fp32 = meta["newton_schulz_dtype"] == "fp32"
    actual = RUNNERS[meta["kind"]](meta, tensors, torch.float32 if fp32 else torch.bfloat16)
    results = ("gaussians", "image")
    checked = [name for name in tensors if name.startswith("expected/") and (fp32 or any(r in name for r in results))]
    assert set(checked) <= set(actual), f"not compared: {sorted(set(checked) - set(actual))}"
    errors = {name: _relative_error(actual[name], tensors[name]) for name in checked}
    tolerance = TOLERANCE_FP32 if fp32 else TOLERANCE_BF16
    assert all(error < tolerance for error in errors.values()), errors


def _relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return ((actual - expected).norm() / expected.norm()).detach().item()


def _run_tttlrm(
    meta: dict[str, str], tensors: dict[str, torch.Tensor], newton_schulz: torch.dtype
) -> dict[str, torch.Tensor]:
    """Run our model on the inputs of a fixture and return our tensors under the fixture's names."""
    published = {name.removeprefix("weight/"): tensor for name, tensor in tensors.items() if name.startswith("weight/")}
    config = _with_constants(tttlrm_config(published, SCHEDULES[meta["scan"]], int(meta["views_per_update"])), meta)
    model = Reconstructor(config, Precision(torch.float32, newton_schulz))
    model.load_state_dict(rename(published), strict=True)
    views = Views(tensors["input/image"], _cameras(meta, tensors, "input"))
    virtual = tensors["virtual/input_indices"].tolist() if "virtual/input_indices" in tensors else None
    found: dict[str, torch.Tensor] = {}
    for layer, block in enumerate(model.backbone.blocks):
        _record(block, f"expected/block{layer}", found)
    with torch.no_grad():
        tokens = model.tokenize(views)
        state, _ = model.backbone.update(tokens.tokens, model.start(views.shape[0]), model.precision)
        chosen = virtual if virtual is not None else list(range(views.shape[1]))
        queries = tokens[:, chosen]
        queried = model.backbone.query(queries.tokens, state, model.precision)
        gaussians = model.head(queried, queries, model.precision.compute)
        reused = model(views, virtual)
    assert torch.allclose(reused.means, gaussians.means, rtol=1e-5, atol=1e-4)
    out: dict[str, torch.Tensor] = {}
    for layer, weights in enumerate(state.fast_weights):
        out[f"expected/block{layer}.out"] = _inputs_then_queries(found, f"expected/block{layer}")
        out[f"expected/block{layer}.ttt.out"] = _inputs_then_queries(found, f"expected/block{layer}.ttt")
        for name, weight in zip(("w0", "w1", "w2"), (weights.gate, weights.down, weights.up), strict=True):
            out[f"expected/block{layer}.ttt.{name}"] = weight.flatten(0, 1)
    out["expected/gaussians.xyz"] = gaussians.means
    out["expected/gaussians.sh"] = gaussians.sh
    out["expected/gaussians.log_scale"] = gaussians.scales.log()
    # The fixtures hold rotations before they are normalised, which Gaussians never are: taken from the linear map.
    raw = model.head.linear(model.head.norm(queried)).reshape(*gaussians.means.shape[:2], -1)
    out["expected/gaussians.rotation_wxyz"] = raw[..., -5:-1]
    assert torch.allclose(torch.nn.functional.normalize(raw[..., -5:-1], dim=-1), gaussians.wxyz, atol=1e-6)
    out["expected/gaussians.opacity_logit"] = torch.logit(gaussians.opacities)[..., None]
    return out


def _run_lact(
    meta: dict[str, str], tensors: dict[str, torch.Tensor], newton_schulz: torch.dtype
) -> dict[str, torch.Tensor]:
    """Run our novel-view model on the inputs of a fixture and return our tensors under the fixture's names."""
    published = {name.removeprefix("weight/"): tensor for name, tensor in tensors.items() if name.startswith("weight/")}
    config = lact_config(published)
    config = dataclasses.replace(config, backbone=_with_memory(config.backbone, meta))
    model = NovelViewModel(config, Precision(torch.float32, newton_schulz))
    model.load_state_dict(rename(published), strict=True)
    views = Views(tensors["input/image"], _cameras(meta, tensors, "input"))
    targets = _cameras(meta, tensors, "target")
    found: dict[str, torch.Tensor] = {}
    for layer, block in enumerate(model.backbone.blocks):
        _record(block, f"expected/block{layer}", found)
    out: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        out["expected/image"] = model(views, targets)
        state = model.update(model.start(views.shape[0]), views)
        out["expected/image_from_state"] = model.query(SceneState.from_tensors(state.tensors(), 1), targets)
    for layer, weights in enumerate(state.fast_weights):
        out[f"expected/block{layer}.out"] = _inputs_then_queries(found, f"expected/block{layer}")
        for name, weight in zip(("w0", "w1", "w2"), (weights.gate, weights.down, weights.up), strict=True):
            out[f"expected/state{layer}.{name}"] = weight.flatten(0, 1)
    return out


RUNNERS = {"tttlrm": _run_tttlrm, "lact_nvs": _run_lact}


def _cameras(meta: dict[str, str], tensors: dict[str, torch.Tensor], kind: str) -> Cameras:
    size = ImageSize(int(meta["height"]), int(meta["width"]))
    return Cameras(tensors[f"{kind}/c2w"], tensors[f"{kind}/fxfycxcy"], size)


def _inputs_then_queries(found: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return torch.cat([found[f"{name}.update"], found[f"{name}.query"]], 1)


def _with_memory(backbone: BackboneConfig, meta: dict[str, str]) -> BackboneConfig:
    memory = dataclasses.replace(
        backbone.memory,
        inner_lr=float(meta["base_lr"]),
        newton_schulz_steps=int(meta["newton_schulz_steps"]),
        elastic=float(meta.get("elastic_lambda", 0)),
    )
    assert memory.head_dim == int(meta["ttt_head_dim"]) and memory.multiple == int(meta["ttt_inter_multi"])
    assert backbone.num_blocks == int(meta["layers"]) and backbone.width == int(meta["dim"])
    return dataclasses.replace(backbone, memory=memory)


def _with_constants(config: ModelConfig, meta: dict[str, str]) -> ModelConfig:
    """Take the constants that no weight tells from the header of the fixture."""
    head = dataclasses.replace(config.head, far=float(meta["max_dist"]), max_log_scale=float(meta["max_log_scale"]))
    assert config.head.sh_degree == int(meta["sh_degree"])
    return dataclasses.replace(config, backbone=_with_memory(config.backbone, meta), head=head)


def _record(block: torch.nn.Module, name: str, found: dict[str, torch.Tensor]) -> None:
    """Note what a block and its memory return, for inputs (`update`) and queries (`query`)."""
    forward, query, read = block.forward, block.query, block.memory.query

    def noting_read(*arguments: object) -> torch.Tensor:
        key = f"{name}.ttt.query" if f"{name}.ttt.update" in found else f"{name}.ttt.update"
        value = read(*arguments)
        if key == f"{name}.ttt.update" or f"{name}.ttt.query" not in found:
            found[key] = value
        return value

    def noting_forward(*arguments: object) -> object:
        result = forward(*arguments)
        found.setdefault(f"{name}.update", result[0])
        return result

    def noting_query(*arguments: object) -> torch.Tensor:
        return found.setdefault(f"{name}.query", query(*arguments))

    block.forward, block.query, block.memory.query = noting_forward, noting_query, noting_read
