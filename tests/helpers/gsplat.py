"""gsplat's own strategies without its CUDA code, which would be compiled at the first import."""

import importlib
import importlib.util
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor


@contextmanager
def gsplat_strategies() -> Iterator[ModuleType]:
    """Yield the module `gsplat.strategy`, on plain torch; everything of gsplat is forgotten afterwards."""
    spec = importlib.util.find_spec("gsplat")
    assert spec is not None and spec.submodule_search_locations is not None
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "gsplat"}
    package, relocation = ModuleType("gsplat"), ModuleType("gsplat.relocation")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules |= {"gsplat": package, "gsplat.relocation": relocation}
    relocation.compute_relocation = equation_9  # type: ignore[attr-defined]
    try:
        formulas = importlib.import_module("gsplat.cuda._torch_impl")
        package.quat_scale_to_covar_preci = formulas._quat_scale_to_covar_preci  # type: ignore[attr-defined]
        yield importlib.import_module("gsplat.strategy")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
            del sys.modules[name]
        sys.modules.update(kept)


def equation_9(opacities: Tensor, scales: Tensor, ratios: Tensor, binoms: Tensor) -> tuple[Tensor, Tensor]:
    """Return opacities and scales as equation 9 of arXiv 2404.09591 stands there, term by term in float64."""
    shared, factors = [], []
    for opacity, ratio in zip(opacities.double().tolist(), ratios.clamp(1, len(binoms)).tolist(), strict=True):
        one = 1 - (1 - opacity) ** (1 / ratio)
        terms = [
            math.comb(i - 1, k) * (-1) ** k / math.sqrt(k + 1) * one ** (k + 1)
            for i in range(1, ratio + 1)
            for k in range(i)
        ]
        shared.append(one)
        factors.append(opacity / math.fsum(terms))
    return torch.tensor(shared, dtype=torch.float64).to(opacities), scales * torch.tensor(
        factors, dtype=torch.float64
    ).to(scales)[:, None]
