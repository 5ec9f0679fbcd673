"""A folder of results that appears at once: whoever interrupts a run finds the previous result, or the new one."""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Set
from pathlib import Path

from lrm_ttt.errors import LrmTttError, OutputExists

# All that a folder of results may hold. With anything else in it, it is not only ours, and is not replaced.
RESULT_NAMES = frozenset(
    {
        "scene.ply",
        "state.safetensors",
        "triplanes.safetensors",
        "metrics.json",
        "config.yaml",
        "report.html",
        "sheet.png",
        "video.mp4",
        "renders",
    }
)
# What the system says when it will not write, as opposed to a mistake of ours.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
LINUX_AT_FDCWD, LINUX_RENAME_EXCHANGE = -100, 2
MACOS_RENAME_SWAP = 2


@contextlib.contextmanager
def output_folder(out: Path | str, *, overwrite: bool = False, names: Set[str] = RESULT_NAMES) -> Iterator[Path]:
    """Yield an empty folder beside `out` that takes its place when the block ends, and vanishes when it raises.

    `names` are all that an earlier result may hold.
    Folders that killed runs left behind are removed, and an earlier result that such a run had moved aside returns.
    Raises `OutputExists` for an `out` that holds a result already (unless `overwrite`) or anything else, before the
    block runs, and `LrmTttError` where the system refuses to write.
    """
    out = Path(out).expanduser().resolve()
    with refusals_explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        clean_up(out)
        check_replaceable(out, overwrite, names)
        folder, lock = _make_locked(out)
        try:
            yield folder
            check_replaceable(out, overwrite, names)
            swap_in(folder, out)
        finally:
            # After a swap this is the earlier result, otherwise the unfinished one.
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def check_replaceable(out: Path, overwrite: bool, results: Set[str] = RESULT_NAMES) -> None:
    """Raise `OutputExists` unless `out` is absent, empty, or (with `overwrite`) a folder of results."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputExists(f"{out}: is a file, where a folder of results belongs. Name another one with -o.")
    names = sorted(path.name for path in out.iterdir())
    foreign = [name for name in names if name not in results]
    if foreign:
        few = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise OutputExists(
            f"{out}: holds what is no part of a result ({few}), and is left as it is. Name another folder with -o."
        )
    if names and not overwrite:
        raise OutputExists(f"{out}: holds a result already. Pass --overwrite to replace it, or name another folder.")


def clean_up(out: Path) -> None:
    """Remove what killed runs left beside `out`; folders of runs that are alive are locked, and stay."""
    if not out.parent.is_dir():
        return
    earlier = out.with_name(f".{out.name}.earlier")
    if earlier.is_dir():
        # Only where two folders cannot be exchanged at once, and a run was killed between two renames.
        if not out.exists():
            earlier.rename(out)
        else:
            shutil.rmtree(earlier, ignore_errors=True)
    for path in out.parent.iterdir():
        if not path.name.startswith(f".{out.name}.partial-") or not path.is_dir():
            continue
        lock = _lock(path, wait=False)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def swap_in(folder: Path, out: Path) -> None:
    """Rename `folder` to `out`; an earlier `out` takes the name of `folder`, in the same instant where systems can."""
    if not out.exists() or not any(out.iterdir()):
        folder.replace(out)
        return
    if _exchange(folder, out):
        return
    earlier = out.with_name(f".{out.name}.earlier")
    out.rename(earlier)
    folder.rename(out)
    shutil.rmtree(earlier, ignore_errors=True)


@contextlib.contextmanager
def refusals_explained(path: Path) -> Iterator[None]:
    """Turn a full disk, a quota or a missing permission into an `LrmTttError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        place = path if path.is_dir() else path.parent
        remedy = "Choose another place with -o."
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and place.is_dir():
            remedy = f"{shutil.disk_usage(place).free / 1e6:.0f} MB are free there: make room, or choose another place."
        raise LrmTttError(f"{path}: cannot be written ({os.strerror(error.errno or 0)}). {remedy}") from error


def _make_locked(out: Path) -> tuple[Path, int]:
    """Make the folder to write in, and hold a lock on it that ends with this process."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        # mkdtemp is private; a result is as readable as any folder that the user makes.
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        lock = _lock(folder, wait=True)
        # Another run may have taken it for an abandoned one before it was locked.
        if lock is not None and folder.is_dir() and os.path.samestat(os.fstat(lock), folder.stat()):
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """Return a descriptor that locks a folder, or None where another process has the lock or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        # Some network file systems know no locks: nothing is then known to be abandoned, and nothing is removed.
        if wait:
            return descriptor
        os.close(descriptor)
        return None
    return descriptor


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False where system or file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        here = LINUX_AT_FDCWD
        return bool(libc.renameat2(here, names[0], here, names[1], LINUX_RENAME_EXCHANGE) == 0)
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        return bool(libc.renamex_np(*names, MACOS_RENAME_SWAP) == 0)
    return False
