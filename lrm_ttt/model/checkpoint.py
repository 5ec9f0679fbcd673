"""Models as folders: `model.safetensors` and `config.json`. Nothing is ever unpickled."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lrm_ttt.config_io import from_mapping, to_mapping
from lrm_ttt.errors import IncompatibleCheckpoint, InvalidConfig
from lrm_ttt.model.backbone import Precision
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.reconstructor import Reconstructor

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
FORMAT = "lrm-ttt reconstructor 1"
# More names than these tell a reader nothing.
MAX_NAMED = 8


def save_pretrained(
    model: Reconstructor,
    folder: Path | str,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the model (or `weights` in its place, an average for one) to `folder`, each file by atomic rename.

    `dtype` is the dtype of storage (None: as it is); loading always gives fp32 parameters.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in (weights or model.state_dict()).items()
    }
    config = {"format": FORMAT, "model": to_mapping(model.config)}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        save_file(state, Path(temporary, WEIGHTS_FILE), metadata={"format": "pt"})
        Path(temporary, CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            Path(temporary, name).replace(folder / name)


def from_pretrained(
    source: Path | str, device: str | torch.device = "cpu", precision: Precision | None = None
) -> Reconstructor:
    """Return the model of a local folder, or of a repository `owner/name` of the Hugging Face hub, in evaluation mode.

    Raises `IncompatibleCheckpoint` where files are missing or corrupt, or names or shapes differ; the message lists
    which.
    """
    folder = find_pretrained(source)
    config = read_config(folder)
    state = read_weights(folder / WEIGHTS_FILE)
    with torch.device("meta"):
        model = Reconstructor(config, precision)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    differences = compare_shapes(wanted, {name: tensor.shape for name, tensor in state.items()})
    if differences:
        raise IncompatibleCheckpoint(
            f"{folder / WEIGHTS_FILE} does not fit its {CONFIG_FILE}: {'; '.join(differences)}."
        )
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    return model.to(device).eval()


def load_matching(model: Reconstructor, source: Path | str) -> list[str]:
    """Copy the parameters of a pretrained folder whose name and shape the model shares, and say what was left over."""
    folder = find_pretrained(source)
    theirs = read_weights(folder / WEIGHTS_FILE)
    ours = model.state_dict()
    fitting = {name: tensor for name, tensor in theirs.items() if name in ours and ours[name].shape == tensor.shape}
    if not fitting:
        raise IncompatibleCheckpoint(f"{folder}: no parameter has a name and a shape that this model shares.")
    model.load_state_dict(fitting, strict=False)
    return compare_shapes(
        {name: tensor.shape for name, tensor in ours.items()}, {name: tensor.shape for name, tensor in theirs.items()}
    )


def find_pretrained(source: Path | str) -> Path:
    """Return the local folder, downloading it first where `source` names a repository of the hub."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    text = str(source)
    if folder.exists() or text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise IncompatibleCheckpoint(
            f"There is no folder {source} with {WEIGHTS_FILE} and {CONFIG_FILE}; give such a folder, or owner/name on "
            "the hub."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(text, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise IncompatibleCheckpoint(
            f"{source} is no local folder, and could not be fetched from the hub: {error}"
        ) from error


def read_config(folder: Path) -> ModelConfig:
    """Return the configuration in a pretrained folder."""
    path = folder / CONFIG_FILE
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IncompatibleCheckpoint(
            f"{path} cannot be read: {error}. A model folder holds {WEIGHTS_FILE} and {CONFIG_FILE}."
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or "model" not in data:
        raise IncompatibleCheckpoint(f"{path} is not the configuration of a model of this program (format '{FORMAT}').")
    try:
        return from_mapping(data["model"], ModelConfig, "model")
    except InvalidConfig as error:
        raise IncompatibleCheckpoint(f"{path} was made for another version: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; raises `IncompatibleCheckpoint` where it is missing or corrupt."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise IncompatibleCheckpoint(
            f"{path} cannot be read as safetensors: {error}. Fetch or export it again."
        ) from error


def compare_shapes(wanted: Mapping[str, torch.Size], found: Mapping[str, torch.Size]) -> list[str]:
    """Say what differs between the tensors that a model wants and those that a file has."""
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    shapes = [
        f"{name} is {list(found[name])} instead of {list(wanted[name])}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    groups = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(names)} {what}: {_some(names)}" for what, names in groups if names]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
