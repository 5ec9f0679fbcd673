"""Lists of which views of a scene are inputs and which are targets: one small JSON format, read and written."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrm_ttt.data.benchmark_scenes import HASH
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.view_sampler import ViewChoice, choose_views
from lrm_ttt.errors import InvalidConfig

LONG_LRM_KEY = re.compile(r"fold_8_kmeans_(\d+)_input")


@dataclasses.dataclass(frozen=True)
class SceneViews:
    """The inputs of one scene by their number, and its targets (None: every n-th view, as the lists' `hold_out` says).

    Indices count the views in the order of the capture's description, or of their names for COLMAP. Targets that are
    listed are taken as they are: in published lists some are inputs too.
    """

    inputs: Mapping[int, tuple[int, ...]]
    targets: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class ViewLists:
    """The views of many scenes, by the name that `list_key` gives each; `source` and `licence` are for the reader."""

    protocol: str
    source: str
    licence: str
    scenes: Mapping[str, SceneViews]
    hold_out: int | None = None

    def choose(self, source: SceneSource, count: int, seed: int = 0) -> ViewChoice:
        """Return the choice for `count` inputs: the listed one, or by k-means from what is not a target.

        Only lists with `hold_out` can go on by k-means. Raises `InvalidConfig` for what neither gives, and for indices
        that the capture does not have.
        """
        views = self.scenes.get(list_key(source.name), SceneViews({}))
        listed = views.inputs.get(count)
        if views.targets is None and self.hold_out is not None:
            return choose_views(source, num_inputs=count, hold_out=self.hold_out, inputs=listed, seed=seed)
        if listed is None or views.targets is None:
            known = ", ".join(map(str, sorted(views.inputs))) or "none"
            raise InvalidConfig(
                f"view lists {self.protocol}: no list of {count} input views of {source.name} (there are: {known}). "
                "Ask for a number that is listed, or take a protocol that holds views out (hold_out_8)."
            )
        outside = [index for index in (*listed, *views.targets) if not 0 <= index < source.num_views]
        if outside:
            raise InvalidConfig(
                f"view lists {self.protocol}: {outside} are not among the views 0..{source.num_views - 1} of "
                f"{source.name}. Correct the list."
            )
        return ViewChoice(inputs=listed, targets=views.targets, queries=listed)


def list_key(name: str) -> str:
    """Return a scene's name in a list: the identifier of a DL3DV scene where its name has one, else its last part."""
    found = HASH.search(name.lower())
    return found.group() if found else name.rsplit("/", 1)[-1].lower()


def write_lists(path: Path, lists: ViewLists) -> None:
    """Write lists to be read again by `read_lists`, a line for each scene."""
    head = {name: getattr(lists, name) for name in ("protocol", "source", "licence", "hold_out")}
    scenes = []
    for name, views in sorted(lists.scenes.items()):
        entry: dict[str, Any] = {str(count): list(inputs) for count, inputs in sorted(views.inputs.items())}
        if views.targets is not None:
            entry["targets"] = list(views.targets)
        scenes.append(f"{json.dumps(name)}:{json.dumps(entry, separators=(',', ':'))}")
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head.items()]
    path.write_text("\n".join(["{", *lines, '"scenes": {', ",\n".join(scenes), "}", "}", ""]), encoding="utf-8")


def read_lists(path: Path) -> ViewLists:
    """Read what `write_lists` wrote; raises `InvalidConfig` for a file that is missing or another."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        scenes = {name: _scene_views(entry) for name, entry in content["scenes"].items()}
        head = {name: str(content.get(name, "")) for name in ("protocol", "source", "licence")}
        hold_out = content.get("hold_out")
        if hold_out is not None and (type(hold_out) is not int or hold_out < 2):
            raise ValueError(f"hold_out is {hold_out!r}, where a number from 2 belongs")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise InvalidConfig(
            f"{path}: cannot be read as view lists ({reason}). Give a file like those in eval/view_lists: "
            '{"protocol": NAME, "hold_out": 8, "scenes": {SCENE: {"16": [INDICES], "targets": [INDICES]}}}.'
        ) from error
    return ViewLists(**head, scenes=scenes, hold_out=hold_out)


def of_long_lrm(entries: Sequence[Mapping[str, Any]]) -> dict[str, SceneViews]:
    """Return the scenes of a list of Long-LRM's: entries with a scene_name and fold_8_kmeans_N_input for some N."""
    return {
        str(entry["scene_name"]): SceneViews(
            {int(found[1]): tuple(views) for key, views in entry.items() if (found := LONG_LRM_KEY.fullmatch(key))}
        )
        for entry in entries
    }


def of_pixelsplat(index: Mapping[str, Mapping[str, Sequence[int]] | None]) -> dict[str, SceneViews]:
    """Return the scenes of an evaluation index of pixelSplat and its followers, without those that are null."""
    return {
        name: SceneViews({len(views["context"]): tuple(views["context"])}, tuple(views["target"]))
        for name, views in index.items()
        if views is not None
    }


def _scene_views(entry: Mapping[str, Any]) -> SceneViews:
    inputs = {int(count): _indices(values) for count, values in entry.items() if count != "targets"}
    wrong = [count for count, values in inputs.items() if len(values) != count]
    if wrong:
        raise ValueError(f"the list of {wrong[0]} inputs has {len(inputs[wrong[0]])}")
    return SceneViews(inputs, _indices(entry["targets"]) if "targets" in entry else None)


def _indices(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{str(values)[:60]!r} is no list of indices")
    if len(set(values)) < len(values):
        raise ValueError(f"{str(values)[:60]} names a view twice")
    return tuple(values)
