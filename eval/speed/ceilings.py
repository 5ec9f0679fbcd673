"""What the machine reaches at most: copying memory, and the products and attention of which the model consists."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch.nn.attention import sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from lrm_ttt.eval.children import explain
from lrm_ttt.eval.speed.config import SpeedConfig
from lrm_ttt.eval.speed.rows import NO_TIME, Row
from lrm_ttt.eval.speed.timing import Budget, OutOfTime, interleave, timed
from lrm_ttt.kernels.attention.choice import BACKENDS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HEAD_DIM = 64
COPY, PRODUCT, TRANSPOSED, ATTENTION = "copy", "product", "transposed sum", "attention"


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """Bytes a second of a copy (read and written), and FLOP/s of products by dtype; None: not measured."""

    copy: float | None = None
    products: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Ceilings":
        """Take the best of what was measured."""
        copies = [row.rate for row in rows if row.name == COPY and row.rate is not None]
        products: dict[str, float] = {}
        for row in rows:
            if row.name in (PRODUCT, TRANSPOSED) and row.rate is not None:
                products[row.dtype] = max(products.get(row.dtype, 0.0), row.rate)
        return cls(max(copies, default=None), products)


def measure_ceilings(config: SpeedConfig, device: torch.device, budget: Budget) -> Iterator[Row]:
    """Yield a row for each; those for which there is no time say so."""
    for row, work, prepare in _cases(config, device):
        try:
            (timing,) = interleave([timed(prepare(), device)], config.op_seconds, budget)
        except OutOfTime:
            yield dataclasses.replace(row, note=NO_TIME)
        # A kernel that a machine does not have is no reason to leave out the others.
        except RuntimeError as error:
            yield dataclasses.replace(row, note=explain(error))
        else:
            yield row.timed(timing, work)


_Case = tuple[Row, float, Callable[[], Callable[[], object]]]


def _cases(config: SpeedConfig, device: torch.device) -> Iterator[_Case]:
    """Yield what to measure: its row, its FLOP or bytes, and a function that makes the tensors for it."""
    size = config.copy_mb * 10**6
    row = Row("ceilings", COPY, f"{config.copy_mb} MB", unit="GB/s")
    yield row, 2.0 * size, lambda: _copy(size, device)
    window, width = config.window(config.memory_case.image_size), config.backbone.width
    views = config.memory_case.num_views
    tokens, hidden, heads = views * window, 4 * width, width // HEAD_DIM or 1
    for name in ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16"):
        for kind in (PRODUCT, TRANSPOSED):
            row = Row("ceilings", kind, f"{tokens} x {width} x {hidden}", dtype=name)
            yield row, 2.0 * tokens * width * hidden, _product(kind, tokens, width, name, device)
        for kernel in (None, "cudnn", "flash", "efficient") if device.type == "cuda" else (None,):
            what = ATTENTION if kernel is None else f"{ATTENTION}, {kernel}"
            row = Row("ceilings", what, f"{views} x {heads} x {window} x {HEAD_DIM}", dtype=name)
            yield (
                row,
                4.0 * views * heads * window**2 * HEAD_DIM,
                _attention((views, heads, window), name, device, kernel),
            )


def _copy(size: int, device: torch.device) -> Callable[[], object]:
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _product(
    kind: str, tokens: int, width: int, dtype: str, device: torch.device
) -> Callable[[], Callable[[], object]]:
    def prepare() -> Callable[[], object]:
        generator = torch.Generator(device).manual_seed(0)
        left, right = (tokens, width), (width, 4 * width) if kind == PRODUCT else (tokens, 4 * width)
        a, b = (torch.randn(*shape, generator=generator, device=device).to(DTYPES[dtype]) for shape in (left, right))
        return lambda: (a if kind == PRODUCT else a.mT) @ b

    return prepare


def _attention(
    shape: tuple[int, int, int], dtype: str, device: torch.device, kernel: str | None
) -> Callable[[], Callable[[], object]]:
    def prepare() -> Callable[[], object]:
        generator = torch.Generator(device).manual_seed(0)
        q, k, v = torch.randn(3, *shape, HEAD_DIM, generator=generator, device=device).to(DTYPES[dtype])

        def attend() -> object:
            with contextlib.nullcontext() if kernel is None else sdpa_kernel(BACKENDS[kernel]):
                return scaled_dot_product_attention(q, k, v)

        return attend

    return prepare
