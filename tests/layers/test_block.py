"""Blocks ask for the fastest attention where their windows attend, and when a pass is recomputed too."""

import contextlib
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from lrm_ttt.layers import block as module
from lrm_ttt.layers.block import Block
from lrm_ttt.layers.config import MemoryConfig

Asked = tuple[tuple[int, ...], torch.dtype, bool]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Return what was asked for; it is granted while attention runs, and only then."""
    found: list[Asked] = []

    @contextlib.contextmanager
    def prefer(shape: Sequence[int], dtype: torch.dtype, device: torch.device, training: bool) -> Iterator[None]:
        found.append((tuple(shape), dtype, training))
        yield

    monkeypatch.setattr(module, "prefer_attention", prefer)
    return found


def test_both_passes_ask_for_the_windows_they_have(asked: list[Asked]) -> None:
    block = Block(32, 8, MemoryConfig(head_dim=16, multiple=2), 2)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 15, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
    memory = block.memory.start(2)
    arguments = x, memory, 5, None, False, None, torch.float32
    read, written = checkpoint(block, *arguments, use_reentrant=False)
    assert asked == [((6, 4, 5, 8), torch.float32, True)]
    read.sum().backward()
    # Once more for the recomputation, the same.
    assert asked == 2 * [((6, 4, 5, 8), torch.float32, True)]
    asked.clear()
    with torch.no_grad():
        block.query(x, written, 3, torch.bfloat16)
    assert asked == [((10, 4, 3, 8), torch.bfloat16, False)]
