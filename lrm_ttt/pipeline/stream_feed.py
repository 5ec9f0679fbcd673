"""A capture that comes view by view, cut into the steps of a stream."""

import dataclasses
from collections.abc import Iterator

from lrm_ttt.data.assemble import DescribedCapture
from lrm_ttt.data.growing import follow
from lrm_ttt.pipeline.stream_config import StreamConfig


@dataclasses.dataclass(frozen=True)
class Passed:
    """The views of a capture that a stream has passed: those shown, in order, those held out, and the names of all."""

    shown: tuple[int, ...] = ()
    held_out: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
    """The views `new` that come next, the capture as it is listed by then, and what is passed with this step.

    The last step may have fewer views than asked for (not `is_full`).
    """

    capture: DescribedCapture
    new: tuple[int, ...]
    passed: Passed
    is_full: bool


def steps(config: StreamConfig, passed: Passed) -> Iterator[Step]:
    """Yield step after step from what is `passed` on; the last one may be short. Waits as `growing.follow` does."""
    room = None if config.max_views is None else config.max_views - len(passed.shown)
    if room is not None and room <= 0:
        return
    new: list[int] = []
    held_out, names = list(passed.held_out), list(passed.names)
    shown, capture = list(passed.shown), None
    for arrival in follow(config.source, config.timeout, passed.names):
        capture = arrival.capture
        # Views that were left out are passed too.
        names += [view.image_name for view in capture.views[len(names) : arrival.index + 1]]
        if is_held_out(arrival.index, config.hold_out):
            held_out.append(arrival.index)
            continue
        new.append(arrival.index)
        full = room is not None and len(shown) + len(new) - len(passed.shown) == room
        if len(new) == config.views_per_step or full:
            shown += new
            passed_now = Passed(tuple(shown), tuple(held_out), tuple(names))
            yield Step(capture, tuple(new), passed_now, len(new) == config.views_per_step)
            new = []
        if full:
            return
    if new and capture is not None:
        yield Step(capture, tuple(new), Passed((*shown, *new), tuple(held_out), tuple(names)), is_full=False)


def is_held_out(index: int, hold_out: int) -> bool:
    """Return whether a view is never shown: every n-th from the first on, n = `hold_out`, and none for 0."""
    return hold_out > 0 and index % hold_out == 0
