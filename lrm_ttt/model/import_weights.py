"""Published state dicts to ours.

Kind and sizes are read from names and shapes, and no key may be missing or left over.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.config import BackboneConfig, GaussianHeadConfig, ModelConfig, Schedule, TokenizerConfig

# tttLRM's names on the left; a block's are completed from BLOCK_NAMES.
NAMES = {
    "tokenizer.1.weight": "tokenizer.embed.weight",
    "input_layernorm.weight": "tokenizer.norm.weight",
    "decoder.0.weight": "head.norm.weight",
    "decoder.1.weight": "head.linear.weight",
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


def rename_tttlrm(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of our `Reconstructor`.

    Raise `IncompatibleCheckpoint` listing the keys that have no counterpart.
    """
    renamed, foreign = {}, []
    for name, tensor in published.items():
        block = BLOCK.fullmatch(name)
        if name in NAMES:
            renamed[NAMES[name]] = tensor
        elif block and block[2] in BLOCK_NAMES:
            renamed[f"backbone.blocks.{block[1]}.{BLOCK_NAMES[block[2]]}"] = tensor
        else:
            foreign.append(name)
    if foreign:
        raise IncompatibleCheckpoint(
            f"Not a tttLRM state dict: {len(foreign)} keys have no counterpart, first {sorted(foreign)[:5]}."
        )
    return renamed


def tttlrm_config(published: Mapping[str, Tensor], schedule: Schedule, views_per_update: int) -> ModelConfig:
    """Read the sizes of a tttLRM state dict off its shapes; its schedule is nowhere in the weights, so it is given."""
    try:
        width, patch = published["tokenizer.1.weight"].shape
        heads, head_dim, hidden = published["blocks.0.module_list.1.f.w0"].shape
        per_patch = published["decoder.1.weight"].shape[0]
        attention_head_dim = published["blocks.0.module_list.0.f.q_norm.weight"].shape[0]
        expanded = published["blocks.0.module_list.2.f.c_fc.weight"].shape[0]
    except KeyError as error:
        raise IncompatibleCheckpoint(f"Not a tttLRM state dict: it has no {error.args[0]}.") from None
    patch_size = round((patch / 12) ** 0.5)
    num_sh = (per_patch // patch_size**2 - 11) // 3
    blocks = {match[1] for name in published if (match := BLOCK.fullmatch(name))}
    assert heads * head_dim == width
    return ModelConfig(
        tokenizer=TokenizerConfig(patch_size=patch_size),
        backbone=BackboneConfig(
            width=width,
            num_blocks=len(blocks),
            attention_head_dim=attention_head_dim,
            feed_forward_multiple=expanded // width,
            memory=MemoryConfig(head_dim=head_dim, multiple=hidden // head_dim),
            schedule=schedule,
            views_per_update=views_per_update,
        ),
        head=GaussianHeadConfig(sh_degree=round(num_sh**0.5) - 1),
        normalisation="mean_camera",
    )
