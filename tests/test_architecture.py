"""The rules that keep the project readable: who may import whom, what an import costs, how long a file is."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.shared import CHECKOUT

# A folder imports itself and strictly lower floors; folders on one floor never import each other. errors.py is the
# ground that all stand on.
FLOORS = {
    "errors": -1,
    "kernels": 0,
    "config_io": 0,
    "scene": 1,
    "parallel": 2,
    "layers": 3,
    "render": 3,
    "model": 4,
    "data": 4,
    "losses": 4,
    "pipeline": 5,
    "viewer": 5,
    "eval": 6,
    "train": 7,
    "cli": 8,
}
# These hold files, and no code that anybody imports.
DATA_FOLDERS = ("configs", "weights")
KERNELS_MAY_IMPORT = {"torch", "numpy", "triton", "gsplat", "jaxtyping", "lrm_ttt"}

TOP_FOLDERS = ("kernels", "train", "eval", "configs")
SOURCES = [path for folder in ("lrm_ttt", *TOP_FOLDERS) for path in sorted((CHECKOUT / folder).rglob("*.py"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    parts = parts if parts[0] == "lrm_ttt" else ("lrm_ttt", *parts)
    return ".".join(parts).removesuffix(".__init__")


def folder_of(module: str) -> str:
    return [*module.split("."), ""][1]


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Yield every module that is imported anywhere in the file; of `from lrm_ttt import x` the module lrm_ttt.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parents, *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names) if base == "lrm_ttt" else [base]


def imports_of(path: Path, tree: ast.AST | None = None) -> set[str]:
    tree = tree or ast.parse(path.read_text(encoding="utf-8"))
    return set(imports(tree, module_name(path), path.name == "__init__.py"))


def test_every_folder_stands_on_a_floor() -> None:
    folders = {folder_of(module_name(path)) for path in SOURCES} - {""}
    assert folders <= {*FLOORS, *DATA_FOLDERS}


@pytest.mark.parametrize("path", [path for path in SOURCES if path.stem != "__main__"], ids=module_name)
def test_imports_only_lower_floors(path: Path) -> None:
    own = folder_of(module_name(path))
    imported = {folder_of(name) for name in imports_of(path) if name.split(".")[0] == "lrm_ttt"} - {own, "__version__"}
    assert not imported & set(DATA_FOLDERS), "configs/ and weights/ are files: read them through importlib.resources"
    assert own or not imported, "lrm_ttt/__init__.py is imported first, and imports nothing of its own"
    # A __main__.py is exempt: it is a door to the command line, and nobody imports it.
    too_high = {name for name in imported if FLOORS[name] >= FLOORS.get(own, 0)}
    assert not too_high, f"{own} stands on floor {FLOORS.get(own)}: it may not import {sorted(too_high)}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_no_tests_and_no_top_level_folder(path: Path) -> None:
    """`import kernels` would find another distribution's module, or nothing, outside a checkout."""
    assert not {name.split(".")[0] for name in imports_of(path)} & {"tests", *TOP_FOLDERS}


@pytest.mark.parametrize("path", [path for path in SOURCES if "kernels" in path.parts], ids=module_name)
def test_kernels_know_tensors_only(path: Path) -> None:
    third_party = {name.split(".")[0] for name in imports_of(path)} - sys.stdlib_module_names
    assert third_party <= KERNELS_MAY_IMPORT


def test_light_modules_import_no_torch() -> None:
    """Packages, commands and configurations are imported in a fresh interpreter: none of them needs torch to exist."""
    light = [path for path in SOURCES if path.stem in ("__init__", "config") or "cli" in path.parts]
    names = sorted(module_name(path) for path in light if path.stem != "__main__")
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        sys.exit(f'importing {name} imports torch')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    num_lines = len(text.splitlines())
    assert num_lines <= 300
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions if node.end_lineno}
    assert not {name: length for name, length in lengths.items() if length > 60}
