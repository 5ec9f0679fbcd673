"""Choose which views are inputs and which are held out."""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import InvalidConfig


@dataclasses.dataclass(frozen=True)
class ViewChoice:
    """Indices into the views of a `SceneSource`.

    `inputs` are shown to the model, `targets` are held out, `queries` read its memory.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    queries: tuple[int, ...]


def choose_views(
    source: SceneSource,
    *,
    num_inputs: int | None,
    hold_out: int | None,
    inputs: Sequence[int] | None = None,
    seed: int = 0,
) -> ViewChoice:
    """Return which views are inputs, targets and queries (the inputs again, as in tttLRM).

    With `hold_out` n every n-th view (index % n == 0) is a target and never an input. Of the rest all are inputs, or
    those listed in `inputs`, or `num_inputs` of them by k-means over camera centre and viewing direction: the protocol
    of Long-LRM and tttLRM for DL3DV-140, on the cameras of the capture's own frame. Raises `InvalidConfig` for a choice
    that the capture cannot give.
    """
    if hold_out is not None and hold_out < 2:
        raise InvalidConfig(f"--hold-out {hold_out}: every n-th view is held out, n is at least 2 (8 is usual).")
    targets = tuple(range(0, source.num_views, hold_out)) if hold_out else ()
    rest = [index for index in range(source.num_views) if index not in set(targets)]
    if inputs is not None:
        chosen = _listed(source, inputs, targets)
    elif num_inputs is None:
        chosen = tuple(rest)
    elif not 1 <= num_inputs <= len(rest):
        held = f", {len(targets)} of them held out" if targets else ""
        raise InvalidConfig(
            f"{num_inputs} input views asked for, but {source.name} has {source.num_views}{held}. "
            f"Ask for 1 to {len(rest)}."
        )
    else:
        chosen = spread(source, rest, num_inputs, seed)
    return ViewChoice(inputs=chosen, targets=targets, queries=chosen)


def _listed(source: SceneSource, inputs: Sequence[int], targets: tuple[int, ...]) -> tuple[int, ...]:
    outside = [index for index in inputs if not 0 <= index < source.num_views]
    held = sorted(set(inputs) & set(targets))
    if not inputs or outside or held or len(set(inputs)) < len(inputs):
        what = (
            f"{outside} are not among 0..{source.num_views - 1}"
            if outside
            else f"{held} are held out"
            if held
            else "a view is listed twice"
        )
        raise InvalidConfig(
            f"input views {list(inputs)} of {source.name}: {what if inputs else 'none'}. Correct the list."
        )
    return tuple(inputs)


def spread(source: SceneSource, among: Sequence[int], count: int, seed: int) -> tuple[int, ...]:
    """Return the views of `among` nearest to `count` k-means centres of (camera centre, forward axis), sorted."""
    from sklearn.cluster import KMeans

    cam_to_world = source.cam_to_world[list(among)].numpy()
    features = np.concatenate([cam_to_world[:, :3, 3], cam_to_world[:, :3, 2]], 1)
    with warnings.catch_warnings():
        # Views from one and the same place make fewer clusters than asked for; the loop below still finds enough views.
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        centres = KMeans(n_clusters=count, random_state=seed, n_init="auto").fit(features).cluster_centers_
    distances = np.linalg.norm(features[None] - centres[:, None], axis=-1)
    chosen: list[int] = []
    for row in distances:
        # Two centres may share their nearest view; the second one takes its next.
        chosen.append(next(int(view) for view in np.argsort(row, kind="stable") if int(view) not in chosen))
    return tuple(sorted(among[view] for view in chosen))
