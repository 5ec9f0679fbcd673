"""A folder of results is replaced at once or not at all, whatever ends the run, and only when it is ours."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lrm_ttt.errors import LrmTttError, OutputExists
from lrm_ttt.pipeline import outputs
from lrm_ttt.pipeline.outputs import output_folder, swap_in
from tests.helpers.shared import CHECKOUT


def write_result(out: Path, text: str, *, overwrite: bool = False) -> None:
    with output_folder(out, overwrite=overwrite) as folder:
        (folder / "metrics.json").write_text(text)
        (folder / "renders").mkdir()


def content(out: Path) -> str:
    return (out / "metrics.json").read_text()


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_result_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with output_folder(out) as folder:
        (folder / "metrics.json").write_text("new")
        assert not out.exists()
    assert content(out) == "new"
    assert not hidden(out.parent)


def test_an_earlier_result_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_result(out, "old")
    with pytest.raises(OutputExists, match="--overwrite"):
        write_result(out, "new")
    assert content(out) == "old"
    write_result(out, "new", overwrite=True)
    assert content(out) == "new"
    assert not hidden(tmp_path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputExists, match=r"thesis\.tex"):
        write_result(tmp_path / "out", "new", overwrite=overwrite)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExists, match="is a file"):
        write_result(tmp_path / "file", "new", overwrite=overwrite)
    assert (tmp_path / "out" / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "mine"


def write_half(out: Path, what: BaseException) -> None:
    with output_folder(out, overwrite=True) as folder:
        (folder / "metrics.json").write_text("half")
        raise what


@pytest.mark.parametrize("what", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_the_earlier_result(tmp_path: Path, what: type[BaseException]) -> None:
    write_result(tmp_path / "out", "old")
    with pytest.raises(what):
        write_half(tmp_path / "out", what())
    assert content(tmp_path / "out") == "old"
    assert not hidden(tmp_path)


def test_without_an_exchange_of_folders_two_renames_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_exchange", lambda first, second: False)
    write_result(tmp_path / "out", "old")
    write_result(tmp_path / "out", "new", overwrite=True)
    assert content(tmp_path / "out") == "new"
    assert not hidden(tmp_path)


def test_an_exchange_is_one_step_here(tmp_path: Path) -> None:
    """The file systems of Linux and macOS that people work on can; the earlier result is then never out of place."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(name)
    if not outputs._exchange(tmp_path / "first", tmp_path / "second"):
        pytest.skip("this file system cannot exchange two folders")
    assert (content(tmp_path / "first"), content(tmp_path / "second")) == ("second", "first")
    swap_in(tmp_path / "first", tmp_path / "second")
    assert content(tmp_path / "second") == "second"


def test_a_run_killed_between_two_renames_is_mended_by_the_next(tmp_path: Path) -> None:
    write_result(tmp_path / ".out.earlier", "old")
    with pytest.raises(OutputExists):
        write_result(tmp_path / "out", "new")
    assert content(tmp_path / "out") == "old"


KILLED = """
import os, signal, sys
from lrm_ttt.pipeline.outputs import output_folder
with output_folder(sys.argv[1], overwrite=True) as folder:
    (folder / "metrics.json").write_text("half")
    print(folder, flush=True)
    signal.pause()
"""


def test_a_killed_run_leaves_the_earlier_result_and_the_next_cleans_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_result(out, "old")
    command = [sys.executable, "-c", KILLED, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        assert process.stdout is not None
        partial = Path(process.stdout.readline().strip())
        # A second run beside one that is alive keeps off its folder.
        write_result(out, "second", overwrite=True)
        assert partial.is_dir()
        os.kill(process.pid, signal.SIGKILL)
    assert content(out) == "second"
    assert hidden(tmp_path) == [partial.name]
    write_result(out, "third", overwrite=True)
    assert content(out) == "third"
    assert not hidden(tmp_path)


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "MB are free"), (errno.EACCES, "Choose another place")])
def test_what_the_system_refuses_is_said_in_one_message(tmp_path: Path, code: int, words: str) -> None:
    with pytest.raises(LrmTttError, match=words), output_folder(tmp_path / "out"):
        raise OSError(code, os.strerror(code))
    assert not list(tmp_path.iterdir())


def test_other_errors_of_the_system_are_ours(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), output_folder(tmp_path / "out"):
        raise IsADirectoryError(errno.EISDIR, "a mistake")
