"""Muon with all matrices of one shape orthogonalised together: what torch.optim.Muon computes, in far fewer calls."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lrm_ttt.kernels.newton_schulz.op import newton_schulz
from lrm_ttt.train.sharded import shard_like, whole

# The update of a matrix then has the root mean square that AdamW's has, so that one scale of rates serves both.
RMS_OF_ADAMW = 0.2
MOMENTUM_KEY = "momentum_buffer"


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov) whose update is orthogonalised by Newton-Schulz steps, with decoupled weight decay.

    Takes matrices. `dtype` is that of the Newton-Schulz steps: bfloat16 where the hardware multiplies it, else float32.
    K. Jordan, "Muon: an optimizer for hidden layers", 2024; the scale is that of arXiv 2502.16982.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], weight_decay: float, momentum: float, dtype: torch.dtype
    ) -> None:
        super().__init__(parameters, {"lr": 0.0, "weight_decay": weight_decay, "momentum": momentum})
        assert all(p.ndim == 2 for group in self.param_groups for p in group["params"])
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            torch._foreach_lerp_(self._momenta(parameters), gradients, 1 - group["momentum"])
            directions = list(torch._foreach_lerp(gradients, self._momenta(parameters), group["momentum"]))
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for shape, members in _by_shape(directions).items():
                # Sharded matrices come together for this: every rank orthogonalises all of them.
                stack = torch.stack([_wide(whole(directions[i])) for i in members])
                scale = group["lr"] * RMS_OF_ADAMW * max(shape) ** 0.5
                updates = newton_schulz(stack, dtype=self.dtype)
                for i, update in zip(members, updates.unbind(), strict=True):
                    oriented = update.mT if directions[i].shape[0] > directions[i].shape[1] else update
                    parameters[i].add_(shard_like(oriented.contiguous(), parameters[i]), alpha=-scale)

    def _momenta(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        for parameter in parameters:
            state = self.state[parameter]
            if MOMENTUM_KEY not in state:
                state[MOMENTUM_KEY] = torch.zeros_like(parameter)
        return [self.state[parameter][MOMENTUM_KEY] for parameter in parameters]


def _wide(matrix: Tensor) -> Tensor:
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def _by_shape(matrices: list[Tensor]) -> dict[torch.Size, list[int]]:
    groups: dict[torch.Size, list[int]] = {}
    for i, matrix in enumerate(matrices):
        groups.setdefault(_wide(matrix).shape, []).append(i)
    return groups
