"""Bad input gives one message and leaves OUT alone; good input gives files that say how the stream went."""

import json
from pathlib import Path
from typing import Literal

import pytest

from lrm_ttt import cli
from lrm_ttt.model.build import build
from lrm_ttt.model.checkpoint import save_pretrained
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.pipeline import stream_job
from tests.cli.typed import refused
from tests.pipeline.make import make_model, write_capture
from tests.pipeline.make_stream import make_causal_model, write_causal_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    write_capture(folder / "capture", num_views=7)
    write_causal_checkpoint(folder / "model")
    save_pretrained(make_causal_model(seed=1), folder / "other")
    save_pretrained(make_model(), folder / "single")
    write_causal_checkpoint(folder / "chunked", "chunked")
    (folder / "results").mkdir()
    return folder


def words(place: Path, out: Path, *more: str, checkpoint: str = "model") -> list[str]:
    flags = ["--checkpoint", str(place / checkpoint), "--precision", "fp32", "--views-per-step", "2"]
    return ["stream", str(place / "capture"), "-o", str(out), *flags, *more]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--views-per-step", "0"], ["--views-per-step 0"]),
        (["--virtual", "0"], ["--virtual 0"]),
        (["--strategy", "merge", "--virtual", "3"], ["--virtual 3", "merge", "re-predict"]),
        (["--elastic", "1"], ["--elastic 1", "0.05"]),
        (["--hold-out", "1"], ["--hold-out 1", "0 for none"]),
        (["--max-views", "1"], ["--max-views 1"]),
        (["--timeout", "-1"], ["--timeout -1"]),
        (["--image-size", "50", "64"], ["50 64", "8x8", "Take 48 64"]),
        (["--resume", "--overwrite"], ["--resume", "--overwrite"]),
        (["--resume"], ["--resume", "state.safetensors", "Begin without"]),
        (["--schedule", "single"], ["'single'", "all views at once", "'causal'"]),
        (["--checkpoint", "no/such/folder"], ["no/such/folder"]),
    ],
)
def test_bad_flags(place: Path, flags: list[str], said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(words(place, place / "results" / "out", *flags), capsys)
    assert all(word in message for word in said), message
    assert not list((place / "results").iterdir())


@pytest.mark.parametrize("schedule", ["single", "chunked"])
def test_models_that_see_all_views_at_once(place: Path, schedule: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(words(place, place / "results" / "out", checkpoint=schedule), capsys)
    assert f"'{schedule}', which sees all views at once" in message and "--schedule causal" in message
    assert not list((place / "results").iterdir())


@pytest.mark.parametrize("representation", ["images", "triplane"])
def test_models_of_other_representations(
    place: Path, tmp_path: Path, representation: Literal["images", "triplane"], capsys: pytest.CaptureFixture[str]
) -> None:
    """Their schedule is no matter, though it is one that cannot stream."""
    config = ModelConfig(backbone=make_model().config.backbone, representation=representation, normalisation="focus")
    save_pretrained(build(config), tmp_path / "model")
    message = refused(words(place, tmp_path / "out", checkpoint=str(tmp_path / "model")), capsys)
    assert f"about Gaussians, and this checkpoint predicts '{representation}'" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "said"), [("example", "`example` is not streamed"), ("no/where", "no/where: there")]
)
def test_a_source_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stream_job, "load", None)
    assert said in refused(["stream", source, "-o", "out"], capsys)


def test_nothing_to_resume_is_said(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(words(place, out)) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    made = capsys.readouterr().out
    for more, why in ((["--max-views", "4"], "--max-views is 4"), ([], "no further one is there")):
        assert cli.main(words(place, out, "--resume", *more)) == 0
        said = capsys.readouterr()
        assert "nothing was to be done" in said.err and f"6 views have passed, and {why}" in said.err
        assert said.out == made
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_without_a_model_for_streams(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_job, "STREAMING", "absent")
    message = refused(["stream", str(place / "capture"), "-o", str(place / "results" / "out")], capsys)
    assert "no embedded model for streams" in message and "--schedule causal" in message


def test_a_stream_says_how_it_went(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(words(place, out, "--schedule", "causal", "--views-per-step", "3", checkpoint="single")) == 0
    said = capsys.readouterr()
    assert "trained with 'single'" in said.err and "3 is no multiple of 4" in said.err
    numbers = json.loads((out / "metrics.json").read_text())
    assert f"{numbers['num_gaussians']:,} Gaussians from 6 views in 2 steps" in said.out
    assert "step 2" in said.err and f"first views {numbers['psnr_first']:.2f} dB" in said.out
    page = (out / "report.html").read_text()
    assert page.count("<polyline") == 6 and "http:" not in page and "https:" not in page
    assert all(f"{row['psnr_new']:.2f}" in page for row in numbers["steps"])


def test_what_stands_in_out_is_kept_unless_asked(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(words(place, out, "--max-views", "2")) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    assert "--overwrite" in refused(words(place, out), capsys)
    assert "--virtual 16" in refused(words(place, out, "--resume", "--virtual", "3"), capsys)
    assert "--image-size 48 64" in refused(words(place, out, "--resume", "--image-size", "24", "32"), capsys)
    assert "another model" in refused(words(place, out, "--resume", checkpoint="other"), capsys)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert cli.main(words(place, out, "--resume")) == 0
    assert len(json.loads((out / "metrics.json").read_text())["steps"]) == 3
    assert cli.main(words(place, out, "--overwrite", "--max-views", "2")) == 0
    assert len(json.loads((out / "metrics.json").read_text())["steps"]) == 1
    (out / "notes.txt").write_text("mine")
    assert "notes.txt" in refused(words(place, out, "--overwrite"), capsys)
    assert (out / "notes.txt").read_text() == "mine"
