"""Batches by number: the scenes of a step follow from (seed, step, part, rank), so resuming needs no data state."""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from lrm_ttt.data.procedural import ProceduralConfig, sample_batch
from lrm_ttt.scene.views import SceneBatch
from lrm_ttt.train.config import StageConfig, ValidationConfig

# torch's CPU generator keeps 32 bits of a seed: training draws from the lower half of them, validation from the upper.
HALF = 2**31
# Validation is the same whatever the seed of the run.
VALIDATION_SEED = 20602160


def training_generator(seed: int, step: int, part: int, rank: int) -> torch.Generator:
    """Return the generator of one rank's batch in one step; `part` counts the accumulations of a step."""
    digest = hashlib.blake2b(f"{seed}/{step}/{part}/{rank}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) % HALF)


def validation_generator(index: int) -> torch.Generator:
    """Return the generator of one held-out scene, whose seed no training step can have."""
    return torch.Generator().manual_seed(HALF + VALIDATION_SEED + index)


def training_batch(stage: StageConfig, generator: torch.Generator, device: torch.device) -> SceneBatch:
    """Draw the scenes of one stage."""
    config = ProceduralConfig(
        image_size=stage.image_size,
        num_inputs=stage.num_inputs,
        num_targets=stage.num_targets,
        room_fraction=stage.room_fraction,
        texture_smoothness=stage.texture_smoothness,
        max_primitives=stage.max_primitives,
    )
    return sample_batch(config, stage.batch_size, generator, device)


def validation_batches(config: ValidationConfig, device: torch.device) -> list[SceneBatch]:
    """Draw the held-out scenes, one a batch."""
    scenes = ProceduralConfig(
        image_size=config.image_size,
        num_inputs=(config.num_inputs, config.num_inputs),
        num_targets=config.num_targets,
        room_fraction=config.room_fraction,
    )
    return [sample_batch(scenes, 1, validation_generator(index), device) for index in range(config.num_scenes)]


class Prefetcher:
    """Draw the next batch in a thread while the present one is learnt from; or on demand, where `ahead` is False."""

    def __init__(self, draw: Callable[[int, int], SceneBatch], ahead: bool) -> None:
        self.draw = draw
        self.pool = ThreadPoolExecutor(1, "scenes") if ahead else None
        self.pending: dict[tuple[int, int], Future[SceneBatch]] = {}

    def get(self, key: tuple[int, int], following: tuple[int, int] | None) -> SceneBatch:
        """Return the batch of (step, part), and begin with the `following` one."""
        if self.pool is None:
            return self.draw(*key)
        # Always drawn in the same thread, so that a resumed run meets the same number of threads in every sum.
        present = self.pending.get(key) or self.pool.submit(self.draw, *key)
        batch = present.result()
        self.pending = {} if following is None else {following: self.pool.submit(self.draw, *following)}
        return batch

    def close(self) -> None:
        """Wait for the thread, and end it."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
