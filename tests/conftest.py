"""Settings that must stand before torch and lrm_ttt are imported."""

import os

# Two idle OpenMP threads that spin take the cores from whoever else is at work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "2")

from jaxtyping import install_import_hook

# A test of torch.compile(fullgraph=True) starts a process with LRM_TTT_SHAPE_CHECKS=0, for the hook breaks graphs.
if os.environ.get("LRM_TTT_SHAPE_CHECKS", "1") != "0":
    install_import_hook("lrm_ttt", "beartype.beartype")

import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
