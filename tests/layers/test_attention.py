"""Softmax attention in windows and as a memory, against its formula."""

import torch

from lrm_ttt.layers.attention import KeyValues, SoftmaxMemory, WindowAttention
from lrm_ttt.layers.norms import RMSNorm

WIDTH, HEAD = 12, 4


def _tokens(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _filled(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    for parameter in module.double().parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def _formula(layer: torch.nn.Module, readers: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
    """Attend head by head with explicit weights."""
    q = (readers @ layer.qkv.weight.T).chunk(3, -1)[0]
    k, v = (written @ layer.qkv.weight.T).chunk(3, -1)[1:]
    heads = []
    for start in range(0, WIDTH, HEAD):
        part = slice(start, start + HEAD)
        logits = layer.query_norm(q[..., part]) @ layer.key_norm(k[..., part]).mT / HEAD**0.5
        heads.append(logits.softmax(-1) @ v[..., part])
    return torch.cat(heads, -1) @ layer.out.weight.T


def test_window_attention_against_its_formula() -> None:
    layer, x = _filled(WindowAttention(WIDTH, HEAD)), _tokens(5)
    assert isinstance(layer.query_norm, RMSNorm)
    torch.testing.assert_close(layer(x), _formula(layer, x, x))


def test_readers_of_a_softmax_memory_attend_to_all_that_was_written() -> None:
    memory, written, readers = _filled(SoftmaxMemory(WIDTH, HEAD)), _tokens(7), _tokens(3, seed=2)
    state = memory.update(memory.start(2), memory.tokens(written), None)
    torch.testing.assert_close(memory.query(state, memory.tokens(readers)), _formula(memory, readers, written))


def test_a_softmax_memory_written_in_chunks_is_the_one_written_at_once() -> None:
    memory, written = _filled(SoftmaxMemory(WIDTH, HEAD)), _tokens(7)
    whole = memory.update(memory.start(2), memory.tokens(written), None)
    tokens, parts = memory.tokens(written), memory.start(2)
    for start, stop in ((0, 3), (3, 4), (4, 7)):
        parts = memory.update(parts, tokens.slice(start, stop), None)
    assert isinstance(parts, KeyValues)
    assert torch.equal(parts.keys, whole.keys) and torch.equal(parts.values, whole.values)
