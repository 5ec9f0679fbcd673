"""Turn a published checkpoint (tttLRM: dl3dv_full, dl3dv_ar; LaCT: obj_res*, scene_res*) into a model folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lrm_ttt.model.config import Schedule


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Arguments:
    """Which checkpoint, and where the model goes."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.pt")]
    """What was published, .pt or .safetensors."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    """The model folder to write: model.safetensors, config.json, and NOTICE with the licence of the source."""
    schedule: Schedule | None = None
    """How the model writes its input views; by default _full or _ar in the file's name says it."""
    normalisation: Literal["mean_camera", "focus", "first_camera", "none"] | None = None
    """The frame of the scenes that the model expects; by default obj_res or scene_res in the file's name says it."""
    overwrite: bool = False
    """Replace a model that is there."""


def run(arguments: Arguments) -> None:
    """Import, and print what was recognised."""
    from lrm_ttt.cli.console import say_peak_memory
    from lrm_ttt.pipeline.import_weights import import_weights

    done = import_weights(
        arguments.file,
        arguments.out,
        schedule=arguments.schedule,
        normalisation=arguments.normalisation,
        overwrite=arguments.overwrite,
    )
    config, backbone = done.imported.config, done.imported.config.backbone
    memory = backbone.memory
    rows = {
        "kind": f"{done.imported.kind}, predicts {config.representation}",
        "blocks": f"{backbone.num_blocks} of width {backbone.width}, patches of {config.tokenizer.patch_size}",
        "heads": f"{backbone.width // backbone.attention_head_dim} of {backbone.attention_head_dim} (attention), "
        f"{backbone.width // memory.head_dim} of {memory.head_dim} times {memory.multiple} (memory)",
        "schedule": f"{backbone.schedule} ({done.schedule_reason})",
        "frame": f"{config.normalisation} ({done.normalisation_reason})",
        "parameters": f"{done.num_parameters:,}",
        "licence": done.origin.licence,
        "left out": ", ".join(done.left_out) or "nothing",
        "written": str(arguments.out),
    }
    for name, value in rows.items():
        print(f"{name:10}  {value}")
    say_peak_memory()
