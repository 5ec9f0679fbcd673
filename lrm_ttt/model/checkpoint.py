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
from lrm_ttt.model.build import build
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.origin import Origin
from lrm_ttt.model.scene_model import SceneModel

# The notice is there where the weights came from elsewhere.
WEIGHTS_FILE, CONFIG_FILE, NOTICE_FILE = "model.safetensors", "config.json", "NOTICE"
FORMAT = "lrm-ttt model 1"
# Models that knew nothing but Gaussians; their configurations are read as they are.
READABLE_FORMATS = (FORMAT, "lrm-ttt reconstructor 1")
# More names than these tell a reader nothing.
MAX_NAMED = 8


def save_pretrained(
    model: SceneModel,
    folder: Path | str,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the model (or `weights` in its place, an average for one) to `folder`, each file by atomic rename.

    `dtype` is the dtype of storage (None: as it is); loading always gives fp32 parameters.
    """
    write_folder(folder, model.config, weights or model.state_dict(), model.origin, dtype)


def write_folder(
    folder: Path | str,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    origin: Origin | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write configuration, weights and their origin to `folder`, each file by atomic rename."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in weights.items()}
    data = {"format": FORMAT, "model": to_mapping(config)} | ({"origin": to_mapping(origin)} if origin else {})
    names = [WEIGHTS_FILE, CONFIG_FILE]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        save_file(state, Path(temporary, WEIGHTS_FILE), metadata={"format": "pt"})
        Path(temporary, CONFIG_FILE).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        # safetensors writes a file that only its owner may read.
        Path(temporary, WEIGHTS_FILE).chmod(Path(temporary, CONFIG_FILE).stat().st_mode)
        if origin is not None:
            Path(temporary, NOTICE_FILE).write_text(origin.notice(), encoding="utf-8")
            names.append(NOTICE_FILE)
        for name in names:
            Path(temporary, name).replace(folder / name)


def from_pretrained(
    source: Path | str, device: str | torch.device = "cpu", precision: Precision | None = None
) -> SceneModel:
    """Return the model of a local folder, or of a repository `owner/name` of the Hugging Face hub, in evaluation mode.

    Raises `IncompatibleCheckpoint` where files are missing or corrupt, or names or shapes differ; the message lists
    which.
    """
    folder = find_pretrained(source)
    config = read_config(folder)
    state = read_weights(folder / WEIGHTS_FILE)
    with torch.device("meta"):
        model = build(config, precision)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    differences = compare_shapes(wanted, {name: tensor.shape for name, tensor in state.items()})
    if differences:
        raise IncompatibleCheckpoint(
            f"{folder / WEIGHTS_FILE} does not fit its {CONFIG_FILE}: {'; '.join(differences)}."
        )
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    model.origin = read_origin(folder)
    return model.to(device).eval()


def load_matching(model: SceneModel, source: Path | str) -> list[str]:
    """Copy the parameters of a pretrained folder whose name and shape the model shares, and say what was left over.

    A head does not carry over to another representation, nor do memories to another mixer: what has the same name there
    means something else. The licence of weights that came from elsewhere does.
    """
    folder = find_pretrained(source)
    config = read_config(folder)
    representation, mixer = config.representation, config.backbone.mixer
    theirs = read_weights(folder / WEIGHTS_FILE)
    ours = model.state_dict()
    notes = []
    if representation != model.config.representation:
        theirs = {name: tensor for name, tensor in theirs.items() if not name.startswith("head.")}
        notes.append(f"the head is not that of '{representation}', and begins anew")
    if mixer != model.config.backbone.mixer:
        theirs = {name: tensor for name, tensor in theirs.items() if ".memory." not in name}
        notes.append(f"the memories are not those of '{mixer}', and begin anew")
    if config.normalisation != model.config.normalisation:
        notes.append(
            f"the weights know scenes in the frame '{config.normalisation}', and are to learn "
            f"'{model.config.normalisation}'"
        )
    fitting = {name: tensor for name, tensor in theirs.items() if name in ours and ours[name].shape == tensor.shape}
    if not fitting:
        raise IncompatibleCheckpoint(f"{folder}: no parameter has a name and a shape that this model shares.")
    model.load_state_dict(fitting, strict=False)
    model.origin = read_origin(folder) or model.origin
    if model.origin is not None:
        notes.append(f"the weights came from {model.origin.file}; licence: {model.origin.licence}")
    shapes = ({name: tensor.shape for name, tensor in tensors.items()} for tensors in (ours, theirs))
    return notes + compare_shapes(*shapes)


def find_pretrained(source: Path | str, *, force_download: bool = False, **hub: Any) -> Path:
    """Return the local folder that `source` names, or that of a repository `owner/name` of the hub.

    The hub's cache is asked before the network, unless `force_download`; `hub` may hold the `revision`, `token`,
    `cache_dir` and `local_files_only` of huggingface_hub.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    text = str(source)
    if folder.exists() or text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise IncompatibleCheckpoint(
            f"There is no folder {source} with {WEIGHTS_FILE} and {CONFIG_FILE}; give such a folder, or owner/name on "
            "the hub."
        )
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    names = [WEIGHTS_FILE, CONFIG_FILE]
    place = {key: hub[key] for key in ("cache_dir", "revision") if key in hub}
    try:
        cached = [try_to_load_from_cache(text, name, **place) for name in names]
        if not force_download and isinstance(cached[0], str) and isinstance(cached[1], str):
            return Path(cached[0]).parent
        return Path(snapshot_download(text, allow_patterns=[*names, NOTICE_FILE], force_download=force_download, **hub))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise IncompatibleCheckpoint(
            f"{source} is no local folder, is not in the hub's cache, and could not be fetched from the hub: {error}"
        ) from error


def read_config(folder: Path) -> ModelConfig:
    """Return the configuration in a pretrained folder."""
    try:
        return from_mapping(_read_json(folder)["model"], ModelConfig, "model")
    except InvalidConfig as error:
        raise IncompatibleCheckpoint(f"{folder / CONFIG_FILE} was made for another version: {error}") from error


def read_origin(folder: Path) -> Origin | None:
    """Return where the weights of a pretrained folder came from; None where they were trained with this program."""
    try:
        origin = _read_json(folder).get("origin")
        return None if origin is None else from_mapping(origin, Origin, "origin")
    except InvalidConfig as error:
        raise IncompatibleCheckpoint(f"{folder / CONFIG_FILE} was made for another version: {error}") from error


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IncompatibleCheckpoint(
            f"{path} cannot be read: {error}. A model folder holds {WEIGHTS_FILE} and {CONFIG_FILE}."
        ) from error
    if not isinstance(data, dict) or data.get("format") not in READABLE_FORMATS or "model" not in data:
        raise IncompatibleCheckpoint(f"{path} is not the configuration of a model of this program (format '{FORMAT}').")
    return data


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
    return [f"{len(names)} {what}: {list_some(names)}" for what, names in groups if names]


def list_some(names: list[str]) -> str:
    """Return the names as a list in words, which ends where more would tell nothing."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
