"""What is installed is what stands in the tree."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers.shared import CHECKOUT

TOP_FOLDERS = ("kernels", "train", "eval", "configs")
PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))


def packages_in_the_tree() -> set[str]:
    """Return the four mapped folders, and every folder with an `__init__.py`, by the name it is imported under."""
    found = {f"lrm_ttt.{folder}" for folder in TOP_FOLDERS}
    for folder in ("lrm_ttt", *TOP_FOLDERS):
        for path in (CHECKOUT / folder).rglob("__init__.py"):
            name = ".".join(path.parent.relative_to(CHECKOUT).parts)
            found.add(name if folder == "lrm_ttt" else f"lrm_ttt.{name}")
    return found


def test_pyproject_lists_every_package() -> None:
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages_in_the_tree())


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for top in ("lrm_ttt", *TOP_FOLDERS) for path in (CHECKOUT / top).rglob("*.py")}
    bare = {folder for folder in folders if not (folder / "__init__.py").is_file()}
    assert bare <= {CHECKOUT / folder for folder in TOP_FOLDERS}


@pytest.mark.parametrize("folder", TOP_FOLDERS)
def test_top_folders_never_shadow_another_distribution(folder: str) -> None:
    """With an `__init__.py` our kernels/ would replace Hugging Face's `kernels` for whoever starts Python here."""
    code = f"import importlib.util as u; s = u.find_spec({folder!r}); print(s.origin if s else None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert str(CHECKOUT) not in done.stdout
    assert not (CHECKOUT / folder / "__init__.py").exists()


def test_the_checkout_finds_its_folders_from_anywhere(tmp_path: Path) -> None:
    code = "import lrm_ttt.kernels.rasterizer as r, lrm_ttt.configs, lrm_ttt.train, lrm_ttt.eval; print(r.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert Path(done.stdout.strip()).parent == CHECKOUT / "kernels" / "rasterizer"


def test_the_wheel_holds_the_tree_and_needs_no_compiler() -> None:
    """Every module, configuration and weight file is in it, and nothing else; `make wheel-check` builds a full one."""
    command = [sys.executable, str(CHECKOUT / ".ci" / "check_wheel.py"), "--without-compiler"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pre_commit_runs_the_same_ruff_as_the_dev_extra() -> None:
    (pinned,) = [name for name in PYPROJECT["project"]["optional-dependencies"]["dev"] if name.startswith("ruff")]
    hooks = (CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert hooks.count("[ruff==") == hooks.count(f"[{pinned}]") > 0
