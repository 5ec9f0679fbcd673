"""What a benchmark keeps, whatever happens to it: methods that fail, processes that die, runs that are ended."""

import dataclasses
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from lrm_ttt.data.files import open_image
from lrm_ttt.data.images import decode
from lrm_ttt.errors import InvalidConfig, OutputExists, UnreadableScene
from lrm_ttt.eval.benchmark.cells import Subset
from lrm_ttt.eval.benchmark.config import BenchmarkConfig, MethodConfig, ProceduralSetConfig, SceneSetConfig
from lrm_ttt.eval.benchmark.folder import read_rows
from lrm_ttt.eval.benchmark.run import Options, State, run_benchmark
from lrm_ttt.eval.list_file import read_lists
from lrm_ttt.eval.metrics import psnr
from lrm_ttt.render.video import write_png
from tests.helpers.fake_methods import build_fake, fake

MEASURED = {"seconds", "processor_seconds", "cell_seconds", "peak_memory_bytes", "date", "commit"}


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.states: list[State] = []
        self.sentences: list[str] = []

    def changed(self, state: State) -> None:
        self.states.append(state)

    def finished(self, row: Mapping[str, Any], state: State) -> None:
        self.rows.append(row)
        self.changed(state)

    def noticed(self, sentence: str) -> None:
        self.sentences.append(sentence)


def config(*methods: MethodConfig, **changes: Any) -> BenchmarkConfig:
    few = ProceduralSetConfig(objects=1, rooms=1, num_views=12, image_size=(16, 24))
    base = BenchmarkConfig("tiny", methods, views=(2, 3), procedural=few, threads=1)
    return dataclasses.replace(base, **changes)


def run(folder: Path, settings: BenchmarkConfig, **options: Any) -> tuple[State, Notes]:
    notes = Notes()
    return run_benchmark(settings, Options(folder, "cpu", **options), notes, build_fake), notes


def lasting(folder: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the rows of a folder by cell, without what is measured anew each time."""
    rows = read_rows(folder / "results.jsonl")
    return {
        (row["scene"], row["method"], row["views"]): {name: row[name] for name in row.keys() - MEASURED} for row in rows
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark") / "out"
    run(folder, config(fake("first"), fake("waits", __file__), workers=2))
    return folder


def test_every_cell_is_a_row_with_pictures(finished: Path) -> None:
    rows = lasting(finished)
    assert set(rows) == {(s, m, v) for s in ("object-0", "room-0") for m in ("first", "waits") for v in (2, 3)}
    lists = read_lists(finished / "view_lists.json").scenes
    for (scene, _, views), row in rows.items():
        assert row["status"] == "done" and row["num_gaussians"] == views and row["threads"] == 1
        assert tuple(row["inputs"]) == lists[scene].inputs[views] and tuple(row["targets"]) == lists[scene].targets
        assert row["targets"] == [0, 8] == [int(index) for index in row["pictures"]]
        for index, path in row["pictures"].items():
            drawn, truth = (read_png(finished / each) for each in (path, f"truths/{scene}/{index}.png"))
            # Eight bits a channel are all that a picture keeps of a rendering.
            each = row["psnr_each"][row["targets"].index(int(index))]
            assert float(psnr(drawn[None], truth[None])) == pytest.approx(each, abs=0.05)
        assert row["metrics"]["psnr"] == pytest.approx(statistics.fmean(row["psnr_each"]), abs=1e-5)
        assert row["metrics"]["depth_abs_rel"] > 0
    assert not (finished / "work").exists()


def test_a_finished_benchmark_is_left_as_it_is(finished: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.suffix in (".jsonl", ".json", ".png")
    }
    content = (finished / "results.jsonl").read_bytes()
    state, notes = run(finished, config(fake("first"), fake("waits", __file__), workers=2))
    assert (state.done, state.total, notes.rows) == (8, 8, [])
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert content == (finished / "results.jsonl").read_bytes()


def test_a_row_that_was_torn_is_made_again(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "out")
    rows = folder / "results.jsonl"
    rows.write_bytes(rows.read_bytes()[:-9])
    _, notes = run(folder, config(fake("first"), fake("waits", __file__), workers=2))
    assert len(notes.rows) == 1
    assert lasting(folder) == lasting(finished)
    assert len(rows.read_text().splitlines()) == 8


def test_a_run_that_is_killed_loses_what_was_running(finished: Path, tmp_path: Path) -> None:
    """It leaves no process behind either, and the next one goes on to the results of a run that was not killed."""
    flag, folder = tmp_path / "flag", tmp_path / "out"
    settings = config(fake("first"), fake("waits", flag), workers=2)
    process = multiprocessing.get_context("forkserver").Process(target=run, args=(folder, settings))
    process.start()
    cells = wait_for(lambda: len(pids := waiting(tmp_path)) == 2 and pids)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    wait_for(lambda: not any(map(alive, cells)))
    before = read_rows(folder / "results.jsonl")
    assert before and {row["method"] for row in before} == {"first"}
    flag.touch()
    _, notes = run(folder, settings)
    assert len(notes.rows) == 8 - len(before)
    assert lasting(folder) == lasting(finished)


def test_what_fails_is_a_row_and_is_run_again(tmp_path: Path) -> None:
    flag, folder = tmp_path / "flag", tmp_path / "out"
    settings = config(fake("breaks", flag), fake("first"), fake("dies", flag), views=(2,))
    state, _ = run(folder, settings)
    rows = lasting(folder)
    assert (state.done, state.failed, state.total) == (6, 4, 6)
    assert rows["room-0", "first", 2]["status"] == "done"
    assert rows["room-0", "breaks", 2]["error"] == "RuntimeError: this one breaks as it should"
    assert "one_gaussian_a_view" not in rows["room-0", "breaks", 2]["traceback"]
    assert "killed by signal 9" in rows["room-0", "dies", 2]["error"]
    table = (folder / "table.md").read_text()
    assert "* breaks on object-0, 2 views: RuntimeError: this one breaks as it should" in table
    flag.touch()
    state, notes = run(folder, settings)
    assert (state.done, state.failed, len(notes.rows)) == (6, 0, 4)
    assert len(read_rows(folder / "results.jsonl")) == 6
    assert "fails" not in (folder / "table.md").read_text()


def test_an_interrupt_ends_everything_and_keeps_the_table(tmp_path: Path) -> None:
    class Interrupts(Notes):
        def changed(self, state: State) -> None:
            if len(waiting(tmp_path)) == 1:
                raise KeyboardInterrupt

    settings = config(fake("first"), fake("waits", tmp_path / "flag"), views=(2,))
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(settings, Options(tmp_path / "out", "cpu"), Interrupts(), build_fake)
    assert not any(map(alive, waiting(tmp_path)))
    assert "3 of 4 cells have not been run" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "report.html").is_file()


def test_another_benchmark_is_not_mixed_in(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "out")
    same = config(fake("first"), fake("waits", __file__), workers=2)
    with pytest.raises(OutputExists, match=r"methods\[1\].name is \"waits\" there and \"other\" here.*--overwrite"):
        run(folder, dataclasses.replace(same, methods=(fake("first"), fake("other"))))
    with pytest.raises(OutputExists, match="workers is 2 there and 1 here"):
        run(folder, dataclasses.replace(same, workers=1))
    assert lasting(folder) == lasting(finished)
    # Where the captures lie changes nothing.
    assert not run(folder, dataclasses.replace(same, data="elsewhere"))[1].rows
    anew = config(fake("first"), views=(2,))
    assert len(run(folder, anew, overwrite=True)[1].rows) == 2 == len(lasting(folder))
    assert not (folder / "renders" / "room-0" / "3").exists()


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for overwrite in (False, True):
        with pytest.raises(OutputExists, match=r"thesis\.tex"):
            run(tmp_path, config(fake("first")), overwrite=overwrite)


def test_a_part_now_and_the_rest_later(finished: Path, tmp_path: Path) -> None:
    folder, settings = tmp_path / "out", config(fake("first"), fake("waits", __file__), workers=2)
    state, _ = run(folder, settings, subset=Subset(("first",), ("room-0",), (3,)), command="a part")
    assert (state.done, state.total) == (1, 1)
    assert list(lasting(folder)) == [("room-0", "first", 3)]
    assert json.loads((folder / "benchmark.json").read_text())["runs"][0]["only"]["views"] == [3]
    assert len(run(folder, settings, command="the rest")[1].rows) == 7
    assert lasting(folder) == lasting(finished)
    assert "`a part` ran a part of it." in (folder / "table.md").read_text()
    with pytest.raises(InvalidConfig, match=r"--only-methods wait: .* did you mean 'waits'"):
        run(folder, settings, subset=Subset(("wait",)))


def test_scenes_and_views_that_are_not_there(tmp_path: Path) -> None:
    settings = config(fake("first"), scenes=(SceneSetConfig("desk"),), views=(2, 11), data=str(tmp_path / "none"))
    with pytest.raises(UnreadableScene, match=r"none/desk: there is no such scene.*--data.*--allow-missing"):
        run(tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
    state, notes = run(tmp_path / "out", settings, allow_missing=True)
    # Of 12 views 10 are left as inputs.
    assert state.total == 2 and len(notes.sentences) == 3
    table = (tmp_path / "out" / "table.md").read_text()
    assert "desk is not there, and was left out" in table and "room-0 with 11 inputs" in table
    write_capture(tmp_path / "data" / "object-0")
    twice = config(fake("first"), scenes=(SceneSetConfig("data", image_size=(16, 16)),), data=str(tmp_path))
    with pytest.raises(InvalidConfig, match="object-0 would be there twice"):
        run(tmp_path / "out", twice)


def test_one_run_at_a_time_writes_to_a_folder(finished: Path) -> None:
    descriptor = os.open(finished, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(OutputExists, match="another run writes here"):
            run(finished, config(fake("first")))
    finally:
        os.close(descriptor)


def write_capture(folder: Path) -> None:
    """Write two views as an opencv_cameras.json with its images."""
    folder.mkdir(parents=True)
    frame = {"w": 16, "h": 16, "fx": 20, "fy": 20, "cx": 8, "cy": 8}
    frames = []
    for index in range(2):
        write_png(folder / f"{index}.png", torch.full((3, 16, 16), 0.5))
        pose = torch.eye(4)
        pose[0, 3] = index
        frames.append({**frame, "file_path": f"{index}.png", "w2c": pose.tolist()})
    (folder / "opencv_cameras.json").write_text(json.dumps({"frames": frames}))


def read_png(path: Path) -> torch.Tensor:
    with open_image(path) as image:
        return decode(image)[0]


def waiting(folder: Path) -> list[int]:
    """Return the processes that have said there that they wait."""
    return [int(path.name.split("-")[1]) for path in folder.glob("waiting-*")]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until a condition holds, and return what it gives."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found
