"""What must go on working, whatever happens while a process begins."""

import os
import signal
import socket
from multiprocessing.connection import Connection
from typing import Any

import pytest

from lrm_ttt.eval.children import start_child

PRELOAD = ("lrm_ttt.eval.children",)


def say(connection: Connection, word: str) -> None:
    """Send one word, and end."""
    connection.send(word)


class Interrupted(socket.socket):
    """Ctrl-C is pressed between the connection to the server and the request."""

    def connect(self, address: Any) -> None:
        """Connect, and be interrupted."""
        super().connect(address)
        os.kill(os.getpid(), signal.SIGINT)


def heard() -> str:
    process, connection = start_child(say, "here", preload=PRELOAD)
    word: str = connection.recv()
    process.join()
    return word


def test_an_interrupted_start_leaves_the_next_one_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heard() == "here"
    with monkeypatch.context() as context:
        context.setattr(socket, "socket", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            heard()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert heard() == "here"
