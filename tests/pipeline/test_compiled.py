"""`--compile` through the command line: the same numbers, or a message where there is no compiler."""

import json
from pathlib import Path

import pytest

from lrm_ttt import cli
from lrm_ttt.pipeline import checkpoint
from tests.pipeline.make import write_capture, write_checkpoint


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_capture(tmp_path / "capture", num_views=4)
    write_checkpoint(tmp_path / "model")
    return tmp_path


def run(command: str, place: Path, *flags: str) -> int:
    return cli.main([command, str(place / "capture"), "--checkpoint", str(place / "model"), *flags])


@pytest.mark.parametrize("command", ["reconstruct", "stream"])
def test_without_a_compiler_nothing_begins(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "cxx_compiler", lambda: "")
    assert run(command, place, "-o", str(place / "out"), "--compile", "--device", "cpu") == cli.USERS_MISTAKE
    assert "--compile: no C++ compiler" in capsys.readouterr().err
    assert not (place / "out").exists()


def test_the_model_that_is_loaded_is_compiled(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What compiling changes is tested with the model; here, that it happens, and that results stay."""
    compiled = []
    monkeypatch.setattr(checkpoint, "compile_blocks", compiled.append)
    numbers = []
    for flags in ([], ["--compile"]):
        assert run("reconstruct", place, "-o", str(place / "out"), "--overwrite", "--device", "cpu", *flags) == 0
        numbers.append(json.loads((place / "out" / "metrics.json").read_text())["psnr_input"])
    assert len(compiled) == 1
    assert numbers[0] == numbers[1]
