"""report.html: a benchmark as one file that is opened from anywhere, without a network."""

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from lrm_ttt.eval.benchmark.folder import PAGE, write_whole
from lrm_ttt.eval.report.means import is_done, mean_rows, summary
from lrm_ttt.eval.report.pictures import collect_pictures
from lrm_ttt.eval.report.published_tables import published_section
from lrm_ttt.eval.report.results import Results, read_results
from lrm_ttt.pipeline.report import table

# In the order in which they need each other.
SCRIPTS = ("common.js", "tables.js", "plots.js", "compare.js", "scene.js", "page.js")
# The browser itself refuses whatever is not in the file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
LABELS = {
    "psnr": "PSNR",
    "ssim": "SSIM, 11-tap Gaussian",
    "ssim_uniform7": "SSIM, 7×7 uniform",
    "lpips": "LPIPS",
    "depth_abs_rel": "Depth AbsRel",
    "depth_delta1": "Depth δ < 1.25",
}
COST_VARIANTS = {
    "Time": "wall clock from decoded views to Gaussians; loading images and models is not in it, nor is drawing the "
    "held-out views",
    "CPU time": "of all threads of the same work, so that cells that ran beside each other still compare",
    "Peak memory": "most that the process of the cell held while it worked (on a GPU: memory of the GPU)",
    "Means": "over images, then over the scenes of the group",
}


def write_page(folder: Path) -> Path:
    """Write report.html into the output folder of a benchmark, finished or not, and return its path."""
    results = read_results(folder)
    title = str(results.about.get("name") or folder.name)
    own = resources.files("lrm_ttt.eval.report")
    script = "\n".join((own / name).read_text(encoding="utf-8") for name in SCRIPTS)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{(own / 'page.css').read_text(encoding='utf-8')}</style></head><body>",
        '<main id="overview">',
        *_head(results, title),
        '<section id="results"></section><section id="plots"></section><section id="scenes"></section>',
        *_failures(results),
        *published_section(),
        *_provenance(results),
        '</main><main id="scene" hidden></main>',
        f'<script type="application/json" id="data">{_json_in_html(_data(results, title))}</script>',
        f'<script>"use strict";(() => {{\n{script}\n}})();</script></body></html>',
    ]
    path = folder / PAGE
    write_whole(path, "\n".join(parts))
    return path


def _data(results: Results, title: str) -> dict[str, Any]:
    """Return what the scripts read: means by group of scenes, cells, pictures."""
    pictures = collect_pictures(results)
    cells = []
    for cell, keys in zip(results.cells, pictures["renders"], strict=True):
        each = dict(zip(map(str, cell.get("targets") or ()), cell.get("psnr_each") or (), strict=False))
        shown = {name: cell.get(name) for name in ("scene", "method", "views", "status", "error", "inputs", "targets")}
        metrics = cell.get("metrics") or {}
        numbers = {"psnr": metrics.get("psnr"), "each": each, "depth": metrics.get("depth_abs_rel") is not None}
        cells.append({**shown, **numbers, "pictures": keys})
    groups = results.groups()
    return {
        "title": title,
        "methods": results.methods,
        "views": results.views,
        "scenes": list(results.scenes.values()),
        "groups": groups,
        "rows": {name: mean_rows(results, scenes) for name, scenes in groups.items()},
        "cells": cells,
        "truths": pictures["truths"],
        "pictures": pictures["urls"],
        "leftOut": pictures["left_out"],
        "variants": results.about.get("metric_variants") or {},
        "lpips": results.about.get("lpips"),
    }


def _json_in_html(value: Any) -> str:
    """Return JSON in which no name can end the element that it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(results: Results, title: str) -> list[str]:
    about = results.about
    num_done = sum(is_done(cell) for cell in results.cells)
    num_failed = len(results.cells) - num_done
    total = max(int(about.get("cells") or 0), len(results.cells))
    facts = [
        f"{len(results.methods)} methods, {len(results.scenes)} scenes, {_listed(results.views)} input views",
        _hardware_words(about.get("hardware") or {}),
        _sharing_words(results),
        str(about.get("date") or "")[:10],
        f"commit {_short(str(about['commit']))}" if about.get("commit") else "",
    ]
    parts = [f'<header><p class="kicker">lrm-ttt benchmark</p><h1>{html.escape(title)}</h1>']
    parts += [f'<p class="summary">{html.escape(sentence)}</p>' for sentence in summary(results)]
    parts += [f'<p class="facts">{html.escape(" · ".join(fact for fact in facts if fact))}</p>']
    if len(results.cells) < total:
        parts += [
            f'<p class="notice">This run is not finished: {len(results.cells)} of {total} cells are there. '
            "Means over fewer scenes than others are marked.</p>"
        ]
    if num_failed:
        parts += [f'<p class="notice">{num_failed} of {total} cells failed; they are listed below with the reason.</p>']
    return [*parts, "</header>"]


def _failures(results: Results) -> list[str]:
    failed = [cell for cell in results.cells if not is_done(cell)]
    missing = [str(line) for line in results.about.get("missing") or ()]
    parts = []
    if failed:
        rows = [
            "".join(
                f"<td>{html.escape(str(cell.get(name) or ''))}</td>" for name in ("scene", "views", "method", "error")
            )
            for cell in failed
        ]
        parts += ['<section id="failures"><h2>Cells that failed</h2><div class="scroll"><table><thead><tr>']
        parts += ["<th>Scene</th><th>Input views</th><th>Method</th><th>Why</th></tr></thead><tbody>"]
        parts += [f"<tr>{row}</tr>" for row in rows]
        parts += ["</tbody></table></div></section>"]
    if missing:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in missing)
        parts += [f'<section id="missing"><h2>What is missing</h2><ul>{items}</ul></section>']
    return parts


def _provenance(results: Results) -> list[str]:
    about = results.about
    variants = {**(about.get("metric_variants") or {})}
    if about.get("lpips"):
        variants["lpips"] = about["lpips"]
    variants |= COST_VARIANTS
    run = {"command": about.get("command"), "commit": about.get("commit"), "date": about.get("date")}
    for name in ("threads", "workers"):
        used = sorted({cell[name] for cell in results.cells if cell.get(name) is not None})
        run[name] = _listed(used)
    commits = sorted({str(cell["commit"]) for cell in results.cells if cell.get("commit")})
    if commits and commits != [about.get("commit")]:
        run["commits of the cells"] = _listed(commits)
    named = {LABELS.get(name, name): words for name, words in variants.items()}
    earlier = [f"{each.get('date')}: {each.get('command')}" for each in (about.get("runs") or ())[:-1]]
    run |= {f"earlier run {number}": words for number, words in enumerate(earlier, start=1)}
    remarks = "".join(f"<li>{html.escape(str(line))}</li>" for line in about.get("remarks") or ())
    remarks = f"<h3>What else to know</h3><ul>{remarks}</ul>" if remarks else ""
    parts = [f'<section class="words"><h2>What the numbers are</h2>{table(named)}{remarks}</section>']
    parts += ['<section id="provenance"><h2>Where they come from</h2>', table(run)]
    for caption, values in (("Hardware", about.get("hardware")), ("Versions", about.get("versions"))):
        if isinstance(values, Mapping) and values:
            parts += [f"<h3>{caption}</h3>", table({name: _flat(value) for name, value in values.items() if value})]
    config = json.dumps(about.get("config") or {}, indent=2)
    parts += [f"<details><summary>Configuration</summary><pre>{html.escape(config)}</pre></details></section>"]
    return parts


def _hardware_words(hardware: Mapping[str, Any]) -> str:
    """Name the GPU, or the processor and how many cores it gave."""
    if hardware.get("gpu"):
        return str(hardware["gpu"]["name"])
    return f"{hardware['cpu']}, {hardware.get('cores')} cores" if hardware.get("cpu") else ""


def _sharing_words(results: Results) -> str:
    """Say how many cells ran at a time where it was always the same number."""
    ways = {(cell.get("workers"), cell.get("threads")) for cell in results.cells} - {(None, None)}
    if len(ways) != 1:
        return ""
    ((workers, threads),) = ways
    return f"{workers} at a time, {threads} thread{'s' * (threads != 1)} each" if workers and threads else ""


def _short(commit: str) -> str:
    """Shorten a commit, but for the word that it was changed since."""
    name, dash, changed = commit.partition("-")
    return f"{name[:10]}{dash}{changed}"


def _flat(value: Any) -> Any:
    """Return lists and mappings as words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items())
    return _listed(value) if isinstance(value, list) else value


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values)
