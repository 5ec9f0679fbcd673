"""Native libraries that are there, or not, or of no use."""

import logging
from pathlib import Path

import pytest

from lrm_ttt.kernels.native import load_library


def test_a_library_that_does_not_load_is_as_good_as_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For example where the system lacks OpenMP: every import of the models would fail with it."""
    assert load_library(tmp_path / "absent") is None
    assert not caplog.records
    (tmp_path / "_native.so").write_bytes(b"for another machine")
    with caplog.at_level(logging.WARNING):
        assert load_library(tmp_path) is None
    assert "cannot be loaded" in caplog.text and str(tmp_path) in caplog.text
