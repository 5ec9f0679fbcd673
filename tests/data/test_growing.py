"""A capture that grows gives the views of the finished one, in order, each when it is whole and none twice."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lrm_ttt.data import growing
from lrm_ttt.data.growing import follow, listed_poses, select
from lrm_ttt.data.images import load_views
from lrm_ttt.data.open_scene import describe_scene, open_scene
from lrm_ttt.errors import UnreadableScene
from tests.data.captures import make_capture, write_transforms
from tests.data.refusals import change

NUM_VIEWS = 5


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return write_transforms(tmp_path / "finished", make_capture(NUM_VIEWS))


class Clock:
    """Time that passes only while somebody waits; what others do meanwhile happens at its time."""

    def __init__(self, *events: tuple[float, Callable[[], object]]) -> None:
        self.now, self.events = 0.0, sorted(events, key=lambda event: event[0])

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.events and self.events[0][0] <= self.now:
            self.events.pop(0)[1]()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    """Return a function that lets things happen at their time."""

    def start(*events: tuple[float, Callable[[], object]]) -> Clock:
        clock = Clock(*events)
        monkeypatch.setattr(growing, "time", clock)
        return clock

    return start


class Recorder:
    """A program that writes the finished capture again, piece by piece."""

    def __init__(self, finished: Path, folder: Path) -> None:
        self.finished, self.folder = finished, folder
        self.content = json.loads((finished / "transforms.json").read_text())
        (folder / "images").mkdir(parents=True)

    def list(self, count: int, share: float = 1.0) -> None:
        text = json.dumps({**self.content, "frames": self.content["frames"][:count]})
        (self.folder / "transforms.json").write_text(text[: round(share * len(text))])

    def save(self, index: int, share: float = 1.0) -> None:
        name = Path("images") / f"{index:03d}.png"
        content = (self.finished / name).read_bytes()
        (self.folder / name).write_bytes(content[: round(share * len(content))])

    def record(self, index: int) -> None:
        self.save(index)
        self.list(index + 1)


@pytest.fixture
def recorder(finished: Path, tmp_path: Path) -> Recorder:
    return Recorder(finished, tmp_path / "growing")


def indices(arrivals: Iterator[growing.Arrival]) -> list[int]:
    return [arrival.index for arrival in arrivals]


def test_a_finished_capture_is_followed_to_its_end_at_once(finished: Path, at: Callable[..., Clock]) -> None:
    clock = at()
    assert indices(follow(finished)) == list(range(NUM_VIEWS))
    assert indices(follow(finished, seen=["images/000.png", "images/001.png"])) == [2, 3, 4]
    assert clock.now == 0


def test_chosen_views_are_those_of_the_opened_capture(finished: Path) -> None:
    source, capture = open_scene(finished), describe_scene(finished)
    chosen, expected = load_views(select(capture, [3, 0]), [0, 1]), load_views(source, [3, 0])
    assert torch.equal(chosen.images, expected.images)
    assert torch.equal(chosen.cameras.cam_to_world, expected.cameras.cam_to_world)
    assert torch.equal(chosen.cameras.intrinsics, expected.cameras.intrinsics)
    assert torch.equal(listed_poses(capture, range(NUM_VIEWS)), source.cam_to_world)


def test_cameras_are_known_before_their_images(finished: Path) -> None:
    expected = open_scene(finished).cam_to_world
    for path in (finished / "images").iterdir():
        path.unlink()
    assert torch.equal(listed_poses(describe_scene(finished), range(NUM_VIEWS)), expected)


def test_views_come_when_they_are_recorded(recorder: Recorder, at: Callable[..., Clock]) -> None:
    clock = at(*((2.0 * index, lambda index=index: recorder.record(index)) for index in range(1, NUM_VIEWS)))
    recorder.record(0)
    came = []
    for arrival in follow(recorder.folder, timeout_s=3.0):
        came.append((arrival.index, round(clock.now / 2)))
        # The image is whole at this moment.
        load_views(select(arrival.capture, [arrival.index]), [0])
    assert came == [(index, index) for index in range(NUM_VIEWS)]
    assert clock.now == pytest.approx(2 * (NUM_VIEWS - 1) + 3, abs=0.3)


def test_half_an_image_is_waited_for_and_the_order_kept(recorder: Recorder, at: Callable[..., Clock]) -> None:
    clock = at((1.0, lambda: recorder.save(1, 0.5)), (2.0, lambda: recorder.save(1)))
    recorder.list(NUM_VIEWS)
    for index in (0, 2, 3, 4):
        recorder.save(index)
    came = {arrival.index: clock.now for arrival in follow(recorder.folder, timeout_s=5.0)}
    assert list(came) == list(range(NUM_VIEWS))
    assert came[0] == 0 and came[1] == came[4] == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_half_a_description_is_waited_for(recorder: Recorder, at: Callable[..., Clock], share: float) -> None:
    at((1.0, lambda: recorder.list(4, share)), (2.0, lambda: recorder.list(4)))
    for index in range(NUM_VIEWS):
        recorder.save(index)
    recorder.list(2)
    assert indices(follow(recorder.folder, timeout_s=2.5)) == [0, 1, 2, 3]


def test_a_folder_may_appear_later(recorder: Recorder, at: Callable[..., Clock]) -> None:
    place = recorder.folder.rename(recorder.folder.with_name("elsewhere"))
    at((1.0, lambda: place.rename(recorder.folder)), (1.5, lambda: recorder.record(0)))
    assert indices(follow(recorder.folder, timeout_s=2.0)) == [0]


def test_what_cannot_be_read_in_time_is_refused(recorder: Recorder, at: Callable[..., Clock]) -> None:
    clock = at()
    recorder.list(4, 0.5)
    with pytest.raises(UnreadableScene, match="not JSON"):
        next(follow(recorder.folder, timeout_s=2.0))
    assert clock.now == pytest.approx(2, abs=0.2)
    with pytest.raises(UnreadableScene, match="no such folder"):
        next(follow(recorder.folder / "nowhere"))


def test_the_stream_outlives_a_description_that_breaks(
    recorder: Recorder, at: Callable[..., Clock], caplog: pytest.LogCaptureFixture
) -> None:
    at((0.5, lambda: recorder.list(3, 0.3)))
    recorder.record(0)
    with caplog.at_level(logging.WARNING):
        assert indices(follow(recorder.folder, timeout_s=1.0)) == [0]
    assert "not JSON" in caplog.text


def test_images_that_never_come_are_left_out(
    recorder: Recorder, at: Callable[..., Clock], caplog: pytest.LogCaptureFixture
) -> None:
    clock = at()
    recorder.list(NUM_VIEWS)
    for index in (0, 3):
        recorder.save(index)
    with caplog.at_level(logging.WARNING):
        came = [(arrival.index, round(clock.now)) for arrival in follow(recorder.folder, timeout_s=2.0)]
    # One wait each time for what is missing, however much it is.
    assert came == [(0, 0), (3, 2)] and round(clock.now) == 4
    left_out = [record.getMessage() for record in caplog.records]
    assert len(left_out) == 2 and "001.png, images/002.png" in left_out[0] and "004.png" in left_out[1]


def test_what_was_listed_once_stays(
    recorder: Recorder, at: Callable[..., Clock], caplog: pytest.LogCaptureFixture
) -> None:
    """Poses that are refined later do not move what was seen; another order of the views ends the stream."""
    first = recorder.content["frames"][0]["transform_matrix"][0][3]

    def move() -> None:
        recorder.content["frames"][0]["transform_matrix"][0][3] += 1
        recorder.record(2)

    def reverse() -> None:
        recorder.content["frames"].reverse()
        recorder.record(3)

    at((0.5, move), (1.5, reverse))
    recorder.save(1)
    recorder.save(0)
    recorder.list(2)
    with caplog.at_level(logging.WARNING):
        arrivals = list(follow(recorder.folder, timeout_s=1.2))
    assert [arrival.index for arrival in arrivals] == [0, 1, 2]
    assert listed_poses(arrivals[-1].capture, [0])[0, 0, 3] == pytest.approx(first)
    assert "lists images/004.png where it listed images/000.png" in caplog.text


def test_other_views_than_those_seen_are_refused(finished: Path, at: Callable[..., Clock]) -> None:
    at()
    with pytest.raises(UnreadableScene, match=r"lists images/000.png where it listed other.png"):
        next(follow(finished, seen=["other.png"]))
    change(finished, lambda content: content.update(frames=content["frames"][:1]))
    with pytest.raises(UnreadableScene, match=r"lists nothing where it listed images/001.png"):
        next(follow(finished, seen=["images/000.png", "images/001.png"]))
