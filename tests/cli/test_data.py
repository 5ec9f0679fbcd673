"""lrm-ttt data: what is printed, where it is refused, and with which status it ends."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from lrm_ttt import cli
from lrm_ttt.data.shard_reader import ShardDataset
from tests.cli.typed import refused
from tests.data.captures import make_capture, write_transforms
from tests.helpers.shared import shared_path

SMALL = ["--image-size", "32", "32", "--limit", "2", "--views", "2", "--scenes-per-shard", "1", "--format", "png"]


def test_procedural_shards_are_made_verified_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shards"
    assert cli.main(["data", "shard", "procedural", "-o", str(out), *SMALL]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{out}: 2 scenes, 4 views in 2 shards, ")
    assert last.endswith("; 0 scenes could not be read and were left out")
    assert ShardDataset(out).groups == (1, 1)
    assert cli.main(["data", "verify", str(out)]) == 0
    assert "2 shards, 2 scenes" in capsys.readouterr().out
    (out / "shard-000000.tar").write_bytes(bytes((out / "shard-000000.tar").stat().st_size))
    assert "1 of 2 shards are not what was written" in refused(["data", "verify", str(out)], capsys)


def test_scenes_of_a_tree_that_cannot_be_read_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_transforms(tmp_path / "tree" / name, make_capture())
    (tmp_path / "tree" / "b" / "images" / "001.png").write_bytes(b"no image")
    out = tmp_path / "shards"
    assert cli.main(["data", "shard", str(tmp_path / "tree"), "-o", str(out), "--longer-side", "64"]) == 0
    said = capsys.readouterr()
    assert "1 scenes, 4 views in 1 shards" in said.out
    assert "1 scenes could not be read and were left out" in said.out
    assert "001.png" in said.err
    assert cli.main(["data", "verify", str(out)]) == 0
    assert "1 scenes could not be read then" in capsys.readouterr().out


def test_a_large_crop_is_told_once_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        write_transforms(tmp_path / "tree" / name, make_capture())
    words = ["data", "shard", str(tmp_path / "tree"), "-o", str(tmp_path / "shards"), "--image-size", "32", "16"]
    assert cli.main(words) == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "centre-crop" in line]
    assert str(tmp_path / "tree") in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shard", "procedural", "-o", "OUT"], "Pass --image-size H W"),
        (["shard", "TREE", "-o", "OUT"], "give either --image-size H W or --longer-side N"),
        (["shard", "TREE", "-o", "OUT", "--image-size", "30", "32"], "an image side of 30 .* Take 32"),
        (["shard", "TREE", "-o", "OUT", "--longer-side", "64", "--quality", "0"], "a quality of 0"),
        (["shard", "NOWHERE", "-o", "OUT", "--longer-side", "64"], "there is no such folder or file"),
        (["shard", "TREE", "-o", "TREE", "--longer-side", "64"], "holds other files"),
        (["check", "NOWHERE"], "there is no such folder or file"),
        (["shard", "procedural", "-o", "OUT", "--image-size", "60", "60"], "an image side of 60 .* Take 64"),
        (["shard", "procedural", "-o", "OUT", *SMALL, "--longer-side", "64"], "Leave out .*--longer-side"),
        (["shard", "procedural", "-o", "OUT", *SMALL, "--layout", "shards"], "Leave out --layout"),
        (["shard", "procedural", "-o", "OUT", *SMALL, "--keep-benchmark"], "Leave out .*--keep-benchmark"),
        (["shard", "procedural", "-o", "OUT", "--image-size", "8", "8", "--limit", "0"], "0 procedural scenes"),
        (["shard", "TREE", "-o", "OUT", "--longer-side", "64", "--views", "8"], "--views and --seed"),
        (["shard", "TREE", "-o", "OUT", "--longer-side", "64", "--limit", "0"], "give a limit of 1 or more"),
        (["check", "TREE", "--scenes", "-1"], "or 0 for all"),
        (["check", "CHUNKS", "--allow-missing"], "has the layout realestate10k.* Leave out"),
        (["check", "CHUNKS", "--image-folder", "images_4"], "has the layout realestate10k.* Leave out"),
        (["verify", "NOWHERE"], "these are no shards"),
        (["shard", "TREE"], "-o"),
    ],
)
def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    write_transforms(tmp_path / "TREE", make_capture())
    (tmp_path / "CHUNKS").mkdir()
    for name in ("index.json", "000000.torch"):
        (tmp_path / "CHUNKS" / name).touch()
    places = {name: str(tmp_path / name) for name in ("OUT", "TREE", "CHUNKS", "NOWHERE")}
    said = refused_or_boxed(["data", *(places.get(word, word) for word in words)], capsys)
    assert re.search(message, " ".join(said.split())), said


def refused_or_boxed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message of a command that must end with status 2, the parser's box as well."""
    try:
        status = cli.main(words)
    except SystemExit as exit_:
        status = exit_.code
    said = capsys.readouterr().err
    assert status == cli.USERS_MISTAKE
    assert "Traceback" not in said
    return said


def test_check_of_a_sound_and_of_a_wrong_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five frames of a real capture; then the same with its world-to-camera matrices inverted."""
    folder = shared_path("data", "mydesk")
    content = json.loads((folder / "opencv_cameras.json").read_text())
    frames = content["frames"][38:53:3]
    for frame in frames:
        source = folder / frame["file_path"]
        target = tmp_path / "scene" / frame["file_path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (tmp_path / "scene" / "opencv_cameras.json").write_text(json.dumps({"scene_name": "desk", "frames": frames}))
    assert cli.main(["data", "check", str(tmp_path / "scene")]) == 0
    said_sound = capsys.readouterr().out
    assert ": sound; " in said_sound
    assert said_sound.endswith("\n1 sound, 0 undecided, 0 with mistakes\n")

    wrong = [frame | {"w2c": np.linalg.inv(np.array(frame["w2c"])).tolist()} for frame in frames]
    (tmp_path / "scene" / "opencv_cameras.json").write_text(json.dumps({"scene_name": "desk", "frames": wrong}))
    assert cli.main(["data", "check", str(tmp_path / "scene"), "--json"]) == cli.USERS_MISTAKE
    said = capsys.readouterr()
    (finding,) = json.loads(said.out)
    assert finding["mistake"]["kind"] == "inverted cameras"
    assert finding["agreement"] < 0.2 < finding["agreement_undone"]
    assert "1 of 1 scenes have a mistake" in said.err
