"""Tensor dataclasses move, index and join field by field, nested ones included."""

import pytest
import torch

from lrm_ttt.scene.manipulable import cat, stack
from lrm_ttt.scene.similarity import Similarity
from lrm_ttt.scene.views import Renderings, SceneBatch, Views
from tests.scene.make import cameras, gaussians, normal


def views(*shape: int, seed: int = 0, masks: bool = False) -> Views:
    some = cameras(*shape, seed=seed)
    images = torch.rand(*shape, 3, 24, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Views(images, some, images[..., :1, :, :] if masks else None)


def test_indexing_reaches_nested_fields_and_leaves_the_rest() -> None:
    some = views(2, 5, masks=True)
    part = some[1, 2:4]
    assert part.shape == (2,)
    assert torch.equal(part.images, some.images[1, 2:4])
    assert torch.equal(part.cameras.cam_to_world, some.cameras.cam_to_world[1, 2:4])
    assert part.masks is not None
    assert part.depths is None
    assert part.image_size == (24, 32)


def test_flatten_and_reshape_are_inverse() -> None:
    some = views(2, 6)
    again = some.flatten().reshape(2, 6)
    assert some.flatten().shape == (12,)
    assert torch.equal(again.images, some.images)
    assert torch.equal(again.cameras.intrinsics, some.cameras.intrinsics)
    assert some.reshape(3, 4).shape == (3, 4)


def test_stack_and_index_are_inverse() -> None:
    items = [views(3, seed=seed) for seed in range(4)]
    together = stack(items)
    assert together.shape == (4, 3)
    for index, item in enumerate(items):
        assert torch.equal(together[index].images, item.images)
        assert torch.equal(together[index].cameras.cam_to_world, item.cameras.cam_to_world)
    assert stack(items, 1).shape == (3, 4)


def test_cat_and_slice_are_inverse() -> None:
    first, second = gaussians(5), gaussians(7, seed=20)
    both = cat([first[None], first[None]])
    assert both.shape == (2,)
    assert torch.equal(both[1].sh, first.sh)
    with pytest.raises(RuntimeError):
        cat([first[None], second[None]])


def test_joining_what_differs_is_refused() -> None:
    some, other = views(2), views(2)
    import dataclasses

    resized = dataclasses.replace(other, cameras=other.cameras.resized(type(other.image_size)(12, 16)))
    with pytest.raises(AssertionError, match="image_size differs"):
        stack([some, resized])


def test_joining_a_field_that_only_some_have_is_refused() -> None:
    for items in ([views(2, masks=True), views(2)], [views(2), views(2, masks=True)]):
        with pytest.raises((AssertionError, AttributeError, TypeError)):
            stack(items)


def test_moving_casts_every_tensor() -> None:
    some = views(2, masks=True).to(torch.float32)
    assert some.images.dtype == some.cameras.cam_to_world.dtype == torch.float32
    assert some.masks is not None
    assert some.masks.dtype == torch.float32


def test_detach_cuts_every_field() -> None:
    some = gaussians(4).map(lambda tensor: tensor.clone().requires_grad_())
    assert not any(tensor.requires_grad for tensor in vars(some.detach()).values())


def test_a_batch_of_scenes_is_indexed_by_scene() -> None:
    batch = SceneBatch(views(2, 3), views(2, 1), None, Similarity.identity(2), normal(2, 3), ("a", "b"))
    assert batch.shape == (2,)
    one = batch[:1]
    assert one.inputs.shape == (1, 3)
    assert one.targets is not None
    assert one.targets.shape == (1, 1)
    assert one.queries is None
    assert one.world_to_scene.shape == (1,)


def test_renderings_share_their_shape() -> None:
    some = Renderings(torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4))
    assert some.shape == (2,)
    assert stack([some, some]).colors.shape == (2, 2, 3, 4, 4)
