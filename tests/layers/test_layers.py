"""Layers: round trips, closed forms, and what does not mix."""

import pytest
import torch
from torch.nn.functional import softplus

from lrm_ttt.layers.attention import WindowAttention
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.layers.fast_weight import FastWeightMemory
from lrm_ttt.layers.initialisation import initialise
from lrm_ttt.layers.norms import LayerNorm, Linear, RMSNorm
from lrm_ttt.layers.patches import patchify, unpatchify

WIDTH = 32


def _tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(0))


def test_patches_run_over_rows_then_columns_then_pixels_then_channels() -> None:
    height, width, channels = 4, 6, 3
    image = torch.arange(height * width * channels).float().reshape(height, width, channels)
    patches = patchify(image[None], 2)[0]
    assert patches.shape == (6, 12)
    assert torch.equal(patches[4], image[2:4, 2:4].reshape(-1))
    assert torch.equal(unpatchify(patches[None], 2, 2, 3)[0], image)


def test_norms_against_their_definitions() -> None:
    x = _tokens(5) * 3 + 1
    layer, rms = LayerNorm(WIDTH), RMSNorm(WIDTH)
    torch.nn.init.uniform_(layer.weight)
    torch.nn.init.uniform_(rms.weight)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(rms(x), x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * rms.weight)


@pytest.mark.parametrize("module", [Linear(WIDTH, 8), LayerNorm(WIDTH), RMSNorm(WIDTH)])
def test_low_precision_comes_out_as_it_went_in_and_parameters_stay(module: torch.nn.Module) -> None:
    out = module(_tokens(4).bfloat16())
    assert out.dtype == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
    # One bf16 rounding of input and output each.
    assert (out.float() - module(_tokens(4))).norm() < 1e-2 * out.float().norm()


def test_windows_do_not_see_each_other_and_have_no_order() -> None:
    attention = WindowAttention(WIDTH, 16)
    x = _tokens(3, 5)
    changed = x.clone()
    changed[1] += 1
    assert torch.equal(attention(changed)[0], attention(x)[0])
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order], rtol=1e-5, atol=1e-6)


def test_a_single_token_attends_to_itself() -> None:
    attention = WindowAttention(WIDTH, 16)
    x = _tokens(2, 1)
    value = attention.qkv(x)[..., 2 * WIDTH :]
    torch.testing.assert_close(attention(x), attention.out(value))


def test_inner_rates_start_near_the_configured_one_and_keys_are_unit() -> None:
    memory = FastWeightMemory(WIDTH, MemoryConfig(16, 2, inner_lr=0.03))
    initialise(memory, 1, scale_outputs=False)
    torch.nn.init.zeros_(memory.inner_lr.weight)
    tokens = memory.tokens(_tokens(2, 5))
    for rate in tokens.rates:
        torch.testing.assert_close(rate, torch.full_like(rate, 0.03))
    torch.testing.assert_close(tokens.k.norm(dim=-1), torch.ones(2, 2, 5), rtol=0, atol=1e-3)


def test_inner_rates_are_laid_out_rate_by_rate_then_head_by_head() -> None:
    memory = FastWeightMemory(WIDTH, MemoryConfig(16, 2))
    torch.nn.init.zeros_(memory.inner_lr.weight)
    with torch.no_grad():
        memory.inner_lr.bias.copy_(torch.arange(6.0))
    rates = memory.tokens(_tokens(1, 1)).rates
    expected = softplus(torch.arange(6.0) + memory.rate_offset)
    for rate, pair in zip((rates.gate, rates.down, rates.up), expected.reshape(3, 2), strict=True):
        torch.testing.assert_close(rate[0, :, 0, 0], pair)


def test_output_norms_agree_for_one_head() -> None:
    torch.manual_seed(0)
    reference = FastWeightMemory(WIDTH, MemoryConfig(WIDTH, 2))
    other = FastWeightMemory(WIDTH, MemoryConfig(WIDTH, 2, output_norm="per_head"))
    initialise(reference, 1, scale_outputs=False)
    other.load_state_dict(reference.state_dict())
    x = _tokens(2, 5)
    outputs = [memory.query(memory.start(2), memory.tokens(x)) for memory in (reference, other)]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)


def test_initial_values() -> None:
    memory = FastWeightMemory(256, MemoryConfig(256, 4))
    initialise(memory, num_blocks=12, scale_outputs=True)
    assert abs(memory.qkv.weight.std() - 0.02) < 1e-3
    assert abs(memory.out.weight.std() - 0.02 / 6) < 3e-4
    assert abs(memory.gate.std() - (2 / 256) ** 0.5) < 1e-3
    assert abs(memory.down.std() - (2 / 1024) ** 0.5) < 1e-3
    assert memory.inner_lr.bias.abs().max() == 0
