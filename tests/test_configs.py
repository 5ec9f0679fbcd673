"""Every YAML file loads, and every field of every configuration is read by some code."""

import ast
import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrm_ttt.config_io import load_yaml
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.train.config import TrainConfig
from tests.helpers.shared import CHECKOUT

KINDS = {"model": ModelConfig, "train": TrainConfig, "study": TrainConfig}
FILES = [path for kind in KINDS for path in sorted((CHECKOUT / "configs" / kind).glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_loads(path: Path) -> None:
    assert load_yaml(path, KINDS[path.parent.name])


def nested(cls: type) -> Iterator[type]:
    """Yield a configuration class and those of its fields."""
    yield cls
    for hint in typing.get_type_hints(cls).values():
        for part in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(part):
                yield from nested(typing.cast(type, part))


def test_every_field_is_read_outside_its_own_checks() -> None:
    sources = [path for folder in ("lrm_ttt", "train") for path in (CHECKOUT / folder).rglob("*.py")]
    read, named = set(), set()
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and path.stem != "config":
                read.add(node.attr)
            # The objective looks its weights up by the names of its terms.
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.stem == "objective":
                named.add(node.value)
    fields = {field.name for cls in nested(TrainConfig) for field in dataclasses.fields(cls)}
    assert fields <= read | named
