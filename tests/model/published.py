"""Make state dicts as the published programs write them, with random numbers in them."""

import math

import torch
from torch import Tensor

from lrm_ttt.model.import_weights import DECODERS, EMBEDDINGS, Kind


def make_published(
    kind: Kind = "tttLRM",
    *,
    width: int = 16,
    num_blocks: int = 2,
    attention_head_dim: int = 8,
    memory_head_dim: int = 16,
    multiple: int = 2,
    feed_forward_multiple: int = 3,
    patch_size: int = 4,
    sh_degree: int = 1,
) -> dict[str, Tensor]:
    """Return what `state_dict()` of a published model of these sizes holds."""
    per_pixel = 3 if kind == "LaCT" else 11 + 3 * (sh_degree + 1) ** 2
    heads, hidden = width // memory_head_dim, multiple * memory_head_dim
    shapes: dict[str, tuple[int, ...]] = {
        f"{EMBEDDINGS[kind]}.weight": (width, 12 * patch_size**2),
        "input_layernorm.weight": (width,),
        f"{DECODERS[kind]}.0.weight": (width,),
        f"{DECODERS[kind]}.1.weight": (per_pixel * patch_size**2, width),
    }
    parts = {
        "0.ln.weight": (width,),
        "0.f.to_qkv.weight": (3 * width, width),
        "0.f.q_norm.weight": (attention_head_dim,),
        "0.f.k_norm.weight": (attention_head_dim,),
        "0.f.c_proj.weight": (width, width),
        "1.ln.weight": (width,),
        "1.f.to_qkv.weight": (3 * width, width),
        "1.f.lr_fc.weight": (3 * heads, width),
        "1.f.lr_fc.bias": (3 * heads,),
        "1.f.w0": (heads, memory_head_dim, hidden),
        "1.f.w1": (heads, hidden, memory_head_dim),
        "1.f.w2": (heads, memory_head_dim, hidden),
        "1.f.o_norm.weight": (memory_head_dim if kind == "LaCT" else width,),
        "1.f.c_proj.weight": (width, width),
        "2.ln.weight": (width,),
        "2.f.c_fc.weight": (feed_forward_multiple * width, width),
        "2.f.c_proj.weight": (width, feed_forward_multiple * width),
    }
    for block in range(num_blocks):
        shapes |= {f"blocks.{block}.module_list.{name}": shape for name, shape in parts.items()}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) / math.sqrt(width) for name, shape in shapes.items()}
