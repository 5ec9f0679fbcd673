"""Follow a capture that may still be written: its views in the order of its file, each as soon as its image decodes."""

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.data.assemble import DescribedCapture, assemble, rigid
from lrm_ttt.data.files import find_image, open_image
from lrm_ttt.data.open_scene import describe_scene
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import UnreadableScene

log = logging.getLogger(__name__)

# How often files are looked at while there is nothing to do.
POLL_S = 0.1


@dataclasses.dataclass(frozen=True)
class Arrival:
    """View `index` of a capture, whose image is there, and the capture as it is listed by then."""

    capture: DescribedCapture
    index: int


def follow(path: Path | str, timeout_s: float = 0.0, seen: Sequence[str] = ()) -> Iterator[Arrival]:
    """Yield the views of a capture one after the other, from the first that is not in `seen` (names of images) on.

    Any layout that `open_scene` reads; views may be added at the end of the list, and images may appear, or be
    completed, after they are listed. What was listed once stays as it was first read. A description that cannot be read
    is taken for half-written. After `timeout_s` seconds without the next view, those without an image are left out
    with a logged line; where no other one follows, the iterator ends. Raises `UnreadableScene` where no description
    could be read until then. Each image is decoded once, to see that it is complete.
    """
    listing = _Listing(Path(path), tuple(seen))
    index = len(seen)
    while True:
        listing, found = _wait(listing, index, timeout_s)
        if found is None:
            break
        _log_left_out(listing, index, found)
        assert listing.capture is not None
        yield Arrival(listing.capture, found)
        index = found + 1
    if listing.capture is None:
        assert listing.error is not None
        raise listing.error
    if listing.error is not None:
        log.warning("no further views were taken: %s", listing.error)
    _log_left_out(listing, index, len(listing.capture.views))


def select(capture: DescribedCapture, indices: Sequence[int]) -> SceneSource:
    """Return the views `indices` as a capture of their own, in this order; costs one image header for each."""
    views = tuple(capture.views[index] for index in indices)
    chosen = dataclasses.replace(capture, views=views, points=None, notes=())
    return assemble(chosen, allow_missing=False, fewest=1)


def listed_poses(capture: DescribedCapture, indices: Sequence[int]) -> Float[Tensor, "v 4 4"]:
    """Return the camera-to-world matrices of listed views, whether their images are there or not; float64."""
    return torch.from_numpy(np.stack([rigid(capture.described_by, capture.views[index]) for index in indices]))


@dataclasses.dataclass(frozen=True)
class _Listing:
    """The newest description that could be read (None: none yet), and why the present one cannot be.

    Whatever is read must begin with the images `names`.
    """

    path: Path
    names: tuple[str, ...]
    capture: DescribedCapture | None = None
    signature: tuple[tuple[str, int, int], ...] | None = None
    error: UnreadableScene | None = None

    def read_again(self) -> "_Listing":
        """Read the description if it has changed."""
        # Taken before reading, so that what is written meanwhile is noticed the next time.
        signature = None if self.capture is None else _signature(self.capture.described_by)
        if signature is not None and signature == self.signature:
            return self
        try:
            newest = describe_scene(self.path)
            self._check(newest)
        except UnreadableScene as error:
            return dataclasses.replace(self, signature=signature, error=error)
        earlier = () if self.capture is None else self.capture.views
        capture = dataclasses.replace(newest, views=earlier + newest.views[len(earlier) :])
        names = tuple(view.image_name for view in capture.views)
        return _Listing(self.path, names, capture, signature)

    def is_ready(self, index: int) -> bool:
        """Return whether a view is listed and its image is complete."""
        if self.capture is None or index >= len(self.capture.views):
            return False
        path = find_image(self.capture.root, self.capture.views[index].image_name, self.capture.described_by)
        if path is None:
            return False
        try:
            with open_image(path) as image:
                image.load()
        except UnreadableScene:
            return False
        return True

    def _check(self, newest: DescribedCapture) -> None:
        begins_with = tuple(view.image_name for view in newest.views[: len(self.names)])
        if begins_with == self.names:
            return
        pairs = zip(self.names, (*begins_with, *["nothing"] * len(self.names)), strict=False)
        old, new = next((old, new) for old, new in pairs if old != new)
        raise UnreadableScene(
            f"{newest.described_by}: lists {new} where it listed {old} earlier. A stream goes on only where views are "
            "added at the end; start again without what was seen."
        )


def _wait(listing: _Listing, index: int, timeout_s: float) -> tuple[_Listing, int | None]:
    """Wait for view `index`, and then take the first later one that is ready (None: there is none)."""
    deadline = time.monotonic() + timeout_s
    while not (listing.is_ready(index) or (listing := listing.read_again()).is_ready(index)):
        if time.monotonic() >= deadline:
            num_listed = 0 if listing.capture is None else len(listing.capture.views)
            return listing, next(filter(listing.is_ready, range(index + 1, num_listed)), None)
        time.sleep(POLL_S)
    return listing, index


def _log_left_out(listing: _Listing, start: int, stop: int) -> None:
    if start >= stop:
        return
    assert listing.capture is not None
    names = [view.image_name for view in listing.capture.views[start:stop]]
    few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    log.warning("%d listed images are missing or unreadable and were left out (%s)", len(names), few)


def _signature(described_by: Path) -> tuple[tuple[str, int, int], ...]:
    """Return names, times and sizes of the files of a description: one file, or those in a COLMAP model."""
    files = sorted(described_by.iterdir()) if described_by.is_dir() else [described_by]
    stats = [(file.name, file.stat()) for file in files if file.exists()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
