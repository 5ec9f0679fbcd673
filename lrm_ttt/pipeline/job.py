"""One reconstruction before it is computed: the choices that configuration, checkpoint, capture and machine lead to."""

import dataclasses
from pathlib import Path

import torch

from lrm_ttt.model.config import ModelConfig
from lrm_ttt.pipeline.capture import CapturePlan, plan_capture
from lrm_ttt.pipeline.checkpoint import (
    check_compiler,
    choose_backend,
    choose_device,
    choose_precision,
    locate,
    model_config,
)
from lrm_ttt.pipeline.config import ReconstructConfig
from lrm_ttt.pipeline.representation import check_representation
from lrm_ttt.pipeline.slicing import SlicePlan, slices_of
from lrm_ttt.pipeline.virtual import VirtualPlan, plan_virtual
from lrm_ttt.scene.views import Views


@dataclasses.dataclass(frozen=True)
class Job:
    """What a run knows before it computes anything."""

    config: ReconstructConfig
    model: ModelConfig
    checkpoint: Path
    plan: CapturePlan
    virtual: VirtualPlan
    device: torch.device
    backend: str
    precision: str
    slices: SlicePlan

    @property
    def background(self) -> torch.Tensor:
        """The colour behind everything, on the device."""
        return torch.tensor(self.config.background, device=self.device)

    @property
    def num_inputs(self) -> int:
        """Number of input views."""
        return len(self.plan.choice.inputs)

    @property
    def num_tokens(self) -> int:
        """Number of tokens that the input views become."""
        patch, size = self.model.tokenizer.patch_size, self.plan.image_size
        return self.num_inputs * (size.height // patch) * (size.width // patch)

    def load_inputs(self) -> Views:
        """Decode the input views `[v]`."""
        return self.plan.load(self.plan.choice.inputs, self.model.tokenizer.patch_size, self.config.background)

    def load_held_out(self) -> Views | None:
        """Decode the held-out views `[t]`; nobody does before the model has run."""
        if not self.plan.choice.targets:
            return None
        return self.plan.load(self.plan.choice.targets, self.model.tokenizer.patch_size, self.config.background)


def prepare(config: ReconstructConfig) -> Job:
    """Find device, checkpoint and capture, and choose the views; nearly all that a user can get wrong fails here."""
    device = choose_device(config.device)
    backend = choose_backend(config.backend, device)
    check_compiler(config.compile, device)
    checkpoint = locate(config.checkpoint)
    model = model_config(checkpoint, config.schedule)
    check_representation(config, model)
    plan = plan_capture(config, model.tokenizer.patch_size)
    virtual = plan_virtual(config, plan, model.tokenizer.patch_size)
    slices = slices_of(config, model, plan, virtual, device)
    precision = choose_precision(config.precision, device)
    return Job(config, model, checkpoint, plan, virtual, device, backend, precision, slices)


def notes(job: Job) -> list[str]:
    """Return what the user should know before the work begins."""
    sentences = [f"{job.plan.source.name}: {note}" for note in job.plan.notes]
    sentences += job.virtual.notes(job.config, job.model)
    sentences += [] if job.slices.note is None else [job.slices.note]
    trained = model_config(job.checkpoint).backbone.schedule
    if job.model.backbone.schedule != trained:
        sentences.append(
            f"--schedule {job.model.backbone.schedule}: this model was trained with '{trained}', "
            "which is another computation; expect less of it"
        )
    return sentences
