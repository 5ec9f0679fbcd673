"""Quality on held-out scenes: PSNR of target views, and how far Gaussians lie from the surface."""

import torch

from lrm_ttt.losses.geometry import log_depth_error, own_depths, surface
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.scene.views import Renderings, SceneBatch
from lrm_ttt.train.logging import Stopwatch
from lrm_ttt.train.pictures import Album
from lrm_ttt.train.ranks import Ranks
from lrm_ttt.train.tasks import render_targets


@torch.no_grad()
def validate(
    model: SceneModel, batches: list[SceneBatch], ranks: Ranks, album: Album | None = None
) -> dict[str, float]:
    """Return the mean over scenes of `psnr` (of target views, decibels, over all pixels) and, for Gaussians of scenes
    with depths, of `log_depth_error`.

    The view groups share the scenes; all ranks must call this together. What was rendered goes into the `album`.
    """
    was_training = model.training
    model.eval()
    group, rows = ranks.group, []
    # Each group runs as many passes as the others: where parameters are sharded, all ranks gather them for each.
    for start in range(0, len(batches), group.num_groups):
        index = start + group.index
        batch = batches[min(index, len(batches) - 1)].to(ranks.device)
        found, renderings = _measure(model, batch)
        if index < len(batches) and group.rank == 0:
            rows.append(found)
            if album is not None:
                album.add(index, batch, renderings)
    model.train(was_training)
    every = [row for share in ranks.gather(rows) for row in share]
    if album is not None:
        album.pages = [page for share in ranks.gather(album.pages) for page in share]
    names = dict.fromkeys(name for row in every for name in row)
    found_by_name = {name: [row[name] for row in every if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in found_by_name.items()}


def _measure(model: SceneModel, batch: SceneBatch) -> tuple[dict[str, float], Renderings]:
    assert batch.targets is not None
    renderings, gaussians = render_targets(model, model.config, batch, batch.targets, Stopwatch())
    error = (renderings.colors.clamp(0, 1) - batch.targets.images).square().mean((-3, -2, -1))
    found = {"psnr": float(-10 * error.clamp(min=1e-10).log10().mean())}
    if gaussians is not None and batch.inputs.depths is not None:
        z = own_depths(gaussians.means, batch.inputs.cameras)
        depths = surface(batch.inputs, model.config.tokenizer.patch_size)
        found["log_depth_error"] = float(log_depth_error(z, *depths))
    return found, renderings
