"""Count what collectives move, whoever calls them: ours, and those of torch's data parallelism."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# torch's names of collectives begin so; the whole tensor of a gather or a scatter is the larger of the two given.
OPERATIONS = {"allreduce": "all_reduce", "allgather": "all_gather", "_allgather": "all_gather"}
OPERATIONS |= {"reduce_scatter": "reduce_scatter", "_reduce_scatter": "reduce_scatter"}


@dataclasses.dataclass(frozen=True)
class Call:
    """One collective among `ranks` ranks, and the bytes of the whole tensor."""

    operation: str
    ranks: int
    payload: int


class TrafficCounter(TorchDispatchMode):
    """Note the collectives that run in its context, in this thread: on a CPU the backward pass is in it too."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run what is asked for, and note it where it is a collective."""
        if func.namespace == "c10d":
            name = func._opname
            for start, operation in OPERATIONS.items():
                if name.startswith(start):
                    self.calls.append(Call(operation, _ranks(args), _payload(operation, args)))
                    break
        return func(*args, **(kwargs or {}))


def _ranks(args: tuple[Any, ...]) -> int:
    groups = [each for each in args if isinstance(each, torch.ScriptObject)]
    for each in groups:
        try:
            return dist.ProcessGroup.unbox(each).size()
        except (RuntimeError, TypeError):
            # Another kind of object: which operation to reduce with.
            continue
    raise AssertionError("a collective without a process group")


def _payload(operation: str, args: tuple[Any, ...]) -> int:
    sizes = [each.nbytes for each in tree_leaves(args) if isinstance(each, Tensor)]
    return sum(sizes) if operation == "all_reduce" else max(sizes)
