"""Processes for what is measured, so that one that takes too long, or breaks, is only a row of the table."""

import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from lrm_ttt.eval.children import explain, start_child
from lrm_ttt.eval.speed.timing import Budget, OutOfTime

# Between the end of its budget and the end of a process, which looks at the clock itself.
GRACE_S = 5.0
LEAVING_S = 1.0


class Failed(Exception):
    """What was asked for raised an exception, or the process died."""


class Child:
    """A process that answers requests; `serve(*arguments)` runs there and returns the function that answers.

    It starts with the first request, and anew with the next one after it was too slow, or failed.
    """

    def __init__(self, serve: Callable[..., Callable[[Any], Any]], *arguments: Any) -> None:
        self._target = (serve, arguments)
        self._running: tuple[BaseProcess, Connection] | None = None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, request: Any, budget: Budget) -> Any:
        """Return the answer; raises `OutOfTime` or `Failed`."""
        process, connection = self._running = self._running or self._start()
        try:
            connection.send(request)
            answer = connection.recv() if connection.poll(max(budget.left, 0.0)) else OutOfTime()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            process.join()
            answer = Failed(f"failed: the process ended with status {process.exitcode}")
        if isinstance(answer, Failed | OutOfTime):
            self.end()
            raise answer
        return answer

    def end(self) -> None:
        """End the process, whatever it is doing."""
        if self._running is not None:
            process, connection = self._running
            # One that waits for a request finds that there will be none, and leaves in good order.
            connection.close()
            process.join(LEAVING_S)
            process.kill()
            process.join()
        self._running = None

    def _start(self) -> tuple[BaseProcess, Connection]:
        return start_child(_answer, *self._target, preload=["lrm_ttt.eval.speed.run"])


def stream(generate: Callable[..., Iterator[Any]], *arguments: Any, budget: Budget) -> Iterator[Any]:
    """Yield what `generate(*arguments)` yields, never None, in a process of its own; raises `OutOfTime` or `Failed`."""
    with Child(_next_of, generate, arguments) as child:
        while (item := child.ask(None, Budget(budget.until + GRACE_S, budget.clock))) is not None:
            yield item


def _next_of(generate: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> Callable[[None], Any]:
    items = generate(*arguments)
    return lambda _: next(items, None)


def _answer(connection: Connection, serve: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    """Build what answers with the first request, and answer until the parent closes the connection."""
    # An interrupt is the parent's business, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer: Callable[[Any], Any] | None = None
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            answer = answer or serve(*arguments)
            reply = answer(request)
        except OutOfTime as error:
            reply = error
        # Whatever goes wrong in a measurement (a compiler, a kernel, memory) is a row of the table.
        except Exception as error:  # noqa: BLE001
            reply = Failed(explain(error))
        try:
            connection.send(reply)
        except (BrokenPipeError, ConnectionResetError):
            # It took too long, and nobody waits any more.
            return
