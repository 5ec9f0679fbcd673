"""Networks for the perceptual term without their weights, which tests do not have."""

import math
from pathlib import Path

import torch
import torchvision


def random_vgg(network: str, path: Path) -> None:
    """Write the convolutions of torchvision's VGG with random weights."""
    torch.manual_seed(0)
    build = torchvision.models.vgg19 if network == "vgg19" else torchvision.models.vgg16
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build(weights=None).features.state_dict().items()}
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
