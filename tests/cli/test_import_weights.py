"""Published checkpoints become model folders with a licence in them, and everything else is refused in one message."""

import argparse
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lrm_ttt import cli
from lrm_ttt.model.scene_model import SceneModel
from tests.cli.typed import refused
from tests.model.published import make_published


class Code:
    """A pickle that would make the folder `pwned` where it is read."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Run a command that must succeed and return what it printed, by row."""
    capsys.readouterr()
    assert cli.main(["import-weights", *words]) == 0
    rows = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines()]
    return {name.strip(): value.strip() for name, value in rows}


def test_what_was_recognised_is_said_and_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": make_published(), "optimizer": {"state": {0: torch.zeros(2)}}, "step": 7}, "dl3dv_ar.pt")
    rows = said(["dl3dv_ar.pt", "-o", "out"], capsys)
    assert rows["kind"] == "tttLRM, predicts gaussians"
    assert rows["blocks"] == "2 of width 16, patches of 4"
    assert rows["heads"] == "2 of 8 (attention), 1 of 16 times 2 (memory)"
    assert rows["schedule"].startswith("chunked ")
    assert rows["left out"] == "optimizer (beside the weights), step (beside the weights)"
    assert "non-commercial research only" in rows["licence"]
    model = SceneModel.from_pretrained(folder / "out")
    assert rows["parameters"] == f"{model.num_parameters:,}"
    assert model.config.backbone.views_per_update == 4
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["NOTICE", "config.json", "model.safetensors"]
    assert "non-commercial research only" in (folder / "out" / "NOTICE").read_text()
    origin = json.loads((folder / "out" / "config.json").read_text())["origin"]
    assert origin["file"] == "dl3dv_ar.pt" and "non-commercial" in origin["licence"]


@pytest.mark.parametrize(
    ("name", "flags", "schedule", "licence"),
    [
        ("dl3dv_full.pt", [], "single", "non-commercial research only"),
        ("dl3dv_full.pt", ["--schedule", "causal"], "causal", "non-commercial research only"),
        ("mine_ar.pt", [], "chunked", "unknown: ask its authors"),
        ("weights.pt", ["--schedule", "single"], "single", "unknown: ask its authors"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_names_and_flags_decide_what_shapes_cannot(
    name: str, flags: list[str], schedule: str, licence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(make_published(), name)
    rows = said([name, "-o", "out", *flags], capsys)
    assert rows["schedule"].split()[0] == schedule
    assert licence in rows["licence"]
    assert rows["frame"].split()[0] == "mean_camera"


@pytest.mark.parametrize(("name", "frame"), [("obj_res256.pt", "none"), ("scene_res536x960.pt", "mean_camera")])
@pytest.mark.usefixtures("folder")
def test_lact_has_one_schedule(name: str, frame: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": make_published("LaCT")}, name)
    rows = said([name, "-o", "out"], capsys)
    assert rows["kind"] == "LaCT, predicts images"
    assert rows["schedule"].startswith("single ")
    assert rows["frame"].split()[0] == frame
    assert rows["licence"].startswith("MIT for the program; for its weights none")


@pytest.mark.usefixtures("folder")
def test_a_frame_that_nothing_tells_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(make_published("LaCT"), "scenery.pt")
    assert "--normalisation" in refused(["import-weights", "scenery.pt", "-o", "out"], capsys)
    assert not Path("out").exists()
    for frame in ("mean_camera", "focus", "first_camera", "none"):
        rows = said(["scenery.pt", "-o", "out", "--normalisation", frame, "--overwrite"], capsys)
        assert rows["frame"] == f"{frame} (as --normalisation says)"
        assert SceneModel.from_pretrained("out").config.normalisation == frame


@pytest.mark.parametrize("key", ["model", "state_dict", "weights"])
def test_every_container_gives_the_same_model(key: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = make_published()
    save_file(published, "a_full.safetensors")
    torch.save({key: {f"module._orig_mod.{name}": tensor for name, tensor in published.items()}}, "b_full.pt")
    torch.save({"run": {key: published}}, "c_full.pt", _use_new_zipfile_serialization=False)
    # As some programs save: every weight is a view of one buffer.
    buffer, views = torch.cat([tensor.flatten() for tensor in published.values()]), {}
    for name, tensor in published.items():
        views[name], buffer = buffer[: tensor.numel()].view(tensor.shape), buffer[tensor.numel() :]
    torch.save(views, "d_full.pt")
    for name in ("a_full.safetensors", "b_full.pt", "c_full.pt", "d_full.pt"):
        said([name, "-o", name[0]], capsys)
    first, *others = [load_file(folder / name / "model.safetensors") for name in "abcd"]
    for other in others:
        assert other.keys() == first.keys() and all(torch.equal(other[name], first[name]) for name in first)


@pytest.mark.usefixtures("folder")
def test_the_weights_called_model_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    published = make_published()
    average = {name: torch.zeros_like(tensor) for name, tensor in published.items()}
    torch.save({"ema": average, "model": published}, "a_full.pt")
    assert said(["a_full.pt", "-o", "out"], capsys)["left out"] == "ema (beside the weights)"
    assert load_file("out/model.safetensors")["head.norm.weight"].any()
    torch.save({"ema": average, "latest": published}, "a_full.pt")
    assert "several sets of weights (it has ema, latest)" in refused(["import-weights", "a_full.pt", "-o", "b"], capsys)


def test_what_could_run_code_is_not_opened(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for harm, name in ((Code(), "mkdir"), (argparse.Namespace(lr=1), "argparse.Namespace")):
        torch.save({"model": make_published(), "extra": harm}, "dl3dv_full.pt")
        message = refused(["import-weights", "dl3dv_full.pt", "-o", "out"], capsys)
        assert "could run code" in message and name in message and "weights_only" not in message
    (folder / "plain_full.pt").write_bytes(pickle.dumps(Code()))
    refused(["import-weights", "plain_full.pt", "-o", "out"], capsys)
    assert not (folder / "pwned").exists() and not (folder / "out").exists()


def broken() -> dict[str, bytes]:
    """Return files that are no checkpoints, or were cut."""
    torch.save(make_published(), "whole.pt")
    torch.save(make_published(), "old.pt", _use_new_zipfile_serialization=False)
    whole, old = Path("whole.pt").read_bytes(), Path("old.pt").read_bytes()
    noise = torch.randint(0, 256, (300, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return {
        "empty.pt": b"",
        "text.pt": b"version https://git-lfs.github.com/spec/v1",
        "page.pt": b"<!doctype html><title>Not Found</title>",
        "cut.pt": whole[: len(whole) // 2],
        "cut_old.pt": old[: len(old) // 2],
        "pickle.pt": pickle.dumps({"a": 1}),
        "cut.safetensors": whole[:99],
        "empty.safetensors": b"",
        **{f"noise{row}.pt": bytes(bytearray(values.tolist())) for row, values in enumerate(noise)},
    }


@pytest.mark.usefixtures("folder")
def test_files_of_another_kind_are_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in broken().items():
        Path(name).write_bytes(content)
        message = refused(["import-weights", name, "-o", "out", "--schedule", "single"], capsys)
        assert name in message and "weights_only" not in message
    assert "There is no file gone.pt" in refused(["import-weights", "gone.pt", "-o", "out"], capsys)
    assert not Path("out").exists()


@pytest.mark.usefixtures("folder")
def test_what_does_not_fit_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    published = make_published()
    del published["decoder.0.weight"]
    torch.save(published | {"other.weight": torch.zeros(1)}, "a_full.pt")
    message = refused(["import-weights", "a_full.pt", "-o", "out"], capsys)
    assert "1 missing: decoder.0.weight; 1 unexpected: other.weight" in message
    torch.save({"model": make_published(), "mystery": {"a": torch.zeros(1)}}, "a_full.pt")
    assert "mystery" in refused(["import-weights", "a_full.pt", "-o", "out"], capsys)
    torch.save(make_published(), "a.pt")
    assert "--schedule" in refused(["import-weights", "a.pt", "-o", "out"], capsys)
    torch.save(make_published(), "a_ar_full.pt")
    assert "--schedule" in refused(["import-weights", "a_ar_full.pt", "-o", "out"], capsys)
    torch.save(torch.zeros(3), "a.pt")
    assert "no weights of tttLRM or LaCT" in refused(["import-weights", "a.pt", "-o", "out"], capsys)


def test_a_model_is_replaced_whole_or_not_at_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(make_published(), "a_full.pt")
    said(["a_full.pt", "-o", "out"], capsys)
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    assert "--overwrite" in refused(["import-weights", "a_full.pt", "-o", "out"], capsys)
    (folder / "bad_full.pt").write_bytes(b"bad")
    refused(["import-weights", "bad_full.pt", "-o", "out", "--overwrite"], capsys)
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before
    torch.save(make_published(num_blocks=1), "a_full.pt")
    assert said(["a_full.pt", "-o", "out", "--overwrite"], capsys)["blocks"].startswith("1 ")
    (folder / "out" / "notes.txt").write_text("mine")
    assert "notes.txt" in refused(["import-weights", "a_full.pt", "-o", "out", "--overwrite"], capsys)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
