"""Networks for the perceptual term without their weights, which tests do not have."""

import math
from pathlib import Path

import torch
import torchvision


def random_vgg(network: str, path: Path) -> None:
    """Write the convolutions of torchvision's vgg19, vgg16 (also called lpips) or alexnet with random weights."""
    torch.manual_seed(0)
    with torch.device("meta"):
        build = torchvision.models.get_model("vgg16" if network == "lpips" else network, weights=None)
        shapes = {name: value.shape for name, value in build.features.state_dict().items()}
    path.parent.mkdir(exist_ok=True)
    # He's deviation keeps the features of all layers at one scale.
    torch.save(
        {
            f"features.{name}": torch.randn(shape) * math.sqrt(2 / math.prod(shape[1:]))
            if len(shape) > 1
            else torch.zeros(shape)
            for name, shape in shapes.items()
        },
        path,
    )
