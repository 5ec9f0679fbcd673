"""Shards give back what went in, survive whatever interrupts them, and say what is wrong with them."""

import dataclasses
import io
import json
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from lrm_ttt.data.config import DatasetConfig
from lrm_ttt.data.dataset import SceneDataset, open_dataset
from lrm_ttt.data.images import load_views
from lrm_ttt.data.lens import Distortion
from lrm_ttt.data.procedural import procedural_capture
from lrm_ttt.data.shard_manifest import MANIFEST, Manifest, read_manifest, verify_shards
from lrm_ttt.data.shard_reader import ShardDataset
from lrm_ttt.data.shard_scenes import DatasetScenes, ProceduralScenes, Scenes
from lrm_ttt.data.shard_writer import ShardFormat, write_shards
from lrm_ttt.errors import InvalidConfig, LrmTttError, OutputExists, UnreadableScene
from lrm_ttt.scene.cameras import ImageSize
from lrm_ttt.scene.views import Views
from tests.data.captures import make_capture, opencv_frames, save_images, write_transforms
from tests.helpers.shared import CHECKOUT

SIZE = ImageSize(32, 40)
STEP = 1 / 255
PNG = ShardFormat("png", scenes_per_shard=2)
SCENES = ProceduralScenes(5, 3, SIZE, room_fraction=0.4)


def write(folder: Path, scenes: Scenes = SCENES, layout: ShardFormat = PNG, **settings: object) -> Manifest:
    return write_shards(scenes, folder, layout, **{"image_size": SIZE, **settings})  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return shards of five procedural scenes, which tests do not change."""
    folder = tmp_path_factory.mktemp("shards")
    write(folder)
    return folder


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    """Return a copy of the shards, to damage."""
    for name, data in contents(shards).items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def everything(dataset: SceneDataset, index: int, size: ImageSize = SIZE, background: float = 1.0) -> Views:
    source = dataset.open(index)
    return load_views(source, range(source.num_views), size, background=(background,) * 3)


def test_procedural_scenes_come_back(shards: Path) -> None:
    dataset = ShardDataset(shards)
    assert isinstance(dataset, SceneDataset)
    assert (len(dataset), dataset.groups) == (5, (2, 2, 1))
    kinds = set()
    for index in range(5):
        views = everything(dataset, index)
        kind = "room" if views.masks is None else "object"
        truth = procedural_capture(index, 3, SIZE, kind)
        kinds.add(kind)
        assert dataset.scene_name(index) == dataset.open(index).name == f"procedural-{index:08d}"
        assert (views.images - truth.images).abs().max() <= STEP
        assert (views.coverage - truth.coverage).abs().max() <= 0.5001 * STEP
        assert torch.equal(views.cameras.cam_to_world, truth.cameras.cam_to_world)
        assert torch.equal(views.cameras.intrinsics, truth.cameras.intrinsics)
        assert views.depths is not None
        assert truth.depths is not None
        # Depths are stored in 65535 steps of the largest.
        assert (views.depths - truth.depths).abs().max() <= truth.depths.max() / 65535
        assert torch.equal(views.depths > 0, truth.depths > 0)
    assert kinds == {"room", "object"}


def transparent_capture(folder: Path) -> Path:
    capture = make_capture()
    names = [f"{index}.png" for index in range(4)]
    save_images(capture, folder, names, alpha=True)
    (folder / "opencv_cameras.json").write_text(json.dumps(opencv_frames(capture, names)))
    return folder


@pytest.mark.parametrize("background", [0.0, 0.3, 1.0])
def test_transparent_images_take_any_background(tmp_path: Path, background: float) -> None:
    config = DatasetConfig("one", str(transparent_capture(tmp_path / "scene")))
    source = open_dataset(config)
    write(tmp_path / "shards", DatasetScenes(config, SIZE, None))
    expected, views = (
        everything(source, 0, background=background),
        everything(ShardDataset(tmp_path / "shards"), 0, background=background),
    )
    assert expected.masks is not None
    assert (views.images - expected.images).abs().max() <= 1.001 * STEP
    assert (views.coverage - expected.coverage).abs().max() <= 0.501 * STEP


def test_lenses_are_undone_and_shapes_kept(tmp_path: Path) -> None:
    lens = Distortion("opencv", (0.05, -0.03, 0.002, -0.001))
    write_transforms(tmp_path / "scene", make_capture(distortion=lens))
    config = DatasetConfig("one", str(tmp_path / "scene"))
    source = open_dataset(config)
    write(tmp_path / "shards", DatasetScenes(config, None, 48), image_size=None, longer_side=48)
    dataset, size = ShardDataset(tmp_path / "shards"), ImageSize(32, 48)
    stored = dataset.open(0)
    # The photographs have 48x72 pixels.
    assert stored.image_sizes == (size,) * 4
    assert stored.distortion == (None,) * 4
    assert torch.equal(stored.cam_to_world, source.open(0).cam_to_world), "float64, to the last bit"
    expected, views = everything(source, 0, size), everything(dataset, 0, size)
    assert (views.images - expected.images).abs().max() <= 0.501 * STEP
    assert torch.equal(views.cameras.intrinsics, expected.cameras.intrinsics)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_lossy_formats_lose_little(tmp_path: Path, image_format: str) -> None:
    write(tmp_path, ProceduralScenes(2, 2, ImageSize(64, 64), 0.5), ShardFormat(image_format, 95), image_size=(64, 64))
    dataset = ShardDataset(tmp_path)
    for index in range(2):
        views = everything(dataset, index, ImageSize(64, 64))
        truth = procedural_capture(index, 2, ImageSize(64, 64), "room" if views.masks is None else "object")
        # Measured 0.004 to 0.012.
        assert (views.images - truth.images).abs().mean() < 0.02
        # JPEG holds no alpha.
        suffix = "jpg" if views.masks is None and image_format == "jpeg" else "webp"
        assert all(str(path).endswith(suffix) for path in dataset.open(index).image_paths)


def streamed(folder: Path) -> Iterator[dict[str, object]]:
    """Yield samples as webdataset groups them: members in a row with one key, the name up to its first dot."""
    for path in sorted(folder.glob("*.tar")):
        sample: dict[str, object] = {}
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
                key, suffix = member.name.split(".", 1)
                if sample and sample["__key__"] != key:
                    yield sample
                    sample = {}
                data = tar.extractfile(member)
                assert data is not None
                sample |= {"__key__": key, suffix: data.read()}
        yield sample


def check_samples(samples: list[dict[str, object]], folder: Path) -> None:
    dataset = ShardDataset(folder)
    assert len(samples) == len(dataset)
    for index, sample in enumerate(samples):
        source = dataset.open(index)
        description = json.loads(bytes(sample["json"]))  # type: ignore[call-overload]
        assert description["name"] == source.name
        for number, path in enumerate(source.image_paths):
            assert not isinstance(path, Path)
            assert sample[f"{number:04d}.png"] == path.data
            assert description["views"][number]["cam_to_world"] == source.cam_to_world[number].tolist()
            assert Image.open(io.BytesIO(path.data)).size == (SIZE.width, SIZE.height)


def test_plain_tarfile_streams_the_same_samples(shards: Path) -> None:
    check_samples(list(streamed(shards)), shards)


def test_webdataset_reads_the_same_samples(shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    samples = list(webdataset.WebDataset([str(path) for path in sorted(shards.glob("*.tar"))], shardshuffle=False))
    check_samples(samples, shards)


def test_the_manifest_says_where_scenes_lie(shards: Path) -> None:
    manifest = verify_shards(shards)
    assert (manifest.num_scenes, manifest.num_views, manifest.num_seen) == (5, 15, 5)
    for shard in manifest.shards:
        data = (shards / shard.file).read_bytes()
        for scene in shard.scenes:
            # A part of a tar is a tar, but for its end.
            with tarfile.open(fileobj=io.BytesIO(data[scene.offset : scene.offset + scene.length])) as part:
                names = part.getnames()
            assert names[0] == f"{scene.key}.json"
            assert len(names) == 1 + 2 * scene.views


def test_scenes_go_to_other_processes(shards: Path) -> None:
    """A source that was pickled holds neither pixels nor an open file, and still reads."""
    dataset = pickle.loads(pickle.dumps(ShardDataset(shards)))
    packed = pickle.dumps(dataset.open(3))
    assert len(packed) < 10_000
    views = load_views(pickle.loads(packed), range(3), SIZE)
    assert torch.equal(views.images, everything(dataset, 3).images)


class Interrupted(Exception):
    """What a test interrupts the writing with."""


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path: Path, shards: Path, after: int) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 5
        if done == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        write(tmp_path, progress=interrupt)
    if (tmp_path / MANIFEST).exists():
        with pytest.raises(UnreadableScene, match=r"2 of 5 scenes .* again"):
            ShardDataset(tmp_path)
    gone_through: list[int] = []
    write(tmp_path, progress=lambda done, total: gone_through.append(done))
    assert gone_through[0] == (3 if after > 2 else 1), "whole shards are not written again"
    assert contents(tmp_path) == contents(shards)
    write(tmp_path, progress=interrupt)
    assert contents(tmp_path) == contents(shards)


def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path: Path, shards: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.data.test_shards import write\n"
        "write(Path(sys.argv[1]), progress=lambda done, total: time.sleep(30 * (done == 3)))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=CHECKOUT)
    deadline = time.monotonic() + 120
    while not (tmp_path / ".shard-000001.tar.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / ".shard-000001.tar.partial").exists()
    # As if it had been killed between the last shard and the manifest.
    (tmp_path / "shard-000001.tar").write_bytes(b"whole, but not listed")
    write(tmp_path)
    assert contents(tmp_path) == contents(shards)


def test_a_full_disk_leaves_whole_shards(tmp_path: Path, shards: Path) -> None:
    def fill(done: int, total: int) -> None:
        if done == 2:
            (tmp_path / ".shard-000001.tar.partial").symlink_to("/dev/full")

    with pytest.raises(LrmTttError, match=r"the disk is full.*free space and run the command again"):
        write(tmp_path, progress=fill)
    assert sorted(contents(tmp_path)) == [MANIFEST, "shard-000000.tar"]
    assert [shard.file for shard in read_manifest(tmp_path).shards] == ["shard-000000.tar"]
    write(tmp_path)
    assert contents(tmp_path) == contents(shards)


def test_broken_scenes_are_left_out_and_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_transforms(tmp_path / "tree" / name, make_capture())
    (tmp_path / "tree" / "b" / "images" / "002.png").write_bytes(b"no image")
    scenes = DatasetScenes(DatasetConfig("tree", str(tmp_path / "tree")), SIZE, None)
    manifest = write(tmp_path / "shards", scenes)
    assert (manifest.num_scenes, manifest.num_seen) == (2, 3)
    (skipped,) = read_manifest(tmp_path / "shards").skipped
    assert "b" in skipped.name
    assert "002.png" in skipped.reason
    assert len(ShardDataset(tmp_path / "shards")) == 2
    before = contents(tmp_path / "shards")
    with pytest.raises(OutputExists, match=r"without 1 scenes that could not be read \(b;.* delete it first"):
        write(tmp_path / "shards", scenes)
    assert contents(tmp_path / "shards") == before


def test_two_do_not_write_to_one_folder(tmp_path: Path, shards: Path) -> None:
    def write_too(done: int, total: int) -> None:
        with pytest.raises(OutputExists, match="another process writes shards there"):
            write(tmp_path)

    write(tmp_path, progress=write_too)
    assert contents(tmp_path) == contents(shards)


def test_no_scene_at_all_leaves_nothing_behind(tmp_path: Path) -> None:
    write_transforms(tmp_path / "tree" / "a", make_capture())
    image = tmp_path / "tree" / "a" / "images" / "002.png"
    sound = image.read_bytes()
    image.write_bytes(b"no image")
    scenes = DatasetScenes(DatasetConfig("tree", str(tmp_path / "tree")), SIZE, None)
    with pytest.raises(UnreadableScene, match=r"none of 1 scenes could be read\. .*002\.png"):
        write(tmp_path / "shards", scenes)
    assert contents(tmp_path / "shards") == {}
    image.write_bytes(sound)
    assert write(tmp_path / "shards", scenes).num_scenes == 1


def test_shards_end_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With megabytes of 30 kB, for speed: a scene takes 20 to 25."""
    monkeypatch.setattr("lrm_ttt.data.shard_writer.MEGABYTE", 30_000)
    manifest = write(tmp_path, layout=ShardFormat("png", shard_mb=1))
    assert 1 < len(manifest.shards) < 5
    for shard in manifest.shards[:-1]:
        assert shard.scenes[-1].offset < 30_000 <= shard.scenes[-1].offset + shard.scenes[-1].length


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "shard-000001.tar").unlink(), r"shard-000001.tar: this shard is missing. Copy"),
        (
            lambda folder: truncate(folder / "shard-000001.tar"),
            r"shard-000001.tar: this shard is truncated: 1000 bytes",
        ),
        (lambda folder: (folder / MANIFEST).unlink(), r"no manifest.json, so these are no shards"),
        (lambda folder: (folder / MANIFEST).write_text("{"), r"manifest.json: cannot be read"),
        (lambda folder: change(folder, version=2), r"its format is 'lrm-ttt-shards', version 2, where"),
        (lambda folder: change(folder, format="wids"), r"its format is 'wids', version 1, where"),
        (lambda folder: change(folder, shards=3), r"'shards' must be a list.* Copy it again"),
        (lambda folder: change(folder, complete=False), r"the shards are not finished.*again: it goes on"),
        (lambda folder: change(folder, shards=[]), r"these shards hold no scene"),
    ],
)
def test_damaged_folders_are_one_message(copied: Path, damage: object, message: str) -> None:
    damage(copied)  # type: ignore[operator]
    for look in (ShardDataset, verify_shards):
        with pytest.raises(UnreadableScene, match=message):
            look(copied)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def change(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_verify_names_what_changed(copied: Path) -> None:
    verify_shards(copied)
    flip(copied / "shard-000001.tar", 5000)
    with pytest.raises(UnreadableScene, match=r"1 of 3 shards are not what was written.* shard-000001.tar\. Copy"):
        verify_shards(copied)


@pytest.mark.parametrize("at", [3, 600])
def test_a_damaged_scene_is_one_message(copied: Path, at: int) -> None:
    """A header that lost its checksum, and cameras that are no JSON any more; the scene before is sound."""
    dataset = ShardDataset(copied)
    flip(copied / "shard-000001.tar", dataset.manifest.shards[1].scenes[1].offset + at)
    dataset.open(2)
    with pytest.raises(UnreadableScene, match=r"shard-000001.tar: this shard is damaged.*data verify"):
        dataset.open(3)


def test_a_shard_cut_while_in_use_is_one_message(copied: Path) -> None:
    dataset = ShardDataset(copied)
    source = dataset.open(2)
    truncate(copied / "shard-000001.tar")
    with pytest.raises(UnreadableScene, match="in the middle of a file"):
        load_views(source, [2], SIZE)


@pytest.mark.parametrize(
    ("again", "message"),
    [
        ({"layout": ShardFormat("webp", scenes_per_shard=2)}, "image_format was png and is webp"),
        ({"scenes": ProceduralScenes(5, 3, SIZE, 0.4, seed=7)}, "of another source"),
        ({"scenes": ProceduralScenes(6, 3, SIZE, 0.4)}, "num_scenes was 5 and is 6"),
    ],
)
def test_other_shards_are_not_overwritten(copied: Path, again: dict[str, object], message: str) -> None:
    before = contents(copied)
    with pytest.raises(OutputExists, match=message):
        write(copied, **again)  # type: ignore[arg-type]
    assert contents(copied) == before


def test_shards_of_another_source_are_not_taken_for_its_own(tmp_path: Path) -> None:
    """Scenes of the same names, elsewhere or of other images; the same folder by another path is the same source."""
    for name in ("one", "two"):
        write_transforms(tmp_path / name / "scene", make_capture())
    one = DatasetConfig("one", str(tmp_path / "one"))
    write(tmp_path / "shards", DatasetScenes(one, SIZE, None))
    write(tmp_path / "shards", DatasetScenes(DatasetConfig("1", str(tmp_path / "two" / ".." / "one")), SIZE, None))
    for other in (DatasetConfig("one", str(tmp_path / "two")), dataclasses.replace(one, image_folder="images_2")):
        with pytest.raises(OutputExists, match="of another source"):
            write(tmp_path / "shards", DatasetScenes(other, SIZE, None))


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(OutputExists, match="other files"):
        write(tmp_path)


def test_a_size_is_asked_for(shards: Path) -> None:
    config = DatasetConfig("shards", str(shards))
    for size, longer_side in ((None, None), (SIZE, 32), (ImageSize(30, 40), None), (None, 100)):
        with pytest.raises(InvalidConfig):
            DatasetScenes(config, size, longer_side)
