"""Draw the curves of docs/evidence.md from the folders of training runs and the files of eval/study.py.

`python -m lrm_ttt.eval.curves runs.png --runs "fast weights=runs/base_s0,runs/base_s1" "softmax=runs/softmax_s0"` draws
validation PSNR against steps; runs of one name, separated by commas, are seeds of one experiment.
`--studies "fast weights=base.json" "softmax=softmax.json" --of psnr` draws measurements against the number of views.
"""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lrm_ttt.errors import InvalidConfig, UnreadableScene

LABELS = {
    "psnr": "PSNR of held-out views (dB)",
    "seconds": "seconds of one pass over the inputs",
    "state_mb": "state of the scene (MB)",
    "step": "steps",
    "scenes": "scenes seen",
    "hours": "hours",
}


@dataclasses.dataclass(frozen=True)
class Curves:
    """What to draw."""

    output: tyro.conf.Positional[Path]
    """The picture: .png or .svg."""
    runs: tuple[str, ...] = ()
    """NAME=FOLDER[,FOLDER...]: training runs."""
    studies: tuple[str, ...] = ()
    """NAME=FILE.json: measurements of eval/study.py."""
    of: Literal["psnr", "seconds", "state_mb"] = "psnr"
    """What of the studies."""
    against: Literal["step", "scenes", "hours"] = "step"
    """What runs are drawn against."""
    title: Annotated[str, tyro.conf.arg(metavar="TEXT")] = ""
    """Above the picture."""


Line = list[tuple[float, float]]


def validation_curve(folder: Path, against: str) -> Line:
    """Return (x, PSNR) of every validation in a run's metrics.jsonl; scenes and hours are those of the last report."""
    try:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UnreadableScene(f"{folder}: no run with a readable metrics.jsonl ({error}). Name its folder.") from error
    x = {"step": 0.0, "scenes": 0.0, "hours": 0.0}
    line = []
    for row in rows:
        x["step"] = row["step"]
        if row["kind"] == "train":
            x |= {name: row[name] for name in ("scenes", "hours")}
        elif row["kind"] == "validation":
            line.append((float(x[against]), float(row["psnr"])))
    return line


def mean_and_spread(lines: list[Line]) -> tuple[Line, list[float], list[float]]:
    """Return the mean of curves of one experiment, and the least and greatest of them, as far as all of them go."""
    columns = list(zip(*lines, strict=False))
    mean = [(statistics.mean(x for x, _ in column), statistics.mean(y for _, y in column)) for column in columns]
    return mean, [min(y for _, y in column) for column in columns], [max(y for _, y in column) for column in columns]


def named(text: str) -> tuple[str, list[Path]]:
    """Split NAME=PATH[,PATH...]."""
    name, separator, paths = text.partition("=")
    if not separator or not paths:
        raise InvalidConfig(f"{text!r}: write NAME=PATH, or NAME=PATH,PATH for several seeds.")
    return name, [Path(path) for path in paths.split(",")]


def draw(curves: Curves) -> None:
    """Draw and write the picture; needs matplotlib (pip install 'lrm-ttt[plots]')."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for text in curves.runs:
        name, folders = named(text)
        mean, low, high = mean_and_spread([validation_curve(folder, curves.against) for folder in folders])
        (line,) = axes.plot([x for x, _ in mean], [y for _, y in mean], marker=".", label=name)
        if len(folders) > 1:
            axes.fill_between([x for x, _ in mean], low, high, color=line.get_color(), alpha=0.15)
    for text in curves.studies:
        name, files = named(text)
        rows = json.loads(files[0].read_text(encoding="utf-8"))["views"]
        axes.plot([row["views"] for row in rows], [row[curves.of] for row in rows], marker="o", label=name)
    if curves.studies:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        if curves.of != "psnr":
            axes.set_yscale("log")
    axes.set_xlabel("input views" if curves.studies else LABELS[curves.against])
    axes.set_ylabel(LABELS[curves.of])
    axes.set_title(curves.title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    curves.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(curves.output)


def main() -> None:
    """Draw."""
    try:
        draw(tyro.cli(Curves, description=__doc__))
    except (InvalidConfig, UnreadableScene) as error:
        raise SystemExit(f"curves: {error}") from error


if __name__ == "__main__":
    main()
