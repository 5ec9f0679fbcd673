"""Training each representation: what is learnt, what carries over, what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.model.checkpoint import read_weights
from lrm_ttt.model.config import TriplaneConfig
from lrm_ttt.train.config import TrainConfig
from lrm_ttt.train.loop import RunOptions, Trainer
from tests.train.micro import MODEL, curve, micro, train

TRIPLANE = TriplaneConfig(8, 4, 4, 8, 1, num_stratified=8, num_importance=8)


def represented(representation: str, losses: LossConfig | None = None, **changes: object) -> TrainConfig:
    """Return the micro run for another representation, without matching evidence."""
    tokenizer = dataclasses.replace(MODEL.tokenizer, evidence=None)
    head = dataclasses.replace(MODEL.head, distance="range")
    model = dataclasses.replace(MODEL, tokenizer=tokenizer, head=head, representation=representation, triplane=TRIPLANE)
    config = micro(**changes)
    stages = tuple(dataclasses.replace(stage, losses=losses or LossConfig()) for stage in config.stages)
    return dataclasses.replace(config, model=model, stages=stages)


@pytest.mark.parametrize("representation", ["images", "triplane"])
def test_learning_helps_on_held_out_scenes_and_repeats_to_the_bit(tmp_path: Path, representation: str) -> None:
    config = represented(representation)
    stage = dataclasses.replace(config.stages[0], steps=24, lr=1e-2, muon_lr=1e-2)
    longer = dataclasses.replace(config, stages=(stage,), ema_decay=0.5, decay_fraction=0.5)
    assert train(longer, tmp_path / "long").progress.finished
    lines = (tmp_path / "long" / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "validation"]
    assert rows[0]["step"] == 0 and rows[-1]["psnr"] > rows[0]["psnr"] + 0.1
    for name in ("a", "b"):
        train(config, tmp_path / name)
    assert curve(tmp_path / "a") == curve(tmp_path / "b")


def test_all_but_the_head_carries_over_from_novel_views_to_gaussians(tmp_path: Path) -> None:
    train(represented("images"), tmp_path / "images")
    before = read_weights(tmp_path / "images" / "model" / "model.safetensors")
    options = RunOptions(init=str(tmp_path / "images" / "model"))
    after = Trainer(represented("gaussians"), tmp_path / "gaussians", options).learner.model.state_dict()
    body = [name for name in after if not name.startswith("head.")]
    assert set(body) == {name for name in before if not name.startswith("head.")}
    assert all(torch.equal(after[name], before[name]) for name in body)


@pytest.mark.parametrize(("representation", "term"), [("images", "alpha"), ("triplane", "opacity")])
def test_terms_that_a_representation_has_nothing_for_are_refused(representation: str, term: str) -> None:
    with pytest.raises(InvalidConfig, match=rf"losses\.{term}"):
        represented(representation, LossConfig(**{term: 0.1}))


def test_novel_views_claim_no_coverage_and_no_depth() -> None:
    from lrm_ttt.model.build import build
    from lrm_ttt.train.data import training_batch, training_generator
    from lrm_ttt.train.logging import Stopwatch
    from lrm_ttt.train.tasks import render_targets

    config = represented("images")
    torch.manual_seed(0)
    batch = training_batch(config.stages[0], training_generator(0, 0, 0, 0), torch.device("cpu"))
    assert batch.targets is not None
    shown, gaussians = render_targets(build(config.model), config.model, batch, batch.targets, Stopwatch())
    assert gaussians is None and bool((shown.alphas == 1).all()) and not shown.depths.any()
