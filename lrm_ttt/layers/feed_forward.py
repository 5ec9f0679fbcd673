"""The MLP of a block."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from lrm_ttt.kernels.backend import choose
from lrm_ttt.kernels.fast_weight import cpu
from lrm_ttt.layers.norms import Linear


class FeedForward(nn.Module):
    """width -> multiple * width -> width with exact GELU and no bias."""

    def __init__(self, width: int, multiple: int) -> None:
        super().__init__()
        self.expand = Linear(width, multiple * width, bias=False)
        self.contract = Linear(multiple * width, width, bias=False)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Apply the two maps to each token."""
        if choose("feed_forward", x.device, x.dtype).backend == "cpu" and cpu.fits(x):
            return cpu.feed_cpu(self.expand.weight, None, self.contract.weight, x)
        return self.contract(gelu(self.expand(x)))
