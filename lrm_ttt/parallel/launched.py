"""Processes that `accelerate launch` or `torchrun` started, outside of training: all of them share one scene."""

import os

import torch
import torch.distributed as dist

from lrm_ttt.parallel.view_group import ALONE, ViewGroup, make_view_groups


def launched_rank() -> int:
    """Return which of the processes that were started together this is; 0 where there is one."""
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0


def own_device(device: torch.device) -> torch.device:
    """Return this process's own GPU, where `device` is any GPU."""
    if device.type != "cuda" or device.index is not None or "LOCAL_RANK" not in os.environ:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def join_launched(device: torch.device) -> ViewGroup:
    """Meet the other processes, and return the view group of all of them; `ALONE` where there are none."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return ALONE
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return make_view_groups(world)


def leave_launched() -> None:
    """Take leave of the other processes; what comes next each does alone."""
    if dist.is_initialized():
        dist.destroy_process_group()
