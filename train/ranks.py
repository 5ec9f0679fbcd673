"""What the processes of a run do together: wrap the model, agree, and gather. One process alone agrees with itself."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.parallel.sharing import share_views
from lrm_ttt.parallel.view_group import make_view_groups
from lrm_ttt.scene.views import Views
from lrm_ttt.train.config import ParallelConfig
from lrm_ttt.train.data import Place


class Ranks:
    """The processes that `accelerate launch` started, cut into view groups; or this one alone."""

    def __init__(self, config: ParallelConfig, folder: Path, trackers: Sequence[str]) -> None:
        self.config = config
        # Gradients live in the buckets in which they travel, and are not held twice.
        buckets = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        self.accelerator = Accelerator(
            mixed_precision="no", log_with=list(trackers) or None, project_dir=str(folder), kwargs_handlers=[buckets]
        )
        self.device: torch.device = self.accelerator.device
        self.group = make_view_groups(config.ranks_per_scene)

    @property
    def count(self) -> int:
        """Processes of the run."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.accelerator.is_main_process

    @property
    def place(self) -> Place:
        """Where this process stands among those that draw batches."""
        return Place(self.group.index, self.group.num_groups, self.group.rank, self.group.size)

    def wrap(self, model: SceneModel) -> nn.Module:
        """Return the model to call in training: its gradients are the means over all ranks.

        Under `fsdp2` the model's own parameters, and whatever is made of them later, are sharded from now on. It is one
        unit, gathered whole for each pass: fast weights start from parameters that several passes read.
        """
        model.share(self.group)
        if self.count == 1:
            return model
        if self.config.strategy == "fsdp2":
            mesh = torch.distributed.device_mesh.init_device_mesh(self.device.type, (self.count,))
            fully_shard(model, mesh=mesh, reshard_after_forward=False)
            return model
        return cast(nn.Module, self.accelerator.prepare_model(model))

    def without_sync(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Return a context for one of several batches of a step: only the backward pass of the `last` reduces."""
        if isinstance(wrapped, FSDPModule):
            wrapped.set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else cast(AbstractContextManager[None], self.accelerator.no_sync(wrapped))

    def own_targets(self, targets: Views) -> Views:
        """Return those of the views `[b v]` that this rank renders: an equal share of its group's."""
        if not self.group.is_shared:
            return targets
        assert targets.shape[1] % self.group.size == 0, "the configuration was checked"
        return targets[:, list(share_views(targets.shape[1], self.group).own)]

    def add_up(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the sums over all ranks of a few numbers."""
        if self.count == 1:
            return dict(values)
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(values, total.tolist(), strict=True))

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the means over the ranks that have a value, by name."""
        rows = self.gather(dict(values))
        names = dict.fromkeys(name for row in rows for name in row)
        found = {name: [row[name] for row in rows if name in row] for name in names}
        return {name: sum(numbers) / len(numbers) for name, numbers in found.items()}

    def gather(self, value: Any) -> list[Any]:
        """Return what every rank has, in the order of the ranks."""
        return [value] if self.count == 1 else cast(list[Any], gather_object([value]))

    def from_main(self, value: Any) -> Any:
        """Return the main process's value."""
        return value if self.count == 1 else broadcast_object_list([value])[0]

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self.accelerator.wait_for_everyone()
