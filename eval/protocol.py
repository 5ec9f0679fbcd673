"""By which rules scenes are judged: which views are inputs and targets, at which size, on which background."""

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lrm_ttt.data.config import DatasetConfig
from lrm_ttt.data.dataset import open_dataset
from lrm_ttt.data.realestate10k import INDEX
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.view_sampler import ViewChoice, choose_views
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.list_file import ViewLists, list_key, read_lists

LISTS = Path(__file__).resolve().parent / "view_lists"
WHITE = (1.0, 1.0, 1.0)
CROP = "the largest centred part of each image with the size's shape, resized to cover it (antialiased)"
# A name like hold_out_8, of which every number from 2 makes a protocol.
HOLD_OUT = re.compile(r"hold_out_(\d+)")
# The tables of Long-LRM and tttLRM (Long-LRM's model/loss.py); pixelSplat's src/evaluation/metrics.py is Gaussian.
UNIFORM, GAUSSIAN = ("psnr", "ssim_uniform7", "lpips"), ("psnr", "ssim", "lpips")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The rules of a benchmark.

    `image_size` is height and width (None: what `choose_image_size` gives). `background` 0..1 is what transparent
    images lie on. Every `hold_out`-th view is a target, and inputs come by k-means from the others; with `view_list`, a
    file, it decides where it can. `views` are the numbers of inputs that published tables have (empty: any), `metrics`
    the variants in them. `image_folder` names the copy of the images to take where there are several.
    `listed_scenes_only` leaves scenes out that the list does not have.
    """

    name: str
    description: str
    image_size: tuple[int, int] | None = None
    crop: str = CROP
    background: tuple[float, float, float] = WHITE
    views: tuple[int, ...] = ()
    hold_out: int | None = None
    view_list: Path | None = None
    metrics: tuple[str, ...] = ()
    image_folder: str | None = None
    listed_scenes_only: bool = False


def _hold_out(every: int) -> Protocol:
    return Protocol(
        f"hold_out_{every}",
        f"Any capture: view 0 and every {every}th after it is a target, inputs are the views nearest to the k-means "
        "centres of camera centre and viewing direction among the others.",
        hold_out=every,
    )


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        _hold_out(8),
        Protocol(
            "dl3dv_140",
            "DL3DV-Benchmark, 140 scenes, as in Long-LRM (arXiv 2410.12781) and tttLRM (arXiv 2602.20160): every 8th "
            "frame of transforms.json a target, 16 and 32 inputs from the list of Long-LRM's repository, other numbers "
            "by the same k-means. Theirs stretches 960x540 to 960x536, ours crops 4 of 540 rows; theirs also leaves "
            "upright videos out.",
            image_size=(536, 960),
            views=(16, 32, 64),
            hold_out=8,
            view_list=LISTS / "dl3dv_140.json",
            metrics=UNIFORM,
            image_folder="images_4",
        ),
        Protocol(
            "tanks_and_temples",
            "Tanks and Temples, scenes train and truck in the COLMAP layout of 3D Gaussian splatting, as in Long-LRM "
            "(arXiv 2410.12781): images sorted by name, every 8th a target, 16 and 32 inputs from the list of "
            "Long-LRM's repository, other numbers by the same k-means.",
            image_size=(536, 960),
            views=(16, 32, 64),
            hold_out=8,
            view_list=LISTS / "tanks_and_temples.json",
            metrics=UNIFORM,
        ),
        Protocol(
            "gso",
            "Renders of Google Scanned Objects. The tables of tttLRM (arXiv 2602.20160) rest on 100 of the objects and "
            "8 random test views of each, without a published list, so that every 8th view is a target here and "
            "inputs come by k-means: its figures are near to theirs in kind only.",
            image_size=(512, 512),
            views=(8, 16, 24),
            hold_out=8,
            metrics=UNIFORM,
        ),
        Protocol(
            "realestate10k",
            "RealEstate10K as in pixelSplat (arXiv 2312.12337) and its followers: 2 inputs and 3 targets of each of "
            "the 6474 test scenes of their evaluation index that have any; in 575 of them a target is an input too. "
            "Their SSIM has the 11-tap Gaussian too, but a sample covariance, and leaves out the border.",
            image_size=(256, 256),
            views=(2,),
            view_list=LISTS / "realestate10k.json",
            metrics=GAUSSIAN,
            listed_scenes_only=True,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Return a protocol by its name: one of PROTOCOLS, hold_out_N, or the path of a .json file of view lists.

    Raises `InvalidConfig` naming the known ones.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    held = HOLD_OUT.fullmatch(name)
    if held and int(held[1]) >= 2:
        return _hold_out(int(held[1]))
    if name.endswith(".json"):
        path = Path(name).expanduser()
        lists = _lists(path)
        return Protocol(name, f"View lists in {path} ({lists.source}).", hold_out=lists.hold_out, view_list=path)
    raise InvalidConfig(
        f"protocol '{name}' is not known. Take one of {', '.join(PROTOCOLS)}, hold_out_N with N from 2, or the path of "
        "a .json file of view lists."
    )


def open_scenes(protocol: Protocol, folder: Path, only: Sequence[str] = ()) -> Iterator[SceneSource]:
    """Yield the captures of a folder, or the one that it is, in the order of their names; `only` those named.

    A scene is named by its place in the folder, or by the last part of that. Nothing is decoded. Raises
    `InvalidConfig` for names that are not there, `UnreadableScene` for what cannot be opened.
    """
    held_back = folder / "test"
    if (held_back / INDEX).is_file():
        folder = held_back
    dataset = open_dataset(
        DatasetConfig(protocol.name, str(folder), image_folder=protocol.image_folder, exclude_benchmark=False)
    )
    listed = _lists(protocol.view_list).scenes if protocol.listed_scenes_only and protocol.view_list else None
    names = [dataset.scene_name(index) for index in range(len(dataset))]
    within = [index for index, name in enumerate(names) if listed is None or list_key(name) in listed]
    missing = [name for name in only if not any(_is_named(names[index], name) for index in within)]
    if missing or not within:
        few = ", ".join(names[index] for index in within[:8]) + (", ..." if len(within) > 8 else "")
        raise InvalidConfig(
            f"{folder}: holds no scene {', '.join(missing)}; there are: {few}."
            if missing
            else f"{folder}: none of its {len(names)} scenes is in the list of the protocol {protocol.name}."
        )
    for index in within:
        if not only or any(_is_named(names[index], name) for name in only):
            yield dataset.open(index)


def choose(protocol: Protocol, name: str, source: SceneSource, count: int, seed: int = 0) -> ViewChoice:
    """Return inputs and targets of the scene `name` for `count` inputs; no view that is held out is an input.

    `seed` is that of k-means; published lists have 0. Raises `InvalidConfig` for a number that the scene cannot give.
    """
    if protocol.view_list is None:
        return choose_views(source, num_inputs=count, hold_out=protocol.hold_out, seed=seed)
    return _lists(protocol.view_list).choose(dataclasses.replace(source, name=name), count, seed)


def _is_named(name: str, wanted: str) -> bool:
    return wanted in (name, name.rsplit("/", 1)[-1], list_key(name))


@functools.cache
def _lists(path: Path) -> ViewLists:
    return read_lists(path)
