"""What a benchmark left in its folder, finished or not."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrm_ttt.errors import InvalidConfig

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
    """Read benchmark.json and results.jsonl; a last line that was cut off is left out.

    Raises `InvalidConfig` where the folder holds no benchmark.
    """
    path = folder / "benchmark.json"
    if not path.is_file():
        raise InvalidConfig(f"{folder} holds no benchmark.json: name the output folder of a benchmark.")
    about = _finite(json.loads(path.read_text(encoding="utf-8")))
    cells = {(cell["scene"], cell["method"], cell["views"]): cell for cell in _lines(folder / "results.jsonl")}
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


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = []
    for number, line in enumerate(lines):
        try:
            found.append(_finite(json.loads(line)))
        except json.JSONDecodeError:
            # A run that was killed may have written half of its last line.
            if number != len(lines) - 1:
                raise InvalidConfig(f"{path}: line {number + 1} is not JSON: mend or remove it.") from None
    return found


def _finite(value: Any) -> Any:
    """Return `value` with None in place of what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _ordered(first: Sequence[Any], rest: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*first, *rest)))
