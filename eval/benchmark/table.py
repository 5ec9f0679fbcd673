"""table.md: a benchmark in Markdown tables, with what its numbers are and where they come from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lrm_ttt.eval.benchmark.cell import WARM_UP_BELOW
from lrm_ttt.eval.published import MARK, Figure, absent_figures, read_published
from lrm_ttt.eval.report.means import is_done, mean_rows, number
from lrm_ttt.eval.report.results import Results

Format = Callable[[float], str]
TITLES = {"all": "All scenes", "captures": "Captures", "procedural": "Procedural scenes"}


# Of a mean row: the title of the column and how its numbers are written; None where nobody has a value.
COLUMNS: Mapping[str, tuple[str, Format]] = {
    "psnr": ("PSNR, dB", lambda value: f"{value:.2f}"),
    "ssim": ("SSIM", lambda value: f"{value:.4f}"),
    "ssim_uniform7": ("SSIM 7x7 uniform", lambda value: f"{value:.4f}"),
    "lpips": ("LPIPS", lambda value: f"{value:.4f}"),
    "depth_abs_rel": ("depth AbsRel", lambda value: f"{value:.4f}"),
    "depth_delta1": ("depth < 1.25", lambda value: f"{value:.4f}"),
    "seconds": ("seconds", number),
    "processor_seconds": ("processor seconds", number),
    "peak_memory_bytes": ("peak memory, MB", lambda value: f"{value / 1e6:,.0f}"),
    "num_gaussians": ("Gaussians", lambda value: f"{value:,.0f}"),
}


def draw_table(results: Results) -> str:
    """Return all of table.md."""
    parts = [f"# {results.about['name']}", *provenance(results), *_unfinished(results)]
    for title, scenes in groups_of(results).items():
        parts.append(f"## {title} ({len(scenes)}: {', '.join(scenes)})")
        rows = mean_rows(results, scenes)
        for views in results.views:
            own = [row for row in rows if row["views"] == views]
            parts += [f"### {views} input views", *means_table(own)]
            parts += ["PSNR of each scene:", psnr_table(results, views, scenes)]
    return "\n\n".join([*parts, *_words(results), *published_tables()]) + "\n"


def groups_of(results: Results) -> dict[str, tuple[str, ...]]:
    """Return the scenes that means are taken over, by title: captures and procedural ones are not averaged together."""
    groups = results.groups()
    apart = {TITLES[name]: groups[name] for name in ("captures", "procedural") if name in groups}
    return apart or {TITLES["all"]: groups["all"]}


def means_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of means over scenes, and a sentence about means over fewer of them than others."""
    shown = {key: column for key, column in COLUMNS.items() if any(row[key] is not None for row in rows)}
    head = ["method", *(title for title, _ in shown.values())]
    cells = [
        [_method(row), *("" if row[key] is None else write(row[key]) for key, (_, write) in shown.items())]
        for row in rows
        if row["scenes"] or row["failed"]
    ]
    if not cells:
        return ["Nothing has been run yet."]
    fewer = [f"{row['method']} ({row['scenes']} of {row['of']})" for row in rows if row["scenes"] < row["of"]]
    note = [f"\\* a mean over fewer scenes than there are: {', '.join(fewer)}."] if fewer else []
    return [markdown(head, cells), *note]


def psnr_table(results: Results, views: int, scenes: Sequence[str]) -> str:
    """Return the PSNR of every method on every scene."""
    found = {(cell["method"], cell["scene"]): cell for cell in results.cells if cell["views"] == views}

    def write(cell: Mapping[str, Any] | None) -> str:
        if cell is None:
            return ""
        return f"{cell['metrics']['psnr']:.2f}" if is_done(cell) else "failed"

    rows = [[method, *(write(found.get((method, scene))) for scene in scenes)] for method in results.methods]
    return markdown(["method", *scenes], rows)


def published_tables() -> list[str]:
    """Return what papers print, in tables that are marked as such."""
    parts = [f"## What papers print ({MARK})", "Other scenes, image sizes and machines than above.", *absent_figures()]
    for table in read_published():
        rows = [[figure.method, str(figure.views), *_values(figure)] for figure in table.figures]
        parts += [f"### {table.dataset}", markdown(["method", "views", "PSNR", "SSIM", "LPIPS", "seconds"], rows)]
        parts.append(table.caption)
    return parts


def provenance(results: Results) -> list[str]:
    """Return one paragraph: command, date, commit, hardware, threads."""
    about, hardware = results.about, results.about["hardware"]
    commits = sorted({cell["commit"] for cell in results.cells if cell.get("commit")})
    commit = f", commit {', '.join(commits)}" if commits else ""
    where = hardware["gpu"]["name"] if hardware.get("gpu") else f"{hardware['cpu']}, {hardware['cores']} cores"
    others = sorted({cell["hardware"] for cell in results.cells if cell.get("hardware")} - {where.split(",")[0]})
    mixed = f" Some cells ran on {', '.join(others)}: compare no seconds with theirs." if others else ""
    slow = " Some cells drew with the slow torch rasterizer." if _drew_slowly(results) else ""
    workers = about["config"]["workers"]
    beside = f", {workers} cells beside each other" if workers > 1 else ""
    threads = f"{hardware['threads']} thread{'s' if hardware['threads'] > 1 else ''} each"
    line = f"`{about['command']}`, {about['date'][:10]}{commit}, on {where}{beside}, {threads}.{mixed}{slow}"
    subsets = [run for run in about.get("runs", []) if any(run["only"].values())]
    parts = [f"`{run['command']}` ran a part of it." for run in subsets if run["command"] != about["command"]]
    return [" ".join([line, *parts])]


def _drew_slowly(results: Results) -> bool:
    return any(cell.get("backend") == "reference" for cell in results.cells)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column is of words and the others of numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _method(row: Mapping[str, Any]) -> str:
    return row["method"] + (r" \*" if row["scenes"] < row["of"] else "")


def _values(figure: Figure) -> list[str]:
    values = (figure.psnr, ".2f"), (figure.ssim, ".3f"), (figure.lpips, ".3f"), (figure.seconds, "g")
    return ["" if value is None else format(value, digits) for value, digits in values]


def _unfinished(results: Results) -> list[str]:
    """Say what is not there: cells that have failed, those that have not run, methods and scenes."""
    failed = [cell for cell in results.cells if not is_done(cell)]
    waiting = results.about["cells"] - len(results.cells)
    parts = [f"Not finished: {waiting} of {results.about['cells']} cells have not been run."] if waiting > 0 else []
    if failed:
        lines = [f"* {cell['method']} on {cell['scene']}, {cell['views']} views: {cell['error']}" for cell in failed]
        parts.append("\n".join(["Failed:", "", *lines]))
    if results.about["missing"]:
        parts.append("\n".join(["Missing:", "", *(f"* {line}" for line in results.about["missing"])]))
    return parts


def _words(results: Results) -> list[str]:
    """Say what the numbers are."""
    variants = dict(results.about["metric_variants"])
    if results.about["lpips"]:
        variants["lpips"] = results.about["lpips"]
    titles = {"peak_memory_bytes": "peak memory"}
    variants |= {
        "seconds": "wall clock of the method from decoded views to Gaussians, model loaded before; the held-out views "
        "are drawn afterwards; "
        f"on a GPU methods of fewer than {WARM_UP_BELOW:,} steps have run once before",
        "processor_seconds": "the same work, of all threads together, so that cells that ran beside each other compare",
        "peak_memory_bytes": "the most that the process (on a GPU: the GPU) held meanwhile, with model and libraries",
    }
    named = {titles.get(key) or COLUMNS[key][0].split(",")[0]: words for key, words in variants.items()}
    lines = [f"* {name}: {words}" for name, words in named.items()]
    scenes = [
        f"* {name}: {scene['protocol']}, {scene['image_size'][1]}x{scene['image_size'][0]} (width x height), "
        f"{len(scene['targets'])} targets of {scene['num_views']} views"
        for name, scene in results.scenes.items()
        if "protocol" in scene
    ]
    means = "Means are over the held-out views of a scene, then over scenes."
    parts = ["\n".join(["## What the numbers are", "", means, "", *lines]), "\n".join(["Scenes:", "", *scenes])]
    remarks = [f"* {line}" for line in results.about.get("remarks", [])]
    return [*parts, "\n".join(["What else to know:", "", *remarks])] if remarks else parts
