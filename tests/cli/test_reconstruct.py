"""Bad input: one message that says what, where and what now, exit status 2, and nothing written."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from lrm_ttt import cli
from lrm_ttt.errors import LrmTttError
from lrm_ttt.model.checkpoint import save_pretrained
from lrm_ttt.pipeline import slicing
from lrm_ttt.pipeline.memory import out_of_memory_explained
from tests.cli.typed import refused
from tests.helpers.shared import CHECKOUT
from tests.pipeline.make import HEIGHT, WIDTH, make_model, write_capture, write_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_capture(folder / "capture")
    write_checkpoint(folder / "model")
    foreign = folder / "foreign"
    save_pretrained(make_model(), foreign, weights={"encoder.weight": torch.zeros(2, 3)})
    (folder / "results").mkdir()
    return folder


def words(place: Path, *more: str) -> list[str]:
    return ["reconstruct", str(place / "capture"), "--checkpoint", str(place / "model"), *more]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--views", "1"], ["--views 1", "at least two"]),
        (["--views", "3,"], ["--views 3,", "at least two"]),
        (["--views", "many"], ["--views many", "all"]),
        (["--views", "40"], ["40 input views", "capture"]),
        (["--views", "0,1,2"], ["held out", "0"]),
        (["--views", "1,2,99"], ["99"]),
        (["--virtual", "0"], ["--virtual 0", "./0"]),
        (["--virtual", "8"], ["--virtual 8", "only 7 input views"]),
        (["--virtual", "no/such/capture"], ["no/such/capture"]),
        (["--hold-out", "1"], ["--hold-out 1", "0 for none"]),
        (["--image-size", "50", "64"], ["50 64", "8x8", "Take 48 64"]),
        (["--image-size", "4", "4"], ["4 4", "8x8"]),
        (["--keep-fraction", "0"], ["--keep-fraction 0"]),
        (["--refine", "-1"], ["--refine -1"]),
        (["--memory-budget", "4"], ["--memory-budget 4", "4GB"]),
        (["--memory-budget", "100MB"], ["--memory-budget 0.10GB", "one view at a time"]),
        (["--background", "2", "0", "0"], ["--background 2 0 0"]),
        (["--device", "tpu"], ["--device tpu", "cuda:N"]),
        (["--device", "cuda:99"], ["--device cuda:99"]),
        (["--backend", "gsplat", "--device", "cpu"], ["gsplat", "lrm-ttt doctor"]),
        (["--checkpoint", "no/such/folder"], ["no/such/folder"]),
        (["--checkpoint", "FOREIGN"], ["encoder.weight", "missing"]),
    ],
)
def test_bad_flags(place: Path, flags: list[str], said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = [str(place / "foreign") if flag == "FOREIGN" else flag for flag in flags]
    out = place / "results" / "out"
    message = refused(words(place, "-o", str(out), *flags), capsys)
    assert all(word in message for word in said), message
    assert not list((place / "results").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_absent_gpu(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(place, "-o", str(place / "results" / "out"), "--device", "cuda")) == cli.USERS_MISTAKE
    assert "--device cpu" in capsys.readouterr().err
    assert not list((place / "results").iterdir())


def test_too_few_views_are_left(tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_capture(tmp_path / "two", num_views=2)
    flags = ["-o", str(tmp_path / "out"), "--checkpoint", str(place / "model")]
    assert cli.main(["reconstruct", str(tmp_path / "two"), *flags]) == cli.USERS_MISTAKE
    assert "--hold-out 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_broken_image_is_found_while_reading(tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The header is sound, so the run has begun when it fails: an earlier result stays as it was."""
    path = write_capture(tmp_path / "capture") / "images" / "001.png"
    path.write_bytes(path.read_bytes()[:-200])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("earlier")
    flags = ["-o", str(tmp_path / "out"), "--checkpoint", str(place / "model"), "--overwrite"]
    assert cli.main(["reconstruct", str(tmp_path / "capture"), *flags]) == cli.USERS_MISTAKE
    assert "001.png" in capsys.readouterr().err
    assert (tmp_path / "out" / "metrics.json").read_text() == "earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"capture", "out"}


def test_a_dry_run_says_what_to_expect_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(place, "-o", str(place / "results" / "out"), "--dry-run")) == 0
    text = capsys.readouterr().out
    # 9 views less 2 that are held out, of 6 x 8 patches and 48 x 64 pixels.
    assert "336 (7 views of 6 x 8 patches)" in text
    assert f"{7 * 48 * 64:,} at most" in text
    assert "memory" in text and "seconds" in text
    assert not list((place / "results").iterdir())


def test_a_memory_budget_slices_the_views_and_changes_no_result(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_MB", "WORKING_MB", "CHECKING_MB"):
        monkeypatch.setattr(slicing, name, 0.0)
    numbers = []
    for flags in ([], ["--memory-budget", "20MB"]):
        out = place / f"sliced_{len(flags)}"
        assert cli.main(words(place, "-o", str(out), "--precision", "fp32", *flags)) == 0
        numbers.append(json.loads((out / "metrics.json").read_text()))
    whole, sliced = numbers
    assert whole["views_at_once"] is None and sliced["views_at_once"] in range(1, 7)
    assert sliced["num_predicted"] == whole["num_predicted"]
    assert sliced["psnr_input"] == pytest.approx(whole["psnr_input"], abs=1e-3)


def test_another_schedule_is_an_experiment_and_said_to_be(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "schedule"
    assert cli.main(words(place, "-o", str(out), "--schedule", "causal")) == 0
    assert "trained with 'single'" in capsys.readouterr().err
    assert '"schedule": "causal"' in (out / "metrics.json").read_text()


def test_other_cameras_without_images(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cameras = write_capture(tmp_path / "cameras", num_views=4)
    for name in ("000.png", "002.png"):
        (cameras / "images" / name).unlink()
    assert cli.main(words(place, "-o", str(tmp_path / "out"), "--virtual", str(cameras))) == 0
    assert "2 of 4 views have no image" in capsys.readouterr().err
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    kind, count, without = (
        numbers[f"{key}"] for key in ("virtual_views", "num_virtual_views", "num_virtual_without_image")
    )
    assert (kind, count, without) == ("capture", 4, 2)
    assert numbers["num_predicted"] == 4 * HEIGHT * WIDTH
    assert numbers["num_input_views"] == 7


@pytest.mark.parametrize(("by", "status"), [(signal.SIGINT, cli.INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_run_leaves_the_earlier_result(
    place: Path, tmp_path: Path, by: signal.Signals, status: int
) -> None:
    """Through the real command line, stopped in the middle of a refinement that would take for ever."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "metrics.json").write_text("earlier")
    flags = ["-o", str(out), "--overwrite", "--refine", "1000000"]
    command = [sys.executable, "-m", "lrm_ttt.cli", *words(place, *flags)]
    # A shell starts background jobs, these tests perhaps among them, with SIGINT ignored, and children inherit that.
    restore = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT, preexec_fn=restore) as process:
        assert process.stderr is not None
        for line in process.stderr:
            # The stage before the refinement has ended.
            if line.startswith("model"):
                break
        time.sleep(0.5)
        os.kill(process.pid, by)
        rest = process.stderr.read()
    assert process.returncode == status
    assert "Traceback" not in rest
    assert (out / "metrics.json").read_text() == "earlier"
    if by == signal.SIGINT:
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_too_little_memory_is_said() -> None:
    with pytest.raises(LrmTttError, match="--image-size"), out_of_memory_explained():
        torch.zeros(2**52)
    with pytest.raises(RuntimeError, match="a bug"), out_of_memory_explained():
        raise RuntimeError("a bug")
