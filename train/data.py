"""Batches by number: the scenes of a step follow from the number of its batch, so resuming needs no other state."""

import dataclasses
import time
from collections.abc import Iterator

import torch

from lrm_ttt.data.config import DatasetConfig
from lrm_ttt.data.dataset import open_dataset
from lrm_ttt.data.order import MixtureOrder
from lrm_ttt.data.procedural import ProceduralConfig, sample_batch
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.training_scene import load_scene
from lrm_ttt.data.training_views import views_needed
from lrm_ttt.data.view_sampler import choose_views
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.scene.views import SceneBatch
from lrm_ttt.train.batches import HALF, BatchKey, BatchMaker, Made, in_frame, training_batch, training_generator
from lrm_ttt.train.config import TrainConfig, ValidationConfig
from lrm_ttt.train.loader import Loader

__all__ = ["BatchSource", "Drawn", "Place", "training_batch", "training_generator", "validation_batches"]

# Validation is the same whatever the seed of the run.
VALIDATION_SEED = 20602160
# In a data set read from files every so manieth view is held out to validate with (DL3DV-140).
HOLD_OUT = 8


def validation_generator(index: int) -> torch.Generator:
    """Return the generator of one held-out scene, whose seed no training step can have."""
    return torch.Generator().manual_seed(HALF + VALIDATION_SEED + index)


def validation_batches(config: ValidationConfig, device: torch.device, model: ModelConfig) -> list[SceneBatch]:
    """Return the held-out scenes, one a batch, in the frame of `model`: procedural ones, or those of `config.source`.

    Raises `UnreadableScene` and `InvalidConfig` where one of these scenes is broken or too short.
    """
    if config.source is not None:
        dataset = open_dataset(config.source)
        indices = range(min(config.num_scenes, len(dataset)))
        return [_held_out(dataset.open(index), config, model).to(device) for index in indices]
    scenes = ProceduralConfig(
        image_size=config.image_size,
        num_inputs=(config.num_inputs, config.num_inputs),
        num_targets=config.num_targets,
        room_fraction=config.room_fraction,
    )
    batches = [sample_batch(scenes, 1, validation_generator(index), device) for index in range(config.num_scenes)]
    return [in_frame(batch, model) for batch in batches]


def _held_out(source: SceneSource, config: ValidationConfig, model: ModelConfig) -> SceneBatch:
    choice = choose_views(source, num_inputs=config.num_inputs, hold_out=HOLD_OUT)
    count = min(config.num_targets, len(choice.targets))
    targets = tuple(choice.targets[len(choice.targets) * index // count] for index in range(count))
    choice = dataclasses.replace(choice, targets=targets)
    patch_size = model.tokenizer.patch_size
    return load_scene(source, choice, config.image_size, patch_size=patch_size, normalisation=model.normalisation)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a process stands: which view group it belongs to, of how many, and which rank in it, of how many."""

    group: int = 0
    num_groups: int = 1
    rank: int = 0
    size: int = 1


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A batch, the scenes that were too broken to be in it (each with the reason), and the seconds waited for it."""

    batch: SceneBatch
    broken: tuple[str, ...]
    waited: float


class BatchSource:
    """Give a view group its batches, step by step and part by part.

    Batch `number` of a stage has the same scenes whoever draws it. Part p of a step is batch
    `position + p * num_groups + group`, where `position` counts what all groups have drawn in the stage. All ranks of a
    group draw the same, and decode all of it: an image that one of them had not looked at might be broken, and its
    scene then another one than that of the others. Procedural scenes follow from (seed, step, part, group) instead, and
    heed only the numbers of inputs in `StageConfig.views`; in a mixture with `num_workers` they are drawn on the CPU.

    Raises `InvalidConfig` for views that no capture can give.
    """

    def __init__(self, config: TrainConfig, place: Place, device: torch.device) -> None:
        self.config, self.place, self.device = config, place, device
        sources = config.data.sources or (DatasetConfig("procedural", layout="procedural"),)
        self.weights = [source.weight for source in sources]
        self.datasets = [None if source.layout == "procedural" else open_dataset(source) for source in sources]
        reads = any(dataset is not None for dataset in self.datasets)
        for stage in config.stages if reads else ():
            views_needed(stage.views, max(stage.views.num_inputs or stage.num_inputs), stage.num_targets)
        self.num_workers = config.data.num_workers if reads else 0
        self.loader: Loader[Made] | None = None
        self.position = 0

    def start(self, step: int, position: int) -> None:
        """Begin before `step`, when all groups together have drawn `position` batches in its stage.

        The attribute `position` is what to start the step with that follows the last batch given.
        """
        self.close()
        self.position = position
        device = self.device if self.num_workers == 0 else torch.device("cpu")
        make = BatchMaker(self.config, self.datasets, self.place.group, device)
        keys = self._keys(step, position)
        self.loader = Loader(make, keys, self.num_workers, self.config.prefetch, self._receive)

    def next(self) -> Drawn:
        """Return the next batch.

        Raises `UnreadableScene` where every scene that was tried is broken, `StopIteration` behind the last step.
        """
        assert self.loader is not None, "start comes first"
        begin = time.perf_counter()
        made = self.loader.next()
        waited = time.perf_counter() - begin
        if made.failure is not None:
            raise made.failure
        assert made.batch is not None
        self.position = made.key.following
        return Drawn(made.batch, made.broken, waited)

    def close(self) -> None:
        """End the thread and the workers that draw ahead."""
        if self.loader is not None:
            self.loader.close()
            self.loader = None

    def _keys(self, step: int, position: int) -> Iterator[BatchKey]:
        """Yield the keys of this group's batches up to the last step."""
        config, groups = self.config, self.place.num_groups
        first = step
        for index, stage in enumerate(config.stages):
            first_step = sum(before.steps for before in config.stages[:index])
            if first_step + stage.steps <= first:
                continue
            order = self._order(index)
            for step in range(max(first, first_step), first_step + stage.steps):
                following = position + groups * config.accumulation if step + 1 < first_step + stage.steps else 0
                for part in range(config.accumulation):
                    number = position + part * groups + self.place.group
                    yield BatchKey(step, part, number, *order.scenes(number, stage.batch_size), following)
                position = following

    def _order(self, stage: int) -> MixtureOrder:
        groups = [() if dataset is None else dataset.groups for dataset in self.datasets]
        return MixtureOrder(groups, self.weights, self.config.seed, stage)

    def _receive(self, made: Made) -> Made:
        return made if made.batch is None else dataclasses.replace(made, batch=made.batch.to(self.device))
