"""Things that are made ahead of their use."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lrm_ttt.train.loader import Loader
from tests.helpers.shared import CHECKOUT

MANY = """
import multiprocessing, time
from lrm_ttt.train.loader import Loader
if __name__ == "__main__":
    loader = Loader(abs, iter(range(100)), 2, True, abs)
    loader.next()
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    {then}
"""


def double(number: int) -> int:
    return 2 * number


def negative(number: int) -> int:
    return -number


@pytest.mark.parametrize(("num_workers", "ahead"), [(0, False), (0, True), (2, True)])
def test_things_come_in_the_order_of_their_keys(num_workers: int, ahead: bool) -> None:
    loader = Loader(double, iter(range(9)), num_workers, ahead, negative)
    assert [loader.next() for _ in range(9)] == [-2 * number for number in range(9)]
    with pytest.raises(StopIteration):
        loader.next()
    loader.close()
    loader.close()


def test_one_thing_is_made_ahead() -> None:
    begun = [threading.Event() for _ in range(9)]

    def make(number: int) -> int:
        begun[number].set()
        return number

    ahead = Loader(make, iter(range(5)), 0, True, double)
    assert ahead.next() == 0 and begun[1].wait(10)
    ahead.close()
    plain = Loader(make, iter(range(5, 9)), 0, False, double)
    assert plain.next() == 10
    assert [event.is_set() for event in begun] == [True, True, False, False, False, True, False, False, False]


@pytest.mark.slow
def test_workers_never_outlive_the_process() -> None:
    """Killed it cannot tell them; after an error it must not wait for workers that leave signals to it."""
    for then in ("time.sleep(60)", "raise ValueError"):
        code = [sys.executable, "-c", MANY.format(then=then)]
        with subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=CHECKOUT) as run:
            assert run.stdout is not None
            workers = [int(pid) for pid in run.stdout.readline().split()]
            assert len(workers) == 2
            if "sleep" in then:
                run.send_signal(signal.SIGKILL)
            run.wait(30)
        deadline = time.monotonic() + 10
        while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(is_running(pid) for pid in workers)


def is_running(pid: int) -> bool:
    """Return whether a process lives; one that is dead and was not waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(status.strip()) and not status.strip().startswith("Z")
