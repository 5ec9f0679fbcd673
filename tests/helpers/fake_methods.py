"""Methods that take no time, fail, die or wait, to see what a benchmark makes of them."""

import os
import signal
import time
from pathlib import Path

import torch

from lrm_ttt.eval.benchmark.config import FeedForwardConfig, MethodConfig
from lrm_ttt.eval.task import Advance, Method, Outcome, Task
from lrm_ttt.scene.gaussians import Gaussians


def fake(name: str, flag: Path | str = "") -> MethodConfig:
    """Return the configuration of a method that `build_fake` builds; `flag` is a file that it looks for."""
    return MethodConfig(name, feed_forward=FeedForwardConfig(checkpoint=str(flag)))


def build_fake(config: MethodConfig, device: torch.device) -> Method:
    """Return a method whose Gaussians follow from its inputs; `breaks` and `dies` do until their flag is there, `waits`
    waits for it, and leaves a file waiting-PID beside it meanwhile.
    """
    assert config.feed_forward is not None
    flag = Path(config.feed_forward.checkpoint or "")

    def method(task: Task, advance: Advance) -> Outcome:
        if config.name == "breaks" and not flag.is_file():
            raise RuntimeError("this one breaks\nas it should")
        if config.name == "dies" and not flag.is_file():
            os.kill(os.getpid(), signal.SIGKILL)
        if config.name == "waits" and not flag.is_file():
            flag.with_name(f"waiting-{os.getpid()}").touch()
            while not flag.is_file():
                advance(1, 2)
                time.sleep(0.02)
        return Outcome(one_gaussian_a_view(task), near=0.01)

    return method


def one_gaussian_a_view(task: Task) -> Gaussians:
    """Return Gaussians some way in front of each camera, with the mean colour of its image."""
    cameras, count = task.inputs.cameras, task.inputs.shape[0]
    colors = task.inputs.images.mean((-2, -1))
    return Gaussians(
        means=cameras.centres + cameras.forward,
        scales=torch.full((count, 3), 0.2),
        wxyz=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, 4),
        opacities=torch.full((count,), 0.8),
        sh=((colors - 0.5) / 0.28209479)[:, None],
    )
