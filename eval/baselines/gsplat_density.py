"""gsplat's own strategies, for optimisation on CUDA."""

import importlib
from types import ModuleType

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.eval.baselines.adaptive import resets
from lrm_ttt.eval.baselines.config import AdaptiveConfig, McmcConfig
from lrm_ttt.eval.baselines.seen import Seen
from lrm_ttt.eval.baselines.splats import Splats, lower_opacities


class GsplatAdaptive:
    """gsplat's DefaultStrategy, with the resets of opacity that version 1.5.3 leaves out."""

    def __init__(self, config: AdaptiveConfig, iterations: int) -> None:
        self.config = config
        self.stop = round(config.stop * iterations)
        self.strategy = _strategies().DefaultStrategy(
            prune_opa=config.prune_opacity,
            grow_grad2d=config.grow_gradient,
            grow_scale3d=config.grow_scale,
            prune_scale3d=config.prune_scale,
            refine_start_iter=config.start,
            refine_stop_iter=self.stop,
            reset_every=config.reset_every,
            refine_every=config.every,
        )
        self.state = self.strategy.initialize_state(scene_scale=1.0)

    def watches(self, step: int) -> bool:
        """Say whether it wants to know what is seen in this step."""
        return step < self.stop

    def after_step(self, splats: Splats, step: int, seen: Seen | None, means_lr: float) -> None:
        """Let gsplat act on what is seen."""
        if seen is None:
            return
        radii = seen.screen.radii[..., None].expand(-1, -1, 2)
        info = {"means2d": seen.screen.means2d, "radii": radii, "n_cameras": len(radii), "gaussian_ids": None}
        info |= {"height": seen.image_size.height, "width": seen.image_size.width}
        self.strategy.step_post_backward(splats.parameters, splats.optimisers, self.state, step, info)
        # A version that resets by itself leaves nothing to do here: the second time changes nothing.
        if resets(self.config, step):
            lower_opacities(splats, 2 * self.config.prune_opacity)


class GsplatMcmc:
    """gsplat's MCMCStrategy."""

    def __init__(self, config: McmcConfig, iterations: int) -> None:
        self.strategy = _strategies().MCMCStrategy(
            cap_max=config.cap,
            noise_lr=config.noise,
            refine_start_iter=config.start,
            refine_stop_iter=round(config.stop * iterations),
            refine_every=config.every,
            min_opacity=config.min_opacity,
        )
        self.state = self.strategy.initialize_state()

    def watches(self, step: int) -> bool:
        """Say that what is seen does not matter."""
        return False

    def after_step(self, splats: Splats, step: int, seen: Seen | None, means_lr: float) -> None:
        """Let gsplat act."""
        self.strategy.step_post_backward(splats.parameters, splats.optimisers, self.state, step, {}, lr=means_lr)


def _strategies() -> ModuleType:
    # Importing gsplat compiles or loads its extension, which fails in as many ways as there are toolchains.
    try:
        return importlib.import_module("gsplat.strategy")
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailable(f"gsplat cannot be imported ({error}); see `lrm-ttt doctor`") from error
