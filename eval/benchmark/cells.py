"""Which cells a benchmark has, in which order they run, and how long the rest will take."""

import dataclasses
import difflib
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.benchmark.config import BenchmarkConfig, MethodConfig

# Seconds that are guessed of one step, and of what comes with every cell, until one of them has finished.
STEP_S, CELL_S = 0.01, 2.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """One method on one scene with one number of input views."""

    scene: str
    method: str
    views: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Cell":
        """Return the cell of a row of results.jsonl."""
        return cls(row["scene"], row["method"], row["views"])

    def __str__(self) -> str:
        return f"{self.method} on {self.scene}, {self.views} views"


@dataclasses.dataclass(frozen=True)
class Subset:
    """What of a benchmark to run now; empty is all."""

    methods: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    views: tuple[int, ...] = ()

    def check(self, config: BenchmarkConfig, scenes: Sequence[str]) -> None:
        """Raise `InvalidConfig` for what the benchmark does not have."""
        _check_known("--only-methods", self.methods, [method.name for method in config.methods])
        _check_known("--only-scenes", self.scenes, scenes)
        _check_known("--views", self.views, config.views)

    def __contains__(self, cell: Cell) -> bool:
        return all(
            not some or each in some
            for some, each in ((self.methods, cell.method), (self.scenes, cell.scene), (self.views, cell.views))
        )


def slug(name: str) -> str:
    """Return a name that every file system and every link takes."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.") or "unnamed"


def check_methods(methods: Sequence[MethodConfig]) -> None:
    """Raise `InvalidConfig` for methods that could not be told from each other."""
    seen: dict[str, str] = {}
    for method in methods:
        if slug(method.name) in seen:
            raise InvalidConfig(
                f"methods: '{seen[slug(method.name)]}' and '{method.name}' would write to the same files. Rename one."
            )
        seen[slug(method.name)] = method.name


def steps(method: MethodConfig) -> int:
    """Return how many steps of optimisation a method takes."""
    if method.feed_forward is not None:
        return method.feed_forward.refine
    optimised = method.optimise or method.scaffold
    return 0 if optimised is None else optimised.iterations


def in_order(cells: Iterable[Cell], methods: Sequence[MethodConfig]) -> list[Cell]:
    """Return cells so that a table is soon of use: what takes no steps, then number by number of views, scene by scene.

    `next_cell` deviates from it towards the end.
    """
    long = {method.name: steps(method) for method in methods}
    numbers = {views: index for index, views in enumerate(sorted({cell.views for cell in cells}))}
    return sorted(cells, key=lambda cell: (long[cell.method] > 0, numbers[cell.views] if long[cell.method] else 0))


class Estimate:
    """How long cells take, from those that have finished: of the same method, at best with as many views."""

    def __init__(self, methods: Sequence[MethodConfig], rows: Iterable[Mapping[str, Any]]) -> None:
        self._guess = {method.name: CELL_S + STEP_S * steps(method) for method in methods}
        self._found: dict[tuple[str, int], list[float]] = {}
        for row in rows:
            self.learn(row)

    @property
    def known(self) -> bool:
        """Whether any cell has finished."""
        return bool(self._found)

    def learn(self, row: Mapping[str, Any]) -> None:
        """Take a finished cell into account."""
        if row["status"] == "done":
            self._found.setdefault((row["method"], row["views"]), []).append(row["cell_seconds"])

    def seconds(self, cell: Cell) -> float:
        """Return the seconds that a cell will take."""
        if same := self._found.get((cell.method, cell.views)):
            return statistics.fmean(same)
        if alike := [each for (method, _), found in self._found.items() if method == cell.method for each in found]:
            return statistics.fmean(alike)
        # What others took more or less than was guessed of them, this one will too.
        taken = sum(each for found in self._found.values() for each in found)
        guessed = sum(self._guess[method] * len(found) for (method, _), found in self._found.items())
        return self._guess[cell.method] * (taken / guessed if guessed else 1.0)

    def remaining(self, waiting: Sequence[Cell], running: Mapping[Cell, float], workers: int) -> float:
        """Return the seconds until all is done, with cells that wait and those that have run for so many seconds."""
        rests = [max(self.seconds(cell) - since, 0.0) for cell, since in running.items()]
        waits = [self.seconds(cell) for cell in waiting]
        return max([(sum(rests) + sum(waits)) / workers, *rests, *waits], default=0.0)


def next_cell(waiting: Sequence[Cell], estimate: Estimate, workers: int) -> Cell:
    """Return the first cell, or the longest one where what is left would else end with one worker alone at it."""
    seconds = {cell: estimate.seconds(cell) for cell in waiting}
    longest = max(waiting, key=seconds.__getitem__)
    return longest if workers * seconds[longest] >= sum(seconds.values()) else waiting[0]


def _check_known(flag: str, asked: Sequence[Any], known: Sequence[Any]) -> None:
    for each in asked:
        if each not in known:
            nearest = difflib.get_close_matches(str(each), list(map(str, known)), n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(map(str, known))}."
            raise InvalidConfig(f"{flag} {each}: the benchmark has none; {hint}")
