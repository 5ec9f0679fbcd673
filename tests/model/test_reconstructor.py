"""The whole model.

The skipped second pass, the published constants, and what the evidence head knows before training.
"""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model import cuda_graphs
from lrm_ttt.model.config import BackboneConfig, EvidenceConfig, GaussianHeadConfig, ModelConfig, TokenizerConfig
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.tokenizer import ray_channels
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from lrm_ttt.scene.gaussians import SH_C0
from lrm_ttt.scene.views import Views

BACKBONE = BackboneConfig(32, 2, 16, 2, MemoryConfig(32, 2))
PLAIN = ModelConfig(TokenizerConfig(8), BACKBONE, GaussianHeadConfig(sh_degree=1))
EVIDENCE = ModelConfig(
    TokenizerConfig(8, EvidenceConfig(24, 3, 5)), BACKBONE, GaussianHeadConfig(distance="evidence"), "focus"
)


def _views(num_views: int = 6, size: int = 32, fov_slope: float = 0.4) -> Views:
    """Render an opaque ball of radius 0.5 around the origin, coloured by the direction of its surface.

    From a ring of cameras.
    """
    angle = torch.arange(num_views) * 0.35
    centres = 2 * torch.stack([angle.sin() * 0.9, angle.cos() * 0.9, torch.full_like(angle, 0.19**0.5)], -1)
    cam_to_world = look_at(centres, torch.zeros(3).expand_as(centres), torch.tensor([0.0, 0.0, 1.0]))[None]
    focal = size / 2 / fov_slope
    intrinsics = torch.tensor([focal, focal, size / 2, size / 2]).expand(1, num_views, 4)
    cameras = Cameras(cam_to_world, intrinsics, ImageSize(size, size))
    origins, directions = cameras.rays()
    along = -(origins * directions).sum(-1)
    nearest = origins + along[..., None] * directions
    inside = 0.25 - nearest.square().sum(-1)
    hit = inside > 0
    distance = along - inside.clamp(min=0).sqrt()
    normal = (origins + distance[..., None] * directions) / 0.5
    colors = torch.where(hit[..., None], 0.5 + 0.5 * torch.sin(5 * normal), 1.0).movedim(-1, -3)
    depths = distance * (directions * cameras.forward[..., None, None, :]).sum(-1)
    return Views(colors, cameras, hit[:, :, None].float(), (depths * hit)[:, :, None])


def _model(config: ModelConfig) -> Reconstructor:
    torch.manual_seed(0)
    return Reconstructor(config)


@pytest.mark.parametrize("config", [PLAIN, EVIDENCE], ids=["plain", "evidence"])
@pytest.mark.parametrize("schedule", ["single", "chunked"])
def test_the_second_pass_is_not_needed(config: ModelConfig, schedule: str) -> None:
    backbone = dataclasses.replace(config.backbone, schedule=schedule)
    model, views = _model(dataclasses.replace(config, backbone=backbone)), _views()
    with torch.no_grad():
        skipped = model(views)
        computed = model.query(model.update(model.start(1), views), views)
    for field in dataclasses.fields(skipped):
        assert torch.equal(getattr(skipped, field.name), getattr(computed, field.name)), field.name


@pytest.mark.parametrize("schedule", ["single", "causal"])
def test_virtual_views_are_a_choice_of_the_inputs(schedule: str) -> None:
    backbone = dataclasses.replace(PLAIN.backbone, schedule=schedule, views_per_update=2)
    model, views = _model(dataclasses.replace(PLAIN, backbone=backbone)), _views()
    with torch.no_grad():
        everything, chosen = model(views), model(views, [4, 1])
    per_view = 32 * 32
    expected = torch.cat(
        [everything.means[:, 4 * per_view : 5 * per_view], everything.means[:, per_view : 2 * per_view]], 1
    )
    assert torch.equal(chosen.means, expected)
    with pytest.raises(InvalidConfig, match="positions"):
        model(views, [6])


@pytest.mark.parametrize("schedule", ["single", "causal"])
def test_a_virtual_view_is_matched_with_all_inputs(schedule: str) -> None:
    """One view alone has nothing to be matched with: its surface stays where all inputs find it."""
    backbone = dataclasses.replace(EVIDENCE.backbone, schedule=schedule, views_per_update=3)
    model, views = _model(dataclasses.replace(EVIDENCE, backbone=backbone)), _views()
    with torch.no_grad():
        everything, alone = model(views), model(views, [0])
    on_ball = everything.opacities[:, : 32 * 32] > 0.5
    # What other views say of the surface still differs, which moves it a little: measured 4e-3 at most.
    apart = (alone.means - everything.means[:, : 32 * 32]).norm(dim=-1)[on_ball]
    assert apart.mean() < 0.02


def test_rays_of_the_tokens() -> None:
    views = _views(2)
    channels = ray_channels(views.cameras, views.images)
    origin, direction, moment, color = channels.split(3, -1)
    torch.testing.assert_close(direction.norm(dim=-1), torch.ones_like(direction[..., 0]))
    torch.testing.assert_close(moment, torch.linalg.cross(origin, direction))
    torch.testing.assert_close(color.movedim(-1, -3), 2 * views.images - 1)
    assert torch.equal(ray_channels(views.cameras, None)[..., 9:], torch.zeros_like(color))


def test_published_head_keeps_its_bounds() -> None:
    model, views = _model(PLAIN), _views()
    with torch.no_grad():
        gaussians = model(views)
    assert gaussians.sh.shape == (1, 6 * 32 * 32, 4, 3)
    assert gaussians.scales.max() <= torch.tensor(-1.2).exp() * 1.0001
    torch.testing.assert_close(gaussians.wxyz.norm(dim=-1), torch.ones_like(gaussians.opacities))
    # sigmoid(0 - 2) is where opacities start.
    assert (gaussians.opacities - 0.1192).abs().max() < 0.05


def test_evidence_finds_a_ball_before_any_training() -> None:
    model, views = _model(EVIDENCE), _views()
    with torch.no_grad():
        gaussians = model(views)
    distance = gaussians.means.norm(dim=-1)
    on_ball = gaussians.opacities > 0.5
    assert 0.15 < on_ball.float().mean() < 0.4
    # A sweep of 24 planes over 1.6 units; measured 0.02.
    assert (distance[on_ball] - 0.5).abs().mean() < 0.06


def test_evidence_starts_from_the_colours_of_the_pixels() -> None:
    model, views = _model(EVIDENCE), _views()
    with torch.no_grad():
        gaussians = model(views)
    rows = gaussians.sh[0, :, 0].reshape(6, 4, 4, 8, 8, 3).transpose(2, 3).reshape(6, 32, 32, 3)
    torch.testing.assert_close(rows * SH_C0 + 0.5, views.images[0].movedim(1, -1), rtol=0, atol=0.02)


def test_turning_the_world_turns_the_result() -> None:
    model, views = _model(EVIDENCE), _views()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)))[0]
    turn = turn * torch.linalg.det(turn)
    matrix = torch.eye(4)
    matrix[:3, :3] = turn
    turned = dataclasses.replace(
        views, cameras=dataclasses.replace(views.cameras, cam_to_world=matrix @ views.cameras.cam_to_world)
    )
    with torch.no_grad():
        model.head.linear.weight.zero_()
        before, after = model(views), model(turned)
    # Without features the head sees the sweep alone, which knows no world axes.
    torch.testing.assert_close(after.means, before.means @ turn.T, rtol=0, atol=2e-3)


@torch.no_grad()
def test_a_recorded_pass_gives_what_the_plain_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a graph that, as a CUDA graph does, writes its first output over and over; and on a CPU with none at all."""
    torch.manual_seed(0)
    model, scenes = Reconstructor(PLAIN), [_views(3), _views(4).map(lambda part: part[:, 1:]), _views(4)]
    plain = [model(scene).means for scene in scenes]
    model.use_cuda_graphs()
    assert all(torch.equal(model(scene).means, means) for scene, means in zip(scenes, plain, strict=True))

    class Recorded:
        def __init__(self, function: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> None:
            self.function, self.inputs = function, tuple(part.clone() for part in inputs)
            self.output = function(*self.inputs)

        def replay(self) -> None:
            self.output.copy_(self.function(*self.inputs))

    monkeypatch.setattr(cuda_graphs, "why_not", lambda inputs: "")
    monkeypatch.setattr(cuda_graphs, "_Recorder", lambda: Recorded)
    model.use_cuda_graphs()
    made = [model(scene).means for scene in scenes]
    assert all(torch.equal(means, expected) for means, expected in zip(made, plain, strict=True))
    assert not torch.equal(made[0], made[1])
