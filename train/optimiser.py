"""Muon for the matrices of the blocks and AdamW for the rest, as one; and the average of the weights."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.train.config import OptimiserConfig
from lrm_ttt.train.muon import Muon
from lrm_ttt.train.sharded import shard_like, whole


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether Muon may take a parameter: a matrix of a block, but not the one that predicts inner rates."""
    return parameter.ndim == 2 and ".blocks." in f".{name}" and "inner_lr" not in name


class Optimiser:
    """Step both optimisers together. A step whose gradient is too large or not finite is skipped."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        config: OptimiserConfig,
        newton_schulz_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.parameters = dict(named)
        muon = [p for name, p in self.parameters.items() if config.muon and is_hidden_matrix(name, p)]
        self.taken = set(map(id, muon))
        rest = [p for p in self.parameters.values() if id(p) not in self.taken]
        groups = [
            {"params": [p for p in rest if p.ndim == 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest if p.ndim != 2], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW([group for group in groups if group["params"]], betas=config.betas, fused=True)
        self.muon = None
        if muon:
            self.muon = Muon(muon, config.weight_decay, config.muon_momentum, newton_schulz_dtype)

    def step(self, lr: float, muon_lr: float) -> tuple[float, bool]:
        """Clip, step unless the gradient is beyond bounds, clear it; return its norm and whether it stepped."""
        for optimiser, rate in ((self.adamw, lr), (self.muon, muon_lr)):
            for group in optimiser.param_groups if optimiser else ():
                group["lr"] = rate
        norm = float(whole(nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip_norm, foreach=True)))
        # False for NaN too.
        stepped = norm <= self.config.skip_norm
        if stepped:
            self.adamw.step()
            if self.muon is not None:
                self.muon.step()
        for parameter in self.parameters.values():
            parameter.grad = None
        return norm, stepped

    def state(self) -> dict[str, Tensor]:
        """Return the whole state as flat tensors, named `parameter/entry`; all ranks must call this together."""
        return {
            f"{name}/{key}": whole(value)
            for name, parameter in self.parameters.items()
            for key, value in self._owner(parameter).state.get(parameter, {}).items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; raises `IncompatibleCheckpoint` where it was made for other parameters."""
        for full, value in state.items():
            name, _, key = full.rpartition("/")
            parameter = self.parameters.get(name)
            if parameter is None or (value.ndim and value.shape != parameter.shape):
                raise IncompatibleCheckpoint(f"The state of the optimiser has '{full}', which does not fit this model.")
            # A new tensor: the file's mapping must not be written to.
            copied = value.to(parameter.device, copy=True)
            self._owner(parameter).state[parameter][key] = shard_like(copied, parameter) if value.ndim else copied

    def _owner(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        return self.muon if self.muon is not None and id(parameter) in self.taken else self.adamw


class WeightAverage:
    """An exponential average of the trained weights, quick to follow at first."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = {name: p.detach() for name, p in model.state_dict(keep_vars=True).items()}
        self.weights = {name: tensor.clone() for name, tensor in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.weights.values()), list(self.live.values()), 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """Return the whole average; all ranks must call this together."""
        return {name: whole(tensor) for name, tensor in self.weights.items()}

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Restore the average."""
        for name, tensor in weights.items():
            mine = self.weights[name]
            mine.copy_(shard_like(tensor.to(mine.device, mine.dtype), mine))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the average in place; called twice it changes nothing."""
        for name, average in self.weights.items():
            live = self.live[name]
            held = live.clone()
            live.copy_(average)
            average.copy_(held)
