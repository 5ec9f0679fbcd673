"""Tell `lrm_ttt.kernels.backend` what was measured, so that "auto" takes the kernels that pay on this very GPU."""

from collections.abc import Sequence

import torch

from lrm_ttt.eval.speed.rows import Row
from lrm_ttt.eval.speed.variants import TRITON, named_ops
from lrm_ttt.kernels.backend import record


def record_kernels(rows: Sequence[Row], device: torch.device) -> dict[str, float]:
    """Record each Triton kernel that was checked, and return by name how many times as fast as the best other it is.

    Forward and backward count together, as both take the same backend; 0 is recorded for what failed its check.
    """
    if device.type != "cuda":
        return {}
    found = {}
    for name, named in named_ops(1, "triton").items():
        own = [row for row in rows if row.stage == "ops" and row.name in (name, f"{name} + backward")]
        ours = [row for row in own if row.variant == TRITON and row.check]
        if not ours:
            continue
        passed = all(row.check == "pass" for row in ours)
        ratio = _ratio([row for row in own if row.name == ours[-1].name]) if passed else 0.0
        if ratio is None:
            continue
        record(named.backend_name, torch.cuda.get_device_name(device), passed, ratio)
        found[named.backend_name] = ratio
    return found


def _ratio(rows: Sequence[Row]) -> float | None:
    """Return the time of the fastest other variant over ours; None where one of them has none."""
    times = {row.variant: row.ms for row in rows if row.ms is not None}
    ours = times.pop(TRITON, None)
    return min(times.values()) / ours if times and ours else None
