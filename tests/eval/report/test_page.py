"""The page says what the rows say, whatever state the benchmark is in."""

import html
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.published import MARK, read_published
from lrm_ttt.eval.report.means import summary
from lrm_ttt.eval.report.page import write_page
from lrm_ttt.eval.report.pictures import collect_pictures
from lrm_ttt.eval.report.results import read_results
from tests.eval.report.make import METHODS, SCENES, fail, make_results, write_cells

NASTY = "</script><img src=x onerror=\"alert(1)\"> & 'co'"


def data_of(page: Path) -> dict[str, Any]:
    """Return what the scripts of a page read, found as a browser finds it: up to the first end of the element."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script', page.read_text(), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_every_number_of_the_tables_is_a_mean_of_rows(tmp_path: Path) -> None:
    cells = make_results(tmp_path, size=8)
    data = data_of(write_page(tmp_path))
    assert set(data["groups"]) == {"all", "captures", "procedural", *(f"scene:{name}" for name in SCENES)}
    assert data["groups"]["captures"] == list(SCENES[:3])
    for group, scenes in data["groups"].items():
        assert len(data["rows"][group]) == len(METHODS) * 3
        for row in data["rows"][group]:
            own = [cell for cell in cells if (cell["method"], cell["views"]) == (row["method"], row["views"])]
            own = [cell for cell in own if cell["scene"] in scenes]
            assert row["scenes"] == row["of"] == len(own) == len(scenes)
            assert row["seconds"] == pytest.approx(statistics.fmean(cell["seconds"] for cell in own))
            assert row["lpips"] is None
            for name in ("psnr", "ssim", "ssim_uniform7", "depth_abs_rel"):
                values = [value for cell in own if (value := cell["metrics"][name]) is not None]
                assert row[name] == (pytest.approx(statistics.fmean(values)) if values else None)


def test_the_sentence_names_the_best_of_what_compares(tmp_path: Path) -> None:
    """A method that has only met the easiest scene must not win by that."""
    cells = make_results(tmp_path, views=(4,), scenes=("easy", "hard"), methods=("a", "b"), size=8)
    for cell, psnr in zip(cells, (30.0, 29.0, 20.0, 25.0), strict=True):
        cell["metrics"]["psnr"], cell["seconds"] = psnr, 123.4
    write_cells(tmp_path, cells)
    best = "Best mean PSNR on held-out views of 2 scenes: with 4 input views"
    assert summary(read_results(tmp_path)) == [f"{best} b (27.00 dB in 123 s)."]
    write_cells(tmp_path, [*cells[:2], cells[3]])
    on = "on the 1 that all have finished"
    assert summary(read_results(tmp_path)) == [f"{best} a (30.00 dB in 123 s, {on})."]
    write_cells(tmp_path, [])
    assert summary(read_results(tmp_path)) == ["No cell is finished yet."]


def test_a_run_that_was_interrupted_makes_a_page(tmp_path: Path) -> None:
    cells = make_results(tmp_path, views=(4, 8), size=8)
    write_cells(tmp_path, cells[:20])
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"scene": "lego", "meth')
    for path in (tmp_path / cells[0]["pictures"]["0"], tmp_path / "truths" / cells[14]["scene"] / "0.png"):
        path.unlink()
    page = write_page(tmp_path)
    assert f"not finished: 20 of {len(cells)} cells" in page.read_text()
    data = data_of(page)
    assert set(data["cells"][0]["pictures"]) == {"8"}
    assert set(data["truths"][cells[14]["scene"]]) == {"8"}
    unmet = [row for row in data["rows"]["all"] if row["views"] == 8 and row["method"] == METHODS[-1]]
    assert [(row["scenes"], row["psnr"], row["failed"]) for row in unmet] == [(1, cells[13]["metrics"]["psnr"], 0)]


def test_a_benchmark_without_cells_makes_a_page(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"holds no benchmark\.json"):
        write_page(tmp_path)
    (tmp_path / "benchmark.json").write_text('{"name": "none yet", "cells": 3}')
    assert "No cell is finished yet." in write_page(tmp_path).read_text()


def test_failures_are_told_and_not_counted_in_means(tmp_path: Path) -> None:
    cells = make_results(tmp_path, views=(4,), methods=METHODS[:2], size=8)
    error = "MCMC-7k diverged at step 12: <nan>"
    write_cells(tmp_path, [fail(cells[0], error), *cells[1:]])
    page = write_page(tmp_path)
    text = page.read_text()
    assert html.escape(error) in text
    assert f"1 of {len(cells)} cells failed" in text
    (row,) = [row for row in data_of(page)["rows"]["all"] if row["method"] == METHODS[0]]
    assert (row["failed"], row["scenes"], row["of"]) == (1, len(SCENES) - 1, len(SCENES))
    assert row["psnr"] == pytest.approx(statistics.fmean(cell["metrics"]["psnr"] for cell in cells[2::2]))
    # A cell that is run again counts as it came out the second time.
    write_cells(tmp_path, [fail(cells[0], error), *cells])
    assert html.escape(error) not in write_page(tmp_path).read_text()


def test_names_cannot_break_out(tmp_path: Path) -> None:
    cells = make_results(tmp_path, scenes=("plain",), methods=(NASTY, "b"), views=(4,), size=8)
    about = json.loads((tmp_path / "benchmark.json").read_text())
    about |= {"name": NASTY, "command": NASTY, "missing": [NASTY], "lpips": NASTY, "hardware": {NASTY: NASTY}}
    (tmp_path / "benchmark.json").write_text(json.dumps(about))
    write_cells(tmp_path, [*cells[:-1], fail(cells[-1], NASTY)])
    page = write_page(tmp_path)
    text = page.read_text()
    assert "<img src=x" not in text
    assert text.count("</script>") == 2
    assert data_of(page)["methods"] == [NASTY, "b"]


def test_pictures_are_embedded_once_and_seconds_give_way_to_firsts(tmp_path: Path) -> None:
    cells = make_results(tmp_path, scenes=("one",), views=(4,), size=8)
    (tmp_path / cells[1]["pictures"]["0"]).write_bytes((tmp_path / cells[0]["pictures"]["0"]).read_bytes())
    results = read_results(tmp_path)
    everything = collect_pictures(results)
    assert len(everything["urls"]) == 2 + 2 * len(METHODS) - 1
    assert everything["left_out"] == 0
    assert everything["renders"][0]["0"] == everything["renders"][1]["0"]

    firsts = {everything["truths"]["one"]["0"], *(keys["0"] for keys in everything["renders"])}
    room = sum(len(everything["urls"][key]) for key in firsts)
    some = collect_pictures(results, room)
    assert sum(map(len, some["urls"].values())) == room
    assert all(set(keys) == {"0"} for keys in some["renders"])
    assert some["left_out"] > 0


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    """Links lead elsewhere only when somebody clicks on them."""
    make_results(tmp_path, scenes=("one",), views=(4,), size=8)
    text = re.sub(r'<a href="[^"]*">', "", write_page(tmp_path).read_text())
    addresses = set(re.findall(r"""(?:src|href)=["']([^"']*)|url\(([^)]*)""", text))
    assert addresses == {("data:,", "")}


def test_published_figures_stand_apart_and_complete(tmp_path: Path) -> None:
    make_results(tmp_path, scenes=("one",), views=(4,), size=8)
    page = write_page(tmp_path)
    (section,) = re.findall(r'<section class="published".*?</section>', page.read_text(), re.DOTALL)
    assert MARK in section
    for table in read_published():
        assert html.escape(table.dataset) in section
        assert f'href="{html.escape(table.url)}"' in section
        for figure in table.figures:
            row = section.split(f'<th scope="row">{html.escape(figure.method)}</th>')
            values = [f"<td>{figure.psnr:.2f}</td>"] if figure.psnr is not None else []
            assert all(any(value in part.split("</tr>")[0] for part in row[1:]) for value in values)
    own = {row["method"] for rows in data_of(page)["rows"].values() for row in rows}
    assert own == set(METHODS)
