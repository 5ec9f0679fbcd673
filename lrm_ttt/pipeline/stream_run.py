"""A stream from end to end: a capture's name in, and after every step a folder of results with the Gaussians so far."""

import dataclasses
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lrm_ttt.data.assemble import DescribedCapture
from lrm_ttt.data.growing import listed_poses, select
from lrm_ttt.data.images import choose_image_size, load_views
from lrm_ttt.errors import InvalidConfig, UnreadableScene
from lrm_ttt.pipeline.capture import DEFAULT_PIXELS
from lrm_ttt.pipeline.check import Metrics
from lrm_ttt.pipeline.checkpoint import choose_device
from lrm_ttt.pipeline.memory import out_of_memory_explained, peak_memory_mb
from lrm_ttt.pipeline.numbers import device_name, finite
from lrm_ttt.pipeline.outputs import check_replaceable, output_folder
from lrm_ttt.pipeline.provenance import provenance
from lrm_ttt.pipeline.reconstruct import NEAR, Reconstruction, draw
from lrm_ttt.pipeline.stages import Listener, Stages
from lrm_ttt.pipeline.stream import Stream, query, start_stream, update
from lrm_ttt.pipeline.stream_config import StreamConfig
from lrm_ttt.pipeline.stream_feed import Passed, Step, is_held_out, steps
from lrm_ttt.pipeline.stream_file import load_stream, read_record, save_stream
from lrm_ttt.pipeline.stream_job import STREAMING, StreamJob, notes, prepare_stream
from lrm_ttt.pipeline.stream_report import write_stream_report
from lrm_ttt.render.sheet import spread
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.ply import write_ply
from lrm_ttt.scene.views import Views

STATE_FILE = "state.safetensors"
# Held-out views that are drawn after each step, evenly from those passed, so that a step does not cost ever more.
MOST_SCORED = 8
# A fall of the first views below their best that deserves a word, in dB.
FORGOTTEN_DB = 1.0


@dataclasses.dataclass(frozen=True)
class Progress:
    """A stream after some steps: what it passed, and a row of numbers for each step (`rows`)."""

    stream: Stream
    image_size: ImageSize
    name: str
    passed: Passed = dataclasses.field(default_factory=Passed)
    rows: tuple[dict[str, Any], ...] = ()


def run(config: StreamConfig, metrics: Metrics, listener: Listener | None = None, command: str = "") -> dict[str, Any]:
    """Stream a capture into `config.out` and return what metrics.json holds after the last step.

    `metrics` is `lrm_ttt.eval.metrics`. After every step all files in the folder are replaced at once, so that whoever
    interrupts finds those of the last whole step. A short last step is shown, but the state that is kept is the one
    before it: `--resume` takes its views again, and ends where an uninterrupted stream does. Raises
    `LrmTttError` kinds.
    """
    stages = Stages(choose_device(config.device), listener)
    check_replaceable(Path(config.out).expanduser().resolve(), config.overwrite or config.resume)
    with stages("checkpoint"):
        job = prepare_stream(config)
        progress = resume(job) if config.resume else None
        stages.describe(f"{job.model.num_parameters / 1e6:.1f} M parameters, {job.precision}")
    for note in notes(job):
        stages.listener.noticed(note)
    origin, numbers = provenance(command), None
    with out_of_memory_explained():
        for step in steps(config, Passed() if progress is None else progress.passed):
            before = progress or begin(job, step, stages.listener)
            number = len(before.rows) + 1
            with stages(f"step {number}"):
                replaces = config.overwrite or config.resume or number > 1
                with output_folder(job.out, overwrite=replaces) as folder:
                    progress = advance(job, before, step, metrics, folder, stages.advance)
                    numbers = collect(job, progress) | origin
                    write(job, progress if step.is_full else before, numbers, folder)
                stages.describe(describe(progress.rows[-1]))
    if numbers is None and progress is None:
        raise UnreadableScene(f"{config.source}: there is no view to show. Check the capture, or pass --timeout.")
    if numbers is None:
        numbers = read_record(job.out / STATE_FILE)["numbers"]
        stages.listener.noticed(
            f"--resume: nothing was to be done, {config.out} is as it was: {_nothing(config, numbers)}"
        )
    for note in numbers["notes"]:
        stages.listener.noticed(note)
    return numbers


def _nothing(config: StreamConfig, numbers: dict[str, Any]) -> str:
    """Say why a resumed stream took no step."""
    shown = numbers["num_input_views"]
    if config.max_views is not None and config.max_views <= shown:
        return f"{shown} views have passed, and --max-views is {config.max_views}"
    return f"{shown} views have passed, and no further one is there. --timeout waits for more"


def begin(job: StreamJob, step: Step, listener: Listener) -> Progress:
    """Fix frame and image size at the first step; the cameras of all input views listed by now fix the frame."""
    capture = step.capture
    known = [index for index in range(len(capture.views)) if not is_held_out(index, job.config.hold_out)]
    if len(known) < 2:
        raise UnreadableScene(
            f"{capture.described_by}: one view is listed when the stream begins, and fixes no scale. "
            "Pass --views-per-step 2 or more, or --hold-out 0."
        )
    source = select(capture, step.new)
    for note in (*capture.notes, *source.notes):
        listener.noticed(f"{source.name}: {note}")
    size = choose_image_size(source, patch_size=job.patch_size, max_pixels=DEFAULT_PIXELS)
    if job.config.image_size is not None:
        size = ImageSize(*job.config.image_size)
    poses = listed_poses(capture, known).float()
    # The frame depends on poses alone; intrinsics are not looked at.
    cameras = Cameras(poses, torch.ones(len(known), 4), size)
    stream = start_stream(job.model, cameras, strategy=job.config.strategy, num_virtual=job.config.num_virtual)
    return Progress(stream, size, source.name)


def advance(
    job: StreamJob,
    progress: Progress,
    step: Step,
    metrics: Metrics,
    folder: Path,
    advanced: Callable[[int, int], None],
) -> Progress:
    """Take one step, and write its scene.ply; the work of a step does not depend on how many came before."""
    timed = Stages(job.device)
    with timed("read"):
        views = load(job, progress, step.capture, step.new)
    with timed("update"):
        stream = update(progress.stream, views)
    with timed("query"):
        shown = step.passed.shown
        stream, made = query(
            stream, views, lambda seen: load(job, progress, step.capture, tuple(shown[index] for index in seen))
        )
    with timed("write"):
        write_ply(folder / "scene.ply", made.in_capture())
    progress = dataclasses.replace(progress, stream=stream, passed=step.passed)
    # Scoring is for the report alone, and no part of what a step takes.
    total = sum(timed.seconds.values())
    with timed("score"):
        scores = score(job, progress, step, made, metrics, advanced)
    row = {
        "step": len(progress.rows) + 1,
        "num_views": stream.num_views,
        "num_new_views": len(step.new),
        "num_queried": made.num_predicted // (progress.image_size.height * progress.image_size.width),
        "num_gaussians": made.gaussians.num_gaussians,
        **scores,
        "seconds": {name: round(value, 4) for name, value in (timed.seconds | {"total": total}).items()},
        "peak_memory_mb": round(peak_memory_mb(job.device), 1),
    }
    return dataclasses.replace(progress, rows=(*progress.rows, row))


def score(
    job: StreamJob,
    progress: Progress,
    step: Step,
    made: Reconstruction,
    metrics: Metrics,
    advanced: Callable[[int, int], None],
) -> dict[str, Any]:
    """Return the mean PSNR of the first views, of the new ones, and of held-out ones among those passed."""
    held_out = [progress.passed.held_out[index] for index in spread(len(progress.passed.held_out), MOST_SCORED)]
    # A first step is short only where it is the last.
    first = progress.passed.shown[: job.config.views_per_step]
    groups = {"first": first, "new": step.new, "held_out": tuple(held_out)}
    indices = tuple(index for group in groups.values() for index in group)
    truths = load(job, progress, step.capture, indices)
    cameras = progress.stream.in_scene(truths).cameras
    drawn = draw(made.gaussians, cameras, job.background, near=NEAR, backend=job.backend, advance=advanced)
    values = metrics.score_images(drawn, truths.images).psnr
    scores: dict[str, Any] = {"num_held_out_scored": len(held_out)}
    start = 0
    for name, group in groups.items():
        part = values[start : start + len(group)]
        scores[f"psnr_{name}"] = finite(sum(part) / len(part)) if part else None
        start += len(group)
    return scores


def load(job: StreamJob, progress: Progress, capture: DescribedCapture, indices: tuple[int, ...]) -> Views:
    """Decode views of the capture `[v]`, in its own frame."""
    source = select(capture, indices)
    return load_views(
        source,
        range(len(indices)),
        progress.image_size,
        patch_size=job.patch_size,
        background=job.config.background,
    )


def resume(job: StreamJob) -> Progress | None:
    """Return where the stream in OUT had come to after its last full step (None: there was none).

    Raises `InvalidConfig` where it was asked for other things.
    """
    path = job.out / STATE_FILE
    if not path.is_file():
        raise InvalidConfig(f"--resume: {job.out} holds no {STATE_FILE} to go on from. Begin without --resume.")
    record = read_record(path)
    size = ImageSize(*record["settings"]["image_size"])
    asked = job.settings(ImageSize(*job.config.image_size) if job.config.image_size else size)
    for name, value in record["settings"].items():
        if asked[name] != value:
            words = " ".join(map(str, value if isinstance(value, list) else [value]))
            raise InvalidConfig(
                f"--resume: the stream in {job.out} was begun otherwise. Pass --{name.replace('_', '-')} {words}, or "
                "begin again with --overwrite."
            )
    passed = Passed(**{name: tuple(value) for name, value in record["passed"].items()})
    stream = load_stream(path, job.model)
    if not passed.shown:
        return None
    return Progress(stream, size, record["name"], passed, tuple(record["numbers"]["steps"][: record["num_steps"]]))


def write(job: StreamJob, progress: Progress, numbers: dict[str, Any], folder: Path) -> None:
    """Write everything but scene.ply: the `numbers`, and how to go on after `progress`."""
    record = {
        "settings": job.settings(progress.image_size),
        "passed": dataclasses.asdict(progress.passed),
        "name": progress.name,
        "num_steps": len(progress.rows),
        "numbers": numbers,
    }
    save_stream(folder / STATE_FILE, progress.stream, record)
    (folder / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    write_stream_report(folder / "report.html", f"{progress.name}, streamed", numbers)


def collect(job: StreamJob, progress: Progress) -> dict[str, Any]:
    """Return the numbers of metrics.json; what does not exist is null."""
    rows = progress.rows
    last, first = rows[-1], [row["psnr_first"] for row in rows]
    return {
        "scene": progress.name,
        "num_input_views": last["num_views"],
        "num_held_out_views": len(progress.passed.held_out),
        "num_steps": len(rows),
        "num_gaussians": last["num_gaussians"],
        "psnr_first": last["psnr_first"],
        "psnr_first_best": max(first),
        "psnr_held_out": last["psnr_held_out"],
        "seconds_per_step": statistics.median(row["seconds"]["total"] for row in rows),
        "peak_memory_mb": last["peak_memory_mb"],
        "device": device_name(job.device),
        "backend": job.backend,
        "checkpoint": str(job.config.checkpoint or STREAMING),
        "fingerprint": progress.stream.fingerprint,
        **job.settings(progress.image_size),
        "notes": forgotten(first),
        "steps": list(rows),
    }


def forgotten(first: list[float]) -> list[str]:
    """Say that the first views have become worse, where they have."""
    best = max(first)
    if best - first[-1] <= FORGOTTEN_DB:
        return []
    return [
        f"the first views have become worse: {first[-1]:.2f} dB now, {best:.2f} dB after step {first.index(best) + 1}"
    ]


def describe(row: dict[str, Any]) -> str:
    """Say in a few words what a step has brought."""
    held_out = "" if row["psnr_held_out"] is None else f", held out {row['psnr_held_out']:.2f}"
    return (
        f"{row['num_views']} views, {row['num_gaussians']:,} Gaussians; first views {row['psnr_first']:.2f} dB, "
        f"new ones {row['psnr_new']:.2f}{held_out}"
    )
