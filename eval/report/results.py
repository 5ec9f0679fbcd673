"""What a benchmark left in its folder, finished or not."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.benchmark.folder import DESCRIPTION, ROWS, read_rows

PROCEDURAL = "procedural"

Cell = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Results:
    """A benchmark and its cells: for each scene, method and number of input views the last line that was written.

    `methods`, `views` and `scenes` (name to what is known of it) are in the order of the configuration.
    """

    folder: Path
    about: Mapping[str, Any]
    cells: tuple[Cell, ...]
    methods: tuple[str, ...]
    views: tuple[int, ...]
    scenes: Mapping[str, Mapping[str, Any]]

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Return the sets of scenes that means are taken over, by name; one scene alone is `scene:NAME`."""
        drawn = tuple(name for name, scene in self.scenes.items() if is_procedural(scene))
        captured = tuple(name for name in self.scenes if name not in drawn)
        sets = {"all": tuple(self.scenes)}
        if drawn and captured:
            sets |= {"captures": captured, PROCEDURAL: drawn}
        return sets | {f"scene:{name}": (name,) for name in self.scenes}


def is_procedural(scene: Mapping[str, Any]) -> bool:
    """Tell whether a scene was made on the spot."""
    return PROCEDURAL in str(scene.get("protocol", ""))


def read_results(folder: Path) -> Results:
    """Read what is there; of a cell that ran twice the later row counts.

    Raises `InvalidConfig` where the folder holds no benchmark.
    """
    path, rows = folder / DESCRIPTION, folder / ROWS
    if not path.is_file():
        raise InvalidConfig(f"{folder} holds no {DESCRIPTION}: name the output folder of a benchmark.")
    about = json.loads(path.read_text(encoding="utf-8"))
    found = read_rows(rows) if rows.is_file() else []
    cells = {(cell["scene"], cell["method"], cell["views"]): cell for cell in found}
    config = about.get("config") or {}
    scenes = {scene["name"]: scene for scene in about.get("scenes") or ()}
    scenes |= {name: {"name": name} for name, _, _ in cells if name not in scenes}
    return Results(
        folder=folder,
        about=about,
        cells=tuple(cells.values()),
        methods=_ordered([method["name"] for method in config.get("methods") or ()], [key[1] for key in cells]),
        views=tuple(sorted(_ordered(config.get("views") or (), [key[2] for key in cells]))),
        scenes=scenes,
    )


def _ordered(first: Sequence[Any], rest: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*first, *rest)))
