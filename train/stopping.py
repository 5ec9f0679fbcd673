"""Signals that end a run in good order: preemption and impatience."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGTERM and SIGUSR1 are what schedulers send before they take a machine away.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopSignals:
    """Note which signal came; a second SIGINT, which is a person's, interrupts at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    @property
    def name(self) -> str:
        """What the signal is called."""
        return "another process" if self.received is None else signal.Signals(self.received).name

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals while the block runs, in the main thread (others cannot)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._note) for number in ENDING}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Schedulers and launchers may send the same signal twice, each for itself.
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
