"""Posed views in, images from other cameras out: novel-view synthesis on the same backbone."""

from torch import Tensor, nn

from lrm_ttt.layers.initialisation import fill_normal
from lrm_ttt.layers.patches import patchify
from lrm_ttt.model.backbone import Backbone, Precision
from lrm_ttt.model.config import NovelViewConfig
from lrm_ttt.model.heads.image import ImageHead
from lrm_ttt.model.state import SceneState
from lrm_ttt.model.tokenizer import Tokenizer, ray_channels
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.views import Views


class NovelViewModel(nn.Module):
    """The novel-view model of LaCT (arXiv 2505.23884): target rays query the memory, and an image head answers.

    Views and cameras are `[b v]`, in the scene's normalised frame, with height and width multiples of the patch size.
    The state of a scene is enough to render it: inputs are not seen again.
    """

    def __init__(self, config: NovelViewConfig, precision: Precision | None = None) -> None:
        super().__init__()
        self.config = config
        self.precision = precision or Precision()
        self.tokenizer = Tokenizer(config.backbone.width, config.tokenizer)
        self.backbone = Backbone(config.backbone)
        self.head = ImageHead(config.backbone.width, config.tokenizer.patch_size)
        fill_normal(self.tokenizer.embed.weight)

    def start(self, batch_size: int) -> SceneState:
        """Return the state before any view."""
        return self.backbone.start(batch_size)

    def update(self, state: SceneState, views: Views) -> SceneState:
        """Return the state after `views` (see `Backbone.update` for which schedules can go on)."""
        tokens = self.tokenizer(views, self.precision.compute)
        return self.backbone.update(tokens.tokens, state, self.precision)[0]

    def query(self, state: SceneState, cameras: Cameras) -> Tensor:
        """Render images `[b v 3 h w]` in 0..1 of target cameras, whose tokens carry rays and zeros for colours."""
        channels = patchify(ray_channels(cameras, None), self.config.tokenizer.patch_size)
        dtype = self.precision.compute
        tokens = self.tokenizer.norm(self.tokenizer.embed(channels.to(dtype)), self.tokenizer.norm.weight.dtype)
        features = self.backbone.query(tokens, state, self.precision)
        return self.head(features, cameras.image_size, dtype)

    def forward(self, inputs: Views, targets: Cameras) -> Tensor:
        """Render the targets from the inputs."""
        return self.query(self.update(self.start(inputs.shape[0]), inputs), targets)
