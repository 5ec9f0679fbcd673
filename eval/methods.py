"""The methods that a benchmark compares, made from their configuration; our own are written down here."""

import dataclasses

import torch

from lrm_ttt.eval.baselines.optimise import Optimise
from lrm_ttt.eval.baselines.scaffold import Scaffold
from lrm_ttt.eval.benchmark.config import FeedForwardConfig, MethodConfig, StreamConfig
from lrm_ttt.eval.task import Advance, Method, Outcome, Task
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.pipeline.checkpoint import load, locate
from lrm_ttt.pipeline.reconstruct import NEAR, Reconstruction, normalise, prune, reconstruct
from lrm_ttt.pipeline.refine import RefineConfig, refine
from lrm_ttt.pipeline.stream import push, start_stream
from lrm_ttt.scene.views import Views

# The embedded models, by the names of their folders in lrm_ttt/weights.
EMBEDDED = ("", "softmax", "streaming")


def build_method(config: MethodConfig, device: torch.device) -> Method:
    """Return what a configuration means, its model loaded; raises `LrmTttError` kinds."""
    if config.feed_forward is not None:
        return FeedForward(config.feed_forward, device)
    if config.stream is not None:
        return Streaming(config.stream, device)
    if config.scaffold is not None:
        return Scaffold(config.scaffold, device)
    assert config.optimise is not None
    return Optimise(config.optimise, device)


class FeedForward:
    """One forward pass over all inputs, then optimisation on them where steps are asked for."""

    def __init__(self, config: FeedForwardConfig, device: torch.device) -> None:
        self.refinement = RefineConfig(config.refine, start_share=config.refine_share)
        self.device = device
        self.model = load_gaussian_model(config.checkpoint, "", device)

    def __call__(self, task: Task, advance: Advance) -> Outcome:
        """Reconstruct; steps are those of the optimisation."""
        inputs, background = task.inputs.to(self.device), task.background.to(self.device)
        made = reconstruct(self.model, inputs, background=background, backend=task.backend)
        if not self.refinement.steps:
            return outcome(made)
        refined = refine(
            made.gaussians,
            normalise(inputs, made.world_to_scene),
            background,
            self.refinement,
            generator=torch.Generator().manual_seed(task.seed),
            near=NEAR,
            backend=task.backend,
            advance=advance,
        )
        return outcome(dataclasses.replace(made, gaussians=prune(refined, 1.0)))


class Streaming:
    """The inputs some at a time, each step from the state that the one before left; the last step's Gaussians count."""

    def __init__(self, config: StreamConfig, device: torch.device) -> None:
        self.views_per_step = config.views_per_step
        self.device = device
        self.model = load_gaussian_model(config.checkpoint, "streaming", device)

    def __call__(self, task: Task, advance: Advance) -> Outcome:
        """Stream, with Gaussians after each step, as `lrm-ttt stream` does."""
        inputs = task.inputs.to(self.device)

        def recall(chosen: tuple[int, ...]) -> Views:
            return inputs[list(chosen)]

        stream = start_stream(self.model, inputs.cameras)
        made = None
        for some in torch.arange(inputs.shape[0]).split(self.views_per_step):
            stream, made = push(stream, inputs[some.tolist()], recall)
            advance(stream.num_views, inputs.shape[0])
        assert made is not None
        return outcome(made)


def load_gaussian_model(checkpoint: str | None, embedded: str, device: torch.device) -> Reconstructor:
    """Return the model of a folder, of a name on the hub, or one of the embedded ones (None: `embedded`)."""
    name = embedded if checkpoint is None else checkpoint
    return load(locate(None, name) if name in EMBEDDED else locate(name), device)


def outcome(made: Reconstruction) -> Outcome:
    """Return a reconstruction in the frame of its capture."""
    return Outcome(made.in_capture(), made.near_in_capture)
