"""The cameras of real captures agree with their images: matched points lie on each other's epipolar lines."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lrm_ttt.data.images import load_views
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.data.source import SceneSource
from lrm_ttt.scene.cameras import Cameras, ImageSize
from tests.helpers.shared import shared_path

# Folder: number of views, and pairs of views that see the same things from different places.
CAPTURES = {
    "gso_character": (64, ((55, 56), (48, 49), (53, 54))),
    "lego": (100, ((48, 91), (57, 79), (45, 94))),
    "fox": (50, ((0, 3), (3, 6), (6, 9))),
    "mydesk": (125, ((40, 43), (43, 46), (46, 49))),
    "tabletop": (42, ((5, 8), (8, 11), (24, 41))),
    "dl3dv_layout": (16, ((0, 1), (2, 3), (4, 5))),
}


def open_shared(name: str) -> SceneSource:
    return open_scene(shared_path("data", name), allow_missing=name == "fox")


def matches(first: torch.Tensor, second: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel positions `[m 2]` (centres at +0.5) of SIFT matches that pass the ratio test both ways."""
    cv2 = pytest.importorskip("cv2")
    sift = cv2.SIFT_create(1500)
    found = []
    for image in (first, second):
        grey = (image.mean(0) * 255).round().to(torch.uint8).numpy()
        found.append(sift.detectAndCompute(grey, None))
    (points_a, descriptors_a), (points_b, descriptors_b) = found
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(descriptors_a, descriptors_b, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < 0.7 * pair[1].distance]
    # OpenCV's keypoints are counted from pixel centres.
    at = [
        np.array([points_a[m.queryIdx].pt for m in good]) + 0.5,
        np.array([points_b[m.trainIdx].pt for m in good]) + 0.5,
    ]
    return at[0].reshape(-1, 2), at[1].reshape(-1, 2)


def epipolar_errors(cameras: Cameras, a: int, b: int, in_a: np.ndarray, in_b: np.ndarray) -> torch.Tensor:
    """Return distances in pixels of points in view b from the lines of the rays through their matches in view a."""
    points_a, points_b = torch.from_numpy(in_a), torch.from_numpy(in_b)
    ones = torch.ones(len(points_a), dtype=torch.float64)
    near, far = (cameras[a].unproject(points_a, depth * ones) for depth in (0.1, 100.0))
    # The line is the cross product of the images of two points of the ray, in homogeneous pixels.
    world_to_cam, (fx, fy, cx, cy) = cameras[b].world_to_cam, cameras[b].intrinsics
    camera_matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    ends = [(points @ world_to_cam[:3, :3].T + world_to_cam[:3, 3]) @ camera_matrix.T for points in (near, far)]
    lines = torch.linalg.cross(ends[0], ends[1])
    homogeneous = torch.cat([points_b, ones[:, None]], 1)
    return (lines * homogeneous).sum(-1).abs() / lines[:, :2].norm(dim=-1)


def in_front(cameras: Cameras, a: int, b: int, in_a: np.ndarray, in_b: np.ndarray) -> torch.Tensor:
    """Say which matches meet in front of both cameras (the ends of the shortest line between the rays)."""
    views = [(cameras[view], torch.from_numpy(points)) for view, points in ((a, in_a), (b, in_b))]
    directions = [
        camera.unproject(points, torch.ones(len(points), dtype=torch.float64)) - camera.centres
        for camera, points in views
    ]
    between = (cameras[b].centres - cameras[a].centres).expand(len(in_a), 3)
    system = torch.stack([directions[0], -directions[1]], -1)
    depths = torch.linalg.lstsq(system, between[..., None]).solution[..., 0]
    return (depths > 0).all(-1)


@pytest.mark.parametrize("name", CAPTURES)
def test_matches_lie_on_epipolar_lines(name: str) -> None:
    source = open_shared(name)
    errors, ahead = [], []
    for pair in CAPTURES[name][1]:
        views = load_views(source, pair)
        cameras = views.cameras.to(torch.float64)
        in_a, in_b = matches(views.images[0], views.images[1])
        error = epipolar_errors(cameras, 0, 1, in_a, in_b)
        errors.append(error)
        ahead.append(in_front(cameras, 0, 1, in_a, in_b)[error < 2])
    together = torch.cat(errors)
    assert len(together) > 100
    # Measured medians are 0.15 to 0.45 pixels; some matches are wrong, up to a quarter of them.
    assert together.median() < 0.6, f"{name}: median {together.median():.2f} px of {len(together)}"
    assert (together < 3).double().mean() > 0.75
    # With every viewing direction reversed the lines would be the same, but the points lie behind.
    assert torch.cat(ahead).double().mean() > 0.97


def test_counts_and_sizes() -> None:
    for name, (num_views, _) in CAPTURES.items():
        source = open_shared(name)
        assert source.num_views == num_views, name
        assert len(set(source.image_paths)) == num_views
    assert open_shared("fox").image_sizes[0] == (960, 540)
    assert open_shared("dl3dv_layout").image_sizes[0] == (540, 960)
    assert {path.parent.name for path in open_shared("tabletop").image_paths} == {"robot", "realsense"}


def test_dl3dv_is_mydesk_in_another_frame() -> None:
    """The frame that both hold is one camera and image; its pose went through `applied_transform` and stays there."""
    packed, plain = open_shared("dl3dv_layout"), open_shared("mydesk")
    assert torch.allclose(packed.intrinsics, plain.intrinsics[:16], atol=1e-3)
    applied = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]], dtype=torch.float64)
    assert torch.allclose(packed.cam_to_world[12, :3], applied @ plain.cam_to_world[115, :3], atol=1e-9)
    one, same = load_views(packed, [12]).images, load_views(plain, [115]).images
    # One is a palette PNG, the other a JPEG.
    assert (one - same).abs().mean() < 0.03


def test_sparse_points_fall_on_their_keypoints() -> None:
    """COLMAP's points, projected through the lens, reproduce its keypoints."""
    pycolmap = pytest.importorskip("pycolmap")
    folder = shared_path("data", "tabletop")
    source = open_shared("tabletop")
    assert source.points is not None
    assert source.points.shape == (11979, 3)
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    by_name = {image.name: image for image in model.images.values()}
    for index in (0, 1, 2, 7, 30):
        image = by_name[str(Path(source.image_paths[index]).relative_to(folder / "images"))]
        seen = [point for point in image.points2D if point.has_point3D()]
        xyz = torch.tensor(np.array([model.points3D[point.point3D_id].xyz for point in seen]))
        camera = Cameras(source.cam_to_world[index], torch.tensor([1.0, 1, 0, 0], dtype=torch.float64), ImageSize(1, 1))
        plane, depths = camera.project(xyz)
        lens = source.distortion[index]
        assert lens is not None
        pixels = lens.distort(plane) * source.intrinsics[index, :2] + source.intrinsics[index, 2:]
        error = (pixels - torch.tensor(np.array([point.xy for point in seen]))).norm(dim=-1)
        assert (depths > 0).all()
        assert error.median() < 1.0
