"""What one YAML file trains: a run, or a chain of runs; and what the command line changes of it. Free of torch."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from lrm_ttt.config_io import load_yaml, read_mapping
from lrm_ttt.data.config import DatasetConfig
from lrm_ttt.errors import InvalidConfig, OutputExists
from lrm_ttt.train.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class ChainConfig:
    """Runs one after the other, each of which begins from the model of the one before.

    `runs` are files beside that of the chain; each is a `TrainConfig`, and can be trained alone.
    """

    runs: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise InvalidConfig("runs: a chain needs at least one file.")


@dataclasses.dataclass(frozen=True)
class Changes:
    """What the command line says in place of the file: of every run, where there are several.

    `max_steps` are those of all runs together; `data` gives the paths of data sets, by name.
    """

    seed: int | None = None
    steps_scale: float = 1.0
    max_steps: int | None = None
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run, and the folder that it is to fill."""

    folder: Path
    config: TrainConfig

    @property
    def model(self) -> Path:
        """Where its model lies when it is done, or stopped."""
        return self.folder / "model"

    def is_finished(self) -> bool:
        """Return whether an earlier command has taken all its steps; raises `OutputExists` if it was to take fewer."""
        path = self.model / "provenance.json"
        if not path.is_file():
            return False
        provenance = json.loads(path.read_text(encoding="utf-8"))
        if not provenance["finished"]:
            return False
        if provenance["steps"] < self.config.total_steps:
            raise OutputExists(
                f"{self.folder} was finished after {provenance['steps']} steps, and {self.config.total_steps} are "
                "asked for: repeat the flags of the earlier command, or choose another folder."
            )
        return True


def plan_runs(path: Path, output: Path, changes: Changes) -> tuple[PlannedRun, ...]:
    """Return the runs of a file in their order: one that fills `output` itself, or those of a chain in folders of it.

    Everything is read and checked before the first run begins. Raises `InvalidConfig`.
    """
    mapping = read_mapping(path)
    if "runs" not in mapping:
        configs = change((load_yaml(path, TrainConfig),), changes)
        return (PlannedRun(output, configs[0]),)
    chain = load_yaml(path, ChainConfig)
    configs = change(tuple(load_yaml(path.parent / file, TrainConfig) for file in chain.runs), changes)
    names = [f"{number}-{Path(file).stem}" for number, file in enumerate(chain.runs, 1)]
    return tuple(PlannedRun(output / name, config) for name, config in zip(names, configs, strict=True))


def change(configs: tuple[TrainConfig, ...], changes: Changes) -> tuple[TrainConfig, ...]:
    """Return the runs with other seeds, steps and paths of data sets."""
    scale = changes.steps_scale
    if changes.max_steps is not None:
        if changes.max_steps < 1 or scale != 1:
            raise InvalidConfig("--max-steps must be at least 1, and excludes --steps-scale.")
        scale = changes.max_steps / sum(config.total_steps for config in configs)
    configs = tuple(config.scaled(scale) if scale != 1 else config for config in configs)
    if changes.seed is not None:
        configs = tuple(dataclasses.replace(config, seed=changes.seed) for config in configs)
    check_names(configs, changes.data)
    return tuple(with_paths(config, changes.data) for config in configs)


def check_names(configs: tuple[TrainConfig, ...], paths: Mapping[str, str]) -> None:
    """Refuse the path of a data set that no run draws from, and a data set without a path."""
    used = {dataset.name: dataset for config in configs for dataset in datasets(config)}
    names = ", ".join(used) or "none: these scenes are drawn as they are needed"
    unknown = [name for name in paths if name not in used]
    if unknown:
        raise InvalidConfig(f"--data {unknown[0]}: there is no data set of that name here; there are {names}.")
    bare = [d.name for d in used.values() if d.layout != "procedural" and d.path is None and d.name not in paths]
    if bare:
        flags = " ".join(f"--data {name}=PATH" for name in bare)
        raise InvalidConfig(f"The path of {' and '.join(bare)} is not known: add {flags} (data sets here: {names}).")


def datasets(config: TrainConfig) -> tuple[DatasetConfig, ...]:
    """Return the data sets that a run trains and validates on."""
    source = config.validation.source
    return (*config.data.sources, *([source] if source is not None else []))


def with_paths(config: TrainConfig, paths: Mapping[str, str]) -> TrainConfig:
    """Return the run with the paths of its data sets."""

    def placed(dataset: DatasetConfig) -> DatasetConfig:
        return dataclasses.replace(dataset, path=paths.get(dataset.name, dataset.path))

    data = dataclasses.replace(config.data, sources=tuple(map(placed, config.data.sources)))
    source = config.validation.source
    validation = dataclasses.replace(config.validation, source=None if source is None else placed(source))
    return dataclasses.replace(config, data=data, validation=validation)


def read_paths(words: tuple[str, ...]) -> dict[str, str]:
    """Return the paths by name of words such as `dl3dv=/data/DL3DV`."""
    paths = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise InvalidConfig(f"--data {word}: give NAME=PATH, such as dl3dv=/data/DL3DV-10K.")
        if name in paths:
            raise InvalidConfig(f"--data {name} is given twice.")
        paths[name] = path
    return paths
