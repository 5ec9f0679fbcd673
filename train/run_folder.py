"""The folder of one run: configuration, metrics, checkpoints, and the exported model with its provenance."""

import dataclasses
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrm_ttt import __version__
from lrm_ttt.config_io import dump_yaml, load_yaml, to_mapping
from lrm_ttt.errors import IncompatibleCheckpoint, InvalidConfig, OutputExists
from lrm_ttt.model.checkpoint import compare_shapes, read_origin, save_pretrained
from lrm_ttt.model.origin import Origin
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.train.checkpointing import list_checkpoints, load_checkpoint, restore_replaced, save_checkpoint
from lrm_ttt.train.config import TrainConfig
from lrm_ttt.train.hardware import describe
from lrm_ttt.train.progress import Progress

CONFIG_FILE, MODEL_FOLDER, PROVENANCE_FILE = "config.yaml", "model", "provenance.json"


class Checkpoint(NamedTuple):
    """What a checkpoint holds: tensors by part, and the rest."""

    folder: Path
    parts: dict[str, dict[str, Tensor]]
    state: dict[str, Any]

    origin: Origin | None

    def progress(self, config: TrainConfig) -> Progress:
        """Return how far the run had come."""
        return Progress.from_mapping(self.state["progress"], config)

    def check_model(self, model: SceneModel) -> None:
        """Raise `IncompatibleCheckpoint` where this is the checkpoint of another model."""
        wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
        for part in ("model", "average"):
            differences = compare_shapes(wanted, {name: tensor.shape for name, tensor in self.parts[part].items()})
            if differences:
                raise IncompatibleCheckpoint(f"{self.folder} is of another model: {'; '.join(differences)}.")


class RunFolder:
    """Refuse a folder that holds another run, unless it is to be resumed; write everything by atomic rename."""

    def __init__(self, path: Path, config: TrainConfig, resume: bool, is_main: bool) -> None:
        self.path, self.config, self.is_main = path, config, is_main
        stored = path / CONFIG_FILE
        self.notes: list[str] = []
        if resume:
            self.notes = compare_runs(stored, config)
        elif list_checkpoints(path):
            raise OutputExists(f"{path} holds a run already: add --resume to go on with it, or choose another folder.")

    def begin(self) -> None:
        """Store the configuration of the run."""
        if self.is_main:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / CONFIG_FILE, dump_yaml(self.config))

    def last_step(self) -> int | None:
        """Return the step of the last checkpoint."""
        checkpoints = list_checkpoints(self.path)
        return int(checkpoints[-1].name.rpartition("-")[2]) if checkpoints else None

    def read_last(self) -> Checkpoint | None:
        """Return the last checkpoint, or None where there is none yet.

        Raises `IncompatibleCheckpoint` for one that is corrupt, or of another model.
        """
        if self.is_main:
            restore_replaced(self.path)
        checkpoints = list_checkpoints(self.path)
        if not checkpoints:
            return None
        model = self.path / MODEL_FOLDER
        origin = read_origin(model) if model.is_dir() else None
        return Checkpoint(checkpoints[-1], *load_checkpoint(checkpoints[-1]), origin)

    def save(
        self,
        model: SceneModel,
        parts: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        progress: Progress,
        command: str,
    ) -> None:
        """Write a checkpoint, and the averaged weights as a model that can be loaded; the main process alone."""
        # From the step before the decay a longer run can go on, so it is kept.
        spare = progress.before_decay, progress.best_step
        whole = {**state, "progress": dataclasses.asdict(progress), "config": to_mapping(self.config)}
        save_checkpoint(self.path, progress.step, parts, whole, self.config.keep_checkpoints, spare)
        save_pretrained(model, self.path / MODEL_FOLDER, parts["average"])
        told = self._provenance(progress, command, next(model.parameters()).device, len(state["random"]))
        write_atomically(self.path / MODEL_FOLDER / PROVENANCE_FILE, json.dumps(told, indent=2) + "\n")

    def _provenance(
        self, progress: Progress, command: str, device: torch.device, num_processes: int
    ) -> dict[str, object]:
        return {
            "version": __version__,
            "commit": commit(),
            "command": command,
            "seed": self.config.seed,
            "hardware": describe(device),
            "processes": num_processes,
            "torch": torch.__version__,
            "hours": round(progress.seconds / 3600, 4),
            "steps": progress.step,
            "scenes": progress.scenes,
            "skipped_steps": progress.skipped,
            "broken_scenes": progress.broken,
            "finished": progress.finished,
            "decayed_early": progress.decay.early,
            "weights": f"exponential average, decay {self.config.ema_decay}",
            "validation": progress.validation,
            "config": to_mapping(self.config),
        }


def compare_runs(stored: Path, config: TrainConfig) -> list[str]:
    """Refuse to resume a run of another model or seed: its checkpoint would not fit, or its scenes would be others.

    Other data or batch sizes are noted.
    """
    if not stored.is_file():
        return []
    before = load_yaml(stored, TrainConfig)
    if before.model != config.model or before.seed != config.seed:
        raise InvalidConfig(
            f"{stored} is of a run with another model or seed: choose another folder, or the same configuration."
        )
    sizes, sizes_before = ([stage.batch_size for stage in run.stages] for run in (config, before))
    if before.data.sources != config.data.sources or sizes != sizes_before:
        return [
            "the data or the batch sizes are not those that the run began with: scenes may come twice in this epoch"
        ]
    return []


def commit() -> str:
    """Return the commit of the checkout that this package runs from, or nothing outside one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".lrm-ttt-checkout").is_file():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see the old one or the new one."""
    temporary = path.with_name(f".writing-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
