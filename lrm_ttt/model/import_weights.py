"""Published state dicts to ours.

Kind and sizes are read from names and shapes, and no key may be missing or left over.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from lrm_ttt.errors import IncompatibleCheckpoint, InvalidConfig
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.build import build
from lrm_ttt.model.checkpoint import compare_shapes
from lrm_ttt.model.config import BackboneConfig, GaussianHeadConfig, ModelConfig, Schedule, TokenizerConfig
from lrm_ttt.model.tokenizer import RAY_CHANNELS
from lrm_ttt.scene.similarity import Normalisation

Kind = Literal["tttLRM", "LaCT"]
KINDS: tuple[Kind, ...] = ("tttLRM", "LaCT")
# The names of embedding and decoder tell the kinds apart.
EMBEDDINGS: dict[Kind, str] = {"tttLRM": "tokenizer.1", "LaCT": "input_linear"}
DECODERS: dict[Kind, str] = {"tttLRM": "decoder", "LaCT": "image_token_decoder"}
BLOCK_NAMES = {
    "module_list.0.ln.weight": "attention_norm.weight",
    "module_list.0.f.to_qkv.weight": "attention.qkv.weight",
    "module_list.0.f.q_norm.weight": "attention.query_norm.weight",
    "module_list.0.f.k_norm.weight": "attention.key_norm.weight",
    "module_list.0.f.c_proj.weight": "attention.out.weight",
    "module_list.1.ln.weight": "memory_norm.weight",
    "module_list.1.f.to_qkv.weight": "memory.qkv.weight",
    "module_list.1.f.lr_fc.weight": "memory.inner_lr.weight",
    "module_list.1.f.lr_fc.bias": "memory.inner_lr.bias",
    "module_list.1.f.w0": "memory.gate",
    "module_list.1.f.w1": "memory.down",
    "module_list.1.f.w2": "memory.up",
    "module_list.1.f.o_norm.weight": "memory.out_norm.weight",
    "module_list.1.f.c_proj.weight": "memory.out.weight",
    "module_list.2.ln.weight": "feed_forward_norm.weight",
    "module_list.2.f.c_fc.weight": "feed_forward.expand.weight",
    "module_list.2.f.c_proj.weight": "feed_forward.contract.weight",
}
BLOCK = re.compile(r"blocks\.(\d+)\..+")
# Parts of a name that wrappers of the training program add: DDP, torch.compile, checkpointing, FSDP, Lightning.
WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "model"}
# Networks that only the losses of the published programs use, by the first part of their names. Nothing else is left
# out.
LOSS_NETWORKS = ("depth_anything", "perceptual_loss_module", "perceptual_loss", "lpips_loss_module", "lpips")


@dataclasses.dataclass(frozen=True)
class Imported:
    """A published state dict under our names, with what was recognised."""

    kind: Kind
    config: ModelConfig
    weights: dict[str, Tensor]
    # Entries that were left out, counted by loss network.
    left_out: dict[str, int]


def clean_name(name: str) -> str:
    """Return a name without what wrappers added to it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def recognise(names: Mapping[str, object]) -> Kind | None:
    """Return the kind of model that a mapping with these names holds, or None."""
    cleaned = {clean_name(name) for name in names}
    kinds = [kind for kind in KINDS if not cleaned.isdisjoint(_outer_names(kind))]
    return kinds[0] if len(kinds) == 1 else None


def convert(published: Mapping[str, Tensor], schedule: Schedule, normalisation: Normalisation) -> Imported:
    """Return our configuration and weights of a published state dict.

    Shapes tell neither the schedule nor the frame of the scenes, so both are given; 4 views per update, the inner
    learning rate, the steps of Newton-Schulz and the constants of the Gaussian head are those that were published
    (MODEL.md). Raises `IncompatibleCheckpoint` that lists every name that is missing or left over, or else every shape
    that does not fit.
    """
    kind = recognise(published)
    if kind is None:
        raise IncompatibleCheckpoint(
            f"these are no weights of tttLRM or LaCT: embedding and decoder of neither, or of both, are among the "
            f"{len(published)} names"
        )
    entries, left_out = _clean(published)
    counterparts = _counterparts(kind, entries)
    _refuse(compare_shapes(dict.fromkeys(counterparts, torch.Size()), dict.fromkeys(entries, torch.Size())), kind)
    try:
        config = _config(kind, entries, schedule, normalisation)
    except InvalidConfig as error:
        raise IncompatibleCheckpoint(f"the shapes are not those of a {kind} model: {error}") from error
    with torch.device("meta"):
        model = build(config)
    ours = model.state_dict()
    wanted = {name: ours[counterpart].shape for name, counterpart in counterparts.items()}
    _refuse(compare_shapes(wanted, {name: tensor.shape for name, tensor in entries.items()}), kind)
    assert set(counterparts.values()) == set(ours)
    return Imported(kind, config, {counterparts[name]: tensor for name, tensor in entries.items()}, left_out)


def _clean(published: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    entries: dict[str, Tensor] = {}
    left_out: dict[str, int] = {}
    places: set[int] = set()
    for name, tensor in published.items():
        cleaned = clean_name(name)
        network = cleaned.split(".")[0]
        if network in LOSS_NETWORKS:
            left_out[network] = left_out.get(network, 0) + 1
        elif cleaned in entries:
            raise IncompatibleCheckpoint(f"the entry {cleaned} is there twice, once as {name}")
        elif not tensor.is_floating_point() or tensor.layout is not torch.strided:
            raise IncompatibleCheckpoint(f"{name} is {tensor.layout} {tensor.dtype}, and no weight of such a model is")
        else:
            # Tied entries of a file are weights of their own here.
            entries[cleaned] = tensor.clone() if tensor.data_ptr() in places else tensor
            places.add(tensor.data_ptr())
    return entries, left_out


def _counterparts(kind: Kind, entries: Mapping[str, Tensor]) -> dict[str, str]:
    """Return our name of every name that a model of this kind and number of blocks has."""
    names = _outer_names(kind) | {"input_layernorm.weight": "tokenizer.norm.weight"}
    # Without any block, those of the first are what is missing.
    num_blocks = max(1, len({match[1] for name in entries if (match := BLOCK.fullmatch(name))}))
    for index in range(num_blocks):
        names |= {f"blocks.{index}.{name}": f"backbone.blocks.{index}.{ours}" for name, ours in BLOCK_NAMES.items()}
    return names


def _outer_names(kind: Kind) -> dict[str, str]:
    """Return our names of the entries that only this kind has."""
    return {
        f"{EMBEDDINGS[kind]}.weight": "tokenizer.embed.weight",
        f"{DECODERS[kind]}.0.weight": "head.norm.weight",
        f"{DECODERS[kind]}.1.weight": "head.linear.weight",
    }


def _refuse(differences: list[str], kind: Kind) -> None:
    if differences:
        raise IncompatibleCheckpoint(f"these are not the weights of one {kind} model: {'; '.join(differences)}")


def _config(kind: Kind, entries: Mapping[str, Tensor], schedule: Schedule, normalisation: Normalisation) -> ModelConfig:
    width, patch = _shape(entries, f"{EMBEDDINGS[kind]}.weight", 2)
    num_blocks = sum(name.endswith(".module_list.1.f.w0") for name in entries)
    patch_size = max(1, round((patch / RAY_CHANNELS) ** 0.5))
    _, head_dim, hidden = _shape(entries, "blocks.0.module_list.1.f.w0", 3)
    (output_norm,) = _shape(entries, "blocks.0.module_list.1.f.o_norm.weight", 1)
    memory = MemoryConfig(
        head_dim=head_dim,
        multiple=hidden // head_dim,
        inner_lr=0.01,
        newton_schulz_steps=5,
        output_norm="merged" if output_norm == width else "per_head",
    )
    backbone = BackboneConfig(
        width=width,
        num_blocks=num_blocks,
        attention_head_dim=_shape(entries, "blocks.0.module_list.0.f.q_norm.weight", 1)[0],
        feed_forward_multiple=_shape(entries, "blocks.0.module_list.2.f.c_fc.weight", 2)[0] // width,
        memory=memory,
        schedule=schedule,
        views_per_update=4,
        scale_outputs=kind == "LaCT",
    )
    config = ModelConfig(TokenizerConfig(patch_size), backbone, normalisation=normalisation)
    if kind == "LaCT":
        return dataclasses.replace(config, representation="images")
    num_sh = (_shape(entries, "decoder.1.weight", 2)[0] // patch_size**2 - 11) / 3
    head = GaussianHeadConfig(
        sh_degree=round(max(num_sh, 0) ** 0.5) - 1,
        distance="far",
        far=500.0,
        scale_shift=-2.3,
        max_log_scale=-1.2,
        opacity_shift=-2.0,
    )
    return dataclasses.replace(config, head=head)


def _shape(entries: Mapping[str, Tensor], name: str, rank: int) -> torch.Size:
    shape = entries[name].shape
    if len(shape) != rank or 0 in shape:
        raise IncompatibleCheckpoint(f"{name} is {list(shape)}, where {rank} sizes above zero belong")
    return shape
