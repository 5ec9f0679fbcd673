"""The stages of a run: named, timed, and told to whoever listens; nothing is printed here."""

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class Listener(Protocol):
    """Hears how a run gets on."""

    def started(self, stage: str) -> None:
        """A stage begins."""

    def advanced(self, done: int, total: int) -> None:
        """Of the present stage `done` out of `total` steps are behind."""

    def finished(self, stage: str, seconds: float, detail: str) -> None:
        """A stage has ended; `detail` says in a few words what came out."""

    def noticed(self, sentence: str) -> None:
        """Something that the user should know."""


class Silence:
    """A listener that does nothing."""

    def started(self, stage: str) -> None:
        """Do nothing."""

    def advanced(self, done: int, total: int) -> None:
        """Do nothing."""

    def finished(self, stage: str, seconds: float, detail: str) -> None:
        """Do nothing."""

    def noticed(self, sentence: str) -> None:
        """Do nothing."""


class Stages:
    """Time the stages of one run on one device."""

    def __init__(self, device: torch.device, listener: Listener | None = None) -> None:
        self.device = device
        self.listener: Listener = listener or Silence()
        self.seconds: dict[str, float] = {}
        self._detail = ""

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Run a block as the stage `name`; work queued on the device belongs to it."""
        self.listener.started(name)
        self._detail = ""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.listener.finished(name, self.seconds[name], self._detail)

    def describe(self, detail: str) -> None:
        """Say what came out of the present stage."""
        self._detail = detail

    def advance(self, done: int, total: int) -> None:
        """Say how far the present stage is."""
        self.listener.advanced(done, total)
