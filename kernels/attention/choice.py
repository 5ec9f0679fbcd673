"""The choice of torch's attention kernel: made by measurement, once a shape, and only where there is a choice."""

import contextlib
import dataclasses
import logging
import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from lrm_ttt.kernels.attention.trial import Candidate, Clock, Verdict, cuda_clock, hold_trial

__all__ = ["AttentionCase", "prefer_attention", "try_attention"]

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
# Queries of one head of one window that are compared with the exact result.
NUM_COMPARED = 256
# Relative L2 of outputs and gradients. Torch's flash kernel for CPUs at 8040 keys measures 5e-3 in bfloat16, 6e-4 in
# float16 and 6e-7 in float32; a kernel that is wrong is off by far more. Float32 leaves room for TF32.
TOLERANCES = {torch.bfloat16: 2e-2, torch.float16: 4e-3, torch.float32: 2e-3}
# Plain attention writes all the scores to memory; where these are larger it is not even tried.
MOST_SCORE_BYTES = 1 << 30
# More than this is not measured: attention to all tokens of 64 views of 536x960 would take minutes.
MOST_FLOP = 2e13

_log = logging.getLogger(__name__)

# What was found so far, for each CUDA device by its index.
_orders: dict[tuple["AttentionCase", int], list[SDPBackend]] = {}


@dataclasses.dataclass(frozen=True)
class AttentionCase:
    """What decides which kernel is fastest: `shape` is that of the queries `[windows heads n c]`, to `num_keys` keys.

    `training` takes the backward pass into account.
    """

    shape: tuple[int, int, int, int]
    num_keys: int
    dtype: torch.dtype
    training: bool

    def cut(self) -> "AttentionCase":
        """Return a part of it, fewer windows and then fewer queries, that takes a few hundredths of a second."""
        windows, heads, num_queries, channels = self.shape
        most = MOST_FLOP / (4 * heads * channels * self.num_keys)
        windows = min(windows, max(1, int(most / num_queries)))
        num_queries = min(num_queries, max(NUM_COMPARED, int(most)))
        return dataclasses.replace(self, shape=(windows, heads, num_queries, channels))

    def __str__(self) -> str:
        keys = "" if self.num_keys == self.shape[2] else f" to {self.num_keys} keys"
        names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
        passes = " with backward" if self.training else ""
        return f"attention {list(self.shape)}{keys} {names.get(self.dtype, str(self.dtype))}{passes}"


def prefer_attention(
    shape: Sequence[int], dtype: torch.dtype, device: torch.device, training: bool = False, num_keys: int | None = None
) -> AbstractContextManager[None]:
    """Return a context in which `scaled_dot_product_attention` takes the kernel that is fastest for these tensors.

    `shape` is that of the queries `[windows heads n c]`; `num_keys` None means as many keys. Outside CUDA the context
    does nothing. On CUDA the first call for a shape measures (some ten passes of attention; it logs one line), later
    ones remember. Enter it outside compiled code, which keeps what was preferred when it was compiled; and in
    recomputation too, `checkpoint(..., context_fn=lambda: (prefer_attention(...), prefer_attention(...)))`, because
    kernels differ in what they save for the backward pass.
    """
    if device.type != "cuda" or not math.prod(shape):
        return contextlib.nullcontext()
    windows, heads, num_queries, channels = shape
    case = AttentionCase((windows, heads, num_queries, channels), num_keys or num_queries, dtype, training)
    index = torch.cuda.current_device() if device.index is None else device.index
    if (case, index) not in _orders:
        # Nothing can be measured while a CUDA graph is recorded.
        if torch.cuda.is_current_stream_capturing():
            return contextlib.nullcontext()
        _orders[case, index] = _order(case, index)
    return sdpa_kernel(_orders[case, index], set_priority=True)


def _order(case: AttentionCase, index: int) -> list[SDPBackend]:
    """Return the kernels that may run, the fastest first; those that were not measured come last."""
    part = case.cut()
    with torch.cuda.device(index):
        verdict = try_attention(part, torch.device("cuda", index), cuda_clock)
    _log.info("%s: %s", case if part == case else f"{case}, of which {part}", verdict)
    wrong = {name for name, why in verdict.refused.items() if why.startswith("is wrong")}
    rest = [name for name in BACKENDS if name not in verdict.seconds and name not in wrong]
    return [BACKENDS[name] for name in (*verdict.seconds, *rest)]


def try_attention(
    case: AttentionCase, device: torch.device, clock: Clock, backends: Sequence[str] = tuple(BACKENDS)
) -> Verdict:
    """Hold a trial of torch's kernels on random tensors, against plain attention in float32."""
    generator = torch.Generator(device).manual_seed(0)
    windows, heads, num_queries, channels = case.shape
    sizes = [(windows, heads, n, channels) for n in (num_queries, case.num_keys, case.num_keys, num_queries)]
    compared = slice(0, min(NUM_COMPARED, num_queries))
    # The caller may be in inference mode, whose tensors no gradient can be taken of.
    with torch.inference_mode(False), torch.set_grad_enabled(case.training), warnings.catch_warnings():
        # Torch warns of every kernel that cannot run, which the trial says itself.
        warnings.simplefilter("ignore")
        *inputs, slope = (torch.randn(size, device=device, dtype=case.dtype, generator=generator) for size in sizes)
        # Only queries that are compared pass gradients on, so that those of keys and values can be compared too.
        slope[:, :, compared.stop :] = 0
        expected = _exact(inputs, slope, compared, case.training)
        candidates = {name: _candidate(BACKENDS[name], inputs, slope, compared, case) for name in backends}
        tried = {name: candidate for name, candidate in candidates.items() if name != "math" or _fits(case)}
        verdict = hold_trial(tried, expected, TOLERANCES.get(case.dtype, 1e-6), clock)
    left_out = {name: "would write too many scores" for name in candidates if name not in tried}
    return Verdict(verdict.seconds, {**verdict.refused, **left_out})


def _fits(case: AttentionCase) -> bool:
    return 4 * math.prod(case.shape[:3]) * case.num_keys <= MOST_SCORE_BYTES


def _candidate(
    backend: SDPBackend, inputs: Sequence[Tensor], slope: Tensor, compared: slice, case: AttentionCase
) -> Candidate:
    """Return what runs one kernel, and answers with what `_exact` computes."""

    def run() -> list[Tensor]:
        q, k, v = leaves = [tensor.detach().requires_grad_(case.training) for tensor in inputs]
        with sdpa_kernel(backend):
            out = scaled_dot_product_attention(q, k, v)
        if not case.training:
            return [out[0, 0, compared]]
        of_q, of_k, of_v = torch.autograd.grad(out, leaves, slope)
        return [out[0, 0, compared].detach(), of_q[0, 0, compared], of_k[0, 0], of_v[0, 0]]

    return run


def _exact(inputs: Sequence[Tensor], slope: Tensor, compared: slice, training: bool) -> list[Tensor]:
    """Return what the first queries of the first head of the first window read, and the gradients that they cause."""
    wide = torch.promote_types(slope.dtype, torch.float32)
    q, k, v = (tensor[0, 0].detach().to(wide) for tensor in inputs)
    leaves = [tensor.requires_grad_(training) for tensor in (q[compared], k, v)]
    first, keys, values = leaves
    out = (first @ keys.T * first.shape[-1] ** -0.5).softmax(-1) @ values
    if not training:
        return [out]
    return [out.detach(), *torch.autograd.grad(out, leaves, slope[0, 0, compared].to(wide))]
