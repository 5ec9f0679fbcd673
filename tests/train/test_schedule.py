"""The learning rate over a run."""

import math

import pytest

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.train.config import TrainConfig
from lrm_ttt.train.schedule import Decay, learning_rate_factor, planned_decay, stage_at, timed_decay
from tests.train.micro import micro


def factors(config: TrainConfig) -> list[float]:
    decay = planned_decay(config)
    found = []
    for step in range(config.total_steps):
        stage, within = stage_at(config, step)
        found.append(learning_rate_factor(config.stages[stage], within, decay, step))
    return found


def test_warm_up_constant_decay() -> None:
    found = factors(micro(10, 10, decay_fraction=0.25))
    assert found[:3] == [0.5, 1.0, 1.0] and found[10:15] == [1.0] * 5
    assert found[15:] == pytest.approx([5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_a_cosine_over_the_whole_run_is_the_papers_schedule() -> None:
    found = factors(micro(10, 10, decay_fraction=1.0, decay="cosine"))
    expected = [(1 + math.cos(math.pi * (step + 1) / 21)) / 2 for step in range(20)]
    assert found[1:10] == pytest.approx(expected[1:10]) and found[10:] == pytest.approx(expected[10:])


def test_a_decay_that_has_begun_ends_with_the_time() -> None:
    config = micro(100, 900, decay_fraction=1.0, decay="cosine")
    planned = planned_decay(config)
    assert timed_decay(config, planned, 500, 50.0, 100.0, 0.1) == planned
    bent = timed_decay(config, planned, 500, 50.0, 100.0, 0.2)
    assert bent.end == 750 and bent.factor(500) == pytest.approx(planned.factor(500), rel=0.01)


def test_stages_follow_each_other() -> None:
    assert [stage_at(micro(2, 3), step) for step in range(5)] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_time_runs_out() -> None:
    config = micro(100, 900, decay_fraction=0.2)
    planned = planned_decay(config)
    assert timed_decay(config, planned, 300, 79.0, 100.0, 0.1) == planned
    early = timed_decay(config, planned, 300, 80.0, 100.0, 0.1)
    assert early == Decay(300, 500, early=True)
    assert timed_decay(config, early, 310, 85.0, 100.0, 0.2) == early
    # Steps take twice as long as they did: from here the rate falls twice as fast, and from where it is.
    bent = timed_decay(config, early, 350, 90.0, 100.0, 0.2)
    assert bent.end == 400 and bent.factor(350) == pytest.approx(early.factor(350), rel=0.02)
    assert all(bent.factor(step + 1) < bent.factor(step) for step in range(350, 399))
    # A planned decay that has begun and ends in time is left alone.
    assert timed_decay(config, planned, 900, 80.0, 100.0, 0.1) == planned


def test_scaled_runs_keep_their_shape() -> None:
    scaled = micro(100, 300).scaled(0.1)
    assert [stage.steps for stage in scaled.stages] == [10, 30]
    with pytest.raises(InvalidConfig, match="positive"):
        micro().scaled(0.0)
