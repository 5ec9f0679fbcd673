"""Which views of a scene each rank of a group embeds, and how what the ranks made comes together again."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.parallel.collectives import gather
from lrm_ttt.parallel.view_group import ViewGroup


@dataclasses.dataclass(frozen=True)
class Sharing:
    """How the ranks of `group` share views: `ranks[r]` are the positions of rank r's, in the order it holds them.

    `chunks` is how many views of each chunk of an update this rank has; all chunks come one after another.
    """

    group: ViewGroup
    ranks: tuple[tuple[int, ...], ...]
    chunks: tuple[int, ...]

    @property
    def own(self) -> tuple[int, ...]:
        """Positions of this rank's views."""
        return self.ranks[self.group.rank]

    @property
    def num_views(self) -> int:
        """Views of all ranks."""
        return sum(map(len, self.ranks))

    def among(self, chosen: Sequence[int]) -> "Sharing":
        """Return how the ranks share the views `chosen`, of which each keeps those that it has.

        Positions are then those within `chosen`.
        """
        place = {view: index for index, view in enumerate(chosen)}
        ranks = tuple(tuple(place[view] for view in views if view in place) for views in self.ranks)
        return Sharing(self.group, ranks, ())

    def gather(self, tensor: Tensor, dim: int = 1, per_view: int = 1) -> Tensor:
        """Return what all ranks have in the order of the views; `dim` holds `per_view` entries for each view."""
        if not self.group.is_shared:
            return tensor
        joined = gather(self.group, tensor, [len(views) * per_view for views in self.ranks], dim)
        order = [view for views in self.ranks for view in views]
        if order == sorted(order):
            return joined
        place = torch.tensor(order, device=tensor.device).argsort()
        return joined.unflatten(dim, (-1, per_view)).index_select(dim, place).flatten(dim, dim + 1)


def share_views(num_views: int, group: ViewGroup, views_per_update: int | None = None) -> Sharing:
    """Share views evenly: of all of them, or of each chunk of `views_per_update`, a rank has a run of neighbours.

    Raises `InvalidConfig` where a rank would have no view at all.
    """
    if num_views < group.size:
        raise InvalidConfig(
            f"{num_views} views cannot be shared by {group.size} processes: give more views, or start fewer processes."
        )
    step = views_per_update or num_views
    ranks: list[list[int]] = [[] for _ in range(group.size)]
    chunks = []
    for start in range(0, num_views, step):
        size = min(step, num_views - start)
        bounds = [start + size * rank // group.size for rank in range(group.size + 1)]
        for rank in range(group.size):
            ranks[rank] += range(bounds[rank], bounds[rank + 1])
        chunks.append(bounds[group.rank + 1] - bounds[group.rank])
    if not all(ranks):
        raise InvalidConfig(
            f"Chunks of {step} views cannot be shared by {group.size} processes: start at most {step} a scene."
        )
    return Sharing(group, tuple(map(tuple, ranks)), tuple(chunks))
