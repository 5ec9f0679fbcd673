"""Tables say what the rows say, and of whom they say nothing."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.benchmark.readme import write_results
from lrm_ttt.eval.benchmark.table import draw_table
from lrm_ttt.eval.published import MARK, read_published
from lrm_ttt.eval.report.results import read_results

PSNR = {
    ("good", "lego"): 20.125,
    ("good", "object-0"): 30.0,
    ("half", "lego"): 10.0,
    ("half", "object-0"): 0.0,
    ("good", "fox"): 21.875,
}


def row(method: str, scene: str, views: int, **other: Any) -> dict[str, Any]:
    scores = {"psnr": PSNR[method, scene] + views, "ssim": 0.5, "ssim_uniform7": None, "lpips": None}
    costs = {"seconds": 2.0 * views, "processor_seconds": 1.5, "peak_memory_bytes": 5e8, "num_gaussians": 12345}
    where = {"scene": scene, "method": method, "views": views, "commit": "abc", "threads": 1, "workers": 1}
    return {**where, "status": "done", "error": None, "metrics": scores, **costs, **other}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [row("good", scene, views) for scene in ("lego", "fox", "object-0") for views in (4, 8)]
    rows += [row("half", "lego", 4), row("half", "object-0", 4, status="failed", error="it broke", metrics=None)]
    about = {
        "name": "try",
        "command": "lrm-ttt benchmark try",
        "commit": "abc",
        "date": "2026-01-02T03:04:05+00:00",
        "hardware": {"device": "cpu", "cpu": "A processor", "cores": 2, "threads": 1, "gpu": None},
        "versions": {},
        "config": {"methods": [{"name": "good"}, {"name": "half"}], "views": [8, 4], "workers": 2},
        "metric_variants": {"psnr": "in dB"},
        "lpips": "LPIPS was not computed: no weights.",
        "missing": ["Scaffold-GS: not here"],
        "cells": 12,
        "scenes": [scene("lego", "hold_out_8"), scene("fox", "hold_out_8"), scene("object-0", "procedural")],
        "runs": [],
    }
    (tmp_path / "benchmark.json").write_text(json.dumps(about))
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return tmp_path


def scene(name: str, protocol: str) -> dict[str, Any]:
    return {"name": name, "protocol": protocol, "image_size": [72, 128], "targets": [0, 8], "num_views": 12}


def lines_of(text: str, method: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {method}")]


def test_numbers_are_means_of_rows(folder: Path) -> None:
    text = draw_table(read_results(folder))
    captures, of_each, *_ = lines_of(text, "good")
    mean = statistics.fmean([PSNR["good", "lego"], PSNR["good", "fox"]]) + 4
    assert captures == ["good", f"{mean:.2f}", "0.5000", "8.00", "1.50", "500", "12,345"]
    assert of_each == ["good", f"{PSNR['good', 'lego'] + 4:.2f}", f"{PSNR['good', 'fox'] + 4:.2f}"]
    assert text.index("## Captures (2: lego, fox)") < text.index("### 4 input views") < text.index("### 8 input views")
    assert "## Procedural scenes (1: object-0)" in text and "All scenes" not in text


def test_what_is_not_there_is_said(folder: Path) -> None:
    text = draw_table(read_results(folder))
    assert lines_of(text, r"half \*")[0][1] == "14.00"
    assert "fewer scenes than there are: half (1 of 2)" in text
    assert "4 of 12 cells have not been run" in text and "* half on object-0, 4 views: it broke" in text
    assert "* Scaffold-GS: not here" in text and "LPIPS was not computed: no weights." in text
    assert "2026-01-02, commit abc, on A processor, 2 cores, 2 cells beside each other, 1 thread each" in text
    assert "128x72 (width x height), 2 targets of 12 views" in text


def test_published_figures_stand_apart(folder: Path) -> None:
    ours, published = draw_table(read_results(folder)).split("## What papers print")
    assert MARK in published
    for table in read_published():
        assert table.url in published and table.url not in ours
        assert all(
            f"| {each.method} | {each.views} | {each.psnr:.2f}" in published for each in table.figures if each.psnr
        )


def test_results_are_written_between_the_markers(folder: Path, tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- benchmark:try -->\nof yesterday\n<!-- /benchmark -->\nafter\n")
    write_results(folder, document)
    text = document.read_text()
    assert text.startswith("before\n<!-- benchmark:try -->\n") and text.endswith("<!-- /benchmark -->\nafter\n")
    assert "of yesterday" not in text and "| good | 25.00 | 29.00 | 8.00 | 16.0 |" in text
    assert "Not finished on every scene: half." in text and "2026-01-02, commit abc" in text
    write_results(folder, document)
    assert document.read_text() == text
    document.write_text("nothing")
    with pytest.raises(InvalidConfig, match="<!-- benchmark:try -->"):
        write_results(folder, document)
    assert document.read_text() == "nothing"
