"""Find the configuration of a benchmark: a file, or one that comes with the package. Free of torch."""

import difflib
import importlib.resources
from pathlib import Path

from lrm_ttt.config_io import load_yaml
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.benchmark.config import BenchmarkConfig


def shipped_configs() -> dict[str, Path]:
    """Return the files that come with the package, by name."""
    folder = importlib.resources.files("lrm_ttt.configs").joinpath("benchmark")
    assert isinstance(folder, Path), "lrm-ttt is installed as files"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_config(name: str) -> BenchmarkConfig:
    """Read a file, or a shipped one by its name; raises `InvalidConfig` for what is neither."""
    path, shipped = Path(name).expanduser(), shipped_configs()
    if not path.is_file():
        # In a checkout they are files below configs/benchmark, and elsewhere their documented paths mean the same.
        stem = name.removeprefix("configs/benchmark/").removesuffix(".yaml")
        if stem not in shipped:
            nearest = difflib.get_close_matches(stem, ["speed", *shipped], n=1)
            hint = f"Did you mean {nearest[0]}?" if nearest else "Give the path of a YAML file."
            raise InvalidConfig(
                f"{name}: there is no such file, and what comes with the package is called speed, "
                f"{', '.join(shipped)}. {hint}"
            )
        path = shipped[stem]
    return load_yaml(path, BenchmarkConfig)
