"""Measure how fast this machine runs the model, and how near that is to what the machine can do.

`lrm-ttt benchmark speed` measures the ceilings of the machine (memory, products, attention), every operation in its
variants, each beside its check against float64, the model against the layout that is published, and the time against
the number of views. It needs no data and no weights, and prints Markdown tables as they grow, then one line of JSON.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lrm_ttt.eval.speed.config import Stage


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Arguments:
    """What to measure, for how long, and where the numbers go."""

    what: Annotated[tyro.conf.Positional[Literal["speed"]], tyro.conf.arg(metavar="speed")]
    """What to measure: so far the speed alone."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")] = Path("speed")
    """The folder for results.jsonl (as they come), table.md and plot.png."""
    minutes: float = 8.0
    """How long it may take in all; the table says what there was no time for."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    only: tuple[Stage, ...] = ()
    """Stages to run, in place of all; shares of the ceilings need those."""
    views: tuple[int, ...] = ()
    """Numbers of views to time, in place of 8, 16, ... 256."""
    overwrite: bool = False
    """Replace an earlier result in the output folder."""


def run(arguments: Arguments) -> None:
    """Measure, and print tables and the line of JSON."""
    import functools
    import json

    from lrm_ttt.cli.console import command_line, say_peak_memory
    from lrm_ttt.eval.speed.config import default_config
    from lrm_ttt.eval.speed.run import Options, benchmark
    from lrm_ttt.pipeline.checkpoint import choose_device

    options = Options(arguments.output, arguments.minutes, arguments.only, arguments.views, arguments.overwrite)
    device = choose_device(arguments.device)
    say = functools.partial(print, flush=True)
    found = benchmark(default_config(device.type), options, device, say, command_line("benchmark"))
    print()
    print(json.dumps(found))
    say_peak_memory()
