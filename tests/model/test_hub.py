"""Models by name: folders and the hub's cache are asked before the network, and what is pushed is our own format."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.checkpoint import from_pretrained, save_pretrained
from lrm_ttt.model.config import BackboneConfig, ModelConfig, TokenizerConfig
from lrm_ttt.model.reconstructor import Reconstructor
from tests.helpers.shared import CHECKOUT

CONFIG = ModelConfig(TokenizerConfig(4), BackboneConfig(16, 1, 16, 2, MemoryConfig(16, 1)))
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Any attempt to reach the network ends the program with another message than ours.
LOAD = """
import socket, sys
def no_network(*arguments, **keywords):
    raise SystemExit("the network was asked")
socket.getaddrinfo = socket.socket.connect = no_network
from lrm_ttt.errors import LrmTttError
from lrm_ttt.model.reconstructor import Reconstructor
for name in sys.argv[1:]:
    try:
        print(Reconstructor.from_pretrained(name).num_parameters)
    except LrmTttError as error:
        print(error)
"""


def cached(home: Path, name: str, weights: bool = True) -> Reconstructor:
    """Lay a model into a hub cache as huggingface_hub does."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    model = Reconstructor(CONFIG)
    save_pretrained(model, repository / "snapshots" / COMMIT)
    if not weights:
        (repository / "snapshots" / COMMIT / "model.safetensors").unlink()
    return model


def load_elsewhere(names: list[str], home: Path, offline: bool) -> list[str]:
    """Load models in a process whose cache is `home` and whose network is cut; return parameters or messages."""
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
    variables = kept | {"HF_HOME": str(home), "PYTHONPATH": path, "HF_HUB_OFFLINE": str(int(offline))}
    command = [sys.executable, "-c", LOAD, *names]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=home, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("offline", [False, True])
def test_folders_and_the_cache_need_no_network(offline: bool, tmp_path: Path) -> None:
    """A folder `owner/folder` in the working directory is meant before the repository of that name."""
    model = cached(tmp_path, "owner/cached")
    cached(tmp_path, "owner/folder")
    larger = Reconstructor(ModelConfig(TokenizerConfig(4), BackboneConfig(32, 1, 16, 2, MemoryConfig(16, 1))))
    save_pretrained(larger, tmp_path / "owner" / "folder")
    cached(tmp_path, "owner/half", weights=False)
    names = ["owner/cached", "owner/folder"] + (["owner/half", "owner/absent"] if offline else [])
    said = load_elsewhere(names, tmp_path, offline)
    assert said[:2] == [str(model.num_parameters), str(larger.num_parameters)]
    if offline:
        assert "model.safetensors" in said[2] and "No such file" in said[2]
        assert said[3].startswith("owner/absent is no local folder, is not in the hub's cache")


def test_arguments_of_the_hub_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options))
        save_pretrained(Reconstructor(CONFIG), tmp_path / "fetched")
        return str(tmp_path / "fetched")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    cached(tmp_path, "owner/name")
    cache = tmp_path / "hub"
    Reconstructor.from_pretrained("owner/name", cache_dir=cache)
    assert asked == [], "the cache is enough"
    Reconstructor.from_pretrained("owner/name", cache_dir=cache, force_download=True)
    Reconstructor.from_pretrained("owner/name", cache_dir=cache, revision="v2", token="secret", local_files_only=True)
    assert [name for name, _ in asked] == ["owner/name"] * 2
    assert [options["force_download"] for _, options in asked] == [True, False]
    expected = {"revision": "v2", "token": "secret", "local_files_only": True, "cache_dir": cache}
    assert asked[1][1].items() >= expected.items()


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "a/b/c", "owner/na me", "owner/.."])
def test_what_is_neither_folder_nor_repository_is_refused(name: str) -> None:
    with pytest.raises(IncompatibleCheckpoint):
        Reconstructor.from_pretrained(name)


def test_what_is_pushed_is_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: dict[str, Any] = {}

    class Api:
        def __init__(self, **options: Any) -> None:
            pushed["token"] = options["token"]

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> str:
            pushed["name"] = repo_id
            pushed["files"] = sorted(path.name for path in Path(folder_path).iterdir())
            pushed["model"] = from_pretrained(folder_path)
            return "done"

    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", Api)
    model = Reconstructor(CONFIG)
    assert model.push_to_hub("owner/name", token="secret") == "done"
    assert (pushed["name"], pushed["token"]) == ("owner/name", "secret")
    assert pushed["files"] == ["README.md", "config.json", "model.safetensors"]
    assert pushed["model"].config == CONFIG
    weights = pushed["model"].state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
