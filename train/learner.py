"""What is trained, and with what: the model on its ranks, objectives, the optimiser, and the average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.losses.objective import LossTerms, build_objectives
from lrm_ttt.model.build import build
from lrm_ttt.model.checkpoint import load_matching
from lrm_ttt.model.compilation import compile_blocks
from lrm_ttt.parallel.sharing import share_views
from lrm_ttt.pipeline.processor import cxx_compiler
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.views import Renderings, SceneBatch, Views
from lrm_ttt.train.checkpointing import random_state, restore_random_state
from lrm_ttt.train.config import TrainConfig
from lrm_ttt.train.hardware import choose_precision
from lrm_ttt.train.logging import Stopwatch, measure_module
from lrm_ttt.train.optimiser import Optimiser, WeightAverage
from lrm_ttt.train.ranks import Ranks
from lrm_ttt.train.run_folder import Checkpoint
from lrm_ttt.train.sharded import forget_gathered, whole
from lrm_ttt.train.tasks import render_targets

Parts = dict[str, dict[str, Tensor]]


class Learner:
    """Hold one rank's share of what a run changes.

    `init` names a model to begin from, `last` the checkpoint to go on from. Raises what `build_objectives` and
    `load_matching` raise, before anything is trained.
    """

    def __init__(
        self, config: TrainConfig, ranks: Ranks, stopwatch: Stopwatch, init: str | None, last: Checkpoint | None
    ) -> None:
        self.config, self.ranks, self.stopwatch = config, ranks, stopwatch
        # What was noticed, for the run to say.
        self.notes: list[str] = []
        patch_size = config.model.tokenizer.patch_size
        objectives = build_objectives([stage.losses for stage in config.stages], patch_size)
        self.objectives = [objective.to(ranks.device) for objective in objectives]
        # The same on all ranks, who are to have the same weights; then each goes on with random numbers of its own.
        set_seed(config.seed)
        self.dtype = torch.float64 if config.precision == "fp64" else torch.float32
        self.model = build(config.model, choose_precision(config.precision, ranks.device))
        self.model.to(ranks.device, self.dtype).train()
        self._begin(init, last)
        set_seed(config.seed, device_specific=True)
        self.model.backbone.checkpointing = config.activation_checkpointing
        self._compile()
        self.wrapped = ranks.wrap(self.model)
        dtype = self.model.precision.newton_schulz
        self.optimiser = Optimiser(self.model.named_parameters(), config.optimiser, dtype)
        self.average = WeightAverage(self.model, config.ema_decay)
        if last is not None:
            self._go_on(last)
        measure_module(self.model.tokenizer, stopwatch, "forward: evidence and tokens")
        measure_module(self.model.head, stopwatch, "forward: head")

    def learn(
        self, batch: SceneBatch, stage_index: int, generator: torch.Generator
    ) -> tuple[LossTerms, Renderings, Views, Gaussians | None]:
        """Add the gradients of one batch, a share of its step, and return what was compared with what.

        Each rank of a view group renders its own share of the targets; the mean over the ranks is the loss of the
        batch.
        """
        stage = self.config.stages[stage_index]
        batch = batch.to(self.dtype)
        targets = self.ranks.own_targets(rendered_views(batch, stage.num_input_renders))
        keep = stage.keep_fraction, stage.keep_random
        what = self.wrapped, self.config.model, batch, targets, self.stopwatch, generator, keep
        renderings, gaussians = render_targets(*what)
        with self.stopwatch("losses"):
            depths = self._teach(stage_index, batch.inputs)
            losses = self.objectives[stage_index](renderings, targets, gaussians, batch.inputs, depths)
        with self.stopwatch("backward"):
            self.ranks.accelerator.backward(losses.total / self.config.accumulation)
        return losses, renderings, targets, gaussians

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the average in the place of the weights while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> tuple[Parts, dict[str, Any]]:
        """Return what a checkpoint must hold, whole; all ranks must call this together."""
        weights = {name: whole(tensor) for name, tensor in self.model.state_dict().items()}
        parts = {"model": weights, "average": self.average.state(), "optimiser": self.optimiser.state()}
        return parts, {"random": self.ranks.gather(random_state())}

    def _begin(self, init: str | None, last: Checkpoint | None) -> None:
        """Take the weights of a model or of a checkpoint."""
        if last is not None:
            last.check_model(self.model)
            self.model.load_state_dict(last.parts["model"])
            # Weights that began from somebody else's keep their licence.
            self.model.origin = last.origin
        elif init is not None:
            differences = load_matching(self.model, init)
            self.notes.append(f"began from {init}" + "".join(f"; {difference}" for difference in differences))

    def _go_on(self, last: Checkpoint) -> None:
        self.average.load(last.parts["average"])
        self.optimiser.load_state(last.parts["optimiser"])
        states = last.state["random"]
        rank = self.ranks.accelerator.process_index
        # On more ranks than before, the new ones keep the random numbers that their seed gives.
        if rank < len(states):
            restore_random_state(states[rank])

    def _teach(self, stage_index: int, inputs: Views) -> Tensor | None:
        """Ask the depth teacher about the inputs, each rank of a view group about its own."""
        objective = self.objectives[stage_index]
        if not self.ranks.group.is_shared or objective.teacher is None:
            return None
        sharing = share_views(inputs.shape[1], self.ranks.group)
        depths = objective.teach(inputs[:, list(sharing.own)])
        return None if depths is None else sharing.gather(depths)

    def _swap(self) -> None:
        self.average.swap()
        forget_gathered(self.model)

    def _compile(self) -> None:
        """Compile the blocks where that is wanted and can be done."""
        if not self.config.compile:
            return
        if self.ranks.device.type == "cpu" and not cxx_compiler():
            self.notes.append("no C++ compiler was found, so the blocks run uncompiled, and slower")
            return
        compile_blocks(self.model)


def rendered_views(batch: SceneBatch, num_input_renders: int) -> Views:
    """Return the targets, and behind them the first of the inputs (whose order is random)."""
    assert batch.targets is not None
    if num_input_renders == 0:
        return batch.targets
    return cat([batch.targets, batch.inputs[:, :num_input_renders]], 1)


def check_shares(config: TrainConfig) -> None:
    """Refuse views that the ranks of a group cannot share evenly, or of which one would have none."""
    ranks_per_scene, backbone = config.parallel.ranks_per_scene, config.model.backbone
    if backbone.schedule != "single" and backbone.views_per_update < ranks_per_scene:
        raise InvalidConfig(
            f"parallel.ranks_per_scene is {ranks_per_scene}, and the memory is written from "
            f"{backbone.views_per_update} views at a time (backbone.views_per_update): some ranks would have none."
        )
    if config.validation.num_inputs < ranks_per_scene:
        raise InvalidConfig(
            f"validation.num_inputs is {config.validation.num_inputs}, fewer than {ranks_per_scene} ranks a scene."
        )
    for stage in config.stages:
        rendered = stage.num_targets + stage.num_input_renders
        if rendered % ranks_per_scene:
            raise InvalidConfig(
                f"stage {stage.name}: {rendered} views are rendered (num_targets and num_input_renders), which "
                f"{ranks_per_scene} ranks a scene cannot share evenly. Render a multiple of {ranks_per_scene}."
            )
        fewest = min(stage.views.num_inputs or stage.num_inputs)
        if fewest < ranks_per_scene:
            raise InvalidConfig(
                f"stage {stage.name}: {fewest} inputs cannot be shared by {ranks_per_scene} ranks a scene. "
                "Take more inputs, or fewer ranks a scene."
            )
