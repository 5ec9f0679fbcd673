"""The triplane model: whose tokens go where, what its planes depend on, and that it learns."""

import dataclasses

import torch

from lrm_ttt.data.procedural import ProceduralConfig, sample_batch
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.config import BackboneConfig, ModelConfig, TokenizerConfig, TriplaneConfig
from lrm_ttt.model.triplane import TriplaneModel
from lrm_ttt.scene.views import SceneBatch

CONFIG = ModelConfig(
    TokenizerConfig(8),
    BackboneConfig(64, 2, 32, 2, memory=MemoryConfig(32, 2), scale_outputs=True),
    normalisation="focus",
    representation="triplane",
    triplane=TriplaneConfig(32, 8, 12, 32, 1, 1.0, 16, 16),
)


def _model(config: ModelConfig = CONFIG) -> TriplaneModel:
    torch.manual_seed(0)
    return TriplaneModel(config)


def _batch(num_scenes: int = 1) -> SceneBatch:
    config = ProceduralConfig((32, 32), (4, 4), 2, room_fraction=0.0, antialias=False)
    return sample_batch(config, num_scenes, torch.Generator().manual_seed(3))


def test_order_of_the_inputs_does_not_matter() -> None:
    model, views = _model(), _batch().inputs
    with torch.no_grad():
        planes, turned = model.reconstruct(views).planes, model.reconstruct(views[:, [2, 0, 3, 1]]).planes
    # Sums over tokens are taken in another order; measured 5e-6.
    torch.testing.assert_close(turned, planes, rtol=0, atol=5e-5)
    with torch.no_grad():
        fewer = model.reconstruct(views[:, :3]).planes
    assert (fewer - planes).abs().mean() > 1e-3


def test_scenes_do_not_mix() -> None:
    model, batch = _model(), _batch(2)
    assert batch.targets is not None
    with torch.no_grad():
        both = model(batch.inputs, batch.targets.cameras, batch.backgrounds)
        for i in range(2):
            one = batch[i : i + 1]
            assert one.targets is not None
            alone = model(one.inputs, one.targets.cameras, one.backgrounds)
            torch.testing.assert_close(alone.colors[0], both.colors[i], rtol=0, atol=5e-5)


def test_tokens_fill_their_patch_of_their_plane() -> None:
    model, views = _model(), _batch().inputs
    head = model.head
    with torch.no_grad():
        state = model.update(model.start(1), views)
        features = model.backbone.query(model.queries[None, None], state, model.precision)[:, 0]
        planes = head(features, torch.float32).planes
        for token in (0, 5, 16, 47):
            plane, row, column = token // 16, token % 16 // 4 * 8, token % 4 * 8
            pixels = head.linear(head.norm(features[0, token])).reshape(8, 8, 12)
            torch.testing.assert_close(
                planes[0, plane, :, row : row + 8, column : column + 8], pixels.movedim(-1, 0), rtol=0, atol=1e-5
            )
        assert torch.equal(planes, model.query(state).planes)


def test_learned_tokens_attend_jointly() -> None:
    """A change of one token reaches all three planes: they are one window."""
    model, views = _model(), _batch().inputs
    state = model.update(model.start(1), views)
    planes = model.query(state).planes
    gradient = torch.autograd.grad(planes[0, 2].square().sum(), model.queries)[0]
    assert (gradient.abs().amax(-1) > 0).all()


def test_it_learns_a_scene() -> None:
    batch, generator = _batch(), torch.Generator().manual_seed(0)
    model = _model()
    assert batch.targets is not None
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, betas=(0.9, 0.95))
    errors = []
    for _ in range(40):
        drawn = model(batch.inputs, batch.targets.cameras, batch.backgrounds, generator)
        error = (drawn.colors - batch.targets.images).square().mean()
        (error + 0.1 * (drawn.alphas - batch.targets.coverage).square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        errors.append(error.detach())
    before, after = (-10 * value.log10() for value in (errors[0], errors[-1]))
    # An empty image has 15.6 dB.
    assert before < 16 and after > 21, (before, after)
    fine = dataclasses.replace(model.config.triplane, num_stratified=64, num_importance=64)
    model.config = dataclasses.replace(model.config, triplane=fine)
    with torch.no_grad():
        drawn = model(batch.inputs, batch.targets.cameras, batch.backgrounds)
    exact = -10 * (drawn.colors - batch.targets.images).square().mean().log10()
    # What was learnt is a field, and not a pattern of samples.
    assert exact > after - 1
