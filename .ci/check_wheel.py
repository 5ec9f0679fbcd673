"""Fail unless the wheel holds every file of the packages, and nothing else.

setuptools leaves out what pyproject.toml does not list, and says nothing: a forgotten package or YAML file is noticed
by the first user only. With --without-compiler it also shows that the build succeeds on a machine without one.
"""

import fnmatch
import sys
import tempfile
import zipfile
from pathlib import Path

from clean_wheel import CHECKOUT, NOT_SOURCE, PACKAGE_FOLDERS, build_wheel

# Notes for readers of the checkout stay out of the wheel; the compiled rasterizer is in the wheel and not in the tree.
LEFT_OUT = [*NOT_SOURCE, "*.md", ".gitignore"]
COMPILED = ("*.so", "*.dylib", "*.dll", "*.pyd")


def expected_files() -> set[str]:
    """Return the names that the tree asks for, as they stand in the wheel."""
    names = set()
    for folder, place in PACKAGE_FOLDERS.items():
        for path in (CHECKOUT / folder).rglob("*"):
            parts = path.relative_to(CHECKOUT / folder).parts
            left_out = any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in LEFT_OUT)
            if path.is_file() and not left_out:
                names.add("/".join((place, *parts)))
    return names


def wheel_files(wheel: Path) -> tuple[set[str], set[str]]:
    """Return the wheel's own files, and the compiled ones among them."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    compiled = {name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in COMPILED)}
    return names - compiled, compiled


def main() -> int:
    """Build, compare, report."""
    compiler = "--without-compiler" not in sys.argv[1:]
    expected = expected_files()
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder), compiler)
        found, compiled = wheel_files(wheel)
        size_mb = wheel.stat().st_size / 1e6
    for name in sorted(expected - found):
        print(f"missing from the wheel: {name} (list its package or its kind of file in pyproject.toml)")
    for name in sorted(found - expected):
        print(f"in the wheel but not in the tree: {name}")
    print(f"{wheel.name}: {len(found)} files, {size_mb:.1f} MB, compiled: {', '.join(sorted(compiled)) or 'nothing'}")
    num_native = len(list(CHECKOUT.glob("kernels/*/native"))) if compiler else 0
    if len(compiled) != num_native:
        print(f"{len(compiled)} native libraries were built, and {num_native} expected")
    return int(found != expected or len(compiled) != num_native)


if __name__ == "__main__":
    sys.exit(main())
