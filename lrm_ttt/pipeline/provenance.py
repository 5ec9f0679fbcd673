"""Where a result came from: versions, commit, time."""

import datetime
import importlib.metadata
import json
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from lrm_ttt import __version__

DISTRIBUTIONS = ("torch", "numpy", "gsplat", "torchmetrics", "pillow")


def provenance(command: str) -> dict[str, Any]:
    """Return what a reader needs to make a result again."""
    versions = {"lrm-ttt": __version__, "python": platform.python_version()}
    versions |= {name: version for name in DISTRIBUTIONS if (version := _version(name))}
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "platform": platform.platform(),
        "versions": versions,
    }


def commit() -> str | None:
    """Return the commit of this code: git's in a checkout, the installer's record otherwise, or None."""
    root = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is not None and (root / ".lrm-ttt-checkout").is_file():
        command = [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    try:
        record = importlib.metadata.distribution("lrm-ttt").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    installed = json.loads(record or "{}").get("vcs_info", {}).get("commit_id")
    return installed if isinstance(installed, str) else None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
