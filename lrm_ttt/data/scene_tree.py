"""Captures in a tree of folders, or named by a list: found by the names of files, opened when asked for."""

import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from lrm_ttt.data.files import SUFFIXES
from lrm_ttt.data.open_scene import is_capture, open_scene
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import UnreadableScene

log = logging.getLogger(__name__)

# <subset>/<scene>, with room for a folder around each.
DEEPEST = 4
# Folders are read at the same time: on a network drive each costs a round trip.
NUM_READERS = 16
# So many entries of a list are looked for; where none of them is there, its paths are meant relative to elsewhere.
NUM_LOOKED_FOR = 8


@dataclasses.dataclass(frozen=True)
class SceneTree:
    """Captures below a folder: `places` relative to `root`, of folders or of the files that describe them."""

    root: Path
    places: tuple[str, ...]
    image_folder: str | None = None
    allow_missing: bool = False

    def __len__(self) -> int:
        return len(self.places)

    @property
    def groups(self) -> tuple[int, ...]:
        """Each scene is a folder of its own."""
        return (1,) * len(self.places)

    def scene_name(self, index: int) -> str:
        """Return the place of a scene, without the file that describes it; unique in a tree."""
        place = PurePosixPath(self.places[index])
        return (place.parent if place.suffix == ".json" else place).as_posix()

    def open(self, index: int) -> SceneSource:
        """Return a scene, of whose images the headers are read; raises `UnreadableScene`."""
        place = self.root / self.places[index]
        source = open_scene(place, allow_missing=self.allow_missing, image_folder=self.image_folder)
        return dataclasses.replace(source, name=self.scene_name(index))


def find_scenes(root: Path, image_folder: str | None = None) -> SceneTree:
    """Find the captures in a tree, or the one that a folder or file is, in the order of their names; opens none.

    Each folder is read once, and those of captures are not descended into. Raises `UnreadableScene` where there are
    none; logs how many folders hold images that nothing describes.
    """
    if root.is_file():
        root = root.resolve()
        return SceneTree(root.parent.parent, (f"{root.parent.name}/{root.name}",), image_folder)
    places, strangers, level = [], [], [""]
    with ThreadPoolExecutor(NUM_READERS) as pool:
        for _ in range(DEEPEST + 1):
            below = []
            looked = pool.map(lambda place: _look(root / place), level)
            for place, (found, has_images, children) in zip(level, looked, strict=True):
                if found:
                    places.append(place)
                    continue
                if has_images:
                    strangers.append(place)
                below += [f"{place}/{child}" if place else child for child in children]
            level = below
    if not places:
        what = f"{len(strangers)} folders with images, but no cameras" if strangers else "no captures"
        raise UnreadableScene(
            f"{root}: {what} up to {DEEPEST} folders below. Give a tree of captures (transforms.json, "
            "opencv_cameras.json, COLMAP, Zero123, G-Objaverse), or a list of their paths."
        )
    if strangers:
        log.warning("%s: %d folders hold images that no file describes (%s, ...)", root, len(strangers), strangers[0])
    if places == [""]:
        root = root.resolve()
        return SceneTree(root.parent, (root.name,), image_folder)
    return SceneTree(root, tuple(sorted(places)), image_folder)


def read_list(file: Path, image_folder: str | None = None) -> SceneTree | None:
    """Read a list of captures, relative to the list: a JSON list of paths, or a .txt with one on a line.

    None for a JSON file that is something else. Raises `UnreadableScene` for an empty list, and where the first of its
    captures are all missing.
    """
    try:
        text = file.read_text(encoding="utf-8")
        entries = text.splitlines() if file.suffix.lower() == ".txt" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableScene(f"{file}: cannot be read as a list of captures ({error}). Write it again.") from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        return None
    places = tuple(place for entry in entries if (place := entry.strip()) and not place.startswith("#"))
    if not places:
        raise UnreadableScene(f"{file}: an empty list of captures. Write the path of one on each line.")
    first = places[:NUM_LOOKED_FOR]
    if not any((file.parent / place).exists() for place in first):
        raise UnreadableScene(
            f"{file}: the captures {_some(first)} are not there. Give their paths relative to the folder of the list."
        )
    return SceneTree(file.parent, places, image_folder)


def _look(folder: Path) -> tuple[bool, bool, list[str]]:
    """Return whether a folder is a capture, whether images lie in it, and the folders in it."""
    try:
        with os.scandir(folder) as entries:
            # Links are followed: subsets of a data set are made of them.
            here = {entry.name: entry.is_dir() for entry in entries if not entry.name.startswith(".")}
    except OSError as error:
        log.warning("%s: cannot be read and was left out (%s)", folder, error.strerror or error)
        return False, False, []
    if is_capture(here):
        return True, False, []
    has_images = any(name.lower().endswith(SUFFIXES) for name in here)
    return False, has_images, sorted(name for name, is_folder in here.items() if is_folder)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
