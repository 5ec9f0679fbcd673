"""Build the wheel from a clean copy of the sources, for the checks beside this file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

# Where each folder of the checkout stands in the wheel.
PACKAGE_FOLDERS = {
    "lrm_ttt": "lrm_ttt",
    "kernels": "lrm_ttt/kernels",
    "train": "lrm_ttt/train",
    "eval": "lrm_ttt/eval",
    "configs": "lrm_ttt/configs",
}
BUILD_FILES = ["pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"]
NOT_SOURCE = ["__pycache__", "*.py[cod]", "*.so", "*.dylib", "*.dll", "*.egg-info"]


def build_wheel(folder: Path, compiler: bool = True) -> Path:
    """Build the wheel under an empty folder and return its path; `compiler` False does as if there were none.

    A copy is built, so that neither an old build/ nor a library compiled in place finds its way in. It takes setuptools
    from this environment, and needs no network.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    for name in BUILD_FILES:
        if (CHECKOUT / name).is_file():
            shutil.copy2(CHECKOUT / name, source)
    for name in PACKAGE_FOLDERS:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    command += ["--disable-pip-version-check", "--wheel-dir", str(folder), str(source)]
    environment = {**os.environ, "PIP_NO_INPUT": "1"}
    if not compiler:
        environment |= {"CC": "no-such-compiler", "CXX": "no-such-compiler"}
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=environment)
    (wheel,) = folder.glob("*.whl")
    return wheel
