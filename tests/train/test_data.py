"""Scenes by number."""

import dataclasses
import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lrm_ttt.data.config import DataConfig, DatasetConfig, ViewSamplingConfig
from lrm_ttt.data.shard_reader import ShardDataset
from lrm_ttt.data.shard_scenes import ProceduralScenes
from lrm_ttt.data.shard_writer import ShardFormat, write_shards
from lrm_ttt.errors import InvalidConfig, LrmTttError, UnreadableScene
from lrm_ttt.scene.cameras import ImageSize
from lrm_ttt.scene.similarity import normalising_similarity
from lrm_ttt.scene.views import SceneBatch
from lrm_ttt.train.batches import HALF, draw_num_inputs
from lrm_ttt.train.config import TrainConfig, ValidationConfig
from lrm_ttt.train.data import (
    BatchSource,
    Drawn,
    Place,
    training_batch,
    training_generator,
    validation_batches,
    validation_generator,
)
from tests.train.capture_sets import Captures, break_images, write_captures
from tests.train.micro import MODEL, micro

CPU = torch.device("cpu")
ALONE = Place()
CAPTURES = DatasetConfig("captures", "somewhere")
PROCEDURAL = DatasetConfig("drawn", layout="procedural")


@pytest.fixture
def captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Captures:
    """Ten captures, which every data set with a path holds."""
    written = write_captures(tmp_path, 10)
    monkeypatch.setattr("lrm_ttt.train.data.open_dataset", lambda config: written)
    return written


def reading(*sources: DatasetConfig, steps: int = 10, num_workers: int = 0, **changes: Any) -> TrainConfig:
    """Return a run of two stages of `steps` that reads captures."""
    config = micro(steps, steps, data=DataConfig(sources or (CAPTURES,), num_workers), **changes)
    stages = (
        dataclasses.replace(config.stages[0], num_inputs=(3, 3), num_targets=2),
        dataclasses.replace(config.stages[1], num_inputs=(2, 4), num_targets=2),
    )
    return dataclasses.replace(config, stages=stages)


def drawn(config: TrainConfig, number: int, place: Place = ALONE, step: int = 0, position: int = 0) -> list[Drawn]:
    """Return the next batches of a place."""
    source = BatchSource(config, place, CPU)
    source.start(step, position)
    try:
        return [source.next() for _ in range(number)]
    finally:
        source.close()


def tensors(batch: SceneBatch) -> list[Tensor]:
    found: list[Tensor] = []
    batch.map(lambda tensor: found.append(tensor) or tensor)
    return found


def same(ours: SceneBatch, theirs: SceneBatch) -> bool:
    pairs = zip(tensors(ours), tensors(theirs), strict=True)
    return ours.names == theirs.names and all(torch.equal(first, second) for first, second in pairs)


def all_same(ours: list[Drawn], theirs: list[Drawn]) -> bool:
    return all(same(first.batch, second.batch) for first, second in zip(ours, theirs, strict=True))


def names(batches: list[Drawn]) -> list[str]:
    return [name for each in batches for name in each.batch.names]


def test_generators_follow_from_their_numbers_alone() -> None:
    numbers = [(seed, step, part, rank) for seed in (0, 1) for step in range(40) for part in (0, 1) for rank in (0, 1)]
    seeds = [training_generator(*number).initial_seed() for number in numbers]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [training_generator(*number).initial_seed() for number in numbers]
    # torch's generator keeps 32 bits, and these two ranges do not meet in them.
    assert max(seeds) < HALF <= min(validation_generator(index).initial_seed() for index in range(8))
    assert max(validation_generator(index).initial_seed() for index in range(8)) < 2 * HALF


def test_procedural_scenes_keep_their_numbers() -> None:
    """Runs and published results go back to these very scenes."""
    stages = micro().stages
    first = training_batch(stages[0], training_generator(0, 0, 0, 0), CPU)
    other = training_batch(stages[1], training_generator(0, 3, 1, 2), CPU)
    assert first.names == ("procedural-object-03429c087e54a0a3",) and first.inputs.shape == (1, 2)
    assert other.names == ("procedural-object-15a05418a999d223", "procedural-object-05723b455e60e93e")
    assert float(first.inputs.images.mean()) == pytest.approx(0.8916543723, abs=1e-6)
    assert float(other.inputs.images.mean()) == pytest.approx(0.9361633387, abs=1e-6)
    held_out = validation_batches(micro().validation, CPU, MODEL)
    assert [scene.names for scene in held_out] == [
        ("procedural-object-07175c475aba2ef7",),
        ("procedural-object-336e30f5cf498a2a",),
    ]
    means = [float(scene.inputs.images.mean()) for scene in held_out]
    assert means == pytest.approx([0.1227673403, 0.9443934065], abs=1e-6)


@pytest.mark.parametrize("prefetch", [False, True])
def test_procedural_batches_are_those_of_their_step_and_part(prefetch: bool) -> None:
    config = micro(prefetch=prefetch, accumulation=2)
    batches = iter(drawn(config, 8))
    for step, part in ((step, part) for step in range(4) for part in range(2)):
        stage = config.stages[step // 2]
        expected = training_batch(stage, training_generator(0, step, part, 0), CPU)
        assert same(next(batches).batch, expected)


def test_nothing_comes_behind_the_last_step() -> None:
    for prefetch in (False, True):
        with pytest.raises(StopIteration):
            drawn(micro(prefetch=prefetch), 5)


def test_procedural_scenes_come_in_the_frame_of_the_model() -> None:
    config = micro(model=dataclasses.replace(MODEL, normalisation="mean_camera"))
    for batch in (drawn(config, 1)[0].batch, *validation_batches(config.validation, CPU, config.model)):
        frame = normalising_similarity(batch.inputs.cameras, "mean_camera")
        assert torch.allclose(frame.scale, torch.ones(1), atol=1e-5) and float(frame.translation.abs().max()) < 1e-5


@pytest.mark.parametrize("sources", [(), (CAPTURES,), (CAPTURES, PROCEDURAL)], ids=["procedural", "captures", "both"])
def test_a_run_resumes_at_any_step(captures: Captures, sources: tuple[DatasetConfig, ...]) -> None:
    """Bit for bit, over the end of a stage, whatever the number of groups and accumulations."""
    config = dataclasses.replace(reading(steps=2, accumulation=2), data=DataConfig(sources, 0))
    place = Place(1, 3)
    source = BatchSource(config, place, CPU)
    source.start(0, 0)
    whole, positions = [], [source.position]
    for _ in range(4):
        whole += [source.next(), source.next()]
        positions.append(source.position)
    source.close()
    assert positions == [0, 6, 0, 6, 0]
    for step in (1, 2, 3):
        assert all_same(drawn(config, 8 - 2 * step, place, step, positions[step]), whole[2 * step :])


def test_groups_share_out_what_one_process_draws(captures: Captures) -> None:
    """Batch n of a stage is the same, scenes and views, for whoever draws it."""
    config = reading(accumulation=2)
    alone = drawn(config, 12)
    groups = [drawn(config, 4, Place(group, 3)) for group in range(3)]
    together = [groups[number % 3][number // 3] for number in range(12)]
    assert all_same(alone, together)
    # The world shrinks after the first step of three groups: no scene is lost and none comes twice.
    assert all_same(drawn(config, 6, step=1, position=6), alone[6:])
    assert sorted(names(alone)[:10]) == sorted(folder.name for folder in captures.folders)


def test_ranks_of_a_group_draw_the_same(captures: Captures) -> None:
    for config in (reading(), micro()):
        assert all_same(drawn(config, 3, Place(1, 2, 0, 2)), drawn(config, 3, Place(1, 2, 1, 2)))


def test_all_groups_draw_the_same_number_of_inputs(captures: Captures) -> None:
    views = ViewSamplingConfig(num_inputs=(2, 4))
    for config in (reading(steps=6), micro(6, 6)):
        listed = dataclasses.replace(config.stages[0], views=views)
        config = dataclasses.replace(config, stages=(listed, config.stages[1]))
        numbers = [[each.batch.inputs.shape[1] for each in drawn(config, 12, Place(group, 2))] for group in range(2)]
        assert numbers[0] == numbers[1] == [draw_num_inputs(config, step, 0) for step in range(12)]
        assert set(numbers[0][:6]) == {2, 4}
        low, high = config.stages[1].num_inputs
        assert set(numbers[0][6:]) == set(range(low, high + 1))


def test_a_mixture_deals_batches_by_weight(captures: Captures) -> None:
    config = reading(CAPTURES, dataclasses.replace(PROCEDURAL, weight=0.25), steps=10)
    kinds = [name.startswith("procedural") for name in names(drawn(config, 10))]
    # 200 of every 1000 batches, of which these are the first.
    assert 0 < sum(kinds) < 5


def test_another_seed_draws_other_scenes(captures: Captures) -> None:
    assert names(drawn(reading(), 6)) != names(drawn(reading(seed=1), 6))


@pytest.fixture
def running(captures: Captures) -> Iterator[BatchSource]:
    """Two workers that have begun."""
    source = BatchSource(reading(CAPTURES, PROCEDURAL, num_workers=2), Place(), CPU)
    source.start(0, 0)
    yield source
    source.close()


def test_workers_change_no_bit_and_leave_signals_alone(captures: Captures, running: BatchSource) -> None:
    """SIGTERM often reaches all processes of a job at once, and the checkpoint is still to be written."""
    before = torch.get_rng_state()
    first = [running.next() for _ in range(4)]
    for worker in multiprocessing.active_children():
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    rest = [running.next() for _ in range(8)]
    assert torch.equal(before, torch.get_rng_state())
    assert all_same([*first, *rest], drawn(reading(CAPTURES, PROCEDURAL), 12))
    running.close()
    assert not multiprocessing.active_children()


def test_a_worker_that_was_killed_is_told_of(running: BatchSource) -> None:
    running.next()
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(LrmTttError, match="A process that reads scenes was killed"):
        # What was made before still comes.
        [running.next() for _ in range(20)]


def test_a_broken_scene_is_named_and_replaced(captures: Captures) -> None:
    sound = drawn(reading(), 10)
    break_images(captures, 4)
    batches = drawn(reading(), 10)
    broken = [number for number, each in enumerate(batches) if each.broken]
    assert [sound[number].batch.names for number in broken] == [("scene04",)]
    (message,) = batches[broken[0]].broken
    assert message.startswith("captures, scene04: ") and "cannot be decoded" in message
    assert batches[broken[0]].batch.names != ("scene04",)
    rest = [number for number in range(10) if number not in broken]
    assert all_same([batches[number] for number in rest], [sound[number] for number in rest])
    assert all_same(batches, drawn(reading(), 10, Place(0, 1, 1, 2)))


def test_a_truncated_shard_is_refused_and_a_damaged_one_breaks_the_scenes_there(tmp_path: Path) -> None:
    scenes = ProceduralScenes(6, 5, ImageSize(16, 16), room_fraction=0.5)
    write_shards(scenes, tmp_path, ShardFormat(scenes_per_shard=3), image_size=(16, 16))
    dataset, config = ShardDataset(tmp_path), reading(DatasetConfig("shards", str(tmp_path)))
    sound = drawn(config, 6)
    shard = tmp_path / "shard-000001.tar"
    size = shard.stat().st_size
    os.truncate(shard, dataset.manifest.shards[1].scenes[2].offset + 2000)
    with pytest.raises(UnreadableScene, match="this shard is truncated"):
        drawn(config, 6)
    # As long as before, with nothing but zeros at the end.
    os.truncate(shard, size)
    batches = drawn(config, 6)
    lost = [each.batch.names != good.batch.names for each, good in zip(batches, sound, strict=True)]
    assert [good.batch.names for good, gone in zip(sound, lost, strict=True) if gone] == [(dataset.scene_name(5),)]
    (message,) = [message for each in batches for message in each.broken]
    assert message.startswith(f"shards, {dataset.scene_name(5)}: ") and str(shard) in message


def test_an_unreadable_data_set_ends_the_run(captures: Captures) -> None:
    for index in range(10):
        break_images(captures, index)
    for prefetch in (False, True):
        with pytest.raises(UnreadableScene, match="data set captures: 9 scenes in a row cannot be read") as caught:
            drawn(reading(prefetch=prefetch), 1)
        assert re.search(r"\((scene0\d(, )?){2,9}\)\. Mend or remove them; .*data check", str(caught.value))


def test_the_only_scene_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write_captures(tmp_path, 1)
    monkeypatch.setattr("lrm_ttt.train.data.open_dataset", lambda config: one)
    break_images(one, 0)
    with pytest.raises(UnreadableScene, match=r"its only scene cannot be read \(scene00\)\. Mend or remove"):
        drawn(reading(), 1)


def test_too_few_views_are_broken_scenes_and_impossible_views_a_mistake(captures: Captures) -> None:
    config = reading()
    many = dataclasses.replace(config.stages[0], num_inputs=(6, 6))
    with pytest.raises(UnreadableScene, match="7 views, where 6 inputs and 2 targets take 8"):
        drawn(dataclasses.replace(config, stages=(many,)), 1)
    pool = dataclasses.replace(config.stages[1], views=ViewSamplingConfig(pool=5))
    with pytest.raises(InvalidConfig, match=r"views\.pool: 5 views cannot hold 4 inputs and 2 targets"):
        drawn(dataclasses.replace(config, stages=(config.stages[0], pool)), 1)


def test_validation_holds_every_eighth_view_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = write_captures(tmp_path, 3, num_views=20)
    monkeypatch.setattr("lrm_ttt.train.data.open_dataset", lambda config: long)
    config = ValidationConfig(2, (16, 16), 4, 2, source=CAPTURES)
    batches = validation_batches(config, CPU, MODEL)
    assert [batch.names for batch in batches] == [("scene00",), ("scene01",)]
    poses = long.open(0).cam_to_world.float()
    for batch in batches:
        assert batch.targets is not None
        cameras = batch.world_to_scene.inverse().cameras(batch.targets.cameras).cam_to_world[0]
        # Of the views 0, 8 and 16 two are taken.
        assert torch.allclose(cameras, poses[[0, 8]], atol=1e-5)
        inputs = batch.world_to_scene.inverse().cameras(batch.inputs.cameras).cam_to_world[0]
        nearest = (inputs[:, None] - poses).abs().amax((-1, -2)).min(1)
        assert float(nearest.values.max()) < 1e-5 and not set(nearest.indices.tolist()) & {0, 8, 16}
