"""Published state dicts: sizes are those of the shapes, names are a bijection, and anything else is refused by name."""

import itertools

import pytest
import torch
from torch import Tensor

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.model.build import build
from lrm_ttt.model.import_weights import Imported, Kind, convert, recognise
from tests.model.published import make_published


def imported(published: dict[str, Tensor]) -> Imported:
    return convert(published, "single", "mean_camera")


@pytest.mark.parametrize("kind", ["tttLRM", "LaCT"])
@pytest.mark.parametrize(("heads", "patch_size", "num_blocks"), [(1, 8, 1), (2, 4, 3), (4, 2, 11)])
def test_sizes_are_those_of_the_shapes(kind: Kind, heads: int, patch_size: int, num_blocks: int) -> None:
    for multiple, sh_degree in itertools.product((1, 3), (0, 3)):
        published = make_published(
            kind,
            width=32,
            num_blocks=num_blocks,
            attention_head_dim=32 // (2 * heads),
            memory_head_dim=32 // heads,
            multiple=multiple,
            patch_size=patch_size,
            sh_degree=sh_degree,
        )
        config = imported(published).config
        backbone, memory = config.backbone, config.backbone.memory
        assert (backbone.width, backbone.num_blocks, backbone.feed_forward_multiple) == (32, num_blocks, 3)
        assert (backbone.attention_head_dim, memory.head_dim) == (32 // (2 * heads), 32 // heads)
        assert (memory.multiple, config.tokenizer.patch_size) == (multiple, patch_size)
        assert memory.output_norm == ("per_head" if kind == "LaCT" and heads > 1 else "merged")
        assert config.representation == ("images" if kind == "LaCT" else "gaussians")
        assert kind == "LaCT" or config.head.sh_degree == sh_degree


@pytest.mark.parametrize("kind", ["tttLRM", "LaCT"])
def test_every_tensor_has_one_counterpart_and_keeps_its_bits(kind: Kind) -> None:
    published = make_published(kind)
    done = imported(published)
    build(done.config).load_state_dict(done.weights, strict=True)
    assert len(done.weights) == len(published)
    theirs = sorted(published.values(), key=lambda tensor: (tensor.numel(), tensor.flatten()[0].item()))
    ours = sorted(done.weights.values(), key=lambda tensor: (tensor.numel(), tensor.flatten()[0].item()))
    assert all(torch.equal(first, second) for first, second in zip(theirs, ours, strict=True))
    memory, gate = "blocks.1.module_list.1.f", "backbone.blocks.1.memory"
    for name, counterpart in (("w0", "gate"), ("w1", "down"), ("w2", "up")):
        assert torch.equal(published[f"{memory}.{name}"], done.weights[f"{gate}.{counterpart}"])


@pytest.mark.parametrize(
    "wrapped", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "model.{}", "_fsdp_wrapped_module.module.{}"]
)
def test_wrappers_leave_no_trace(wrapped: str) -> None:
    published = make_published()
    plain = imported(published)
    done = imported({wrapped.format(name): tensor for name, tensor in published.items()})
    assert done.config == plain.config
    assert all(torch.equal(done.weights[name], tensor) for name, tensor in plain.weights.items())


def test_wrappers_inside_names_leave_no_trace() -> None:
    published = make_published()
    wrapped = {name.replace("module_list.1.", "module_list.1._orig_mod."): tensor for name, tensor in published.items()}
    assert imported(wrapped).weights.keys() == imported(published).weights.keys()


def test_what_is_missing_and_left_over_is_listed() -> None:
    for name in make_published():
        published = make_published() | {"surplus.bias": torch.zeros(1)}
        del published[name]
        with pytest.raises(IncompatibleCheckpoint, match=r"1 unexpected: surplus\.bias") as caught:
            imported(published)
        assert f"1 missing: {name}" in str(caught.value)


def test_a_block_that_is_missing_is_missed() -> None:
    published = make_published(num_blocks=3)
    gap = {name: tensor for name, tensor in published.items() if not name.startswith("blocks.1.")}
    with pytest.raises(IncompatibleCheckpoint, match=r"17 missing: blocks\.1\..*17 unexpected: blocks\.2\."):
        imported(gap)


@pytest.mark.parametrize("name", make_published())
def test_shapes_that_do_not_fit_are_refused_by_name(name: str) -> None:
    published = make_published()
    tensor = published[name]
    grown, flat = torch.cat([tensor, tensor[:1]]), tensor[..., None]
    for other in (grown, flat, tensor[:0], tensor.to(torch.int32), tensor.to_sparse()):
        with pytest.raises(IncompatibleCheckpoint):
            imported(published | {name: other})


def test_only_networks_of_losses_are_left_out() -> None:
    losses = {"depth_anything.a.weight": torch.zeros(1), "module.depth_anything.b": torch.zeros(1, dtype=torch.int64)}
    losses |= {"perceptual_loss_module.vgg.0.weight": torch.zeros(2)}
    assert imported(make_published() | losses).left_out == {"depth_anything": 2, "perceptual_loss_module": 1}
    for stranger in ("depth_anythingelse.a", "ema.a", "renderer.background"):
        with pytest.raises(IncompatibleCheckpoint, match=f"unexpected: {stranger}"):
            imported(make_published() | {stranger: torch.zeros(1)})


def test_doubles_are_refused_and_ties_are_cut() -> None:
    published = make_published()
    with pytest.raises(IncompatibleCheckpoint, match="twice"):
        imported(published | {"module.decoder.0.weight": torch.ones(16)})
    tied = published | {"decoder.0.weight": published["input_layernorm.weight"]}
    weights = imported(tied).weights
    assert torch.equal(weights["head.norm.weight"], weights["tokenizer.norm.weight"])
    assert weights["head.norm.weight"].data_ptr() != weights["tokenizer.norm.weight"].data_ptr()


def test_what_is_neither_or_both_is_refused() -> None:
    both = make_published("tttLRM") | make_published("LaCT")
    for published in (both, {"encoder.weight": torch.zeros(1)}, {}):
        assert recognise(published) is None
        with pytest.raises(IncompatibleCheckpoint, match="no weights of tttLRM or LaCT"):
            imported(published)
