"""Softmax attention among the tokens of one window."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lrm_ttt.layers.norms import Linear, RMSNorm


class WindowAttention(nn.Module):
    """Multi-head attention inside each window, with RMSNorm on queries and keys per head and no bias (LaCT)."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        assert width % head_dim == 0
        self.head_dim = head_dim
        self.qkv = Linear(width, 3 * width, bias=False)
        self.query_norm = RMSNorm(head_dim)
        self.key_norm = RMSNorm(head_dim)
        self.out = Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "windows n d"]) -> Float[Tensor, "windows n d"]:
        """Attend among the `n` tokens of each window."""
        windows, num_tokens, width = x.shape
        split = self.qkv(x).reshape(windows, num_tokens, 3, width // self.head_dim, self.head_dim)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        attended = scaled_dot_product_attention(self.query_norm(q), self.key_norm(k), v)
        return self.out(attended.transpose(1, 2).reshape(windows, num_tokens, width))
