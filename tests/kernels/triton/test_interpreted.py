"""Run the tests of the Triton kernels in Triton's interpreter, in one process of their own."""

from pathlib import Path

from tests.helpers.triton import run_interpreted, skip_without_triton


def test_kernels_interpreted() -> None:
    skip_without_triton()
    run_interpreted(*sorted(Path(__file__).parent.glob("interpreted_*.py")))
