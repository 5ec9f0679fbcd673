"""Measure the plane sweep: `python -m tests.kernels.plane_sweep.benchmark`.

Prints a Markdown table of milliseconds (least of several runs): processor time of one thread for each instruction set,
wall time of two threads for the best of them, and for the reference.
"""

import sys
import time
from collections.abc import Callable

import torch

from lrm_ttt.kernels.plane_sweep.cpu import instruction_sets, plane_sweep_cpu
from lrm_ttt.kernels.plane_sweep.reference import plane_sweep_reference
from tests.kernels.plane_sweep.rig import around, random_origins

# Views, pixels a side, planes, neighbours, silhouettes.
CASES = [(12, 64, 32, 4, 8), (12, 64, 32, 4, 0), (8, 128, 32, 4, 8), (8, 128, 48, 4, 8)]


def least_ms(run: Callable[[], object], clock: Callable[[], float], runs: int = 40) -> float:
    """Return the least time of one run, in milliseconds."""
    least = float("inf")
    for _ in range(runs):
        start = clock()
        run()
        least = min(least, clock() - start)
    return 1000 * least


def measure(views: int, size: int, planes: int, colours: int, carving: int) -> str:
    """Return a row of the table."""
    arguments = around(random_origins(views), size, size, planes, colours, carving).to(torch.float32).arguments
    columns = [
        least_ms(lambda name=name: plane_sweep_cpu(*arguments, threads=1, instruction_set=name), time.process_time)
        for name in instruction_sets()
    ]
    columns.append(least_ms(lambda: plane_sweep_cpu(*arguments, threads=2), time.perf_counter))
    columns.append(least_ms(lambda: plane_sweep_reference(*arguments), time.perf_counter, runs=2))
    case = f"{views} of {size}x{size}, {planes} planes, {colours} neighbours, {carving} silhouettes"
    return f"| {case} | {' | '.join(f'{column:.1f}' for column in columns)} |"


if __name__ == "__main__":
    torch.set_num_threads(2)
    titles = ["views", *instruction_sets(), "two threads", "reference"]
    sys.stdout.write(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|\n")
    for each in CASES:
        sys.stdout.write(measure(*each) + "\n")
        sys.stdout.flush()
