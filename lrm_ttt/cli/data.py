"""Prepare data sets for training: make shards of them, verify shards, and find what is wrong with captures.

SOURCE is what training takes too: a tree of captures (DL3DV, Objaverse renders, COLMAP, transforms.json), a list of
them, RealEstate10K chunks, shards, or one capture. Flags of each: lrm-ttt data shard --help, and so on.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from lrm_ttt.data.config import DatasetConfig
from lrm_ttt.errors import InvalidConfig, LrmTttError

if TYPE_CHECKING:
    from lrm_ttt.data.diagnose import Diagnosis
    from lrm_ttt.data.shard_scenes import Scenes
    from lrm_ttt.scene.cameras import ImageSize

# The SOURCE that needs no files.
PROCEDURAL = "procedural"
BYTES_PER_GB, BYTES_PER_MB = 10**9, 10**6


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class _Source:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A data set, or one capture."""
    layout: Literal["auto", "scenes", "realestate10k", "shards"] = "auto"
    """How scenes lie there; auto looks."""
    image_folder: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Which copy of the images to take where there are several, such as images_4."""
    keep_benchmark: bool = False
    """Keep the 140 scenes of the DL3DV benchmark, which are left out otherwise."""
    allow_missing: bool = False
    """Go on with the images that are there where a capture lists others too."""

    def config(self) -> DatasetConfig:
        """Return what `open_dataset` takes; raises `InvalidConfig` where nothing is there."""
        if not Path(self.source).expanduser().exists():
            raise InvalidConfig(f"{self.source}: there is no such folder or file. Check the path.")
        from lrm_ttt.data.dataset import find_layout

        layout = find_layout(Path(self.source).expanduser()) if self.layout == "auto" else self.layout
        if layout != "scenes" and (self.image_folder is not None or self.allow_missing):
            raise InvalidConfig(
                f"{self.source} has the layout {layout}, without image folders or missing images. "
                "Leave out --image-folder and --allow-missing."
            )
        return DatasetConfig(
            self.source,
            self.source,
            layout,
            image_folder=self.image_folder,
            exclude_benchmark=not self.keep_benchmark,
            allow_missing=self.allow_missing,
        )


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True, kw_only=True)
class Shard(_Source):
    """Write a data set as webdataset tars of resized images with their cameras, and a manifest with checksums.

    SOURCE `procedural` makes --limit scenes on the spot. Lens distortion is undone, transparency kept. The same command
    goes on after an interruption, and gives the same bytes. Scenes that cannot be read are left out, and named in
    OUT/manifest.json.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """The folder for shard-000000.tar and so on, and manifest.json."""
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="H W")] = None
    """Height and width, multiples of 8, that every image is centre-cropped and resized to."""
    longer_side: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """In place of --image-size: keep the shape of each scene, with this longer side at most."""
    format: Literal["jpeg", "webp", "png"] = "jpeg"
    """WebP takes a third of the room and three times as long to decode; PNG loses nothing. Transparent views are never
    JPEG, but WebP."""
    quality: Annotated[int, tyro.conf.arg(metavar="1..100")] = 95
    """Of JPEG and WebP."""
    shard_mb: Annotated[int, tyro.conf.arg(metavar="MB")] = 256
    """A shard ends with the scene that makes it this large."""
    scenes_per_shard: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """In place of --shard-mb."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Take the first N scenes only; for `procedural` the number of scenes, 100 unless given."""
    views: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Views of a procedural scene, 32 unless given."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Seed of the first procedural scene, 0 unless given; those that follow count up."""


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Check(_Source):
    """Compare the cameras of captures with what their images show, and name the usual mistakes.

    Finds inverted cameras (world-to-camera taken for camera-to-world), other camera axes (OpenGL, PyTorch3D),
    intrinsics of another image size, ignored or doubled distortion, views without overlap, and cameras that do not fit
    their images. Ends with status 2 where a scene has a mistake.
    """

    scenes: Annotated[int, tyro.conf.arg(metavar="N")] = 8
    """How many scenes to look at, drawn at random; 0 takes all."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Draws the scenes."""
    json: bool = False
    """Print the findings as JSON, with the evidence."""


@dataclass(frozen=True)
class Verify:
    """Compare every shard with the checksum in its manifest."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """What `lrm-ttt data shard` wrote."""


@dataclass(frozen=True)
class Arguments:
    """What to do with a data set."""

    command: Annotated[
        Annotated[Shard, tyro.conf.subcommand("shard")]
        | Annotated[Check, tyro.conf.subcommand("check")]
        | Annotated[Verify, tyro.conf.subcommand("verify")],
        tyro.conf.arg(name=""),
    ]
    """The part of the work."""


def run(arguments: Arguments) -> None:
    """Do the part of the work that was asked for, and print what came out."""
    from lrm_ttt.cli.console import say_peak_memory

    command = arguments.command
    if isinstance(command, Shard):
        shard(command)
    elif isinstance(command, Check):
        check(command)
    else:
        verify(command)
    say_peak_memory()


def shard(arguments: Shard) -> None:
    """Write shards."""
    from lrm_ttt.cli.console import Reporter
    from lrm_ttt.data.shard_writer import ShardFormat, write_shards

    layout = ShardFormat(arguments.format, arguments.quality, arguments.shard_mb, arguments.scenes_per_shard)
    scenes = _scenes(arguments)
    with Reporter() as reporter:
        reporter.started("shards")
        manifest = write_shards(
            scenes,
            arguments.out,
            layout,
            image_size=arguments.image_size,
            longer_side=arguments.longer_side,
            progress=reporter.advanced,
        )
    skipped = len(manifest.skipped)
    print(
        f"{arguments.out}: {manifest.num_scenes} scenes, {manifest.num_views} views in {len(manifest.shards)} shards, "
        f"{manifest.num_bytes / BYTES_PER_MB:.1f} MB; {skipped} scenes could not be read and were left out"
    )


def _scenes(arguments: Shard) -> "Scenes":
    from lrm_ttt.data.shard_scenes import DatasetScenes
    from lrm_ttt.scene.cameras import ImageSize

    size = None if arguments.image_size is None else ImageSize(*arguments.image_size)
    if arguments.source == PROCEDURAL:
        return _procedural(arguments, size)
    if arguments.views is not None or arguments.seed is not None:
        raise InvalidConfig("--views and --seed are of procedural scenes. Leave them out: all views are kept.")
    return DatasetScenes(arguments.config(), size, arguments.longer_side, arguments.limit)


def _procedural(arguments: Shard, size: "ImageSize | None") -> "Scenes":
    from lrm_ttt.data.shard_scenes import ProceduralScenes

    of_files = arguments.image_folder, arguments.longer_side
    if arguments.layout != "auto" or arguments.keep_benchmark or arguments.allow_missing or of_files != (None, None):
        raise InvalidConfig(
            "procedural scenes have neither files nor a size of their own. Leave out --layout, --image-folder, "
            "--keep-benchmark, --allow-missing and --longer-side."
        )
    if size is None:
        raise InvalidConfig("procedural scenes have no size of their own. Pass --image-size H W.")
    number = 100 if arguments.limit is None else arguments.limit
    num_views = 32 if arguments.views is None else arguments.views
    return ProceduralScenes(number, num_views, size, seed=arguments.seed or 0)


def verify(arguments: Verify) -> None:
    """Verify shards."""
    from lrm_ttt.data.shard_manifest import verify_shards

    manifest = verify_shards(arguments.folder)
    print(
        f"{arguments.folder}: {len(manifest.shards)} shards, {manifest.num_scenes} scenes, "
        f"{manifest.num_bytes / BYTES_PER_GB:.3f} GB are what was written; "
        f"{len(manifest.skipped)} scenes could not be read then and were left out"
    )


def check(arguments: Check) -> None:
    """Examine scenes one by one."""
    from lrm_ttt.data.dataset import open_dataset
    from lrm_ttt.data.diagnose import examine_dataset

    if arguments.scenes < 0:
        raise InvalidConfig(f"--scenes {arguments.scenes}: give how many scenes to look at, or 0 for all.")
    diagnoses = examine_dataset(open_dataset(arguments.config()), arguments.scenes or None, arguments.seed)
    found: list[Diagnosis] = []
    for diagnosis in diagnoses:
        found.append(diagnosis)
        if not arguments.json:
            print(diagnosis, flush=True)
    if arguments.json:
        print(json.dumps([diagnosis.as_dict() for diagnosis in found], indent=1))
    else:
        undecided = sum(diagnosis.is_sound and diagnosis.mistake is not None for diagnosis in found)
        sound = sum(diagnosis.mistake is None for diagnosis in found)
        print(f"{sound} sound, {undecided} undecided, {len(found) - sound - undecided} with mistakes")
    wrong = [diagnosis.scene for diagnosis in found if not diagnosis.is_sound]
    if wrong:
        raise LrmTttError(
            f"{len(wrong)} of {len(found)} scenes have a mistake: {', '.join(wrong[:4])}"
            + (", ..." if len(wrong) > 4 else ".")
        )
