"""What a checkpoint predicts, and what a run may therefore ask of it."""

from lrm_ttt.errors import IncompatibleCheckpoint, InvalidConfig
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.pipeline.config import ReconstructConfig, parse_virtual


def check_representation(config: ReconstructConfig, model: ModelConfig) -> None:
    """Refuse a representation that the checkpoint does not predict, and options about Gaussians where there are none.

    Raises `IncompatibleCheckpoint` and `InvalidConfig`.
    """
    kind = model.representation
    if config.representation not in (None, kind):
        raise IncompatibleCheckpoint(
            f"--representation {config.representation}: this checkpoint predicts '{kind}'. What queries become is "
            "trained into a model, and nothing here turns one into another. Leave the option out, or pass --checkpoint "
            f"with a model that was trained with `representation: {config.representation}` (`lrm-ttt train`)."
        )
    if kind == "gaussians":
        return
    given = {"--refine": config.refine > 0, "--keep-fraction": config.keep_fraction < 1}
    given |= {"--backend": config.backend != "auto", "--virtual": parse_virtual(config.virtual) is not None}
    for flag, is_given in given.items():
        if is_given:
            raise InvalidConfig(
                f"{flag} is about Gaussians, and this checkpoint predicts '{kind}'. Leave it out, or pass --checkpoint "
                "with a model that predicts Gaussians."
            )
