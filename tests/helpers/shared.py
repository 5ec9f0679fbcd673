"""Find the data that the tests share with other checkouts: captures and parity fixtures.

It is the folder `shared` beside the checkout, or the one that LRM_TTT_SHARED names. It is too large for the repository,
so a test that needs it is skipped where it is absent. In continuous integration that would hide a lost fixture: with
CI=true and the folder there, what is missing inside it fails.
"""

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def shared_root() -> Path:
    """Return the folder of shared data, which need not exist."""
    return Path(os.environ.get("LRM_TTT_SHARED") or CHECKOUT.parent / "shared")


def shared_path(*parts: str) -> Path:
    """Return a file or folder of the shared data, for example `shared_path("data", "fox")`; skip the test without it.

    May be called at the top of a module too, where it skips the module.
    """
    root = shared_root()
    path = root.joinpath(*parts)
    if path.exists():
        return path
    reason = f"no shared data at {path} (put it beside the checkout, or name its folder in LRM_TTT_SHARED)"
    if os.environ.get("CI") == "true" and root.is_dir():
        pytest.fail(f"{reason}; a skip for this reason is a failure in CI", pytrace=False)
    pytest.skip(reason, allow_module_level=True)
