"""The folder of one run: configuration, metrics, checkpoints, and the exported model with its provenance."""

import dataclasses
import json
import subprocess
from pathlib import Path

import torch

from lrm_ttt import __version__
from lrm_ttt.config_io import dump_yaml, load_yaml, to_mapping
from lrm_ttt.errors import IncompatibleCheckpoint, InvalidConfig, OutputExists
from lrm_ttt.model.checkpoint import compare_shapes, read_origin, save_pretrained
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.train.checkpointing import list_checkpoints, load_checkpoint, restore_random_state, save_checkpoint
from lrm_ttt.train.config import TrainConfig
from lrm_ttt.train.hardware import describe
from lrm_ttt.train.optimiser import Optimiser, WeightAverage
from lrm_ttt.train.progress import Progress

CONFIG_FILE, MODEL_FOLDER, PROVENANCE_FILE = "config.yaml", "model", "provenance.json"


class RunFolder:
    """Refuse a folder that holds another run, unless it is to be resumed; write everything by atomic rename."""

    def __init__(self, path: Path, config: TrainConfig, resume: bool, is_main: bool) -> None:
        self.path, self.config, self.is_main = path, config, is_main
        stored = path / CONFIG_FILE
        if resume:
            check_same_model(stored, config)
        elif list_checkpoints(path):
            raise OutputExists(f"{path} holds a run already: add --resume to go on with it, or choose another folder.")
        if is_main:
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(stored, dump_yaml(config))

    def restore(self, model: SceneModel, average: WeightAverage, optimiser: Optimiser) -> Progress:
        """Load the last checkpoint, or begin at the start where there is none yet."""
        checkpoints = list_checkpoints(self.path)
        if not checkpoints:
            return Progress.begin(self.config)
        parts, state = load_checkpoint(checkpoints[-1])
        wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
        for part in ("model", "average"):
            differences = compare_shapes(wanted, {name: tensor.shape for name, tensor in parts[part].items()})
            if differences:
                raise IncompatibleCheckpoint(f"{checkpoints[-1]} is of another model: {'; '.join(differences)}.")
        model.load_state_dict(parts["model"])
        if (self.path / MODEL_FOLDER).is_dir():
            # Weights that began from somebody else's keep their licence.
            model.origin = read_origin(self.path / MODEL_FOLDER)
        average.load(parts["average"])
        optimiser.load_state(parts["optimiser"])
        restore_random_state(state["random"])
        return Progress.from_mapping(state["progress"], self.config)

    def save(
        self, model: SceneModel, average: WeightAverage, optimiser: Optimiser, progress: Progress, command: str
    ) -> None:
        """Write a checkpoint, and the averaged weights with their provenance as a model that can be loaded."""
        if not self.is_main:
            return
        parts = {"model": model.state_dict(), "average": average.weights, "optimiser": optimiser.state()}
        state = {"progress": dataclasses.asdict(progress), "config": to_mapping(self.config)}
        # From the step before the decay a longer run can go on, so it is kept.
        keep, spare = self.config.keep_checkpoints, progress.before_decay
        save_checkpoint(self.path, progress.step, parts, state, keep, spare)
        folder = self.path / MODEL_FOLDER
        save_pretrained(model, folder, average.weights)
        device = next(model.parameters()).device
        write_atomically(
            folder / PROVENANCE_FILE, json.dumps(self._provenance(progress, command, device), indent=2) + "\n"
        )

    def _provenance(self, progress: Progress, command: str, device: torch.device) -> dict[str, object]:
        return {
            "version": __version__,
            "commit": commit(),
            "command": command,
            "seed": self.config.seed,
            "hardware": describe(device),
            "torch": torch.__version__,
            "hours": round(progress.seconds / 3600, 4),
            "steps": progress.step,
            "scenes": progress.scenes,
            "skipped_steps": progress.skipped,
            "finished": progress.finished,
            "decayed_early": progress.decay.early,
            "weights": f"exponential average, decay {self.config.ema_decay}",
            "validation": progress.validation,
            "config": to_mapping(self.config),
        }


def check_same_model(stored: Path, config: TrainConfig) -> None:
    """Refuse to resume a run of another model or seed: its checkpoint would not fit, or its scenes would be others."""
    if not stored.is_file():
        return
    before = load_yaml(stored, TrainConfig)
    if before.model != config.model or before.seed != config.seed:
        raise InvalidConfig(
            f"{stored} is of a run with another model or seed: choose another folder, or the same configuration."
        )


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
