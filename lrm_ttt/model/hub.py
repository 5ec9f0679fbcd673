"""Models as repositories of the Hugging Face hub, in our own format."""

from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import nn

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.origin import Origin

M = TypeVar("M", bound="HubModel")
CARD = """---
{{ card_data }}
---

# {{ title }}

A model of lrm-ttt that predicts {{ representation }}: the weights in `model.safetensors`, the configuration in
`config.json`.

```python
from lrm_ttt.model.scene_model import SceneModel

model = SceneModel.from_pretrained("owner/name")
```

{{ notice }}
"""


class HubModel(PyTorchModelHubMixin, library_name="lrm-ttt", model_card_template=CARD):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` for models; the files are those of checkpoint.py."""

    config: ModelConfig
    # None for weights that were trained with this program.
    origin: Origin | None = None

    @classmethod
    def from_pretrained(
        cls: type[M],
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> M:
        """Return the model of a local folder or of a repository `owner/name` of the hub, in evaluation mode.

        The network is asked only for what is neither a folder nor in the hub's cache, or with `force_download`.
        `device` and `precision` may be given. Raises `IncompatibleCheckpoint` for what is missing, corrupt, or a model
        of another class.
        """
        # checkpoint.py builds models, so it stands on this module.
        from lrm_ttt.model.checkpoint import find_pretrained, from_pretrained

        options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only, "revision": revision}
        folder = find_pretrained(pretrained_model_name_or_path, force_download=force_download, **options)
        model = from_pretrained(folder, **model_kwargs)
        if not isinstance(model, cls):
            raise IncompatibleCheckpoint(
                f"{pretrained_model_name_or_path} holds a {type(model).__name__}, not a {cls.__name__}: load it with "
                f"{type(model).__name__}.from_pretrained."
            )
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        from lrm_ttt.model.checkpoint import write_folder

        assert isinstance(self, nn.Module)
        write_folder(save_directory, self.config, self.state_dict(), self.origin)

    def generate_model_card(self, *arguments: Any, **fields: Any) -> ModelCard:
        """Return the card of a repository; the licence of the weights' source is on it."""
        origin = self.origin
        fields.setdefault("title", "lrm-ttt model" if origin is None else f"{origin.program}, for lrm-ttt")
        fields.setdefault("representation", self.config.representation)
        fields.setdefault("notice", "" if origin is None else origin.notice())
        card = super().generate_model_card(*arguments, **fields)
        if origin is not None:
            card.data["license"] = "other"
            card.data["license_name"] = origin.licence
        return card
