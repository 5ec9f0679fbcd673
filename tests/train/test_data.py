"""Scenes by number."""

import torch

from lrm_ttt.train.data import HALF, Prefetcher, training_batch, training_generator, validation_generator
from tests.train.micro import micro


def test_generators_follow_from_their_numbers_alone() -> None:
    numbers = [(seed, step, part, rank) for seed in (0, 1) for step in range(40) for part in (0, 1) for rank in (0, 1)]
    seeds = [training_generator(*number).initial_seed() for number in numbers]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [training_generator(*number).initial_seed() for number in numbers]
    # torch's generator keeps 32 bits, and these two ranges do not meet in them.
    assert max(seeds) < HALF <= min(validation_generator(index).initial_seed() for index in range(8))
    assert max(validation_generator(index).initial_seed() for index in range(8)) < 2 * HALF


def test_prefetching_changes_no_bit() -> None:
    stage = micro().stages[1]

    def draw(step: int, part: int) -> object:
        return training_batch(stage, training_generator(0, step, part, 0), torch.device("cpu"))

    ahead, plain = Prefetcher(draw, ahead=True), Prefetcher(draw, ahead=False)
    keys = [(0, 0), (0, 1), (1, 0), (7, 0)]
    for key, following in zip(keys, [(0, 1), (1, 0), (2, 0), None], strict=True):
        ours, theirs = ahead.get(key, following), plain.get(key, None)
        assert torch.equal(ours.inputs.images, theirs.inputs.images) and ours.names == theirs.names
    ahead.close()
