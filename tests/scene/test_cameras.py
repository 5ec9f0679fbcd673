"""Laws of pinhole cameras."""

import torch

from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from tests.scene.make import cameras, generator, normal, rotations


def test_project_undoes_unproject() -> None:
    some = cameras(2, 3)
    pixels = 32 * torch.rand(2, 3, 7, 2, generator=generator(), dtype=torch.float64)
    depths = 0.1 + 5 * torch.rand(2, 3, 7, generator=generator(1), dtype=torch.float64)
    again, again_depths = some.project(some.unproject(pixels, depths))
    assert torch.allclose(again, pixels, atol=1e-10)
    assert torch.allclose(again_depths, depths, atol=1e-12)


def test_a_camera_at_the_origin_is_the_pinhole_formula() -> None:
    """+x right, +y down, +z forward: the pixel of (x, y, z) is (fx x / z + cx, fy y / z + cy)."""
    eye = torch.eye(4, dtype=torch.float64)
    camera = Cameras(eye, torch.tensor([100.0, 200, 30, 40], dtype=torch.float64), ImageSize(80, 60))
    pixels, depths = camera.project(torch.tensor([[0.5, 0.25, 2.0], [0, 0, 7], [-1, -1, 4]], dtype=torch.float64))
    assert pixels.tolist() == [[55.0, 65.0], [30.0, 40.0], [5.0, -10.0]]
    assert depths.tolist() == [2.0, 7.0, 4.0]


def test_rays_pass_through_pixel_centres() -> None:
    some = cameras(3)
    origins, directions = some.rays()
    assert torch.allclose(directions.norm(dim=-1), torch.ones(3, 24, 32, dtype=torch.float64))
    assert torch.equal(origins[:, 5, 9], some.centres)
    points = (origins + 2.5 * directions)[:, 3, 17][:, None]
    pixels, _ = some.project(points)
    assert torch.allclose(pixels[:, 0], torch.tensor([17.5, 3.5], dtype=torch.float64).expand(3, 2), atol=1e-10)


def test_the_inverse_matrix() -> None:
    some = cameras(4)
    assert torch.allclose(some.world_to_cam, torch.linalg.inv(some.cam_to_world), atol=1e-12)


def test_resize_and_crop_move_projections_as_they_move_pixels() -> None:
    some = cameras(2, image_size=ImageSize(40, 60))
    points = 0.3 * normal(2, 5, 3, seed=9)
    pixels, _ = some.project(points)
    smaller, _ = some.resized(ImageSize(20, 15)).project(points)
    assert torch.allclose(smaller, pixels * torch.tensor([15 / 60, 20 / 40]), atol=1e-10)
    cut = some.cropped(3, 11, ImageSize(8, 16))
    moved, _ = cut.project(points)
    assert torch.allclose(moved, pixels - torch.tensor([11.0, 3.0]), atol=1e-10)
    assert cut.image_size == (8, 16)


def test_resizing_commutes_with_the_crop_of_the_same_region() -> None:
    some = cameras(2, image_size=ImageSize(40, 60))
    one = some.resized(ImageSize(20, 30)).cropped(2, 4, ImageSize(10, 10))
    other = some.cropped(4, 8, ImageSize(20, 20)).resized(ImageSize(10, 10))
    assert torch.allclose(one.intrinsics, other.intrinsics, atol=1e-12)


def test_look_at_looks_at() -> None:
    """The target projects to the principal point; up points to smaller rows; the matrix is rigid."""
    centres, targets, up = normal(6, 3), normal(6, 3, seed=1), normal(6, 3, seed=2)
    matrices = look_at(centres, targets, up)
    intrinsics = torch.tensor([50.0, 50, 16, 12], dtype=torch.float64).expand(6, 4)
    some = Cameras(matrices, intrinsics, ImageSize(24, 32))
    pixels, depths = some.project(torch.stack([targets, targets + 0.01 * up], 1))
    assert torch.allclose(pixels[:, 0], intrinsics[:, 2:], atol=1e-9)
    assert torch.allclose(depths[:, 0], (targets - centres).norm(dim=-1))
    assert (pixels[:, 1, 1] < pixels[:, 0, 1]).all()
    assert torch.allclose(pixels[:, 1, 0], pixels[:, 0, 0], atol=1e-9)
    rotation = matrices[:, :3, :3]
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(6, 3, 3), atol=1e-12)


def test_look_at_along_up_is_still_a_rotation() -> None:
    for axis in torch.eye(3, dtype=torch.float64):
        for sign in (1, -1):
            matrix = look_at(torch.zeros(3, dtype=torch.float64), sign * axis, axis)
            rotation = matrix[:3, :3]
            assert torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
            assert torch.allclose(torch.linalg.det(rotation), torch.tensor(1.0, dtype=torch.float64))
            assert torch.allclose(rotation[:, 2], sign * axis)


def test_projection_is_differentiable() -> None:
    some, points = cameras(1)[0], 0.3 * normal(4, 3, seed=3)

    def pixels(centre: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        matrix = torch.cat([torch.cat([some.cam_to_world[:3, :3], centre[:, None]], 1), some.cam_to_world[3:]])
        return Cameras(matrix, some.intrinsics, some.image_size).project(points)[0]

    inputs = (some.centres.clone().requires_grad_(), points.requires_grad_())
    assert torch.autograd.gradcheck(pixels, inputs)


def test_a_turn_of_the_world_turns_the_rays() -> None:
    some, turn = cameras(1)[0], rotations(seed=5)
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3] = turn
    moved = Cameras(motion @ some.cam_to_world, some.intrinsics, some.image_size)
    assert torch.allclose(moved.rays()[1], some.rays()[1] @ turn.T, atol=1e-12)
