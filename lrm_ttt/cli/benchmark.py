"""Compare methods on scenes, or measure how fast this machine is.

`lrm-ttt benchmark CONFIG` runs every method on every scene with every number of input views of a YAML file (or of one
that comes with the package: quick_cpu, full_cpu). Results, a table and a page go to OUT as they come; the same command
goes on with what is not finished there.

`lrm-ttt benchmark speed` measures the ceilings of the machine (memory, products, attention), every operation in its
variants, each beside its check against float64, the model against the layout that is published, and the time against
the number of views. It needs no data and no weights, and prints Markdown tables as they grow, then one line of JSON.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.speed.config import Stage

SPEED = "speed"
MINUTES = 8.0
# The fields of `Arguments` that only one of the two reads.
ONLY_SPEED = ("minutes", "only")
ONLY_CONFIG = ("data", "workers", "threads", "only_methods", "only_scenes", "allow_missing")


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Arguments:
    """What to compare or to measure, and where the numbers go."""

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CONFIG|speed")]
    """A YAML file such as configs/benchmark/quick_cpu.yaml, the name of one that comes with the package, or speed."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="OUT")] = None
    """The folder for results.jsonl (as they come), table.md and report.html or plot.png; otherwise one in this folder
    with the name of the benchmark."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    views: tuple[int, ...] = ()
    """CONFIG: run these of its numbers of input views alone. speed: time these, in place of 8, 16, ... 256."""
    overwrite: bool = False
    """Replace an earlier result in the output folder."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """CONFIG: the folder with the captures, in place of the configuration's."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """CONFIG: how many cells run beside each other."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """CONFIG: threads of each cell (0: all of the machine, shared by the workers)."""
    only_methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """CONFIG: run these methods alone."""
    only_scenes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """CONFIG: run these scenes alone."""
    allow_missing: bool = False
    """CONFIG: leave out captures that are not there; table and page say so."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="N")] = None
    """speed: how long it may take in all (8 minutes); the table says what there was no time for."""
    only: tuple[Stage, ...] = ()
    """speed: stages to run, in place of all; shares of the ceilings need those."""


def run(arguments: Arguments) -> None:
    """Compare methods, or measure the machine."""
    _refuse(arguments, *((SPEED, ONLY_CONFIG) if arguments.what == SPEED else ("CONFIG", ONLY_SPEED)))
    if arguments.what == SPEED:
        _measure_speed(arguments)
    else:
        _compare(arguments)


def _measure_speed(arguments: Arguments) -> None:
    import functools
    import json

    from lrm_ttt.cli.console import command_line, say_peak_memory
    from lrm_ttt.eval.speed.config import default_config
    from lrm_ttt.eval.speed.run import Options, benchmark
    from lrm_ttt.pipeline.checkpoint import choose_device

    minutes = MINUTES if arguments.minutes is None else arguments.minutes
    output = arguments.output or Path(SPEED)
    options = Options(output, minutes, arguments.only, arguments.views, arguments.overwrite)
    device = choose_device(arguments.device)
    say = functools.partial(print, flush=True)
    found = benchmark(default_config(device.type), options, device, say, command_line("benchmark"))
    print()
    print(json.dumps(found))
    say_peak_memory()


def _compare(arguments: Arguments) -> None:
    import dataclasses

    from lrm_ttt.eval.benchmark.shipped import load_config

    config = load_config(arguments.what)
    changes = {name: getattr(arguments, name) for name in ("data", "workers", "threads")}
    changes = {name: str(value) if name == "data" else value for name, value in changes.items() if value is not None}
    config = dataclasses.replace(config, **changes)
    output = arguments.output or Path(config.name)

    from lrm_ttt.cli.benchmark_progress import ProgressLines
    from lrm_ttt.cli.console import command_line
    from lrm_ttt.eval.benchmark.cells import Subset
    from lrm_ttt.eval.benchmark.run import Options, run_benchmark

    options = Options(
        output=output,
        device=arguments.device,
        subset=Subset(arguments.only_methods, arguments.only_scenes, arguments.views),
        overwrite=arguments.overwrite,
        allow_missing=arguments.allow_missing,
        command=command_line("benchmark"),
    )
    with ProgressLines(output) as progress:
        state = run_benchmark(config, options, progress)
    failed = f", of which {state.failed} failed (the same command runs them again)" if state.failed else ""
    print(f"{state.done} of {state.total} cells{failed}")
    print(f"{output / 'table.md'}  {output / 'report.html'}")
    if state.failed:
        raise SystemExit(1)


def _refuse(arguments: Arguments, what: str, foreign: tuple[str, ...]) -> None:
    """Refuse flags that would be ignored."""
    given = [f"--{name.replace('_', '-')}" for name in foreign if getattr(arguments, name) not in (None, (), False)]
    if given:
        belong = "belong" if len(given) > 1 else "belongs"
        other = "CONFIG" if what == SPEED else SPEED
        raise InvalidConfig(f"{' '.join(given)} {belong} to `lrm-ttt benchmark {other}`. Leave it out with {what}.")
