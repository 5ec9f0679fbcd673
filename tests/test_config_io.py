"""Strict reading of nested dataclasses: what fits is kept, what does not is named."""

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from lrm_ttt.config_io import dump_yaml, from_mapping, load_yaml, to_mapping
from lrm_ttt.errors import InvalidConfig


@dataclasses.dataclass(frozen=True)
class Part:
    size: tuple[int, int] = (1, 2)
    kind: Literal["round", "flat"] = "round"
    rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Whole:
    name: str
    parts: tuple[Part, ...] = ()
    part: Part | None = None
    fast: bool = False


def test_round_trip_through_yaml(tmp_path: Path) -> None:
    whole = Whole("a", (Part((3, 4), "flat", 1e-4), Part()), Part(rate=2.0), True)
    path = tmp_path / "whole.yaml"
    path.write_text(dump_yaml(whole))
    assert load_yaml(path, Whole) == whole
    assert from_mapping(to_mapping(whole), Whole) == whole


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"name": "a", "part": {"kid": "flat"}}, "'part.kid': did you mean 'kind'"),
        ({"name": "a", "part": {"kind": "square"}}, "'part.kind' is one of round, flat, not 'square'"),
        ({"name": "a", "parts": [{"size": [1, 2, 3]}]}, r"'parts\[0\].size' must be a list of 2"),
        ({"name": "a", "parts": [{"size": [1, True]}]}, r"'parts\[0\].size\[1\]' must be of type int"),
        ({"name": "a", "part": {"rate": "much"}}, "'part.rate' must be a number"),
        ({"name": 3}, "'name' must be of type str"),
        ({"name": "a", "fast": 1}, "'fast' must be of type bool"),
        ({"part": None}, "'name' is missing"),
        ({"name": "a", "part": 3}, "part must be a mapping"),
    ],
)
def test_what_does_not_fit_is_named(data: dict, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        from_mapping(data, Whole)


def test_exponents_without_a_dot_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text("rate: 1e-3\n")
    assert load_yaml(path, Part).rate == 1e-3


def test_inherit_merges_mappings_and_replaces_the_rest(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("name: base\npart: {kind: flat, rate: 2.0}\nparts: [{rate: 1.0}]\n")
    (tmp_path / "own.yaml").write_text("inherit: base.yaml\npart: {rate: 3.0}\nparts: []\n")
    assert load_yaml(tmp_path / "own.yaml", Whole) == Whole("base", (), Part(kind="flat", rate=3.0))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("inherit: loop.yaml\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    for name, says in (("loop", "inherits more than"), ("list", "mapping"), ("broken", "YAML"), ("none", "read")):
        with pytest.raises(InvalidConfig, match=says):
            load_yaml(tmp_path / f"{name}.yaml", Whole)
