"""A published checkpoint to a model folder: read it without running any code, recognise it, write it with its licence.

What neither names nor shapes tell is decided by rules on the name of the file, listed here.
"""

import dataclasses
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lrm_ttt.data.shard_manifest import sha256_of
from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.model.checkpoint import CONFIG_FILE, NOTICE_FILE, WEIGHTS_FILE, list_some, write_folder
from lrm_ttt.model.config import Schedule
from lrm_ttt.model.import_weights import Imported, Kind, convert, recognise
from lrm_ttt.model.origin import Origin
from lrm_ttt.pipeline.outputs import check_replaceable, output_folder
from lrm_ttt.scene.similarity import Normalisation

# tttLRM: dl3dv_full writes all views at once, dl3dv_ar chunk after chunk. LaCT knows one schedule only.
SCHEDULE_WORDS: dict[str, Schedule] = {"full": "single", "ar": "chunked"}
PROGRAMS: dict[Kind, str] = {
    "tttLRM": "tttLRM (arXiv 2602.20160, github.com/cwchenwang/tttLRM)",
    "LaCT": "LaCT novel-view synthesis (arXiv 2505.23884, github.com/a1600012888/LaCT)",
}
RELEASED: dict[Kind, re.Pattern[str]] = {
    "tttLRM": re.compile(r"dl3dv_(full|ar)"),
    "LaCT": re.compile(r"(obj|scene)_res\d+"),
}
LACT_FRAMES: dict[str, Normalisation] = {"obj": "none", "scene": "mean_camera"}
TTTLRM_LICENCE = "Adobe Research License, non-commercial research only"
LICENCES: dict[Kind, str] = {
    "tttLRM": TTTLRM_LICENCE,
    "LaCT": "MIT for the program; for its weights none that we know of, so ask its authors",
}
# Where the rest of a training program's checkpoint lies, beside the weights; these, and what holds no tensors, are left
# out.
TRAINING_STATE = ("optim", "lr_scheduler", "scheduler", "scaler", "grad_scaler", "rng", "random")
# Reading a broken or foreign file ends in one of these, the unpickler's own slips among them.
READ_ERRORS = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
MAX_DEPTH = 3
FOLDER_NAMES = frozenset({WEIGHTS_FILE, CONFIG_FILE, NOTICE_FILE})


@dataclasses.dataclass(frozen=True)
class Import:
    """What was recognised and written."""

    imported: Imported
    origin: Origin
    # How the schedule and the frame were decided.
    schedule_reason: str
    normalisation_reason: str
    # What was left out of the checkpoint, in words.
    left_out: tuple[str, ...]

    @property
    def num_parameters(self) -> int:
        """Parameters of the model."""
        return sum(tensor.numel() for tensor in self.imported.weights.values())


def import_weights(
    file: Path | str,
    out: Path | str,
    *,
    schedule: Schedule | None = None,
    normalisation: Normalisation | None = None,
    overwrite: bool = False,
) -> Import:
    """Write the model of a published checkpoint to the folder `out`, which appears at once, or not at all.

    `schedule` and `normalisation` take precedence over the name of the file. The further factor of 1.35 that MODEL.md
    tells of for the poses of the LVSM family, LaCT's scenes among them, is not applied: no released file was at hand to
    check it. Raises `IncompatibleCheckpoint` for a file that is not, or
    not only, the weights of tttLRM or LaCT, and `OutputExists` as `reconstruct` does.
    """
    file = Path(file).expanduser()
    check_replaceable(Path(out).expanduser().resolve(), overwrite, FOLDER_NAMES)
    published, beside = select(read(file), file)
    kind = recognise(published)
    chosen, schedule_reason = choose_schedule(file, kind, schedule)
    frame, normalisation_reason = choose_normalisation(file, kind, normalisation)
    try:
        imported = convert(published, chosen, frame)
    except IncompatibleCheckpoint as error:
        raise IncompatibleCheckpoint(f"{file}: {str(error).rstrip('.')}.") from error
    origin = Origin(PROGRAMS[imported.kind], file.name, sha256_of(file), choose_licence(file, imported.kind))
    with output_folder(out, overwrite=overwrite, names=FOLDER_NAMES) as folder:
        write_folder(folder, imported.config, imported.weights, origin)
    networks = (f"{name} ({count} entries of a loss network)" for name, count in imported.left_out.items())
    return Import(imported, origin, schedule_reason, normalisation_reason, (*networks, *beside))


def read(file: Path) -> Any:
    """Return what a checkpoint holds, memory-mapped where that can be done; pickles that could run code are refused."""
    if not file.is_file():
        raise IncompatibleCheckpoint(f"There is no file {file}.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings():
            # Torch muses about the bytes of files that it then refuses.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except SafetensorError as error:
        raise IncompatibleCheckpoint(f"{file} is broken or no safetensors file: {error}. Fetch it again.") from error
    except (pickle.UnpicklingError, *READ_ERRORS) as error:
        # Torch's own message advises to read the file unsafely.
        objects = re.findall(r"(?:GLOBAL|global|class) `?([A-Za-z_][\w.]*\.\w+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and objects:
            raise IncompatibleCheckpoint(
                f"{file} holds more than tensors ({objects[0]}), which could run code when it is read, so it was not "
                "opened. Save its state dict alone, with the program that it comes from, and import that."
            ) from error
        reason = f" ({error})" if isinstance(error, OSError) else ""
        raise IncompatibleCheckpoint(
            f"{file} is no checkpoint of torch, or a broken one{reason}. Fetch it again; .pt and .safetensors are read."
        ) from error


def select(data: Any, file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict in a checkpoint, however deep, and what lies beside it, in words.

    Of several, that called `model` is taken, as the published programs do. Raises `IncompatibleCheckpoint` where there
    is none, and for tensors beside it that are not the state of a training run.
    """
    found = dict(_state_dicts(data, ()))
    called_model = [path for path in found if path[-1:] == ("model",)]
    (path,) = called_model if len(called_model) == 1 else found if len(found) == 1 else [None]
    if path is None:
        held = "several sets of weights" if found else "no weights of tttLRM or LaCT"
        names = [".".join(path) for path in found] or _names(data)
        raise IncompatibleCheckpoint(
            f"{file} holds {held} (it has {list_some(names) or type(data).__name__}). Give a file with one state dict "
            "of theirs."
        )
    strangers: list[str] = []
    left_out: list[str] = []
    level = data
    for depth in range(len(path) + 1):
        inside = path[depth : depth + 1]
        for name, value in level.items():
            if (name,) == inside or (not inside and isinstance(value, Tensor)):
                continue
            known = (*path[:depth], name) in found or str(name).startswith(TRAINING_STATE)
            (left_out if known or not _has_tensors(value) else strangers).append(str(name))
        level = level[inside[0]] if inside else level
    if strangers:
        raise IncompatibleCheckpoint(
            f"{file} holds what is neither weights nor the state of a training run: {list_some(strangers)}. Save its "
            "state dict alone and import that."
        )
    weights = {name: value for name, value in level.items() if isinstance(value, Tensor)}
    return weights, [f"{name} (beside the weights)" for name in left_out]


def choose_schedule(file: Path, kind: Kind | None, schedule: Schedule | None) -> tuple[Schedule, str]:
    """Return the schedule, and what decided it; raises `IncompatibleCheckpoint` where nothing tells."""
    if schedule is not None:
        return schedule, "as --schedule says"
    if kind == "LaCT":
        return "single", "the only one of LaCT"
    words = set(re.split(r"[^a-z0-9]+", file.stem.lower())) & set(SCHEDULE_WORDS)
    if len(words) != 1:
        raise IncompatibleCheckpoint(
            f"{file}: neither weights nor name tell the schedule (_full in the name: single, _ar: chunked). Pass "
            "--schedule."
        )
    (word,) = words
    return SCHEDULE_WORDS[word], f"by _{word} in the name"


def choose_normalisation(
    file: Path, kind: Kind | None, normalisation: Normalisation | None
) -> tuple[Normalisation, str]:
    """Return the frame that the model expects, and what decided it; raises `IncompatibleCheckpoint` as above.

    All of tttLRM expect the mean camera's; so do LaCT's scenes, but its objects lie in -1..1 as they are.
    """
    if normalisation is not None:
        return normalisation, "as --normalisation says"
    if kind != "LaCT":
        return "mean_camera", "the only one of tttLRM"
    released = RELEASED[kind].search(file.stem.lower())
    if released is None:
        raise IncompatibleCheckpoint(
            f"{file}: neither weights nor name tell the frame of the scenes (obj_res in the name: none, scene_res: "
            "mean_camera). Pass --normalisation."
        )
    return LACT_FRAMES[released[1]], f"by {released[1]}_res in the name"


def choose_licence(file: Path, kind: Kind) -> str:
    """Return what is known of the licence; a file that was renamed could be anybody's."""
    if RELEASED[kind].search(file.stem.lower()):
        return LICENCES[kind]
    return f"unknown: ask its authors (those of the weights that {kind} released: {LICENCES[kind]})"


def _state_dicts(data: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield the mappings that hold an embedding of a published model, with where they lie."""
    if not isinstance(data, Mapping) or len(path) > MAX_DEPTH:
        return
    if recognise({name: value for name, value in data.items() if isinstance(name, str)}):
        yield path, data
        return
    for name, value in data.items():
        if isinstance(name, str):
            yield from _state_dicts(value, (*path, name))


def _has_tensors(data: Any) -> bool:
    if isinstance(data, Mapping):
        return any(_has_tensors(value) for value in data.values())
    if isinstance(data, list | tuple):
        return any(_has_tensors(value) for value in data)
    return isinstance(data, Tensor)


def _names(data: Any) -> list[str]:
    return [str(name) for name in data] if isinstance(data, Mapping) else []
