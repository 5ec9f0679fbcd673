"""Published state dicts to ours.

Kind and sizes are read from names and shapes, and no key may be missing or left over.
"""

import dataclasses
import re
from collections.abc import Mapping

from torch import Tensor

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.config import (
    BackboneConfig,
    GaussianHeadConfig,
    ModelConfig,
    NovelViewConfig,
    Schedule,
    TokenizerConfig,
)
from lrm_ttt.model.tokenizer import RAY_CHANNELS

# The names outside the blocks, by kind; those of a block are completed from BLOCK_NAMES.
TTTLRM_NAMES = {
    "tokenizer.1.weight": "tokenizer.embed.weight",
    "input_layernorm.weight": "tokenizer.norm.weight",
    "decoder.0.weight": "head.norm.weight",
    "decoder.1.weight": "head.linear.weight",
}
LACT_NAMES = {
    "input_linear.weight": "tokenizer.embed.weight",
    "input_layernorm.weight": "tokenizer.norm.weight",
    "image_token_decoder.0.weight": "head.norm.weight",
    "image_token_decoder.1.weight": "head.linear.weight",
}
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
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def is_lact(published: Mapping[str, Tensor]) -> bool:
    """Tell LaCT's novel-view models from tttLRM's by the name of their embedding."""
    return "input_linear.weight" in published


def rename(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict under our names; raise `IncompatibleCheckpoint` listing the keys without a counterpart."""
    names = LACT_NAMES if is_lact(published) else TTTLRM_NAMES
    renamed, foreign = {}, []
    for name, tensor in published.items():
        block = BLOCK.fullmatch(name)
        if name in names:
            renamed[names[name]] = tensor
        elif block and block[2] in BLOCK_NAMES:
            renamed[f"backbone.blocks.{block[1]}.{BLOCK_NAMES[block[2]]}"] = tensor
        else:
            foreign.append(name)
    if foreign:
        raise IncompatibleCheckpoint(
            f"Not a state dict of tttLRM or LaCT: {len(foreign)} keys have no counterpart, first {sorted(foreign)[:5]}."
        )
    return renamed


def tttlrm_config(published: Mapping[str, Tensor], schedule: Schedule, views_per_update: int) -> ModelConfig:
    """Read the sizes of a tttLRM state dict off its shapes; its schedule is nowhere in the weights, so it is given."""
    tokenizer, backbone = _sizes(published, "tokenizer.1.weight")
    per_patch = _entry(published, "decoder.1.weight").shape[0]
    num_sh = (per_patch // tokenizer.patch_size**2 - 11) // 3
    return ModelConfig(
        tokenizer=tokenizer,
        backbone=dataclasses.replace(backbone, schedule=schedule, views_per_update=views_per_update),
        head=GaussianHeadConfig(sh_degree=round(num_sh**0.5) - 1),
        normalisation="mean_camera",
    )


def lact_config(published: Mapping[str, Tensor]) -> NovelViewConfig:
    """Read the sizes of a LaCT novel-view state dict off its shapes."""
    tokenizer, backbone = _sizes(published, "input_linear.weight")
    memory = dataclasses.replace(backbone.memory, output_norm="per_head")
    return NovelViewConfig(tokenizer, dataclasses.replace(backbone, memory=memory, scale_outputs=True))


def _sizes(published: Mapping[str, Tensor], embedding: str) -> tuple[TokenizerConfig, BackboneConfig]:
    width, patch = _entry(published, embedding).shape
    _, head_dim, hidden = _entry(published, "blocks.0.module_list.1.f.w0").shape
    backbone = BackboneConfig(
        width=width,
        num_blocks=len({match[1] for name in published if (match := BLOCK.fullmatch(name))}),
        attention_head_dim=_entry(published, "blocks.0.module_list.0.f.q_norm.weight").shape[0],
        feed_forward_multiple=_entry(published, "blocks.0.module_list.2.f.c_fc.weight").shape[0] // width,
        memory=MemoryConfig(head_dim=head_dim, multiple=hidden // head_dim),
    )
    return TokenizerConfig(patch_size=round((patch / RAY_CHANNELS) ** 0.5)), backbone


def _entry(published: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in published:
        raise IncompatibleCheckpoint(f"Not a state dict of tttLRM or LaCT: it has no {name}.")
    return published[name]
