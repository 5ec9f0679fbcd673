"""A folder with what was measured so far: results.jsonl as it comes, table.md and plot.png at the end."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lrm_ttt.eval.speed.config import Stage
from lrm_ttt.eval.speed.rows import Row, table_head, table_line
from lrm_ttt.pipeline.outputs import check_replaceable, refusals_explained

NAMES = frozenset({"results.jsonl", "table.md", "plot.png"})


class Report:
    """Take measurements one by one, append them to results.jsonl and say them as lines of Markdown.

    An interrupted run leaves all that it has measured. Raises `OutputExists` for a folder that holds a result already
    (unless `overwrite`) or anything else, and `LrmTttError` where the system refuses to write.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], overwrite: bool = False) -> None:
        self.folder = folder.expanduser().resolve()
        self.rows: list[Row] = []
        self.lines: list[str] = []
        self._say = say
        self._start = time.monotonic()
        with refusals_explained(self.folder):
            check_replaceable(self.folder, overwrite, NAMES)
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in NAMES:
                (self.folder / name).unlink(missing_ok=True)

    def line(self, text: str) -> None:
        """Add a line to the table."""
        self.lines.append(text)
        self._say(text)

    def begin(self, stage: Stage) -> None:
        """Begin the table of a stage."""
        for text in table_head(stage):
            self.line(text)

    def add(self, row: Row) -> None:
        """Keep a measurement."""
        self.rows.append(row)
        self.record(dataclasses.asdict(row))
        self.line(table_line(row))

    def record(self, values: dict[str, Any]) -> None:
        """Append a line to results.jsonl, with the seconds since the beginning."""
        values = values | {"at_s": round(time.monotonic() - self._start, 2)}
        with refusals_explained(self.folder), (self.folder / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def write_table(self) -> None:
        """Write table.md by atomic rename."""
        with refusals_explained(self.folder):
            partial = self.folder / "table.md.partial"
            partial.write_text("\n".join(self.lines) + "\n", encoding="utf-8")
            partial.replace(self.folder / "table.md")
