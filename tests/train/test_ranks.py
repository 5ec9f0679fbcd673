"""Laws of several ranks: however a step is shared out, the loss and every gradient are those of one process."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lrm_ttt.data.config import DataConfig, DatasetConfig, ViewSamplingConfig
from lrm_ttt.data.procedural import procedural_capture
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.train.checkpointing import list_checkpoints, load_checkpoint
from lrm_ttt.train.config import ParallelConfig, StageConfig, TrainConfig
from lrm_ttt.train.learner import check_shares
from lrm_ttt.train.loop import RunOptions, Trainer
from lrm_ttt.train.sharded import whole
from tests.helpers.launch import launch, write
from tests.train.micro import MODEL, micro

BACKBONE = MODEL.backbone
PLAIN = dataclasses.replace(
    MODEL,
    tokenizer=dataclasses.replace(MODEL.tokenizer, evidence=None),
    head=dataclasses.replace(MODEL.head, distance="range"),
)


def with_backbone(model: object, **changes: object) -> object:
    return dataclasses.replace(model, backbone=dataclasses.replace(BACKBONE, **changes))  # type: ignore[type-var]


MODELS = {
    "evidence": MODEL,
    "evidence causal": with_backbone(MODEL, schedule="causal", views_per_update=2),
    "evidence chunked": with_backbone(MODEL, schedule="chunked", views_per_update=2),
    "softmax": with_backbone(PLAIN, mixer="softmax"),
    "images": dataclasses.replace(PLAIN, representation="images"),
}
# Of gradients and losses in float64, relative to the largest entry: sums are taken in another order.
TOLERANCE = 1e-9


def write_captures(folder: Path, number: int, num_views: int = 9) -> None:
    """Write procedural objects with transparent backgrounds as opencv_cameras.json."""
    for index in range(number):
        views, place = procedural_capture(index, num_views, (8, 16)), folder / f"scene{index}"
        place.mkdir(parents=True)
        frames = []
        for view in range(num_views):
            assert views.masks is not None
            pixels = torch.cat([views.images[view], views.masks[view]]).mul(255).round().byte().permute(1, 2, 0)
            Image.fromarray(np.asarray(pixels), "RGBA").save(place / f"{view}.png")
            fx, fy, cx, cy = views.cameras.intrinsics[view].tolist()
            matrix = views.cameras.cam_to_world[view].double().inverse().tolist()
            frames.append(
                {"file_path": f"{view}.png", "w": 16, "h": 8, "fx": fx, "fy": fy, "cx": cx, "cy": cy, "w2c": matrix}
            )
        (place / "opencv_cameras.json").write_text(json.dumps(frames))


def config_for(data: Path, model: str, accumulation: int, ranks_per_scene: int, strategy: str) -> TrainConfig:
    """Return a run whose two batches a step are drawn by one group or by two; five inputs are no even share."""
    terms = LossConfig() if model == "images" else LossConfig(opacity=0.1, coverage=0.1, alpha=0.1)
    views = ViewSamplingConfig(num_inputs=(5,))
    stage = StageConfig("only", 2, 1, (8, 16), num_targets=4, views=views, losses=terms, keep_fraction=0.7)
    return dataclasses.replace(
        micro(),
        stages=(stage,),
        model=MODELS[model],
        precision="fp64",
        accumulation=accumulation,
        data=DataConfig((DatasetConfig("captures", str(data), "scenes"),), num_workers=0),
        parallel=ParallelConfig(ranks_per_scene, strategy),  # type: ignore[arg-type]
    )


def learn_one_step(data: Path, folder: Path, cases: list[tuple[str, int, int, str]]) -> None:
    """Write the loss and all gradients of each case, and the weights after two steps."""
    for case in cases:
        trainer = Trainer(config_for(data, *case), folder / "-".join(map(str, case)))
        trainer.batches.start(0, 0)
        trainer.gather_gradients(0)
        found = {"loss": torch.tensor(trainer.ranks.mean(trainer.means.collect())["loss"], dtype=torch.float64)}
        for name, parameter in trainer.learner.model.named_parameters():
            assert parameter.grad is not None, name
            found[name] = whole(parameter.grad)
        trainer.batches.close()
        trainer.reporter.close()
        write(folder / f"{'-'.join(map(str, case))}.pt", found)


def train_to_the_end(data: Path, folder: Path, cases: list[tuple[str, int, int, str]], resume: bool = False) -> None:
    """Run each case, which leaves a checkpoint."""
    for case in cases:
        Trainer(config_for(data, *case), folder / "run" / "-".join(map(str, case)), RunOptions(resume)).run()


def learn_and_train(data: Path, folder: Path, of_two: list[tuple[str, int, int, str]]) -> None:
    learn_one_step(data, folder, of_two)
    train_to_the_end(data, folder, of_two[-2:])


def compare(folder: Path, case: tuple[str, int, int, str], reference: tuple[str, int, int, str]) -> None:
    ours, theirs = (torch.load(folder / f"{'-'.join(map(str, each))}.pt") for each in (case, reference))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        scale = max(float(expected.abs().max()), 1e-12)
        assert float((ours[name] - expected).abs().max()) <= TOLERANCE * scale, (case, name)
    assert max(float(value.abs().max()) for name, value in theirs.items() if name != "loss") > 1e-6


@pytest.mark.slow
def test_ranks_of_a_view_group_and_of_data_parallelism_learn_what_one_process_learns(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_captures(data, 2)
    alone = {model: (model, 2, 1, "ddp") for model in MODELS}
    learn_one_step(data, tmp_path, list(alone.values()))
    of_two = [(model, 2, 2, "ddp") for model in MODELS]
    of_two += [("evidence", 1, 1, "ddp"), ("evidence", 1, 1, "fsdp2")]
    launch(2, learn_and_train, data, tmp_path, of_two)
    of_four = [("evidence", 1, 2, "ddp"), ("evidence", 1, 2, "fsdp2")]
    launch(4, learn_one_step, data, tmp_path, of_four)
    for case in of_two + of_four:
        compare(tmp_path, case, alone[case[0]])
    # Sharded or not, the optimisers take the same two steps, and one process reads what two have left.
    train_to_the_end(data, tmp_path, [alone["evidence"]])
    runs = [tmp_path / "run" / "-".join(map(str, case)) for case in (alone["evidence"], *of_two[-2:])]
    alone_after, ddp_after, fsdp_after = (load_checkpoint(list_checkpoints(run)[-1])[0] for run in runs)
    for part in alone_after:
        for name, expected in alone_after[part].items():
            for after in (ddp_after, fsdp_after):
                assert torch.allclose(after[part][name], expected, rtol=1e-6, atol=1e-9), (part, name)
    progress = Trainer(config_for(data, *alone["evidence"]), runs[2], RunOptions(resume=True)).run()
    assert progress.finished and progress.step == 2 and progress.scenes == 4


def test_shares_that_do_not_come_out_even_are_refused() -> None:
    config = micro()
    of_two, of_three = (dataclasses.replace(config, parallel=ParallelConfig(ranks)) for ranks in (2, 3))
    with pytest.raises(InvalidConfig, match="1 views are rendered"):
        check_shares(of_two)
    with pytest.raises(InvalidConfig, match=r"validation\.num_inputs is 2, fewer than 3"):
        check_shares(of_three)
    stage = dataclasses.replace(config.stages[0], num_targets=3)
    enough = dataclasses.replace(config.validation, num_inputs=3)
    with pytest.raises(InvalidConfig, match="2 inputs cannot be shared by 3 ranks"):
        check_shares(dataclasses.replace(of_three, stages=(stage,), validation=enough))
    chunks = with_backbone(MODEL, schedule="causal", views_per_update=1)
    with pytest.raises(InvalidConfig, match="1 views at a time"):
        check_shares(dataclasses.replace(of_two, model=chunks))
    check_shares(config)
