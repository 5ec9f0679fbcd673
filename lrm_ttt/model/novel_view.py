"""Posed views in, images from other cameras out: novel-view synthesis on the same backbone."""

from torch import Tensor

from lrm_ttt.model.backbone import Precision
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.heads.image import ImageHead
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.model.state import SceneState
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.views import Views


class NovelViewModel(SceneModel):
    """The novel-view model of LaCT (arXiv 2505.23884): target rays query the memory, and an image head answers.

    The state of a scene is enough to render it: inputs are not seen again.
    """

    def __init__(self, config: ModelConfig, precision: Precision | None = None) -> None:
        super().__init__(config, precision)
        self.head = ImageHead(config.backbone.width, config.tokenizer.patch_size)

    def query(self, state: SceneState, cameras: Cameras) -> Tensor:
        """Render images `[b v 3 h w]` in 0..1 of target cameras `[b v]`, whose tokens carry rays alone."""
        tokens = self.tokenizer.embed_rays(cameras, self.precision.compute)
        features = self.backbone.query(tokens, state, self.precision, self.slices)
        size, dtype = cameras.image_size, self.precision.compute
        return self.slices.map(lambda part: self.head(features[:, part], size, dtype), cameras.shape[1])

    def forward(self, inputs: Views, targets: Cameras) -> Tensor:
        """Render the targets from the inputs."""
        return self.query(self.update(self.start(inputs.shape[0]), inputs), targets)
