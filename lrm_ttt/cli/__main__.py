"""Run the command line as `python -m lrm_ttt.cli`."""

import sys

from lrm_ttt.cli import main

sys.exit(main())
