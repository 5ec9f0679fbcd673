"""Make things ahead of their use, in the order of their keys: in worker processes, in a thread, or on demand."""

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from lrm_ttt.errors import LrmTttError

K = TypeVar("K")
T = TypeVar("T")

# Batches that each worker has ready or at hand.
AHEAD_PER_WORKER = 2


class Loader(Generic[T]):
    """Give `make(key)` for one key after the other.

    `num_workers` processes make things that far ahead (`make` must then pickle), and a thread fetches the next one and
    hands it to `receive` while the present one is in use; without `ahead` all this waits until `next` is called.
    """

    def __init__(
        self, make: Callable[[K], T], keys: Iterator[K], num_workers: int, ahead: bool, receive: Callable[[T], T]
    ) -> None:
        made: Iterator[T] = map(make, keys) if num_workers == 0 else _in_workers(make, keys, num_workers)
        self.made: Iterator[T] | None = map(receive, made)
        # Always one and the same thread, so that a resumed run meets the same number of threads in every sum.
        self.pool = ThreadPoolExecutor(1, "scenes") if ahead else None
        self.pending: Future[T | None] | None = None
        # Workers leave when the iterator does. Where an error keeps that alive, the interpreter would wait for them.
        atexit.register(self.close)

    def next(self) -> T:
        """Return what comes next. Raises `StopIteration` behind the last key."""
        assert self.made is not None, "the loader is closed"
        if self.pool is None:
            return next(self.made)
        present = self.pending or self.pool.submit(self._fetch)
        self.pending = None
        result = present.result()
        if result is None:
            raise StopIteration
        self.pending = self.pool.submit(self._fetch)
        return result

    def close(self) -> None:
        """Wait for what is under way, and end the thread and the workers."""
        atexit.unregister(self.close)
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
        self.made = self.pending = self.pool = None

    def _fetch(self) -> T | None:
        # A future cannot carry StopIteration.
        return None if self.made is None else next(self.made, None)


class _Made(Dataset[Any]):
    """What a worker makes of a key."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __getitem__(self, key: Any) -> Any:
        return self.make(key)


def _in_workers(make: Callable[[K], T], keys: Iterator[K], num_workers: int) -> Iterator[T]:
    """Return each key's thing, made in one of `num_workers` processes, none of them a fork of this one.

    A fork would copy locks that threads of this process hold. The server that workers are forked from has imported
    what they need, once.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([make.__class__.__module__])
    loader = DataLoader(
        _Made(make),
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        prefetch_factor=AHEAD_PER_WORKER,
        collate_fn=_as_it_is,
        worker_init_fn=_begin_worker,
        multiprocessing_context=context,
        # Otherwise the numbers that PyTorch draws for its workers change all others that this process draws.
        generator=torch.Generator(),
    )
    # The workers begin now, in the thread that asks, and not when the first thing is waited for.
    return _explained(iter(loader))


def _explained(made: Iterator[T]) -> Iterator[T]:
    try:
        yield from made
    except (RuntimeError, ConnectionError, EOFError) as error:
        # Tensors are fetched from the process that made them, which may be gone before torch notices.
        if isinstance(error, RuntimeError) and "exited unexpectedly" not in str(error):
            raise
        raise LrmTttError(
            f"A process that reads scenes was killed ({error}), most often for want of memory or of shared memory "
            "(/dev/shm). Lower data.num_workers or the stage's batch_size, or give more; then resume."
        ) from error


def _as_it_is(made: T) -> T:
    return made


def _begin_worker(worker: int) -> None:
    """Live as long as the process that trains. Signals are left to it: it ends the workers once it has a checkpoint."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)


def _leave_with_parent() -> None:
    # PyTorch looks for another parent, which a fork of a server never gets. Nobody is left to tell of an exit.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
