"""The scenes of the DL3DV benchmark, on which published numbers rest: nothing may be trained on them."""

import functools
import importlib.resources
import re

# The identifier of a DL3DV scene, wherever it stands in a name: `1K/<hash>`, `dl3dv_<hash>`.
HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@functools.cache
def benchmark_hashes() -> frozenset[str]:
    """Return the identifiers of the 140 scenes of DL3DV-Benchmark."""
    text = importlib.resources.files("lrm_ttt.data").joinpath("dl3dv_benchmark.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def is_benchmark_scene(name: str) -> bool:
    """Say whether a scene's name holds the identifier of a benchmark scene."""
    return not benchmark_hashes().isdisjoint(HASH.findall(name.lower()))
