"""Means over scenes, and the sentence that they come to."""

from collections.abc import Sequence
from typing import Any

from lrm_ttt.eval.report.results import Cell, Results

# Columns of the tables that are means over scenes: name, and where a cell has it.
METRICS = ("psnr", "ssim", "ssim_uniform7", "lpips", "depth_abs_rel", "depth_delta1")
SENTENCES = {"all": "{} scenes", "captures": "{} captures", "procedural": "{} procedural scenes"}
COSTS = ("seconds", "processor_seconds", "peak_memory_bytes", "num_gaussians")


def mean_rows(results: Results, scenes: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row for each method and number of views: means over the `scenes` that it has finished.

    `scenes` counts those, `failed` the failures, `of` all that have so many views. A value is None where no
    scene has it.
    """
    rows = []
    for views in results.views:
        for method in results.methods:
            own = [cell for cell in results.cells if (cell["method"], cell["views"]) == (method, views)]
            own = [cell for cell in own if cell["scene"] in scenes]
            done = [cell for cell in own if is_done(cell)]
            row: dict[str, Any] = {"method": method, "views": views, "scenes": len(done)}
            row["of"] = sum(views in results.scenes[name].get("views", (views,)) for name in scenes)
            row["failed"] = len(own) - len(done)
            row |= {name: _mean([(cell.get("metrics") or {}).get(name) for cell in done]) for name in METRICS}
            row |= {name: _mean([cell.get(name) for cell in done]) for name in COSTS}
            rows.append(row)
    return rows


def is_done(cell: Cell) -> bool:
    """Tell whether a cell has numbers."""
    return cell.get("status") == "done"


def summary(results: Results) -> list[str]:
    """Return a sentence on captures and one on procedural scenes: who has the best PSNR at each number of views.

    Methods are compared on the scenes that all of them (but those that have finished nothing) have finished.
    """
    groups = {name: scenes for name, scenes in results.groups().items() if name in SENTENCES}
    if len(groups) > 1:
        # What holds for one kind of scene need not hold for the other, and their mean tells of neither.
        del groups["all"]
    found = []
    for name, scenes in groups.items():
        parts = [part for views in results.views if (part := _best(results, scenes, views))]
        if parts:
            kind = SENTENCES[name].format(len(scenes)).removesuffix("s" * (len(scenes) == 1))
            found.append(f"Best mean PSNR on held-out views of {kind}: {'; '.join(parts)}.")
    return found or ["No cell is finished yet."]


def _best(results: Results, scenes: Sequence[str], views: int) -> str:
    done = [cell for cell in results.cells if cell["views"] == views and cell["scene"] in scenes and is_done(cell)]
    done = [cell for cell in done if (cell.get("metrics") or {}).get("psnr") is not None]
    finished = {name: {cell["scene"] for cell in done if cell["method"] == name} for name in results.methods}
    finished = {name: own for name, own in finished.items() if own}
    shared = set.intersection(*finished.values()) if finished else set()
    if not shared:
        return ""
    means = {}
    for name in finished:
        own = [cell for cell in done if cell["method"] == name and cell["scene"] in shared]
        means[name] = (_mean([cell["metrics"]["psnr"] for cell in own]), _mean([cell.get("seconds") for cell in own]))
    best = max(means, key=lambda name: means[name][0] or 0.0)
    partly = "" if len(shared) == len(scenes) else f", on the {len(shared)} that all have finished"
    among = "" if len(means) == len(results.methods) else f", best of {len(means)} methods"
    return f"with {views} input views {best} ({_value(*means[best])}{among}{partly})"


def _value(psnr: float | None, seconds: float | None) -> str:
    return f"{psnr:.2f} dB" if seconds is None else f"{psnr:.2f} dB in {number(seconds)} s"


def number(value: float) -> str:
    """Return a positive number with three digits that count, and never with an exponent."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _mean(values: Sequence[float | int | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
