"""Expect one message for a capture that cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lrm_ttt.data.images import load_views
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.errors import LrmTttError, UnreadableScene


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit transforms.json in place."""
    path = folder / "transforms.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def refused(path: Path, *words: str, kind: type[LrmTttError] = UnreadableScene) -> None:
    """Open and decode; expect one message of one paragraph with all `words`, ending in a sentence."""

    def open_and_decode() -> None:
        source = open_scene(path)
        load_views(source, range(source.num_views))

    with pytest.raises(kind) as caught:
        open_and_decode()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", ")", "'lrm-ttt[colmap]'"))
    for word in words:
        assert word in message, message
