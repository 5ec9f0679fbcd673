"""What a run looks like: one sheet of renderings beside the truth, from the held-out scenes."""

import dataclasses

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lrm_ttt.eval.metrics import psnr
from lrm_ttt.render.sheet import MOST_COMPARED, Comparison, draw_sheet, spread
from lrm_ttt.scene.views import Renderings, SceneBatch


@dataclasses.dataclass(frozen=True)
class Page:
    """One scene: the first input, and the first target with its rendering, in 8 bits."""

    number: int
    name: str
    psnr: float
    input: UInt8[Tensor, "3 h w"]
    truth: UInt8[Tensor, "3 h w"]
    rendering: UInt8[Tensor, "3 h w"]


class Album:
    """Collect scenes while they are validated, and draw them on one sheet.

    Of `num_scenes` at most MOST_COMPARED are taken, evenly. The pages of several ranks may be put together.
    """

    def __init__(self, num_scenes: int) -> None:
        self.wanted = spread(num_scenes, MOST_COMPARED)
        self.pages: list[Page] = []

    def add(self, number: int, batch: SceneBatch, renderings: Renderings) -> None:
        """Take in scene `number`, a batch of one, with what was rendered for its targets."""
        assert batch.targets is not None
        if number not in self.wanted:
            return
        views = batch.inputs.images[0, 0], batch.targets.images[0, 0], renderings.colors[0, 0]
        quality = float(psnr(renderings.colors[0, :1], batch.targets.images[0, :1]))
        name = batch.names[0] if batch.names else f"scene {number}"
        self.pages.append(Page(number, name, quality, *(_in_bytes(image) for image in views)))

    def draw(self, title: str) -> Image.Image:
        """Draw the pages by number; their images are of one size."""
        assert self.pages, "there is no scene to draw"
        pages = sorted(self.pages, key=lambda page: page.number)
        compared = [Comparison(f"{page.psnr:.1f} dB", page.truth / 255, page.rendering / 255) for page in pages]
        inputs = torch.stack([page.input for page in pages]) / 255
        return draw_sheet(title, inputs, [page.name for page in pages], compared)


def _in_bytes(image: Float[Tensor, "3 h w"]) -> UInt8[Tensor, "3 h w"]:
    return (image.detach().clamp(0, 1) * 255).round().byte().cpu()
