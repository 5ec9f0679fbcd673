"""What a benchmark will run: its scenes, the views of each, its cells."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lrm_ttt.config_io import to_mapping
from lrm_ttt.data.view_sampler import ViewChoice
from lrm_ttt.eval.benchmark.cells import Cell, in_order
from lrm_ttt.eval.benchmark.config import BenchmarkConfig
from lrm_ttt.eval.benchmark.scenes import BenchmarkScene, choose_all, open_scenes


@dataclasses.dataclass(frozen=True)
class Plan:
    """All cells of a benchmark, with the views that each is given; `left_out` are sentences about what is not there."""

    config: BenchmarkConfig
    device: torch.device
    scenes: Mapping[str, BenchmarkScene]
    choices: Mapping[tuple[str, int], ViewChoice]
    left_out: Sequence[str]

    @property
    def cells(self) -> list[Cell]:
        """Every method on every scene with every number of views that the scene has, as they would run one by one."""
        methods = self.config.methods
        return in_order(
            [Cell(scene, method.name, views) for scene, views in self.choices for method in methods], methods
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for results to lie in one folder."""
        return {**to_mapping(self.config), "device": str(self.device)}

    @property
    def threads(self) -> int:
        """Threads of each cell."""
        return self.config.threads or max(1, torch.get_num_threads() // self.config.workers)


def make_plan(config: BenchmarkConfig, device: torch.device, allow_missing: bool) -> Plan:
    """Open the scenes and choose their views; raises `LrmTttError` kinds for what is not there."""
    scenes, absent = open_scenes(config, allow_missing)
    choices, impossible = choose_all(scenes, config.views, config.seed)
    return Plan(config, device, {scene.name: scene for scene in scenes}, choices, [*absent, *impossible])
