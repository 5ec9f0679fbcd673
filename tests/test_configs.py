"""Every YAML file loads, is of the size that it says, and takes a step; and every field of every configuration is read
by some code.
"""

import ast
import dataclasses
import math
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lrm_ttt.config_io import load_yaml
from lrm_ttt.data.config import DatasetConfig, ViewSamplingConfig
from lrm_ttt.data.shard_scenes import ProceduralScenes
from lrm_ttt.data.shard_writer import ShardFormat, write_shards
from lrm_ttt.eval.benchmark.cells import check_methods
from lrm_ttt.eval.benchmark.config import BenchmarkConfig
from lrm_ttt.eval.benchmark.shipped import load_config
from lrm_ttt.eval.protocol import find_protocol
from lrm_ttt.model.build import build
from lrm_ttt.model.config import EvidenceConfig, ModelConfig
from lrm_ttt.scene.cameras import ImageSize
from lrm_ttt.train.config import StageConfig, TrainConfig, ValidationConfig
from lrm_ttt.train.loop import Trainer
from lrm_ttt.train.recipe import ChainConfig, Changes, PlannedRun, datasets, plan_runs
from tests.helpers.shared import CHECKOUT

CONFIGS = CHECKOUT / "configs"
CHAINS = sorted(CONFIGS.rglob("chain.yaml"))
MODELS = sorted((CONFIGS / "model").glob("*.yaml"))
RUNS = [path for kind in ("train", "study") for path in sorted((CONFIGS / kind).rglob("*.yaml")) if path not in CHAINS]
BENCHMARKS = sorted((CONFIGS / "benchmark").glob("*.yaml"))
PARAMETERS = {
    "base": 399_985_224,
    "base_objects": 399_985_224,
    "small": 70_398_500,
    "tiny": 4_891_879,
    "tiny_plain": 4_534_692,
}
# Views of a scene of the data set that the runs below step on.
NUM_VIEWS = 20


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS).with_suffix(""))


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_models_have_the_size_that_they_are_known_for(path: Path) -> None:
    with torch.device("meta"):
        model = build(load_yaml(path, ModelConfig))
    assert model.num_parameters == PARAMETERS[path.stem]


def test_no_file_is_forgotten() -> None:
    assert {*BENCHMARKS, *CHAINS, *MODELS, *RUNS} == set(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=name_of)
def test_benchmarks_compare_methods_that_can_be_told_apart(path: Path) -> None:
    config = load_config(path.stem)
    assert config == load_yaml(path, BenchmarkConfig) and config.name == path.stem
    check_methods(config.methods)
    assert config.scenes and all(find_protocol(scenes.protocol) for scenes in config.scenes)


@pytest.mark.parametrize("path", CHAINS, ids=name_of)
def test_chains_go_from_pixels_to_streams(path: Path) -> None:
    """Each run has the backbone of the one before, whose weights it takes; the order is that of the recipe."""
    chain = load_yaml(path, ChainConfig)
    paths = dict.fromkeys(("dl3dv", "dl3dv_benchmark", "objaverse", "objaverse_held_out"), "somewhere")
    used = {d.name for file in chain.runs for d in datasets(load_yaml(path.parent / file, TrainConfig))}
    runs = plan_runs(path, Path("out"), Changes(data={name: paths[name] for name in used}))
    models = [run.config.model for run in runs]
    assert [model.representation for model in models] == ["images", *["gaussians"] * (len(runs) - 1)]
    assert [run.folder.name for run in runs][:3] == ["1-novel_views", "2-low_resolution", "3-high_resolution"]
    schedules = [model.backbone.schedule for model in models]
    assert schedules == ["single"] * 3 + (["single", "causal"] if len(runs) == 5 else [])
    same = [(model.tokenizer, dataclasses.replace(model.backbone, schedule="single")) for model in models]
    assert all(each == same[0] for each in same) and len({model.normalisation for model in models}) == 1
    sizes = [math.prod(stage.image_size) for run in runs for stage in run.config.stages]
    assert sizes == sorted(sizes)
    # A recipe that only validates on what it has been trained on would not show what it has learnt.
    sources = {d.name for run in runs for d in run.config.data.sources}
    assert all(run.config.validation.source is None or run.config.validation.source.name not in sources for run in runs)


@pytest.mark.parametrize("path", RUNS, ids=name_of)
def test_every_rank_of_a_scene_has_a_view_to_validate_on(path: Path) -> None:
    config = load_yaml(path, TrainConfig)
    assert config.validation.num_inputs >= config.parallel.ranks_per_scene


def test_the_examples_of_the_document_can_be_read(tmp_path: Path) -> None:
    """What they repeat of the recipes is what those say."""
    text = (CHECKOUT / "docs" / "training.md").read_text(encoding="utf-8")
    found = {}
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        path = tmp_path / f"{len(found)}.yaml"
        path.write_text(re.sub(r"(?<=inherit: )\S*configs", str(CONFIGS), block))
        found[block.splitlines()[0]] = load_yaml(path, TrainConfig)
    mixture, taught = found["# mixture.yaml"], found["# taught.yaml"]
    sources = load_yaml(CONFIGS / "train" / "small" / "low_resolution.yaml", TrainConfig).data.sources
    assert dataclasses.replace(mixture.data.sources[0], weight=1.0) == sources[0]
    (stage,) = taught.stages
    losses = dataclasses.replace(stage.losses, perceptual_weights=None, depth_teacher=None, depth_teacher_predicts=None)
    stages = load_yaml(CONFIGS / "train" / "small" / "long_context.yaml", TrainConfig).stages
    assert (dataclasses.replace(stage, losses=losses),) == stages


@pytest.mark.parametrize(
    ("folder", "scenes"),
    [("base", [[128], [128], [64, 64], [64], [64]]), ("base_objects", [[512], [512], [128, 64]])],
)
def test_64_processes_take_the_scenes_of_the_paper(folder: str, scenes: list[list[int]]) -> None:
    found = []
    for file in load_yaml(CONFIGS / "train" / folder / "chain.yaml", ChainConfig).runs:
        config = load_yaml(CONFIGS / "train" / folder / file, TrainConfig)
        groups, rest = divmod(64, config.parallel.ranks_per_scene)
        assert rest == 0
        found.append([groups * stage.batch_size * config.accumulation for stage in config.stages])
        for stage in config.stages:
            assert stage.losses.mse == 1 and stage.losses.perceptual == 0.5
            assert stage.num_targets % config.parallel.ranks_per_scene == 0
        assert not config.optimiser.muon and config.optimiser.skip_norm == 5
    assert found == scenes


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data set of three procedural objects, whose transparent images have masks, as Objaverse's do."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(ProceduralScenes(3, NUM_VIEWS, ImageSize(16, 24)), folder, ShardFormat("png"), image_size=(16, 24))
    return folder


@pytest.fixture(scope="module")
def vgg19(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write weights under torchvision's names: nobody can download them here, and any will do for a step."""
    from torchvision.models import vgg19

    with torch.device("meta"):
        layers = vgg19(weights=None).features.state_dict()
    path = tmp_path_factory.mktemp("vgg19") / "vgg19.safetensors"
    save_file({f"features.{name}": torch.full(tensor.shape, 1e-3) for name, tensor in layers.items()}, path)
    return path


@pytest.mark.parametrize("path", RUNS, ids=name_of)
def test_every_run_takes_a_step_at_reduced_size(path: Path, shards: Path, vgg19: Path, tmp_path: Path) -> None:
    config = shrunk(load_yaml(path, TrainConfig), shards, vgg19)
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in build(config.model).state_dict().items()}
    trainer = Trainer(config, tmp_path)
    before = {name: parameter.detach().clone() for name, parameter in trainer.learner.model.named_parameters()}
    assert {name: tensor.shape for name, tensor in trainer.learner.model.state_dict().items()} == wanted
    progress = trainer.run()
    assert progress.finished and progress.skipped == 0 and progress.broken == 0
    assert all(math.isfinite(value) for value in progress.validation.values())
    still = [
        name for name, parameter in trainer.learner.model.named_parameters() if torch.equal(parameter, before[name])
    ]
    assert len(still) < len(before) / 10
    assert PlannedRun(tmp_path, config).is_finished()


def shrunk(config: TrainConfig, shards: Path, vgg19: Path) -> TrainConfig:
    """Return a run of the same structure whose every number is small: one step a stage on 16x16 pixels."""

    def small(dataset: DatasetConfig) -> DatasetConfig:
        return dataclasses.replace(dataset, path=str(shards), layout="auto", image_folder=None)

    sources = tuple(map(small, config.data.sources))
    held_out = config.validation.source
    validation = ValidationConfig(
        1, (16, 16), 3, 1, config.validation.room_fraction, None if held_out is None else small(held_out)
    )
    optimiser = dataclasses.replace(config.optimiser, clip_norm=1.0, skip_norm=1e6)
    return dataclasses.replace(
        config,
        stages=tuple(small_stage(stage, vgg19) for stage in config.stages),
        model=small_model(config.model),
        data=dataclasses.replace(config.data, sources=sources, num_workers=0),
        validation=validation,
        optimiser=optimiser,
        # View groups are tested with several processes elsewhere.
        parallel=dataclasses.replace(config.parallel, ranks_per_scene=1),
        accumulation=min(config.accumulation, 2),
        precision="fp32",
        compile=False,
        prefetch=False,
        decay_fraction=0.0,
        trackers=(),
        log_every=1,
    )


def small_model(model: ModelConfig) -> ModelConfig:
    backbone = model.backbone
    heads = backbone.width // backbone.memory.head_dim
    memory = dataclasses.replace(backbone.memory, head_dim=32 // min(heads, 2), multiple=1)
    backbone = dataclasses.replace(
        backbone, width=32, num_blocks=2, attention_head_dim=16, feed_forward_multiple=2, memory=memory
    )
    evidence = None if model.tokenizer.evidence is None else EvidenceConfig(4, 1, 2)
    triplane = dataclasses.replace(
        model.triplane, resolution=8, patch_size=4, channels=4, hidden=8, num_stratified=4, num_importance=4
    )
    return dataclasses.replace(
        model,
        backbone=backbone,
        tokenizer=dataclasses.replace(model.tokenizer, evidence=evidence),
        head=dataclasses.replace(model.head, hidden=8),
        triplane=triplane,
    )


def small_stage(stage: StageConfig, vgg19: Path) -> StageConfig:
    """Divide numbers of views so that 64 become 8, and of frames so that they are within those of a scene."""

    def fewer(number: int) -> int:
        return max(2, number // 8)

    views = stage.views
    if views != ViewSamplingConfig():
        pool = None if views.pool is None else 16
        span = None if views.span is None else (16, NUM_VIEWS)
        views = dataclasses.replace(views, span=span, pool=pool, num_inputs=tuple(map(fewer, views.num_inputs)))
    losses = stage.losses
    if losses.perceptual > 0:
        losses = dataclasses.replace(losses, perceptual_weights=str(vgg19))
    return dataclasses.replace(
        stage,
        steps=1,
        batch_size=min(stage.batch_size, 2),
        image_size=(16, 16),
        num_inputs=(fewer(stage.num_inputs[0]), fewer(stage.num_inputs[1])),
        num_targets=2,
        max_primitives=4,
        views=views,
        warmup_steps=0,
        losses=losses,
    )


def nested(cls: type) -> Iterator[type]:
    """Yield a configuration class and those of its fields."""
    yield cls
    for hint in typing.get_type_hints(cls).values():
        for part in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(part):
                yield from nested(typing.cast(type, part))


def test_every_field_is_read_outside_its_own_checks() -> None:
    folders = ("lrm_ttt", "train", "eval")
    sources = [path for folder in folders for path in (CHECKOUT / folder).rglob("*.py")]
    read, named = set(), set()
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and path.stem != "config":
                read.add(node.attr)
            # The objective looks its weights up by the names of its terms.
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.stem == "objective":
                named.add(node.value)
    configs = (*nested(TrainConfig), *nested(BenchmarkConfig))
    fields = {field.name for cls in configs for field in dataclasses.fields(cls)}
    assert fields <= read | named
