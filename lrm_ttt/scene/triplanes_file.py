"""Read and write triplanes as safetensors: planes, network, and the way from the capture's frame to the scene's."""

import dataclasses
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.similarity import Similarity
from lrm_ttt.scene.tensor_file import write_tensors
from lrm_ttt.scene.triplanes import FieldNetwork, Triplanes

FORMAT = "lrm-ttt triplanes 1"
NETWORK, WORLD_TO_SCENE = "network.", "world_to_scene."


def write_triplanes(path: Path | str, triplanes: Triplanes, world_to_scene: Similarity) -> None:
    """Write the field of one scene, which stays in the scene's frame; the file appears at once or not at all."""
    assert not triplanes.shape, "write_triplanes takes one scene: index the batch first"
    tensors: dict[str, Tensor] = {"planes": triplanes.planes}
    tensors |= {NETWORK + name: tensor for name, tensor in vars(triplanes.network).items()}
    tensors |= {WORLD_TO_SCENE + name: tensor for name, tensor in vars(world_to_scene).items()}
    # The extent in full, so that it reads back to the bit.
    write_tensors(path, tensors, {"format": FORMAT, "extent": repr(triplanes.extent)})


def read_triplanes(path: Path | str) -> tuple[Triplanes, Similarity]:
    """Return the field and the map from the capture's frame to its own, on the CPU.

    Raises `UnreadableScene` for a file that is missing, truncated or something else.
    """
    names = [field.name for field in dataclasses.fields(FieldNetwork)]
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UnreadableScene(f"{path}: holds no triplanes (format '{FORMAT}'). Name a triplanes.safetensors.")
            network = FieldNetwork(*(file.get_tensor(NETWORK + name) for name in names))
            triplanes = Triplanes(file.get_tensor("planes"), network, float(metadata["extent"]))
            parts = ("rotation", "translation", "scale")
            return triplanes, Similarity(*(file.get_tensor(WORLD_TO_SCENE + name) for name in parts))
    except (OSError, SafetensorError) as error:
        raise UnreadableScene(f"{path}: cannot be read as triplanes ({error}). Write it again.") from error
