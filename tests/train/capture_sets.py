"""Data sets of captures that lie in a folder, some of them broken, to draw from in any process."""

import dataclasses
import json
import os
from pathlib import Path

from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.data.source import SceneSource
from lrm_ttt.scene.cameras import ImageSize
from tests.data.captures import make_capture, save_images, transforms


@dataclasses.dataclass(frozen=True)
class Captures:
    """All captures below a folder, as `SceneDataset` has them."""

    folders: tuple[Path, ...]
    groups: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.folders)

    def scene_name(self, index: int) -> str:
        return self.folders[index].name

    def open(self, index: int) -> SceneSource:
        return open_scene(self.folders[index])


def write_captures(folder: Path, number: int, num_views: int = 7) -> Captures:
    """Write captures of one scene, in groups of three, whose folders tell them apart."""
    capture, names = make_capture(num_views, ImageSize(24, 30)), [f"{index:02d}.png" for index in range(num_views)]
    save_images(capture, folder / "images", names)
    paths = [folder / f"scene{index:02d}" for index in range(number)]
    for path in paths:
        path.mkdir()
        for name in names:
            os.link(folder / "images" / name, path / name)
        (path / "transforms.json").write_text(json.dumps(transforms(capture, names)))
    whole, rest = divmod(number, 3)
    return Captures(tuple(paths), (3,) * whole + (rest,) * bool(rest))


def break_images(captures: Captures, index: int) -> None:
    """Cut all images of a capture off in their middle."""
    for image in captures.folders[index].glob("*.png"):
        content = image.read_bytes()
        image.unlink()
        image.write_bytes(content[: len(content) // 2])
