"""Processes of their own, each with its own memory and so its own peak of it: one that breaks takes nothing with it.

They are forked from a server that has imported torch and done nothing else.
"""

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


def start_child(target: Callable[..., None], *arguments: Any, preload: Sequence[str]) -> tuple[BaseProcess, Connection]:
    """Begin `target(connection, *arguments)` and return its process and our end of the connection.

    The server imports the modules of `preload` before it forks; those of the first call count. Ctrl-C meanwhile is
    heard when the process has begun: a server that is asked for half a process ends, and takes a while to, in which
    nothing else can be started.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    with _interrupted_afterwards():
        process.start()
    theirs.close()
    return process, ours


@contextlib.contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Hold an interrupt back until the end of the block; only the main thread hears of any."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if held:
            signal.raise_signal(signal.SIGINT)


def explain(error: Exception) -> str:
    """Return the kind of an exception and the first line of what it says, short enough for a table."""
    said = str(error).strip().splitlines()
    return f"failed: {type(error).__name__}{': ' + said[0][:100].replace('|', '/') if said else ''}"
