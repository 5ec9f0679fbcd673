"""Sound captures are told to be sound, and each mistake that is put into them is named."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lrm_ttt.data.diagnose import UNDECIDED, Diagnosis, examine, examine_dataset, judge
from lrm_ttt.data.epipolar import Evidence, agreement, gather_evidence, rays, straight_plane
from lrm_ttt.data.features import find_features, match
from lrm_ttt.data.images import load_views
from lrm_ttt.data.lens import Distortion
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import UnreadableScene
from tests.data.captures import make_capture, write_transforms
from tests.data.test_shared_captures import CAPTURES, epipolar_errors, open_shared

# Neighbours in the order of each capture, but for the unordered ones, where every view is looked at.
VIEWS = {
    "fox": range(0, 24, 3),
    "mydesk": range(30, 60, 4),
    "gso_character": range(48, 56),
    "tabletop": range(0, 24, 3),
}
OPENGL, PYTORCH3D, BACKWARDS = (
    torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for diagonal in ((1, -1, -1, 1), (-1, -1, 1, 1), (-1, 1, -1, 1))
)
MISTAKES: dict[str, tuple[str, Callable[[Tensor], Tensor], float, float]] = {
    "none": ("", lambda matrix: matrix, 1, 1),
    "w2c for c2w": ("inverted cameras", torch.linalg.inv, 1, 1),
    "OpenGL axes": ("camera axes", lambda matrix: matrix @ OPENGL, 1, 1),
    "PyTorch3D axes": ("camera axes", lambda matrix: matrix @ PYTORCH3D, 1, 1),
    "turned round": ("camera axes", lambda matrix: matrix @ BACKWARDS, 1, 1),
    "w2c with OpenGL axes": ("inverted cameras and camera axes", lambda m: torch.linalg.inv(m @ OPENGL), 1, 1),
    "intrinsics of the 4K frame": ("intrinsics scale", lambda matrix: matrix, 4, 4),
    "focal lengths of the 4K frame": ("intrinsics scale", lambda matrix: matrix, 4, 1),
    "focal lengths of half the size": ("intrinsics scale", lambda matrix: matrix, 0.5, 1),
    "cameras of other images": ("misfit", lambda matrix: matrix[[2, 5, 0, 7, 1, 4, 6, 3]], 1, 1),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name == "gso_character" else pytest.mark.slow) for name in VIEWS],
)
def judged(request: pytest.FixtureRequest) -> tuple[Evidence, Diagnosis]:
    """Return what eight views of a real capture say, and what that means."""
    evidence = gather_evidence(open_shared(request.param), VIEWS[request.param])
    return evidence, judge("scene", evidence)


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_named(judged: tuple[Evidence, Diagnosis], name: str) -> None:
    evidence, sound = judged
    kind, change, focal, centre = MISTAKES[name]
    factors = torch.tensor([focal, focal, centre, centre], dtype=torch.float64)
    cameras = dataclasses.replace(
        evidence.cameras,
        cam_to_world=change(evidence.cameras.cam_to_world),
        intrinsics=evidence.cameras.intrinsics * factors,
    )
    found = judge("scene", dataclasses.replace(evidence, cameras=cameras))
    assert (found.mistake.kind if found.mistake else "") == kind, str(found)
    if kind not in ("", "misfit"):
        assert sound.agreement is not None
        assert found.agreement_undone == pytest.approx(sound.agreement, abs=1e-6)
    if focal > 1:
        assert f"{focal} times too large" in str(found)


def with_lens(evidence: Evidence, lens: Distortion | None) -> Diagnosis:
    return judge("scene", dataclasses.replace(evidence, lenses=(lens,) * evidence.num_views))


@pytest.mark.slow
def test_a_lens_that_is_left_out_is_named() -> None:
    """The phone's calibration says k1 = 0.058 and k2 = -0.081."""
    evidence = gather_evidence(open_shared("fox"), range(0, 50, 3))
    assert judge("fox", evidence).mistake is None
    found = with_lens(evidence, None).mistake
    assert found is not None
    assert found.kind == "ignored distortion"


def test_a_lens_that_is_undone_twice_is_named() -> None:
    evidence = gather_evidence(open_shared("mydesk"), VIEWS["mydesk"])
    found = with_lens(evidence, Distortion("opencv", (-0.1, 0.02))).mistake
    assert found is not None
    assert found.kind == "doubled distortion"


def part_of(source: SceneSource, indices: list[int]) -> SceneSource:
    return dataclasses.replace(
        source,
        image_paths=tuple(source.image_paths[index] for index in indices),
        cam_to_world=source.cam_to_world[indices],
        intrinsics=source.intrinsics[indices],
        image_sizes=tuple(source.image_sizes[index] for index in indices),
        distortion=tuple(source.distortion[index] for index in indices),
    )


@pytest.mark.parametrize(("name", "indices"), [("gso_character", [0, 6, 12, 60]), ("lego", [0, 5, 11, 20])])
def test_views_without_overlap_are_named(name: str, indices: list[int]) -> None:
    found = examine(part_of(open_shared(name), indices)).mistake
    assert found is not None
    assert found.kind == "too little overlap"


def test_a_camera_that_stands_still_is_named() -> None:
    source = part_of(open_shared("mydesk"), [40, 40, 40])
    assert examine(source).mistake.kind == "one place"  # type: ignore[union-attr]
    moving = dataclasses.replace(source, cam_to_world=open_shared("mydesk").cam_to_world[40:43])
    assert examine(moving).mistake.kind == "still camera"  # type: ignore[union-attr]


def test_not_a_number_is_named() -> None:
    source = open_shared("mydesk")
    found = examine(dataclasses.replace(source, cam_to_world=source.cam_to_world * float("nan"))).mistake
    assert found is not None
    assert found.kind == "not a number"


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTURES)
def test_real_captures_are_sound(name: str) -> None:
    found = examine(open_shared(name))
    assert found.mistake is None, str(found)
    # Measured 0.72 to 0.85.
    assert found.agreement is not None
    assert found.agreement > 0.65


def test_smooth_images_are_left_undecided(tmp_path: pytest.TempPathFactory) -> None:
    from lrm_ttt.data.open_scene import open_scene

    found = examine(open_scene(write_transforms(tmp_path, make_capture())))  # type: ignore[arg-type]
    assert found.mistake is not None
    assert found.mistake.kind == UNDECIDED
    assert found.is_sound


class TwoScenes:
    """One scene that cannot be opened, and one that is in one place."""

    groups = (2,)

    def __len__(self) -> int:
        return 2

    def scene_name(self, index: int) -> str:
        return f"scene {index}"

    def open(self, index: int) -> SceneSource:
        if index == 0:
            raise UnreadableScene("cameras.json: holds NaN. Correct it.")
        return part_of(open_shared("mydesk"), [40, 40])


def test_a_scene_that_cannot_be_read_is_a_finding() -> None:
    first, second = examine_dataset(TwoScenes(), None, 0)
    assert str(first) == "scene 0: unreadable: cameras.json: holds NaN. Correct it."
    assert str(second).startswith("scene 1: one place: ")
    (drawn,) = examine_dataset(TwoScenes(), 1, seed=3)
    assert drawn.scene in ("scene 0", "scene 1")


def test_matches_lie_on_epipolar_lines() -> None:
    """The agreement is the mean weight of the distances that another formula gives."""
    source = dataclasses.replace(open_shared("mydesk"))
    evidence = gather_evidence(source, [40, 43])
    matches, cameras = evidence.matches, evidence.cameras
    forth = epipolar_errors(cameras, 0, 1, matches.in_first.numpy(), matches.in_second.numpy())
    back = epipolar_errors(cameras, 1, 0, matches.in_second.numpy(), matches.in_first.numpy())
    assert forth.median() < 0.6
    weights = 1 / (1 + (torch.maximum(forth, back) / 1.5) ** 2)
    got = agreement(matches, rays(matches, cameras.intrinsics, evidence.lenses), cameras.cam_to_world)
    # Wrong matches that meet behind a camera count nothing: up to a few in a hundred.
    assert 0.9 * float(weights.mean()) < float(got) <= float(weights.mean()) + 1e-3


def test_points_are_found_again_in_a_turned_and_smaller_image() -> None:
    image = load_views(open_shared("mydesk"), [40]).images[0].mean(0)
    turned = torch.rot90(image, 1, (0, 1))
    smaller = torch.nn.functional.interpolate(turned[None, None], scale_factor=0.7, mode="bilinear", antialias=True)[
        0, 0
    ]
    first, second = find_features(image), find_features(smaller)
    pairs = match(first, second)
    x, y = first.points[pairs[:, 0]].unbind(1)
    # A quarter turn to the left brings the right border to the top.
    expected = torch.stack([y, image.shape[1] - x], 1) * torch.tensor(
        [smaller.shape[1] / turned.shape[1], smaller.shape[0] / turned.shape[0]]
    )
    errors = (second.points[pairs[:, 1]] - expected).norm(dim=1)
    assert len(pairs) > 200
    assert float((errors < 1).double().mean()) > 0.9
    assert float(errors.median()) < 0.35


@pytest.mark.parametrize(
    "lens", [Distortion("opencv", (-0.2, 0.05, 0.002, -0.003)), Distortion("fisheye", (0.05, -0.02, 0.01, 0.0))]
)
def test_straight_points_are_bent_to_where_they_were(lens: Distortion) -> None:
    plane = torch.from_numpy(np.random.default_rng(0).uniform(-0.7, 0.7, (100, 2)))
    assert torch.allclose(straight_plane(lens.distort(plane), lens), plane, atol=1e-9)
