"""The formulas of the traffic, against counters on everything that torch sends."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from lrm_ttt.eval.scaling import Step, traffic
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.parallel.traffic import TrafficCounter
from lrm_ttt.train.config import ParallelConfig, StageConfig, TrainConfig
from lrm_ttt.train.loop import Trainer
from tests.helpers.launch import is_first, launch
from tests.train.micro import MODEL, micro

NUM_INPUTS, IMAGE_SIZE = 5, (16, 24)
# What ranks agree on between steps is smaller than this.
CHATTER = 1024


def config_for(step: Step, schedule: str) -> TrainConfig:
    """Return a run of which every step is `step`."""
    backbone = dataclasses.replace(MODEL.backbone, schedule=schedule, views_per_update=2, num_blocks=2)
    model = dataclasses.replace(
        MODEL,
        tokenizer=dataclasses.replace(MODEL.tokenizer, evidence=None),
        head=dataclasses.replace(MODEL.head, distance="range", sh_degree=1),
        backbone=backbone,
    )
    stage = StageConfig("only", 2, step.batch_size, IMAGE_SIZE, (NUM_INPUTS, NUM_INPUTS), 2, losses=LossConfig())
    return dataclasses.replace(
        micro(),
        stages=(stage,),
        model=model,
        accumulation=step.accumulation,
        activation_checkpointing=step.checkpointing,
        parallel=ParallelConfig(step.ranks_per_scene, step.strategy),
    )


def count(folder: Path, steps: list[tuple[Step, str]]) -> None:
    """Write the collectives of one step of each run."""
    for number, (step, schedule) in enumerate(steps):
        trainer = Trainer(config_for(step, schedule), folder / str(number))
        trainer.batches.start(0, 0)
        # The first step decides the buckets in which gradients travel, and is not counted.
        trainer.gather_gradients(0)
        trainer.learner.optimiser.step(0.0, 0.0)
        with TrafficCounter() as counter:
            trainer.gather_gradients(0)
        trainer.batches.close()
        trainer.reporter.close()
        if is_first():
            (folder / f"{number}.json").write_text(json.dumps([dataclasses.astuple(call) for call in counter.calls]))


STEPS = [
    (Step(NUM_INPUTS, IMAGE_SIZE, 2, 2, 2, 2, 2, 1.0, True, "ddp"), "single"),
    (Step(NUM_INPUTS, IMAGE_SIZE, 2, 1, 1, 2, 2, 1.0, False, "fsdp2"), "causal"),
    (Step(NUM_INPUTS, IMAGE_SIZE, 2, 1, 2, 1, 2, 1.0, True, "fsdp2"), "single"),
]


@pytest.mark.slow
def test_formulas_are_what_is_sent(tmp_path: Path) -> None:
    launch(2, count, tmp_path, STEPS)
    for number, (step, schedule) in enumerate(STEPS):
        found: Counter[str] = Counter()
        for operation, ranks, payload in json.loads((tmp_path / f"{number}.json").read_text()):
            assert ranks == 2
            found[operation] += payload if payload > CHATTER else 0
        expected: Counter[str] = Counter()
        for each in traffic(config_for(step, schedule).model, step):
            # What is not shared evenly is filled up: 5 views on 2 ranks travel as 6.
            expected[each.operation] += each.payload * 6 // 5 if "Gaussians" in each.what else each.payload
        assert found == expected, number


def test_a_counter_sees_nothing_where_nothing_is_sent() -> None:
    with TrafficCounter() as counter:
        (torch.ones(3, requires_grad=True) * 2).sum().backward()
    assert not counter.calls
