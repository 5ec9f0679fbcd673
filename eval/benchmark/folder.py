"""The folder of a benchmark: what it is of, the rows as they come, and going on where an earlier run ended."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lrm_ttt.errors import OutputExists
from lrm_ttt.eval.benchmark.cells import Cell
from lrm_ttt.pipeline.outputs import check_replaceable, refusals_explained

DESCRIPTION, ROWS, VIEW_LISTS = "benchmark.json", "results.jsonl", "view_lists.json"
TABLE, PAGE, WORK = "table.md", "report.html", "work"
NAMES = frozenset({DESCRIPTION, ROWS, VIEW_LISTS, TABLE, PAGE, WORK, "truths", "renders"})
# Where the captures lie, and what the tables say beside the numbers, does not change any result.
MAY_DIFFER = frozenset({"data", "missing", "remarks"})


class ResultFolder:
    """A folder that one run at a time writes to; `rows` are the latest of each cell.

    Raises `OutputExists` for a folder that holds something else, another benchmark, or is written to by another run,
    and `LrmTttError` where the system refuses to write.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path = path.expanduser().resolve()
        with refusals_explained(self.path):
            if not self.path.is_dir():
                check_replaceable(self.path, True, NAMES)
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
            try:
                for name in NAMES:
                    _partial(self.path / name).unlink(missing_ok=True)
                check_replaceable(self.path, True, NAMES)
                if overwrite:
                    self._empty()
                self.earlier = self._check_same(identity)
                self.rows = {Cell.of(row): row for row in self._read_rows()}
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let other runs write here."""
        os.close(self._lock)

    def drop(self, cells: Iterable[Cell]) -> None:
        """Forget the rows of cells that run again, and what is left of a row that was not written to its end."""
        for cell in cells:
            self.rows.pop(cell, None)
        text = "".join(map(_line, self.rows.values()))
        path = self.path / ROWS
        if text != (path.read_text(encoding="utf-8") if path.is_file() else ""):
            self.write(ROWS, text)

    def append(self, row: Mapping[str, Any]) -> None:
        """Keep a row, whatever happens afterwards."""
        self.rows[Cell.of(row)] = dict(row)
        with refusals_explained(self.path):
            descriptor = os.open(self.path / ROWS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                rest = _line(row).encode()
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def write(self, name: str, text: str) -> None:
        """Write a file by atomic rename."""
        with refusals_explained(self.path):
            write_whole(self.path / name, text)

    def remove_work(self) -> None:
        """Remove what only cells need."""
        shutil.rmtree(self.path / WORK, ignore_errors=True)

    def _empty(self) -> None:
        for name in NAMES:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _check_same(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the description that an earlier run left, None in a new folder."""
        path = self.path / DESCRIPTION
        if not path.is_file():
            # A run that was ended before it had begun leaves no rows.
            check_replaceable(self.path, False, NAMES - {WORK})
            return None
        try:
            earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            differs = difference(earlier["config"] | {"device": earlier["hardware"]["device"]}, identity)
        except (ValueError, KeyError, TypeError) as error:
            raise OutputExists(
                f"{path}: is not what a benchmark writes. Name another folder with -o, or pass --overwrite."
            ) from error
        if differs:
            raise OutputExists(
                f"{self.path}: holds results of another benchmark: {differs}. Name another folder with -o, or pass "
                "--overwrite to begin anew."
            )
        return earlier

    def _read_rows(self) -> list[dict[str, Any]]:
        path = self.path / ROWS
        return read_rows(path) if path.is_file() else []


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of results.jsonl; a line that was not written to its end is left out, and its cell runs again."""
    rows = []
    for line in path.read_bytes().splitlines(keepends=True):
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def write_whole(path: Path, text: str) -> None:
    """Write a text file by atomic rename."""
    partial = _partial(path)
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def difference(there: Any, here: Any, where: str = "") -> str:
    """Return in words the first place where two configurations differ, or nothing."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        keys = [key for key in (*there, *(key for key in here if key not in there)) if where or key not in MAY_DIFFER]
        pairs = ((f"{where}.{key}" if where else key, there.get(key), here.get(key)) for key in keys)
    elif _is_list(there) and _is_list(here) and len(there) == len(here):
        pairs = ((f"{where}[{index}]", *pair) for index, pair in enumerate(zip(there, here, strict=True)))
    else:
        return "" if there == here else f"{where} is {_short(there)} there and {_short(here)} here"
    return next((found for name, first, second in pairs if (found := difference(first, second, name))), "")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def as_json(value: Any) -> str:
    """Return the text of a JSON file that people read too."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _locked(path: Path) -> int:
    """Return a descriptor that keeps other runs out for as long as this process lives."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OutputExists(f"{path}: another run writes here. Wait for its end, or name another folder.") from error
    except OSError:
        # Some network file systems know no locks.
        return descriptor
    return descriptor
