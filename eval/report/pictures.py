"""The pictures of a benchmark as text: each once, without loss, in few bytes."""

import base64
import io
import itertools
from pathlib import Path
from typing import Any

from PIL import Image

from lrm_ttt.eval.report.results import Results

# Base64 characters. A page beyond this is slow to open and too large for a mail.
MAX_CHARACTERS = 24_000_000


class PictureBook:
    """Collect pictures under short keys until there is no room."""

    def __init__(self, folder: Path, room: int) -> None:
        self.folder = folder
        self.room = room
        self.urls: dict[str, str] = {}
        self.num_left_out = 0
        self._keys: dict[bytes, str] = {}

    def add(self, path: str) -> str | None:
        """Return the key of a picture; None where its file is not there, or since there was no room for one."""
        if self.num_left_out:
            self.num_left_out += 1
            return None
        try:
            data = _lossless(self.folder / path)
        except OSError:
            return None
        if data in self._keys:
            return self._keys[data]
        url = f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"
        if len(url) > self.room:
            self.num_left_out = 1
            return None
        self.room -= len(url)
        key = self._keys[data] = f"p{len(self._keys)}"
        self.urls[key] = url
        return key


def collect_pictures(results: Results, room: int = MAX_CHARACTERS) -> dict[str, Any]:
    """Return `urls` by key, the keys of `truths` by scene and view and of `renders` by cell and view, and `left_out`.

    Every cell's first picture goes in before any cell's second, so that a large benchmark loses views and not methods.
    """
    book = PictureBook(results.folder, room)
    truths: dict[str, dict[str, str]] = {}
    renders: list[dict[str, str]] = [{} for _ in results.cells]
    rounds = itertools.zip_longest(*((cell.get("pictures") or {}).items() for cell in results.cells))
    for pictures in rounds:
        for cell, render, picture in zip(results.cells, renders, pictures, strict=True):
            if picture is None:
                continue
            target, path = picture
            own = truths.setdefault(cell["scene"], {})
            if target not in own and (truth := book.add(f"truths/{cell['scene']}/{target}.png")) is not None:
                own[target] = truth
            if (key := book.add(path)) is not None:
                render[target] = key
    return {"urls": book.urls, "truths": truths, "renders": renders, "left_out": book.num_left_out}


def _lossless(path: Path) -> bytes:
    """Return the picture as lossless WebP, about a fifth smaller than a PNG."""
    packed = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(packed, "WEBP", lossless=True, method=2)
    return packed.getvalue()
