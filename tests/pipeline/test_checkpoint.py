"""The embedded models: each is looked for in its own folder alone."""

import importlib.resources
from pathlib import Path

import pytest

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.pipeline.checkpoint import locate


@pytest.mark.parametrize(("there", "asked"), [("", "streaming"), ("streaming", "")])
def test_an_embedded_model_never_stands_in_for_another(
    there: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    (tmp_path / there).mkdir(exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        with pytest.raises(IncompatibleCheckpoint, match="lacks an embedded model"):
            locate(None, there)
        (tmp_path / there / name).touch()
    assert locate(None, there) == tmp_path / there
    with pytest.raises(IncompatibleCheckpoint, match=r"lacks an embedded model.*--checkpoint"):
        locate(None, asked)
