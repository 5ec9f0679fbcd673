"""View groups: the ranks that share the views of one scene."""

import dataclasses
from typing import cast

import torch.distributed as dist

from lrm_ttt.errors import InvalidConfig


@dataclasses.dataclass(frozen=True)
class ViewGroup:
    """`size` ranks that share one scene, of which this process is number `rank`; `index` tells the groups apart.

    With `process_group` None the group is a single process, which needs nobody.
    """

    rank: int = 0
    size: int = 1
    index: int = 0
    num_groups: int = 1
    process_group: dist.ProcessGroup | None = None

    @property
    def is_shared(self) -> bool:
        """Whether there are others to share with."""
        return self.size > 1


# What a model knows until it is told of others.
ALONE = ViewGroup()


def make_view_groups(ranks_per_scene: int) -> ViewGroup:
    """Cut the world into groups of `ranks_per_scene` consecutive ranks, and return the one of this process.

    All processes must call it together. Raises `InvalidConfig` where the size of the world is not divisible.
    """
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    if world % ranks_per_scene:
        raise InvalidConfig(
            f"parallel.ranks_per_scene is {ranks_per_scene}, which does not divide the {world} processes of this run. "
            f"Start a multiple of {ranks_per_scene} processes, or set it to a divisor of {world}."
        )
    num_groups = world // ranks_per_scene
    index, place = divmod(rank, ranks_per_scene)
    if ranks_per_scene == 1:
        return ViewGroup(index=index, num_groups=num_groups)
    # Every process takes part in making every group.
    made = [dist.new_group(list(range(i * ranks_per_scene, (i + 1) * ranks_per_scene))) for i in range(num_groups)]
    return ViewGroup(place, ranks_per_scene, index, num_groups, cast(dist.ProcessGroup, made[index]))
