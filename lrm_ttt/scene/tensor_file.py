"""Named tensors as one safetensors file that appears at once or not at all."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors of any device and layout, bit for bit, by atomic rename."""
    path = Path(path)
    # Expanded and sliced tensors would share their memory, which the format refuses.
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as temporary:
        partial = Path(temporary, path.name)
        save_file(stored, partial, metadata=dict(metadata))
        # safetensors writes a file that only its owner may read.
        partial.chmod(0o666 & path.parent.stat().st_mode)
        partial.replace(path)
