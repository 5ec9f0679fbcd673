"""A page that says how a reconstruction went: one file, no network, opened by any browser."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1e1e1e; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1.5rem 0; }
.numbers div { min-width: 7rem; } .numbers b { display: block; font-size: 1.6rem; font-weight: 600; }
.numbers span, td:first-child { color: #666; } table { border-collapse: collapse; }
td { padding: .15rem 1.5rem .15rem 0; vertical-align: top; } code { word-break: break-all; }
img { max-width: 100%; } video { width: 100%; max-width: 512px; image-rendering: auto; background: #eee; }
"""

# What stands large at the top: key of the metrics, caption, format.
Headline = tuple[str, str, str]
HEADLINES: tuple[Headline, ...] = (
    ("psnr_held_out", "dB on held-out views", "{:.2f}"),
    ("ssim_held_out", "SSIM on held-out views", "{:.3f}"),
    ("psnr_input", "dB on input views", "{:.2f}"),
    ("num_gaussians", "Gaussians", "{:,}"),
    ("num_input_views", "input views", "{}"),
    ("num_held_out_views", "held-out views", "{}"),
    ("ply_round_trip_db_gap", "dB lost in the .ply", "{:.4f}"),
)


def write_report(path: Path, title: str, metrics: Mapping[str, Any], sheet: Path, video: Path | None) -> None:
    """Write report.html with the numbers, the sheet and the video inside."""
    parts = [headlines(metrics, HEADLINES)]
    if video is not None:
        parts += [
            "<h2>An orbit</h2>",
            f'<video controls loop autoplay muted src="{_inline(video, "video/mp4")}"></video>',
        ]
    parts += ["<h2>Inputs, and held-out views beside the truth</h2>"]
    parts += [f'<img alt="inputs, truths, renderings and errors" src="{_inline(sheet, "image/png")}">']
    for caption, key in (("Seconds", "seconds"), ("Metrics", "metric_variants"), ("Versions", "versions")):
        parts += [f"<h2>{caption}</h2>", table(metrics.get(key) or {})]
    rest = {key: value for key, value in metrics.items() if not isinstance(value, dict | list)}
    parts += ["<h2>All numbers</h2>", table(rest)]
    path.write_text(page(title, parts), encoding="utf-8")


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole page of HTML with `parts` below its title."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            *parts,
            "</body></html>",
        ]
    )


def headlines(metrics: Mapping[str, Any], shown: Sequence[Headline]) -> str:
    """Return the numbers that stand large; those that do not exist are left out."""
    cells = [
        f"<div><b>{html.escape(form.format(metrics[key]))}</b><span>{html.escape(caption)}</span></div>"
        for key, caption, form in shown
        if metrics.get(key) is not None
    ]
    return f'<div class="numbers">{"".join(cells)}</div>'


def table(values: Mapping[str, Any]) -> str:
    """Return names and values in two columns."""
    rows = [
        f"<tr><td>{html.escape(key.replace('_', ' '))}</td><td><code>{html.escape(_text(value))}</code></td></tr>"
        for key, value in values.items()
    ]
    return f"<table>{''.join(rows)}</table>"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _inline(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
