"""Processes of their own, each with its own memory and so its own peak of it: one that breaks takes nothing with it.

They are forked from a server that has imported torch and done nothing else.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


def start_child(target: Callable[..., None], *arguments: Any, preload: Sequence[str]) -> tuple[BaseProcess, Connection]:
    """Begin `target(connection, *arguments)` and return its process and our end of the connection.

    The server imports the modules of `preload` before it forks; those of the first call count.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def explain(error: Exception) -> str:
    """Return the kind of an exception and the first line of what it says, short enough for a table."""
    said = str(error).strip().splitlines()
    return f"failed: {type(error).__name__}{': ' + said[0][:100].replace('|', '/') if said else ''}"
