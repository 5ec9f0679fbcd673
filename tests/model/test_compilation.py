"""Compiled blocks: the same result, and nothing compiled anew for other numbers of views."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.shared import CHECKOUT

# Traced as always, but run by Python: turning graphs into C++ takes a minute, and is torch's affair.
PROGRAM = """
import functools
import os
import torch
torch.compile = functools.partial(torch.compile, backend="eager")
from torch._dynamo.utils import counters
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.build import build
from lrm_ttt.model.compilation import compile_blocks
from lrm_ttt.model.config import BackboneConfig, ModelConfig
from lrm_ttt.model.slices import Slices, WHOLE

memory = MemoryConfig(head_dim=32, multiple=2)
backbone = BackboneConfig(32, 2, 16, 2, memory, schedule="causal", views_per_update=2)
model = build(ModelConfig(backbone=backbone)).backbone
scenes = {views: torch.randn(1, views, 6, 32) for views in (5, 4, 9, 16)}

def run(views, slices=WHOLE):
    state, features = model.update(scenes[views], model.start(1), precision, slices)
    return features, model.query(scenes[views], state, precision, slices)

from lrm_ttt.model.backbone import Precision
precision = Precision()
with torch.no_grad():
    eager = {views: run(views) for views in scenes}
    holder = type("Holder", (), {"backbone": model})
    compile_blocks(holder)
    run(5), run(4, Slices(3))
    compiled = counters["stats"]["unique_graphs"]
    for views in scenes:
        for slices in (WHOLE, Slices(3)):
            for mine, other in zip(run(views, slices), eager[views]):
                torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
print(compiled, counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()))
print(os.environ["TORCHINDUCTOR_CACHE_DIR"])
"""


def test_what_some_views_compiled_serves_all_numbers_of_views_chunks_and_slices(tmp_path: Path) -> None:
    # The hook that checks shapes breaks graphs.
    others = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment = others | {"LRM_TTT_SHAPE_CHECKS": "0", "LRM_TTT_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers, folder = done.stdout.splitlines()
    after_the_first, after_all, breaks = map(int, numbers.split())
    # Six pieces, of which some also take a single view, or the memory that is a parameter: both are special to torch.
    assert 6 <= after_the_first == after_all <= 14
    assert breaks == 0
    assert folder == str(tmp_path / "compiled")
