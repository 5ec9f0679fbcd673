"""The benchmark from end to end with a model that takes no time, and what becomes of one that has no time."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lrm_ttt.errors import InvalidConfig, OutputExists
from lrm_ttt.eval.speed import run as module
from lrm_ttt.eval.speed.config import STAGES, ModelCase, SpeedConfig, Stage, default_config
from lrm_ttt.eval.speed.rows import NO_TIME, Row
from lrm_ttt.eval.speed.run import Options, benchmark
from lrm_ttt.eval.speed.timing import Timing
from lrm_ttt.kernels.newton_schulz.cpu import HAS_MATRIX_UNITS
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.config import BackboneConfig

CPU = torch.device("cpu")
CASE = ModelCase(2, (16, 32))
TINY = SpeedConfig(
    BackboneConfig(64, 2, 32, memory=MemoryConfig(64, 2)),
    (CASE, dataclasses.replace(CASE, training=True)),
    CASE,
    copy_mb=1,
    rasterizer_cases=((16, 16, 100),),
    sweep_case=(3, 16, 4),
    views_size=(8, 16),
    compiled=False,
    op_seconds=0.0,
    model_seconds=0.0,
)


def test_all_stages_are_written_said_and_returned(tmp_path: Path) -> None:
    said: list[str] = []
    options = Options(tmp_path / "out", 30.0, views=(2, 8))
    found = benchmark(TINY, options, CPU, said.append, "lrm-ttt benchmark speed")
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found | {"rows": list(found["rows"])}))
    assert set(found) == {"machine", "config", "rows", "summary", "kernels", "plot"}
    rows = [Row(**row) for row in found["rows"]]
    assert {row.stage for row in rows} == set(STAGES)
    without = [row.note for row in rows if row.ms is None]
    assert not without if HAS_MATRIX_UNITS else all("no AMX" in note for note in without)
    assert found["summary"]["no_time"] == found["summary"]["failed"] == found["summary"]["checks"]["failed"] == []
    assert all(row.check == "pass" for row in rows if row.stage == "ops" and row.ms is not None)
    assert all(row.share is not None for row in rows if row.stage == "model")
    assert set(found["summary"]["linearity"]) == {"ours, eager", "softmax mixer, eager"}

    folder = tmp_path / "out"
    assert {path.name for path in folder.iterdir()} == {"results.jsonl", "table.md", "plot.png"}
    written = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    moments = [line.pop("at_s") for line in written]
    assert moments == sorted(moments)
    assert written[0]["machine"] == found["machine"] and written[1:] == found["rows"]
    assert (folder / "table.md").read_text() == "\n".join(said) + "\n"
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_time_every_row_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    found = benchmark(TINY, Options(tmp_path, 1e-9, views=(2, 4)), CPU, said.append)
    assert {row["note"] for row in found["rows"]} == {NO_TIME}
    assert {row["stage"] for row in found["rows"]} == set(STAGES)
    assert found["plot"] is None
    assert sum(NO_TIME in line for line in said) == len(found["rows"])


def test_what_was_measured_before_an_interrupt_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(stage: Stage, *_: object) -> Iterator[Row]:
        yield Row(stage, "copy", unit="GB/s").timed(Timing.of([1.0]), 5e9)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_rows", rows)
    with pytest.raises(KeyboardInterrupt):
        benchmark(TINY, Options(tmp_path, 1.0), CPU, [].append)
    assert json.loads((tmp_path / "results.jsonl").read_text().splitlines()[-1])["rate"] == 5.0
    assert "| copy | - | - | 1,000 | 5 GB/s |" in (tmp_path / "table.md").read_text()


def test_an_earlier_result_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("an earlier one")
    with pytest.raises(OutputExists, match="--overwrite"):
        benchmark(TINY, Options(tmp_path, 1e-9, only=("ceilings",)), CPU, [].append)
    benchmark(TINY, Options(tmp_path, 1e-9, only=("ceilings",), overwrite=True), CPU, [].append)
    assert "# Speed" in (tmp_path / "table.md").read_text()
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(OutputExists, match=r"thesis\.tex"):
        benchmark(TINY, Options(tmp_path, 1e-9, overwrite=True), CPU, [].append)


@pytest.mark.parametrize("wrong", [{"minutes": 0.0}, {"minutes": float("nan")}, {"minutes": 1.0, "views": (8, 0)}])
def test_options_that_make_no_sense_are_refused(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"--minutes|--views"):
        Options(tmp_path, **wrong)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_sizes_are_whole_patches(kind: str) -> None:
    config = default_config(kind)
    sizes = [case.image_size for case in (*config.cases, config.memory_case)] + [config.views_size]
    assert all(side % config.patch_size == 0 for size in sizes for side in size)
