"""A configuration to the model that it describes."""

from lrm_ttt.model.backbone import Precision
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.novel_view import NovelViewModel
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.model.triplane import TriplaneModel

MODELS: dict[str, type[SceneModel]] = {"gaussians": Reconstructor, "images": NovelViewModel, "triplane": TriplaneModel}


def build(config: ModelConfig, precision: Precision | None = None) -> SceneModel:
    """Return a model with initial weights, drawn from torch's global generator."""
    return MODELS[config.representation](config, precision)
