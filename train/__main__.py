"""Run `lrm-ttt train` as `accelerate launch -m lrm_ttt.train CONFIG -o DIR`."""

import sys

from lrm_ttt.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
