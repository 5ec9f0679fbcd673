"""One picture: the time of the forward pass against the number of views."""

from collections.abc import Sequence
from pathlib import Path

from lrm_ttt.eval.speed.rows import Row


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def draw_views(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write a picture of the stage `views`, with a line for each mixer and a dashed one for what is linear."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for variant in dict.fromkeys(row.variant for row in rows):
        points = [(int(row.name), row.ms / 1e3) for row in rows if row.variant == variant and row.ms is not None]
        if not points:
            continue
        (line,) = axes.plot(*zip(*points, strict=True), marker="o", label=f"{variant}, {rows[0].dtype}")
        if variant == rows[0].variant and len(points) > 1:
            (first, seconds), (last, _) = points[0], points[-1]
            linear = (seconds, seconds * last / first)
            axes.plot((first, last), linear, "--", color=line.get_color(), alpha=0.5, label="linear")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel(f"views of {rows[0].size}")
    axes.set_ylabel("seconds, forward")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)
