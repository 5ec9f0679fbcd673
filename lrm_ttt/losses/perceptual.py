"""Distance between images in the features of a VGG network whose weights the user names."""

from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrm_ttt.errors import InvalidConfig

# Positions in torchvision's vgg19().features after conv1_2, 2_2, 3_2, 4_2 and 5_2.
VGG19_LAYERS = (2, 7, 12, 21, 30)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class PerceptualError(nn.Module):
    """Compare by the mean absolute difference of VGG-19 features, or by LPIPS on VGG-16.

    LPIPS' own linear layers come with its package. `weights` is a local file with torchvision's names (None: the file
    in torchvision's cache); raises `InvalidConfig` naming it when it is missing or of another network.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: str, weights: str | None = None) -> None:
        super().__init__()
        path = find_weights(network, weights)
        state = _load(path, network)
        self.lpips = _lpips(state, path) if network == "lpips" else None
        self.parts = _vgg19(state, path) if network == "vgg19" else nn.ModuleList()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None])
        self.requires_grad_(False).eval()

    def forward(self, colors: Float[Tensor, "n 3 h w"], images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """Return the mean distance of `colors` from `images`, both 0..1; the gradient goes to `colors` alone.

        The network computes in the precision of its own weights.
        """
        dtype = self.mean.dtype
        # Of what is not differentiated no activation is kept, which halves the memory.
        ours, theirs = colors.to(dtype), images.detach().to(dtype)
        if self.lpips is not None:
            return self.lpips(ours, theirs, normalize=True).mean().to(colors.dtype)
        ours, theirs = ((x - self.mean) / self.deviation for x in (ours, theirs))
        total = ours.new_zeros(())
        for part in self.parts:
            ours, theirs = part(ours), part(theirs)
            total = total + (ours - theirs).abs().mean()
        return (total / len(self.parts)).to(colors.dtype)


def find_weights(network: str, weights: str | None) -> Path:
    """Return the file `weights`, or the one that torchvision keeps the network's weights in.

    Raises `InvalidConfig` where it is not there; nothing is downloaded.
    """
    cached, url = cached_weights("vgg16" if network == "lpips" else network)
    path = cached if weights is None else Path(weights)
    if not path.is_file():
        raise InvalidConfig(
            f"losses.perceptual: the weights of the network '{network}' are not there: no file {path}. Put the file "
            f"there ({url}), name another in losses.perceptual_weights, or set losses.perceptual to 0 to train without."
        )
    return path


def cached_weights(network: str) -> tuple[Path, str]:
    """Return the file, there or not, in which torchvision keeps the weights of vgg16, vgg19 or alexnet, and its URL."""
    from torchvision.models import get_model_weights

    url = get_model_weights(network)["IMAGENET1K_V1"].url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2], url


def load_lpips(network: Literal["vgg", "alex"], path: Path) -> nn.Module:
    """Return LPIPS 0.1 in evaluation mode, on a file with the weights of torchvision's vgg16 or alexnet.

    Its own linear layers come with its package. Raises `InvalidConfig` for another file.
    """
    return _lpips(_load(path, network), path, network).requires_grad_(False).eval()


def _load(path: Path, network: str) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise InvalidConfig(
            f"perceptual distance: the file {path} with the weights of '{network}' cannot be read: "
            f"{' '.join(str(error).split())[:200]}. Give a file with torchvision's names, or do without the distance."
        ) from error


def _vgg19(state: Mapping[str, Tensor], path: Path) -> nn.ModuleList:
    from torchvision.models import vgg19

    layers = _filled(vgg19, state, path)
    starts = (0, *(stop + 1 for stop in VGG19_LAYERS[:-1]))
    # The rectifier before the next convolution must not overwrite the feature that was just read.
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return nn.ModuleList(layers[start : stop + 1] for start, stop in zip(starts, VGG19_LAYERS, strict=True))


def _lpips(state: Mapping[str, Tensor], path: Path, network: Literal["vgg", "alex"] = "vgg") -> nn.Module:
    import lpips
    from torchvision.models import alexnet, vgg16

    layers = _filled(vgg16 if network == "vgg" else alexnet, state, path)
    metric = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
    slices = [getattr(metric.net, f"slice{number}") for number in range(1, 6)]
    # Its slices keep torchvision's layer numbers as names.
    for part in slices:
        for name, layer in part.named_children():
            if isinstance(layer, nn.Conv2d):
                layer.load_state_dict(layers[int(name)].state_dict())
    return metric


def _filled(build: Callable[..., nn.Module], state: Mapping[str, Tensor], path: Path) -> nn.Sequential:
    # On the meta device nothing is drawn at random for the classifier, which is most of the network and not needed.
    with torch.device("meta"):
        layers = build(weights=None).features
    assert isinstance(layers, nn.Sequential)
    wanted = layers.state_dict()
    found = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    wrong = [name for name, value in wanted.items() if name not in found or found[name].shape != value.shape]
    if wrong:
        raise InvalidConfig(f"perceptual distance: {path} holds another network: features.{wrong[0]} does not fit.")
    layers.load_state_dict({name: found[name].float() for name in wanted}, assign=True)
    return layers
