"""Which views query the memory decides where the Gaussians lie, and nothing else."""

import dataclasses
from pathlib import Path

import pytest
import torch

from lrm_ttt.errors import InvalidConfig, UnreadableScene
from lrm_ttt.model.config import GaussianHeadConfig, TokenizerConfig
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.pipeline.capture import plan_capture
from lrm_ttt.pipeline.config import ReconstructConfig
from lrm_ttt.pipeline.reconstruct import NEAR, Reconstruction, reconstruct
from lrm_ttt.pipeline.virtual import Virtual, VirtualPlan, VirtualViews, plan_virtual
from lrm_ttt.render.render import render
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.views import Views
from tests.pipeline.make import HEIGHT, WIDTH, make_model, make_views, write_capture

PIXELS = HEIGHT * WIDTH


@pytest.fixture(scope="module")
def views() -> Views:
    return make_views(6)


def pose_model() -> Reconstructor:
    """Return a model whose virtual views need no images: distances lie in the range of the capture."""
    config = make_model().config
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Reconstructor(
            dataclasses.replace(config, tokenizer=TokenizerConfig(8), head=GaussianHeadConfig(distance="range"))
        ).eval()


def equal(first: Reconstruction, second: Reconstruction) -> bool:
    pairs = zip(vars(first.gaussians).values(), vars(second.gaussians).values(), strict=True)
    return first.num_predicted == second.num_predicted and all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("model", [make_model(), pose_model()], ids=["evidence", "pose"])
@pytest.mark.parametrize("as_views", [False, True], ids=["positions", "views"])
def test_the_inputs_are_the_default(model: Reconstructor, as_views: bool, views: Views) -> None:
    virtual: Virtual = views if as_views else range(6)
    assert equal(reconstruct(model, views, virtual=virtual), reconstruct(model, views))


def test_positions_give_their_own_gaussians(views: Views) -> None:
    """With evidence among all inputs; so a subset of them gives a subset of the Gaussians."""
    model = pose_model()
    everything = reconstruct(model, views).gaussians
    some = reconstruct(model, views, virtual=(4, 1)).gaussians
    assert everything.num_gaussians == 6 * PIXELS, "this model makes no Gaussian too faint to be kept"
    for name, tensor in vars(everything).items():
        expected = torch.cat([tensor[4 * PIXELS : 5 * PIXELS], tensor[PIXELS : 2 * PIXELS]])
        assert torch.equal(getattr(some, name), expected), name


def test_views_of_their_own_are_given_in_the_frame_of_the_inputs(views: Views) -> None:
    """Where they coincide with inputs they read what these do: without evidence a view is alone with the memory."""
    model = pose_model()
    assert equal(reconstruct(model, views, virtual=views[[4, 1]]), reconstruct(model, views, virtual=(4, 1)))


def test_cameras_alone_are_grey_views(views: Views) -> None:
    """Colours enter as 2 rgb - 1, so that no image and a grey one are the same."""
    model, queries = pose_model(), make_views(9)[[2, 5, 7]]
    grey = dataclasses.replace(queries, images=torch.full_like(queries.images, 0.5), masks=None, depths=None)
    alone = reconstruct(model, views, virtual=queries.cameras)
    assert equal(alone, reconstruct(model, views, virtual=grey))
    assert alone.num_predicted == 3 * PIXELS
    assert not equal(alone, reconstruct(model, views, virtual=queries))


def test_views_and_cameras_may_be_mixed(views: Views) -> None:
    model, queries = pose_model(), make_views(9)[[2, 5, 7]]
    mixed = reconstruct(model, views, virtual=VirtualViews(queries[:1], queries.cameras[1:]))
    parts = [reconstruct(model, views, virtual=part).gaussians for part in (queries[:1], queries.cameras[1:])]
    expected: Gaussians = cat(parts)
    assert torch.equal(mixed.gaussians.means, expected.means) and torch.equal(mixed.gaussians.sh, expected.sh)


@pytest.mark.parametrize("masked", [True, False])
def test_cameras_alone_see_what_the_inputs_show(masked: bool, views: Views) -> None:
    """A model that takes colours from images is given renderings: the caller could have made them."""
    model, cameras = make_model(), make_views(9).cameras[[2, 5, 7]]
    views = views if masked else dataclasses.replace(views, masks=None)
    background = torch.tensor([0.2, 0.4, 0.6])
    made = reconstruct(model, views)
    with torch.inference_mode():
        whole = model(dataclasses.replace(views, cameras=made.world_to_scene.cameras(views.cameras), depths=None)[None])
        drawn = render(whole, made.world_to_scene.cameras(cameras)[None], background[None], near=NEAR)[0]
    pictures = Views(drawn.colors.clamp(0, 1), cameras, drawn.alphas if masked else None)
    given = reconstruct(model, views, virtual=pictures)
    assert equal(reconstruct(model, views, virtual=cameras, background=background), given)
    assert not equal(reconstruct(model, views, virtual=cameras), given), "the background shows"


@pytest.mark.parametrize("masked", [True, False])
def test_the_range_of_distances_is_that_of_the_inputs(masked: bool, views: Views) -> None:
    """Whether a virtual view has a mask says nothing about the scene."""
    model = pose_model()
    inputs = views if masked else dataclasses.replace(views, masks=None)
    bare = dataclasses.replace(views, masks=None)
    assert equal(reconstruct(model, inputs, virtual=bare), reconstruct(model, inputs, virtual=views))


def planned(capture: Path, virtual: str, image_size: tuple[int, int] | None = None) -> VirtualPlan:
    config = ReconstructConfig(str(capture), Path("out"), views="6", virtual=virtual, image_size=image_size)
    return plan_virtual(config, plan_capture(config, 8), 8)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("virtual") / "capture", num_views=12)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_number_of_inputs_is_spread_and_repeats(count: int, capture: Path) -> None:
    plan = planned(capture, str(count))
    assert plan.positions is not None
    assert len(set(plan.positions)) == count == plan.num_views
    assert set(plan.positions) <= set(range(6))
    assert plan == planned(capture, str(count))
    assert plan.numbers()["virtual_views"] == "subset"
    if count == 6:
        assert plan.positions == tuple(range(6))


def test_positions_follow_a_list_of_inputs(capture: Path) -> None:
    """Positions are among the inputs in the order that they were given in."""
    config = ReconstructConfig(source=str(capture), out=Path("out"), views="11,2,9", virtual="3")
    plan = plan_virtual(config, plan_capture(config, 8), 8)
    assert plan.positions == (1, 2, 0)
    assert plan.resolved((11, 2, 9)) == [2, 9, 11]


def test_images_that_are_missing_are_simply_not_there(tmp_path: Path, capture: Path) -> None:
    other = write_capture(tmp_path / "other", num_views=4)
    complete = planned(capture, str(other)).load(8, (1.0, 1.0, 1.0))
    (other / "images" / "002.png").unlink()
    plan = planned(capture, str(other))
    assert plan.numbers() == {"virtual_views": "capture", "num_virtual_views": 4, "num_virtual_without_image": 1}
    loaded = plan.load(8, (1.0, 1.0, 1.0))
    assert loaded.views is not None and loaded.cameras is not None
    assert complete.views is not None and complete.cameras is None
    assert torch.equal(loaded.views.images, complete.views.images[[0, 1, 3]])
    assert torch.equal(loaded.cameras.cam_to_world, complete.views.cameras.cam_to_world[2:3])
    assert torch.equal(loaded.cameras.intrinsics, complete.views.cameras.intrinsics[2:3])


def test_the_size_is_what_is_asked_for(capture: Path) -> None:
    assert planned(capture, str(capture)).image_size == (HEIGHT, WIDTH)
    assert planned(capture, str(capture), image_size=(24, 40)).image_size == (24, 40)


def test_what_cannot_be_is_refused(capture: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"--virtual 7: there are only 6 input views"):
        planned(capture, "7")
    with pytest.raises(InvalidConfig, match=r"--virtual 0: at least one"):
        planned(capture, "0")
    with pytest.raises(UnreadableScene, match="no such folder"):
        planned(capture, "nowhere")
