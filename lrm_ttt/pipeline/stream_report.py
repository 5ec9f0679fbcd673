"""A page that says how a stream went: what every step saw and cost, and whether the first views were forgotten."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrm_ttt.pipeline.report import Headline, headlines, page, table

HEADLINES: tuple[Headline, ...] = (
    ("psnr_first", "dB on the first views", "{:.2f}"),
    ("psnr_first_best", "dB at their best", "{:.2f}"),
    ("psnr_held_out", "dB on held-out views", "{:.2f}"),
    ("num_gaussians", "Gaussians", "{:,}"),
    ("num_input_views", "input views", "{}"),
    ("num_steps", "steps", "{}"),
    ("seconds_per_step", "seconds a step (median)", "{:.2f}"),
)
# Columns of the table: key of a row, caption, format.
COLUMNS = (
    ("step", "step", "{}"),
    ("num_views", "views", "{}"),
    ("num_gaussians", "Gaussians", "{:,}"),
    ("psnr_first", "first views, dB", "{:.2f}"),
    ("psnr_new", "new views, dB", "{:.2f}"),
    ("psnr_held_out", "held-out, dB", "{:.2f}"),
    ("update", "update, s", "{:.3f}"),
    ("query", "query, s", "{:.3f}"),
    ("total", "read to .ply, s", "{:.3f}"),
    ("score", "scoring, s", "{:.3f}"),
    ("peak_memory_mb", "peak, MB", "{:.0f}"),
)
Curves = Mapping[str, Sequence[float | None]]
COLORS = ("#c2410c", "#1d4ed8", "#15803d")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 760, 260, 52, 32, 12


def write_stream_report(path: Path, title: str, metrics: Mapping[str, Any]) -> None:
    """Write report.html with the curves and the table of all steps."""
    rows = [row | row["seconds"] for row in metrics["steps"]]
    quality = {caption: [row[key] for row in rows] for key, caption, _ in COLUMNS if key.startswith("psnr")}
    seconds = {key: [row[key] for row in rows] for key in ("total", "update", "query")}
    rest = {key: value for key, value in metrics.items() if not isinstance(value, dict | list)}
    parts = [
        headlines(metrics, HEADLINES),
        *(f"<p><b>{html.escape(note)}</b></p>" for note in metrics["notes"]),
        "<h2>PSNR after every step</h2>",
        plot(quality, from_zero=False),
        "<h2>Seconds of every step</h2>",
        plot(seconds, from_zero=True),
        "<h2>Steps</h2>",
        _rows(rows),
        "<h2>All numbers</h2>",
        table(rest),
    ]
    path.write_text(page(title, parts), encoding="utf-8")


def plot(curves: Curves, *, from_zero: bool) -> str:
    """Return an SVG of curves over the steps 1, 2, ...; steps without a value are passed over."""
    values = [value for curve in curves.values() for value in curve if value is not None]
    if not values:
        return "<p>no values</p>"
    low, high = 0.0 if from_zero else min(values), max(values)
    margin = 0.05 * (high - low) or 0.5
    low, high = low if from_zero else low - margin, high + margin
    num_steps = max(len(curve) for curve in curves.values())

    def across(step: int) -> float:
        return LEFT + (WIDTH - LEFT - 8) * (step - 1) / max(num_steps - 1, 1)

    def up(value: float) -> float:
        return TOP + (HEIGHT - BOTTOM - TOP) * (high - value) / (high - low)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="12" fill="#444" role="img">']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = low + share * (high - low)
        parts.append(f'<path d="M{LEFT} {up(value):.1f}H{WIDTH - 8}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step in sorted({1, (num_steps + 1) // 2, num_steps}):
        parts.append(f'<text x="{across(step):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{step}</text>')
    for number, (name, curve) in enumerate(curves.items()):
        color = COLORS[number % len(COLORS)]
        known = [(across(step), up(value)) for step, value in enumerate(curve, 1) if value is not None]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in known)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in known]
        place = f'x="{LEFT + 8 + 150 * number}" y="{HEIGHT - 1}"'
        parts.append(f'<text {place} style="fill:{color}">{html.escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<td>{html.escape(caption)}</td>" for _, caption, _ in COLUMNS)
    lines = [
        "".join(f"<td>{'-' if row[key] is None else form.format(row[key])}</td>" for key, _, form in COLUMNS)
        for row in rows
    ]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in [head, *lines])}</table>"
