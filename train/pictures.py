"""What a run looks like: one sheet of renderings beside the truth, from the held-out scenes."""

import dataclasses

import torch
from PIL import Image
from torch import Tensor

from lrm_ttt.eval.metrics import psnr
from lrm_ttt.render.sheet import MOST_COMPARED, Comparison, draw_sheet, spread
from lrm_ttt.scene.views import Renderings, SceneBatch


@dataclasses.dataclass(frozen=True)
class _Page:
    """One scene: an input, and a target view with its rendering."""

    name: str
    input: Tensor
    truth: Tensor
    rendering: Tensor


class Album:
    """Collect the first input and the first target of scenes while they are validated, and draw them on one sheet."""

    def __init__(self) -> None:
        self.pages: list[_Page] = []

    def add(self, batch: SceneBatch, renderings: Renderings) -> None:
        """Take in the scenes of a batch with what was rendered for its targets."""
        assert batch.targets is not None
        for scene in range(batch.shape[0]):
            views = (batch.inputs.images, batch.targets.images, renderings.colors)
            name = batch.names[scene] if batch.names else f"scene {len(self.pages)}"
            self.pages.append(_Page(name, *(images[scene, 0].detach().float().cpu() for images in views)))

    def draw(self, title: str) -> Image.Image:
        """Draw at most MOST_COMPARED scenes, taken evenly from those collected; their images are of one size."""
        assert self.pages, "there is no scene to draw"
        pages = [self.pages[index] for index in spread(len(self.pages), MOST_COMPARED)]
        compared = [
            Comparison(f"{float(psnr(page.rendering[None], page.truth[None])):.1f} dB", page.truth, page.rendering)
            for page in pages
        ]
        inputs = torch.stack([page.input for page in pages])
        return draw_sheet(title, inputs, [page.name for page in pages], compared)
