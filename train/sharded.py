"""Parameters that FSDP2 shards over the ranks, and what is made of them."""

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be sharded as a whole one; all ranks must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this rank's shard of a whole tensor that all ranks have, where `like` is sharded."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def forget_gathered(model: nn.Module) -> None:
    """Let the next pass gather the parameters anew, since their shards were changed."""
    if isinstance(model, FSDPModule):
        model.reshard()
