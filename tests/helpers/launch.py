"""Run a function in several processes that know each other, as `accelerate launch` starts them."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def launch(world: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Call `function(*arguments)` in `world` processes with gloo; an error in one of them is raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_enter, (world, port, function, arguments), nprocs=world)


def _enter(rank: int, world: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    # Import hooks are not inherited: shapes were checked where one process runs.
    function(*arguments)
    if dist.is_initialized():
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this is the process that should write results."""
    return os.environ.get("RANK", "0") == "0"


def write(path: Path, value: Any) -> None:
    """Keep a result of the first process for the test to read."""
    if is_first():
        torch.save(value, path)
