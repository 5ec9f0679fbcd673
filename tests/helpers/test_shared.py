"""A test without its data skips; in continuous integration a lost fixture fails."""

from pathlib import Path

import pytest

from tests.helpers.shared import shared_path


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stand in for the shared data."""
    monkeypatch.setenv("LRM_TTT_SHARED", str(tmp_path / "shared"))
    monkeypatch.delenv("CI", raising=False)
    return tmp_path / "shared"


def test_what_is_there_is_found(folder: Path) -> None:
    (folder / "data" / "fox").mkdir(parents=True)
    assert shared_path("data", "fox") == folder / "data" / "fox"


@pytest.mark.parametrize("in_ci", [False, True])
def test_without_the_folder_the_test_skips(in_ci: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", str(in_ci).lower())
    with pytest.raises(pytest.skip.Exception, match="no shared data"):
        shared_path("data", "fox")


@pytest.mark.parametrize(("in_ci", "outcome"), [(False, pytest.skip.Exception), (True, pytest.fail.Exception)])
def test_a_lost_fixture_fails_in_ci_only(
    in_ci: bool, outcome: type[BaseException], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    monkeypatch.setenv("CI", str(in_ci).lower())
    with pytest.raises(outcome, match="fox"):
        shared_path("data", "fox")
