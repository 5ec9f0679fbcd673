"""The doctor finds what is there, and survives what is not."""

import importlib.metadata
from pathlib import Path

import pytest

from lrm_ttt import cli
from lrm_ttt.cli import doctor


def test_doctor_reports_every_section_and_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for title in ("versions", "devices", "backends", "extras", "embedded weights"):
        assert f"{title}\n" in text
    assert importlib.metadata.version("torch") in text


def test_missing_things_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a toolkit, and with nothing on PATH, gsplat lacks the compiler and ninja."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    lacks = " ".join(doctor.gsplat_lacks())
    assert "nvcc" in lacks
    assert "ninja" in lacks


def test_a_missing_module_is_a_finding() -> None:
    assert "no_such_module" in doctor.import_problem("no_such_module")


def test_a_finding_tells_both_sides() -> None:
    assert str(doctor.Finding("gsplat", "1.5.3", "a CUDA device")).endswith(" 1.5.3; lacks a CUDA device")
    assert "lacks" not in str(doctor.Finding("gsplat", "1.5.3"))
