"""Figures that papers print: read from published.json, marked as published, and never a part of our own tables."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Literal

FILE = Path(__file__).resolve().parent / "published.json"
MARK = "published, not measured here"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One row of a published table: the mean over its data set with so many input views; None is not in the table."""

    method: str
    views: int
    psnr: float | None
    ssim: float | None
    lpips: float | None
    seconds: float | None


@dataclasses.dataclass(frozen=True)
class PublishedTable:
    """A table of a paper.

    `protocol` is ours (eval/protocol.py) that comes nearest. `ssim_variant` is the name of ours in
    `lrm_ttt.eval.metrics.variants`, None where it is not known, as `lpips_network`. `size_source`, `variant_source`,
    `time` and `read` say in words where image size, variants and figures are from and what the times are.
    """

    name: str
    dataset: str
    protocol: str
    image_size: tuple[int, int]
    size_source: str
    paper: str
    number: str
    url: str
    read: str
    ssim_variant: str | None
    lpips_network: Literal["vgg", "alex"] | None
    variant_source: str
    time: str
    figures: tuple[Figure, ...]

    @property
    def caption(self) -> str:
        """Say what the figures are and where they are from, to stand beside them."""
        height, width = self.image_size
        variants = {"ssim": "with a Gaussian window", "ssim_uniform7": "with a 7x7 uniform window"}
        ssim = variants[self.ssim_variant] if self.ssim_variant else "of an unknown variant"
        lpips = {"vgg": "on VGG", "alex": "on AlexNet", None: "on an unknown network"}[self.lpips_network]
        return (
            f"{self.dataset} at {width}x{height} ({self.size_source}): {MARK}. {self.number} of {self.paper}, "
            f"{self.url}; read {self.read}. SSIM {ssim}, LPIPS {lpips} ({self.variant_source}). Seconds {self.time}."
        )


@functools.cache
def read_published() -> tuple[PublishedTable, ...]:
    """Return every published table that is at hand."""
    tables = []
    for entry in json.loads(FILE.read_text(encoding="utf-8"))["tables"]:
        height, width = entry.pop("image_size")
        figures = tuple(Figure(**row) for row in entry.pop("figures"))
        tables.append(PublishedTable(**entry, image_size=(height, width), figures=figures))
    return tuple(tables)


def absent_figures() -> tuple[str, ...]:
    """Return sentences about what of these tables is not known, or was not found."""
    return tuple(json.loads(FILE.read_text(encoding="utf-8"))["absent"])
