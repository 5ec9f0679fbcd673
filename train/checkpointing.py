"""Checkpoints of a run: written to a temporary folder and renamed, verified when read; the last few and some others are
kept."""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lrm_ttt.data.shard_manifest import sha256_of
from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.model.checkpoint import read_weights

FOLDER, STATE_FILE, OWN_DIGEST = "checkpoints", "state.json", "state_sha256"
# Tensors are kept in one file per part.
PARTS = ("model", "average", "optimiser")


def save_checkpoint(
    run: Path,
    step: int,
    parts: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    keep: int,
    spare: Collection[int] = (),
) -> Path:
    """Write RUN/checkpoints/step-N whole or not at all; remove all but the last `keep` and those of the steps `spare`.

    Raises `OSError` where the disk is full: what was there before is still there.
    """
    assert set(parts) == set(PARTS)
    root = run / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    restore_replaced(run)
    for abandoned in (*root.glob(".writing-*"), *root.glob(".removing-*")):
        shutil.rmtree(abandoned)
    final = folder_of(run, step)
    temporary = root / f".writing-{final.name}"
    try:
        _write(temporary, step, parts, state)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # The writer of tensors has an error of its own for a full disk.
        raise error if isinstance(error, OSError) else OSError(str(error)) from error
    replaced = root / f".replaced-{final.name}"
    if final.exists():
        final.replace(replaced)
    temporary.replace(final)
    _flush(root)
    shutil.rmtree(replaced, ignore_errors=True)
    kept = {folder_of(run, each) for each in spare}
    for old in list_checkpoints(run)[:-keep]:
        if old not in kept:
            _remove(old)
    return final


def folder_of(run: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return run / FOLDER / f"step-{step:09d}"


def restore_replaced(run: Path) -> None:
    """Bring a checkpoint back that a kill kept from being replaced."""
    for replaced in (run / FOLDER).glob(".replaced-*"):
        final = replaced.with_name(replaced.name.removeprefix(".replaced-"))
        if final.exists():
            shutil.rmtree(replaced)
        else:
            replaced.replace(final)


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted((run / FOLDER).glob("step-*"))


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the tensors by part, and the rest.

    Raises `IncompatibleCheckpoint` where a file is missing or is not what was written.
    """
    path = folder / STATE_FILE
    remedy = f"Remove {folder} to go on from the checkpoint before it."
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        digests, own = state["sha256"], state.pop(OWN_DIGEST, None)
        # Checkpoints of before have no checksum of this file.
        if own is not None and own != _digest_of(state):
            raise ValueError("its checksum differs")
    except (OSError, ValueError, KeyError) as error:
        raise IncompatibleCheckpoint(f"{path} is missing or corrupt ({error}). {remedy}") from error
    parts = {}
    for name in PARTS:
        file = folder / f"{name}.safetensors"
        if not file.is_file() or digests.get(file.name) != sha256_of(file):
            raise IncompatibleCheckpoint(
                f"{file} is missing, or is not what was written (its checksum differs). {remedy}"
            )
        parts[name] = read_weights(file)
    return parts, state


def _write(folder: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    folder.mkdir()
    digests = {}
    for name, tensors in parts.items():
        path = folder / f"{name}.safetensors"
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
        digests[path.name] = sha256_of(path)
    content = {**state, "step": step, "sha256": digests}
    text = json.dumps({**content, OWN_DIGEST: _digest_of(content)}, indent=2)
    (folder / STATE_FILE).write_text(text + "\n", encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        _flush(path)


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that no moment leaves half of it."""
    doomed = folder.with_name(f".removing-{folder.name}")
    folder.replace(doomed)
    shutil.rmtree(doomed)


def random_state() -> dict[str, str]:
    """Return the state of torch's global generators as text."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()}


def restore_random_state(text: Mapping[str, str]) -> None:
    """Restore what `random_state` returned, as far as this machine has the devices."""
    states = {
        name: torch.frombuffer(bytearray(base64.b64decode(value)), dtype=torch.uint8) for name, value in text.items()
    }
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
