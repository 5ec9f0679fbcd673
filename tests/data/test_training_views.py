"""Which views of a capture a training sample takes."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from lrm_ttt.data.config import ViewSamplingConfig
from lrm_ttt.data.training_views import sample_views
from lrm_ttt.data.view_sampler import ViewChoice
from lrm_ttt.errors import InvalidConfig, UnreadableScene
from tests.data.test_view_sampler import source_at

SCENES = ViewSamplingConfig(span=(128, 512), pool=124)
OBJECTS = ViewSamplingConfig(pool=15, targets="any")
CONFIGS = {
    "plain": ViewSamplingConfig(),
    "any": ViewSamplingConfig(targets="any"),
    "span": ViewSamplingConfig(span=(20, 30)),
    "pool": ViewSamplingConfig(span=(20, 30), pool=14),
    "prefix": ViewSamplingConfig(span=(20, 30), pool=18, order="prefix"),
    "prefix, any": ViewSamplingConfig(order="prefix", targets="any"),
}


def sample(config: ViewSamplingConfig, num_views: int, num_inputs: int, num_targets: int, seed: int) -> ViewChoice:
    source = source_at(np.zeros((num_views, 3)))
    return sample_views(source, config, num_inputs, num_targets, torch.Generator().manual_seed(seed))


def extent(choice: ViewChoice) -> int:
    views = (*choice.inputs, *choice.targets)
    return max(views) - min(views) + 1


@pytest.mark.parametrize("name", CONFIGS)
def test_what_holds_for_every_choice(name: str) -> None:
    config = CONFIGS[name]
    for seed, num_views in itertools.product(range(20), (14, 21, 60)):
        choice = sample(config, num_views, 8, 6, seed)
        assert len(set(choice.inputs)) == len(choice.inputs) == 8
        assert len(set(choice.targets)) == len(choice.targets) == 6
        assert 0 <= min(*choice.inputs, *choice.targets) <= max(*choice.inputs, *choice.targets) < num_views
        assert choice.queries == choice.inputs
        assert choice == sample(config, num_views, 8, 6, seed)
        if config.targets == "held_out":
            assert not set(choice.inputs) & set(choice.targets)
        if config.span is not None and num_views >= config.span[0]:
            assert extent(choice) <= config.span[1]
        if config.order == "prefix":
            assert list(choice.inputs) == sorted(choice.inputs) and list(choice.targets) == sorted(choice.targets)
            assert all(choice.inputs[0] <= view <= choice.inputs[-1] for view in choice.targets)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_view_comes_as_input_and_as_target(name: str) -> None:
    """All of a capture is used: spans begin anywhere."""
    choices = [sample(CONFIGS[name], 40, 8, 6, seed) for seed in range(1500)]
    inputs = {view for choice in choices for view in choice.inputs}
    targets = {view for choice in choices for view in choice.targets}
    if name == "prefix, any":
        # Without a span or a pool a prefix is the beginning.
        assert inputs == targets == set(range(14))
    elif name == "prefix":
        # A prefix ends before the pool does, and its ends are inputs.
        assert inputs >= set(range(36)) and targets >= set(range(1, 35))
    else:
        assert inputs == targets == set(range(40))


def test_views_are_drawn_uniformly() -> None:
    """Each of 12 views is one of 4 inputs with probability 1/3, and each pair equally often."""
    choices = [sample(ViewSamplingConfig(), 12, 4, 3, seed) for seed in range(3000)]
    inputs = Counter(view for choice in choices for view in choice.inputs)
    targets = Counter(view for choice in choices for view in choice.targets)
    pairs = Counter(pair for choice in choices for pair in itertools.combinations(sorted(choice.inputs), 2))
    # 6 sigma of a binomial count.
    assert all(abs(inputs[view] - 1000) < 6 * (3000 * 2 / 9) ** 0.5 for view in range(12))
    assert all(abs(targets[view] - 750) < 6 * (3000 * 3 / 16) ** 0.5 for view in range(12))
    assert len(pairs) == 66 and all(abs(count - 3000 / 11) < 6 * (3000 * 10 / 121) ** 0.5 for count in pairs.values())
    first = Counter(choice.inputs[0] for choice in choices)
    assert all(abs(first[view] - 250) < 6 * (3000 * 11 / 144) ** 0.5 for view in range(12))


def test_spans_have_any_length_and_place() -> None:
    """With all views of a span in use the choice shows the span: lengths 10..20 of 50 views, uniformly."""
    choices = [sample(ViewSamplingConfig(span=(10, 20)), 50, 5, 5, seed) for seed in range(4000)]
    assert max(map(extent, choices)) == 20
    starts = Counter(min(*choice.inputs, *choice.targets) for choice in choices)
    assert set(starts) >= set(range(41))
    # A prefix that takes the whole pool shows the lengths themselves.
    config = ViewSamplingConfig(span=(10, 20), targets="any", order="prefix")
    lengths = Counter(extent(sample(config, 50, 10, 10, seed)) for seed in range(2200))
    assert set(lengths) == set(range(10, 21))
    assert all(abs(lengths[length] - 200) < 6 * (2200 * 10 / 121) ** 0.5 for length in range(10, 20))


def test_the_papers_recipes() -> None:
    """DL3DV: 64 inputs and 8 targets of 124 in a span of 128-512 frames. Objects: 8 and 8 of 15 of 32 renders."""
    for seed in range(20):
        choice = sample(SCENES, 350, 64, 8, seed)
        assert extent(choice) <= 350 and not set(choice.inputs) & set(choice.targets)
        choice = sample(OBJECTS, 32, 8, 8, seed)
        # 16 places in a pool of 15: at least one view is both.
        assert set(choice.inputs) & set(choice.targets) and len({*choice.inputs, *choice.targets}) <= 15
    assert extent(sample(SCENES, 100, 64, 8, 0)) <= 100


def test_the_prefix_is_the_beginning_of_the_pool() -> None:
    choice = sample(ViewSamplingConfig(order="prefix"), 40, 8, 4, 0)
    assert sorted((*choice.inputs, *choice.targets)) == list(range(12))
    assert choice.inputs[0] == 0 and choice.inputs[-1] == 11
    assert sample(ViewSamplingConfig(order="prefix"), 40, 1, 1, 0).inputs == (0,)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_capture_with_too_few_views_is_named(name: str) -> None:
    needed = 8 if CONFIGS[name].targets == "any" else 14
    sample(CONFIGS[name], needed, 8, 6, 0)
    with pytest.raises(UnreadableScene, match=rf"line: {needed - 1} views, where 8 inputs and 6 targets take {needed}"):
        sample(CONFIGS[name], needed - 1, 8, 6, 0)


def test_settings_that_no_capture_can_meet() -> None:
    for name, config in {"pool": ViewSamplingConfig(pool=13), "span": ViewSamplingConfig(span=(5, 13))}.items():
        with pytest.raises(InvalidConfig, match=f"views.{name}: 13 views cannot hold 8 inputs and 6 targets"):
            sample(config, 500, 8, 6, 0)
