"""Draw which views of a capture are inputs and which targets in one training sample."""

import torch

from lrm_ttt.data.config import ViewSamplingConfig
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.view_sampler import ViewChoice
from lrm_ttt.errors import InvalidConfig, UnreadableScene


def sample_views(
    source: SceneSource, config: ViewSamplingConfig, num_inputs: int, num_targets: int, generator: torch.Generator
) -> ViewChoice:
    """Draw inputs and targets of a capture, whose views are in the order in which they were taken.

    First a span of consecutive views (a capture shorter than the shortest span is taken whole), then a pool of them.
    With order "random" inputs and targets are any views of the pool. With "prefix" the pool is cut off after as many
    views as inputs and targets together, and both are listed in the order of the capture: the first and the last of
    these views are inputs, so that every target is one that the inputs have passed by. Queries are the inputs.

    Raises `UnreadableScene` for a capture with too few views.
    """
    needed = views_needed(config, num_inputs, num_targets)
    if source.num_views < needed:
        raise UnreadableScene(
            f"{source.name}: {source.num_views} views, where {num_inputs} inputs and {num_targets} targets take "
            f"{needed}. Leave the capture out, or ask for fewer."
        )
    pool = _pool(source.num_views, config, needed, generator)
    if config.order == "random":
        order = _shuffled(pool, generator)
        inputs = order[:num_inputs]
        targets = order[num_inputs:needed] if config.targets == "held_out" else _some(pool, num_targets, generator)
    else:
        window = pool[: num_inputs + num_targets]
        ends = [window[0], window[-1]][:num_inputs]
        within = _some(window[1 : len(window) - len(ends) + 1], num_inputs - len(ends), generator)
        inputs = sorted([*ends, *within])
        held_out = [view for view in window if view not in set(inputs)]
        targets = held_out if config.targets == "held_out" else sorted(_some(window, num_targets, generator))
    return ViewChoice(tuple(inputs), tuple(targets), tuple(inputs))


def views_needed(config: ViewSamplingConfig, num_inputs: int, num_targets: int) -> int:
    """Return the fewest views that hold so many inputs and targets.

    Raises `InvalidConfig` where no capture could give them, for the span or the pool is too small.
    """
    needed = num_inputs + num_targets if config.targets == "held_out" else max(num_inputs, num_targets)
    for name, most in (("span", config.span and config.span[1]), ("pool", config.pool)):
        if most is not None and most < needed:
            raise InvalidConfig(
                f"views.{name}: {most} views cannot hold {num_inputs} inputs and {num_targets} targets "
                f"({config.targets}), which take {needed}. Make it larger, or ask for fewer."
            )
    return needed


def _pool(num_views: int, config: ViewSamplingConfig, needed: int, generator: torch.Generator) -> list[int]:
    """Return the views to choose from, in order: of a span, those of the pool."""
    length = num_views
    if config.span is not None and num_views > config.span[0]:
        least, most = max(config.span[0], needed), min(config.span[1], num_views)
        length = least + _below(most - least + 1, generator)
    start = _below(num_views - length + 1, generator)
    span = list(range(start, start + length))
    return span if config.pool is None else sorted(_some(span, config.pool, generator))


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _some(views: list[int], count: int, generator: torch.Generator) -> list[int]:
    """Return `count` of the views (all, where there are fewer) in random order."""
    return _shuffled(views, generator)[:count]


def _shuffled(views: list[int], generator: torch.Generator) -> list[int]:
    return [views[index] for index in torch.randperm(len(views), generator=generator).tolist()]
