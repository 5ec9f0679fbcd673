"""Compile what all blocks of a model have in common, once, and keep it for later processes."""

import contextlib
import os
from pathlib import Path
from typing import cast

import torch

from lrm_ttt.kernels.backend import cache_folder
from lrm_ttt.layers.block import Block
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.parallel.collectives import keep_out_of_graphs

# Inference and training, one scene and several, and other dtypes are other graphs.
MAX_RECOMPILATIONS = 64
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
BLOCK_PIECES = ("enter", "say", "leave")
MEMORY_PIECES = ("start", "gradients", "commit")


def compile_blocks(model: SceneModel) -> None:
    """Compile the pieces of which the passes of all blocks are made, in place (regional compilation).

    Blocks are alike and share what is compiled, and the number of tokens is left open: another number of views, chunks
    or slices compiles nothing anew. The first pass of a process takes seconds, and the first of all half a minute: what
    it compiles is kept in the user's cache (kernels/backend.py), or where TORCHINDUCTOR_CACHE_DIR says. To copy a
    model, build another and load its weights: a deep copy would compute with those of the original.
    """
    _keep_code()
    torch._dynamo.config.recompile_limit = MAX_RECOMPILATIONS
    keep_out_of_graphs()
    for module in model.backbone.blocks:
        block = cast(Block, module)
        for owner, names in ((block, BLOCK_PIECES), (block.memory, MEMORY_PIECES)):
            for name in names:
                # A softmax memory has no gradients.
                if hasattr(owner, name):
                    setattr(owner, name, torch.compile(getattr(owner, name), dynamic=True))


def _keep_code() -> None:
    """Let torch keep what it compiles, unless the user said where: by default it does so until the system starts anew.

    Where the user's cache cannot be written that is good enough.
    """
    given, folder = os.environ.get(CACHE_VARIABLE), cache_folder() / "compiled"
    if given is not None and not Path(given).name.startswith("torchinductor_"):
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ[CACHE_VARIABLE] = str(folder)
