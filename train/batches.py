"""Make one batch from its key, in any process: procedural scenes, or captures of a data set."""

import dataclasses
import hashlib
from collections.abc import Sequence
from random import Random

import torch

from lrm_ttt.data.dataset import SceneDataset
from lrm_ttt.data.order import replacement
from lrm_ttt.data.procedural import ProceduralConfig, random_background, sample_batch
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.training_scene import collate, load_scene, renormalised
from lrm_ttt.data.training_views import sample_views
from lrm_ttt.errors import LrmTttError, UnreadableScene
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.scene.views import SceneBatch
from lrm_ttt.train.config import StageConfig, TrainConfig
from lrm_ttt.train.schedule import stage_at

# torch's CPU generator keeps 32 bits of a seed: training draws from the lower half of them, validation from the upper.
HALF = 2**31
# A broken scene is replaced by another one, at most so often.
MAX_REPLACEMENTS = 8


def training_generator(seed: int, step: int, part: int, rank: int) -> torch.Generator:
    """Return the generator of one view group's batch in one step; `part` counts the accumulations of a step."""
    return _generator((seed, step, part, rank))


def training_batch(stage: StageConfig, generator: torch.Generator, device: torch.device) -> SceneBatch:
    """Draw the procedural scenes of one stage."""
    config = ProceduralConfig(
        image_size=stage.image_size,
        num_inputs=stage.num_inputs,
        num_targets=stage.num_targets,
        room_fraction=stage.room_fraction,
        texture_smoothness=stage.texture_smoothness,
        max_primitives=stage.max_primitives,
    )
    return sample_batch(config, stage.batch_size, generator, device)


def in_frame(batch: SceneBatch, model: ModelConfig) -> SceneBatch:
    """Return procedural scenes, which come in the frame "focus", in the frame of the model."""
    return batch if model.normalisation == "focus" else renormalised(batch, model.normalisation)


@dataclasses.dataclass(frozen=True)
class BatchKey:
    """Say which batch: `number` counts those of its stage, `scenes` are indices into the data set `source`.

    `following` is the position to start the next step with.
    """

    step: int
    part: int
    number: int
    source: int
    scenes: tuple[int, ...]
    following: int


@dataclasses.dataclass(frozen=True)
class Made:
    """What became of a key: a batch, or the reason why there is none."""

    key: BatchKey
    batch: SceneBatch | None
    broken: tuple[str, ...] = ()
    failure: LrmTttError | None = None


class BatchMaker:
    """Make the batch of a key, in any process."""

    def __init__(
        self, config: TrainConfig, datasets: Sequence[SceneDataset | None], group: int, device: torch.device
    ) -> None:
        self.config, self.datasets, self.group, self.device = config, datasets, group, device
        sources = config.data.sources
        self.names = [source.name for source in sources]

    def __call__(self, key: BatchKey) -> Made:
        """Return the batch, or the reason why there is none."""
        stage_index, _ = stage_at(self.config, key.step)
        stage = self.config.stages[stage_index]
        num_inputs = draw_num_inputs(self.config, key.step, key.part)
        dataset = self.datasets[key.source]
        if dataset is None:
            stage = dataclasses.replace(stage, num_inputs=(num_inputs, num_inputs))
            generator = training_generator(self.config.seed, key.step, key.part, self.group)
            batch = training_batch(stage, generator, self.device)
            return Made(key, in_frame(batch, self.config.model))
        broken: list[str] = []
        try:
            scenes = []
            for element in range(stage.batch_size):
                scenes.append(self._scene(dataset, key, stage_index, element, num_inputs, broken))
            return Made(key, collate(scenes), tuple(broken))
        except LrmTttError as error:
            return Made(key, None, tuple(broken), error)

    def _scene(
        self, dataset: SceneDataset, key: BatchKey, stage: int, element: int, num_inputs: int, broken: list[str]
    ) -> SceneBatch:
        """Return one scene; a broken one is added to `broken` and replaced by another that follows from the key."""
        name = self.names[key.source]
        tried: list[str] = []
        # The only scene of a data set cannot be replaced.
        for attempt in range(MAX_REPLACEMENTS + 1 if len(dataset) > 1 else 1):
            which = (self.config.seed, stage, key.number, element, attempt)
            index = key.scenes[element]
            if attempt > 0:
                index = replacement(index, len(dataset), *which)
            try:
                return self._load(dataset.open(index), self.config.stages[stage], num_inputs, _generator(which))
            except UnreadableScene as error:
                broken.append(f"{name}, {dataset.scene_name(index)}: {error}")
                tried.append(dataset.scene_name(index))
        what = f"{len(tried)} scenes in a row cannot be read" if len(tried) > 1 else "its only scene cannot be read"
        # Some may have been tried twice.
        names = ", ".join(dict.fromkeys(tried))
        raise UnreadableScene(
            f"data set {name}: {what} ({names}). Mend or remove them; lrm-ttt data check finds more. "
            f"The last was {broken[-1]}"
        )

    def _load(self, source: SceneSource, stage: StageConfig, num_inputs: int, generator: torch.Generator) -> SceneBatch:
        model = self.config.model
        choice = sample_views(source, stage.views, num_inputs, stage.num_targets, generator)
        background = random_background(Random(int(torch.randint(2**62, (), generator=generator))))
        return load_scene(
            source,
            choice,
            stage.image_size,
            patch_size=model.tokenizer.patch_size,
            normalisation=model.normalisation,
            background=background,
        )


def draw_num_inputs(config: TrainConfig, step: int, part: int) -> int:
    """Return the number of inputs of all groups' batches in a part of a step."""
    stage = config.stages[stage_at(config, step)[0]]
    # The first number that group 0 draws for its procedural scenes, as `sample_batch` does by itself.
    generator = training_generator(config.seed, step, part, 0)
    numbers = stage.views.num_inputs or range(stage.num_inputs[0], stage.num_inputs[1] + 1)
    return numbers[int(torch.randint(len(numbers), (), generator=generator))]


def _generator(key: tuple[int, ...]) -> torch.Generator:
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) % HALF)
