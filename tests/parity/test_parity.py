"""Equality with the published programs of tttLRM and LaCT, tensor by tensor.

The weights of a fixture go the way of any published checkpoint: into a .pt file, through `import-weights`, out of the
folder by `from_pretrained`. LRM_TTT_PARITY=DIR runs the fixtures in DIR instead of the shared ones.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from lrm_ttt.model.backbone import Precision
from lrm_ttt.model.build import build
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.novel_view import NovelViewModel
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.model.state import SceneState
from lrm_ttt.pipeline.import_weights import import_weights
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.manipulable import stack
from lrm_ttt.scene.views import Views
from tests.helpers.shared import shared_path, shared_root

SCHEDULES = {"full": "single", "ar": "chunked"}
# Newton-Schulz in float32 on both sides; measured 2e-6 to 2e-5.
TOLERANCE_FP32 = 1e-4
# Newton-Schulz in bfloat16 on both sides, rounded differently by every processor; only results are compared.
TOLERANCE_BF16 = 5e-2
RESULTS = ("expected/gaussians.", "expected/image")
# How the matrices of a memory are called in the fixtures.
MATRICES = {"w0": "gate", "w1": "down", "w2": "up"}


@dataclasses.dataclass(frozen=True)
class Fixture:
    """A file of shared/parity: hyper-parameters, and tensors by prefix."""

    name: str
    header: dict[str, str]
    tensors: dict[str, Tensor]

    @staticmethod
    def read(path: Path) -> "Fixture":
        with safe_open(path, "pt") as file:
            return Fixture(path.stem, file.metadata(), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(f"{prefix}/"): value
            for name, value in self.tensors.items()
            if name.startswith(f"{prefix}/")
        }

    def number(self, field: str) -> int:
        return int(float(self.header[field]))

    @property
    def size(self) -> ImageSize:
        return ImageSize(self.number("height"), self.number("width"))

    def cameras(self, prefix: str) -> Cameras:
        return Cameras(self.tensors[f"{prefix}/c2w"], self.tensors[f"{prefix}/fxfycxcy"], self.size)

    def inputs(self) -> Views:
        return Views(self.tensors["input/image"], self.cameras("input"))


def _files() -> list[Path]:
    folder = Path(os.environ.get("LRM_TTT_PARITY") or shared_root() / "parity")
    return sorted(folder.glob("*.safetensors"))


def test_fixtures_are_there() -> None:
    if not os.environ.get("LRM_TTT_PARITY"):
        shared_path("parity")
    assert _files(), "no parity fixtures found"


@pytest.mark.parametrize("path", _files(), ids=lambda path: path.stem)
def test_every_tensor_matches(path: Path, tmp_path: Path) -> None:
    fixture = Fixture.read(path)
    kind = fixture.header["kind"]
    assert kind in RUNNERS, f"nothing runs fixtures of the kind {kind}"
    _check_sizes(fixture)
    model = _load(fixture, tmp_path)
    _check_header(fixture, model.config)
    with torch.no_grad():
        actual = RUNNERS[kind](model, fixture)
    fp32 = fixture.header["newton_schulz_dtype"] == "fp32"
    expected = {name: value for name, value in fixture.tensors.items() if name.startswith("expected/")}
    checked = [name for name in expected if fp32 or name.startswith(RESULTS)]
    assert checked
    assert set(checked) <= set(actual), f"not compared: {sorted(set(checked) - set(actual))}"
    errors = {name: _relative_error(actual[name], expected[name]) for name in checked}
    tolerance = TOLERANCE_FP32 if fp32 else TOLERANCE_BF16
    assert all(error < tolerance for error in errors.values()), errors


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return ((actual - expected).norm() / expected.norm()).item()


def _load(fixture: Fixture, folder: Path) -> SceneModel:
    """Import the weights as a user would, and set the constants that no weight tells from the header."""
    header = fixture.header
    checkpoint = folder / f"{fixture.name}.pt"
    torch.save({"model": fixture.part("weight")}, checkpoint)
    # The cameras of the fixtures are used as they are.
    import_weights(checkpoint, folder / "model", schedule=SCHEDULES[header.get("scan", "full")], normalisation="none")
    imported = SceneModel.from_pretrained(folder / "model")
    config = imported.config
    memory = dataclasses.replace(
        config.backbone.memory,
        inner_lr=float(header["base_lr"]),
        newton_schulz_steps=fixture.number("newton_schulz_steps"),
        elastic=float(header.get("elastic_lambda", 0)),
        elastic_alpha=float(header.get("elastic_alpha", 0.5)),
        elastic_beta=float(header.get("elastic_beta", 0.8)),
    )
    backbone = dataclasses.replace(config.backbone, memory=memory)
    if "views_per_update" in header:
        backbone = dataclasses.replace(backbone, views_per_update=fixture.number("views_per_update"))
    head = config.head
    if "max_dist" in header:
        constants = {"far": float(header["max_dist"]), "max_log_scale": float(header["max_log_scale"])}
        head = dataclasses.replace(head, **constants)
    newton_schulz = {"fp32": torch.float32, "bf16": torch.bfloat16}[header["newton_schulz_dtype"]]
    model = build(dataclasses.replace(config, backbone=backbone, head=head), Precision(torch.float32, newton_schulz))
    model.load_state_dict(imported.state_dict())
    return model.eval()


def _check_header(fixture: Fixture, config: ModelConfig) -> None:
    """Compare what the import read off the shapes with what the header says."""
    backbone, memory = config.backbone, config.backbone.memory
    found = {
        "dim": backbone.width,
        "layers": backbone.num_blocks,
        "patch_size": config.tokenizer.patch_size,
        "attn_head_dim": backbone.attention_head_dim,
        "ttt_head_dim": memory.head_dim,
        "ttt_inter_multi": memory.multiple,
        "mlp_inter_multi": backbone.feed_forward_multiple,
    }
    if config.representation == "gaussians":
        found["sh_degree"] = config.head.sh_degree
    assert {name: fixture.number(name) for name in found} == found


def _check_sizes(fixture: Fixture) -> None:
    """Compare the tensors that go in with what the header says of them."""
    images = fixture.tensors["input/image"]
    batch = fixture.number("batch") if "batch" in fixture.header else images.shape[0]
    height, width = fixture.size
    assert images.shape == (batch, fixture.number("input_views"), 3, height, width)
    if "target_views" in fixture.header:
        assert fixture.tensors["target/c2w"].shape[:2] == (batch, fixture.number("target_views"))
    if "virtual/input_indices" in fixture.tensors:
        assert fixture.tensors["virtual/input_indices"].shape[-1] == fixture.number("virtual_views")
    used = ("weight/", "expected/", "input/image", "input/c2w", "input/fxfycxcy")
    used += ("target/c2w", "target/fxfycxcy", "virtual/input_indices")
    assert not [name for name in fixture.tensors if not name.startswith(used)], "a tensor that nothing reads"


def _run_tttlrm(model: SceneModel, fixture: Fixture) -> dict[str, Tensor]:
    """Run a reconstructor on the inputs of a fixture and return our tensors under the fixture's names."""
    assert isinstance(model, Reconstructor)
    views = fixture.inputs()
    every = torch.arange(views.shape[1])
    indices = fixture.tensors.get("virtual/input_indices", every).reshape(-1, fixture.number("virtual_views"))
    rows = indices.expand(views.shape[0], -1).tolist()
    virtual = stack([views[scene, row] for scene, row in enumerate(rows)])
    state = model.update(model.start(views.shape[0]), views)
    gaussians = model.query(state, virtual)
    if len(indices) == 1:
        # The second pass can be spared: queries read what the inputs have read.
        spared = model(views, rows[0])
        assert torch.allclose(spared.means, gaussians.means, rtol=1e-5, atol=1e-4)
    out, features = _layer_by_layer(model, views, model.tokenize(virtual).tokens)
    out |= _matrices(state, "expected/block{}.ttt.{}")
    out["expected/gaussians.xyz"] = gaussians.means
    out["expected/gaussians.sh"] = gaussians.sh
    out["expected/gaussians.log_scale"] = gaussians.scales.log()
    # The fixtures hold rotations before they are normalised, which Gaussians never are: taken from the linear map.
    raw = model.head.linear(model.head.norm(features)).reshape(*gaussians.means.shape[:2], -1)
    out["expected/gaussians.rotation_wxyz"] = raw[..., -5:-1]
    assert torch.allclose(torch.nn.functional.normalize(raw[..., -5:-1], dim=-1), gaussians.wxyz, atol=1e-6)
    out["expected/gaussians.opacity_logit"] = torch.logit(gaussians.opacities)[..., None]
    return out


def _run_lact(model: SceneModel, fixture: Fixture) -> dict[str, Tensor]:
    """Run a novel-view model on the inputs of a fixture and return our tensors under the fixture's names."""
    assert isinstance(model, NovelViewModel)
    views, targets = fixture.inputs(), fixture.cameras("target")
    state = model.update(model.start(views.shape[0]), views)
    out, _ = _layer_by_layer(model, views, model.tokenizer.embed_rays(targets, model.precision.compute))
    out |= _matrices(state, "expected/state{}.{}")
    out["expected/image"] = model(views, targets)
    out["expected/image_from_state"] = model.query(SceneState.from_tensors(state.tensors(), 1), targets)
    return out


RUNNERS: dict[str, Callable[[SceneModel, Fixture], dict[str, Tensor]]] = {"tttlrm": _run_tttlrm, "lact_nvs": _run_lact}


def _layer_by_layer(model: SceneModel, views: Views, queries: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return what every block and every memory returns, inputs before queries, and the last features of the queries.

    A block's outputs are the features of the model that ends with it.
    """
    out = {}
    inputs = model.tokenize(views).tokens
    for layer in range(model.config.backbone.num_blocks):
        shallow = _first_blocks(model, layer + 1)
        read: list[Tensor] = []
        shallow.backbone.blocks[-1].memory.out.register_forward_hook(lambda *call, read=read: read.append(call[-1]))
        state, features = shallow.backbone.update(inputs, shallow.start(views.shape[0]), model.precision)
        queried = shallow.backbone.query(queries, state, model.precision)
        out[f"expected/block{layer}.out"] = torch.cat([features.flatten(1, 2), queried.flatten(1, 2)], 1)
        out[f"expected/block{layer}.ttt.out"] = torch.cat(read, 1)
    return out, queried


def _first_blocks(model: SceneModel, num_blocks: int) -> SceneModel:
    backbone = dataclasses.replace(model.config.backbone, num_blocks=num_blocks)
    shallow = build(dataclasses.replace(model.config, backbone=backbone), model.precision)
    weights = model.state_dict()
    shallow.load_state_dict({name: weights[name] for name in shallow.state_dict()})
    return shallow


def _matrices(state: SceneState, name: str) -> dict[str, Tensor]:
    """Return the fast weights of all layers, under names of the layer and the published matrix."""
    memories = enumerate(state.memories)
    return {
        name.format(layer, published): getattr(memory, ours).flatten(0, 1)
        for layer, memory in memories
        for published, ours in MATRICES.items()
    }
