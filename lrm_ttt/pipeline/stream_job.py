"""One stream before its first view: the model that streams, the machine, and what the user should know."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from lrm_ttt.config_io import to_mapping
from lrm_ttt.errors import IncompatibleCheckpoint, InvalidConfig, UnreadableScene
from lrm_ttt.layers.fast_weight import FastWeightMemory
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.pipeline.capture import check_size
from lrm_ttt.pipeline.checkpoint import (
    check_compiler,
    choose_backend,
    choose_device,
    choose_precision,
    load,
    locate,
    model_config,
)
from lrm_ttt.pipeline.config import EXAMPLE
from lrm_ttt.pipeline.stream import check_schedule
from lrm_ttt.pipeline.stream_config import StreamConfig
from lrm_ttt.scene.cameras import ImageSize

STREAMING = "streaming"


@dataclasses.dataclass(frozen=True)
class StreamJob:
    """What a stream knows before it sees a view."""

    config: StreamConfig
    checkpoint: Path
    model: Reconstructor
    device: torch.device
    backend: str
    precision: str

    @property
    def out(self) -> Path:
        """The folder of results."""
        return Path(self.config.out).expanduser().resolve()

    @property
    def patch_size(self) -> int:
        """The side of the model's patches."""
        return self.model.config.tokenizer.patch_size

    @property
    def background(self) -> torch.Tensor:
        """The colour behind everything, on the device."""
        return torch.tensor(self.config.background, device=self.device)

    def settings(self, image_size: ImageSize) -> dict[str, Any]:
        """Return what must stay the same when a stream is resumed, by the flags' names."""
        backbone = self.model.config.backbone
        names = ("strategy", "views_per_step", "hold_out", "background")
        return {name: to_mapping(getattr(self.config, name)) for name in names} | {
            "virtual": self.config.num_virtual,
            "elastic": backbone.memory.elastic,
            "schedule": backbone.schedule,
            "precision": self.precision,
            "image_size": list(image_size),
        }


def prepare_stream(config: StreamConfig) -> StreamJob:
    """Find capture, device and checkpoint, and load the model."""
    check_source(config)
    device = choose_device(config.device)
    backend, precision = choose_backend(config.backend, device), choose_precision(config.precision, device)
    check_compiler(config.compile, device)
    checkpoint = locate_streaming(config.checkpoint)
    described = model_config(checkpoint, config.schedule)
    check_gaussians(described)
    check_schedule(described.backbone.schedule)
    if config.image_size is not None:
        check_size(ImageSize(*config.image_size), described.tokenizer.patch_size)
    model = load(checkpoint, device, precision=precision, schedule=config.schedule, compiled=config.compile)
    if config.elastic is not None:
        set_elastic(model, config.elastic)
    return StreamJob(config, checkpoint, model, device, backend, precision)


def check_source(config: StreamConfig) -> None:
    """Raise `UnreadableScene` for a capture that is not there, unless it is waited for."""
    if config.timeout > 0 or Path(config.source).expanduser().exists():
        return
    if config.source == EXAMPLE:
        raise UnreadableScene(
            "`example` is not streamed: it is made on the spot, and a stream follows files. Give a capture's folder, "
            "or `lrm-ttt reconstruct example`."
        )
    raise UnreadableScene(
        f"{config.source}: there is no such folder or file. Check the path, or pass --timeout to wait for it."
    )


def check_gaussians(model: ModelConfig) -> None:
    """Raise `InvalidConfig` for a model of another representation."""
    if model.representation != "gaussians":
        raise InvalidConfig(
            f"`stream` is about Gaussians, and this checkpoint predicts '{model.representation}'. Reconstruct with it "
            "from all views at once, or pass --checkpoint with a model that predicts Gaussians."
        )


def locate_streaming(checkpoint: str | None) -> Path:
    """Return the folder of a checkpoint; None is the embedded model for streams.

    Raises `IncompatibleCheckpoint` where there is none.
    """
    try:
        return locate(checkpoint, STREAMING)
    except IncompatibleCheckpoint as error:
        if checkpoint is not None:
            raise
        raise IncompatibleCheckpoint(
            "This installation has no embedded model for streams. Pass --checkpoint FOLDER of a model trained with the "
            f"schedule 'causal', or try --checkpoint {locate(None)} --schedule causal, as an experiment."
        ) from error


def set_elastic(model: Reconstructor, strength: float) -> None:
    """Give every memory of a model just loaded another strength of the elastic update; it needs no training."""
    config = model.config
    if config.backbone.mixer != "fast_weight" and strength:
        raise InvalidConfig(f"--elastic {strength:g}: this model has no fast weights, which the update is for.")
    memory = dataclasses.replace(config.backbone.memory, elastic=strength)
    model.config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, memory=memory))
    model.backbone.config = model.config.backbone
    for module in model.modules():
        if isinstance(module, FastWeightMemory):
            module.config = memory


def notes(job: StreamJob) -> list[str]:
    """Return what the user should know before the first step."""
    backbone, views = job.model.config.backbone, job.config.views_per_step
    trained = model_config(job.checkpoint).backbone.schedule
    sentences = []
    if backbone.schedule != trained:
        sentences.append(
            f"--schedule {backbone.schedule}: this model was trained with '{trained}', which is another computation; "
            "expect less of it"
        )
    if views % backbone.views_per_update:
        sentences.append(
            f"--views-per-step {views} is no multiple of {backbone.views_per_update}, the views of one update when "
            "this model was trained: some updates have fewer"
        )
    if backbone.mixer == "softmax":
        sentences.append("this model keeps keys and values of all tokens: seconds and memory grow with every step")
    return sentences
