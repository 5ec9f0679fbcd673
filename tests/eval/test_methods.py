"""What a configuration builds is what its name says, and takes the steps that progress is counted in."""

import pytest
import torch

from lrm_ttt.data.procedural import procedural_capture
from lrm_ttt.eval.baselines.config import OptimiseConfig, ScaffoldConfig
from lrm_ttt.eval.baselines.optimise import Optimise
from lrm_ttt.eval.baselines.scaffold import Scaffold
from lrm_ttt.eval.benchmark.cells import steps
from lrm_ttt.eval.benchmark.config import FeedForwardConfig, MethodConfig, StreamConfig
from lrm_ttt.eval.methods import FeedForward, Streaming, build_method
from lrm_ttt.eval.task import Task


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (MethodConfig("a", feed_forward=FeedForwardConfig(refine=3, refine_share=0.1)), FeedForward),
        (MethodConfig("a", stream=StreamConfig(views_per_step=2)), Streaming),
        (MethodConfig("a", optimise=OptimiseConfig(iterations=5, initial=50)), Optimise),
        (MethodConfig("a", scaffold=ScaffoldConfig(iterations=4, initial=50)), Scaffold),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_kind_of_method_reconstructs(config: MethodConfig, kind: type) -> None:
    views = procedural_capture(1, 4, (16, 16))
    heard: list[tuple[int, int]] = []
    method = build_method(config, torch.device("cpu"))
    assert isinstance(method, kind)
    outcome = method(Task(views, torch.ones(3)), lambda done, total: heard.append((done, total)))
    images = outcome.draw(views.cameras, torch.ones(3))
    assert images.shape == views.images.shape and bool(images.isfinite().all())
    # A stream counts views, for it takes no steps of optimisation.
    total = steps(config) or views.shape[0]
    assert heard[-1] == (total, total)
