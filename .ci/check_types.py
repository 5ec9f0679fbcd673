"""Run mypy on the built wheel, unpacked: mypy cannot follow the mapping of a checkout, nor an editable install."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from clean_wheel import CHECKOUT, build_wheel


def main() -> int:
    """Build, unpack, check."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(build_wheel(Path(folder, "build"), compiler=False)) as archive:
            archive.extractall(Path(folder, "package"))
        # Path arguments would be taken for separate modules; the package's name is looked up along MYPYPATH first.
        command = [sys.executable, "-m", "mypy", "--config-file", str(CHECKOUT / "pyproject.toml")]
        command += ["--cache-dir", str(CHECKOUT / ".mypy_cache"), "--package", "lrm_ttt"]
        environment = {**os.environ, "MYPYPATH": str(Path(folder, "package"))}
        return subprocess.run(command, cwd=Path(folder, "package"), env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
