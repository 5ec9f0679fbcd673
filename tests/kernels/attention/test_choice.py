"""The preference for an attention kernel: nothing on a CPU, and elsewhere what a trial on real kernels says."""

import contextlib
import logging
from collections.abc import Callable

import pytest
import torch
from torch.nn.attention import SDPBackend
from torch.nn.functional import scaled_dot_product_attention

from lrm_ttt.kernels.attention import choice
from lrm_ttt.kernels.attention.choice import AttentionCase, prefer_attention, try_attention
from lrm_ttt.kernels.attention.trial import Verdict

CPU = torch.device("cpu")


def test_on_a_cpu_nothing_is_preferred() -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    context = prefer_attention(q.shape, q.dtype, q.device)
    assert isinstance(context, contextlib.nullcontext)
    with context:
        inside = scaled_dot_product_attention(q, k, v)
    assert torch.equal(inside, scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
def test_real_kernels_agree_with_plain_attention(dtype: torch.dtype, training: bool) -> None:
    """More queries than are compared, other numbers of keys than of queries, and every gradient."""
    case = AttentionCase((2, 2, 300, 16), 77, dtype, training)
    verdict = try_attention(case, CPU, lambda candidate: 1.0, ["flash", "math"])
    assert set(verdict.seconds) == {"flash", "math"}, verdict.refused


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled_by_the_wrong_width(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, scale=0.26)

    monkeypatch.setattr(choice, "scaled_dot_product_attention", scaled_by_the_wrong_width)
    case = AttentionCase((1, 1, 30, 16), 30, torch.bfloat16, True)
    verdict = try_attention(case, CPU, lambda candidate: 1.0, ["flash"])
    assert not verdict.seconds and verdict.refused["flash"].startswith("is wrong")


def test_plain_attention_is_not_tried_where_its_scores_are_large() -> None:
    case = AttentionCase((1, 1, 8, 4), 8, torch.float32, False)
    huge = AttentionCase((16, 12, 8040, 64), 8040, torch.float32, False)
    assert choice._fits(case) and not choice._fits(huge)


def test_a_trial_in_inference_mode_can_take_gradients() -> None:
    with torch.inference_mode():
        case = AttentionCase((1, 1, 8, 4), 8, torch.float32, True)
        assert try_attention(case, CPU, lambda candidate: 1.0, ["flash"]).seconds


@pytest.fixture
def as_if_on_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[Verdict], list[AttentionCase]]:
    """Let `prefer_attention` believe in a CUDA device on which trials end with a given verdict."""

    def pretend(verdict: Verdict) -> list[AttentionCase]:
        held = []

        def trial(case: AttentionCase, device: torch.device, clock: object) -> Verdict:
            held.append(case)
            return verdict

        monkeypatch.setattr(choice, "try_attention", trial)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
        return held

    monkeypatch.setattr(choice, "_orders", {})
    return pretend


def test_each_shape_is_tried_once_and_said_once(
    as_if_on_cuda: Callable[[Verdict], list[AttentionCase]], caplog: pytest.LogCaptureFixture
) -> None:
    held = as_if_on_cuda(Verdict({"cudnn": 1.2e-3, "flash": 1.5e-3}, {}))
    caplog.set_level(logging.INFO)
    cuda = torch.device("cuda", 0)
    for _ in range(2):
        prefer_attention((16, 12, 8040, 64), torch.bfloat16, cuda)
    assert caplog.messages == ["attention [16, 12, 8040, 64] bf16: cudnn 1.2 ms, flash 1.5 ms -> cudnn"]
    prefer_attention((16, 12, 8040, 64), torch.bfloat16, cuda, training=True)
    prefer_attention((16, 12, 8040, 64), torch.bfloat16, cuda, num_keys=100)
    assert [(case.training, case.num_keys) for case in held] == [(False, 8040), (True, 8040), (False, 100)]


def test_the_fastest_is_preferred_and_the_wrong_are_forbidden(
    as_if_on_cuda: Callable[[Verdict], list[AttentionCase]],
) -> None:
    as_if_on_cuda(Verdict({"flash": 1e-3, "cudnn": 2e-3}, {"efficient": "is wrong by 1", "math": "fails (memory)"}))
    with prefer_attention((1, 2, 3, 4), torch.bfloat16, torch.device("cuda", 0)):
        order = torch._C._get_sdp_priority_order()
        assert order[:3] == [
            int(one) for one in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)
        ]
        assert not torch.backends.cuda.mem_efficient_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


def test_while_a_graph_is_recorded_only_what_is_known_is_preferred(
    as_if_on_cuda: Callable[[Verdict], list[AttentionCase]], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, cuda = as_if_on_cuda(Verdict({"flash": 1e-3}, {})), torch.device("cuda", 0)
    prefer_attention((1, 2, 3, 4), torch.bfloat16, cuda)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert isinstance(prefer_attention((1, 2, 9, 4), torch.bfloat16, cuda), contextlib.nullcontext)
    with prefer_attention((1, 2, 3, 4), torch.bfloat16, cuda):
        assert torch._C._get_sdp_priority_order()[0] == int(SDPBackend.FLASH_ATTENTION)
    assert len(held) == 1


def test_nothing_is_tried_on_no_tokens(as_if_on_cuda: Callable[[Verdict], list[AttentionCase]]) -> None:
    held = as_if_on_cuda(Verdict({"flash": 1e-3}, {}))
    with prefer_attention((0, 2, 3, 4), torch.bfloat16, torch.device("cuda", 0)):
        assert not held


def test_large_cases_are_tried_in_part() -> None:
    views = AttentionCase((16, 12, 8040, 64), 8040, torch.bfloat16, False)
    assert views.cut() == views
    more = AttentionCase((200, 12, 8040, 64), 8040, torch.bfloat16, False)
    assert more.cut().shape == (100, 12, 8040, 64)
    softmax_mixer = AttentionCase((1, 12, 514560, 64), 514560, torch.bfloat16, False)
    windows, heads, num_queries, channels = softmax_mixer.cut().shape
    assert (windows, heads, channels) == (1, 12, 64) and softmax_mixer.cut().num_keys == 514560
    assert 0.9 * choice.MOST_FLOP < 4 * heads * channels * num_queries * 514560 <= choice.MOST_FLOP
