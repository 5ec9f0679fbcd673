"""The command line: find the subcommand, read its arguments, run it, and turn what goes wrong into an exit status.

A subcommand is a module of this folder with a frozen dataclass `Arguments`, from which flags and help are made (the
docstring under a field is its help text), and a function `run(arguments)`. Such a module imports torch, and what needs
it, inside `run`: help and typing mistakes are then answered at once.
"""

import difflib
import importlib
import os
import select
import sys
import time
from collections.abc import Sequence
from types import ModuleType

from lrm_ttt import __version__
from lrm_ttt.errors import LrmTttError

COMMANDS = {
    "reconstruct": "posed images to Gaussian splats, with a report",
    "stream": "posed images as they come to Gaussian splats, step after step",
    "render": "a saved scene (.ply, triplanes or state) to images or a video",
    "data": "data sets to shards, and what is wrong with captures",
    "train": "train or resume a model from a YAML file",
    "benchmark": "methods compared on scenes, or how fast this machine is",
    "import-weights": "a published checkpoint to a model folder",
    "doctor": "what this installation has, and what it lacks",
}

SECONDS_FOR_THE_FIRST = 3.0
DONE, OUR_MISTAKE, USERS_MISTAKE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 the user's mistake, 130 interrupted.

    A mistake of ours leaves as the exception that it is, so that Python prints the traceback and exits with 1.
    """
    # Idle OpenMP threads otherwise spin, and torch reads this once, when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return DONE if words else USERS_MISTAKE
    if words[0] in ("-V", "--version"):
        print(f"lrm-ttt {__version__}")
        return DONE
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        print(unknown_command(name), file=sys.stderr)
        return USERS_MISTAKE
    try:
        run(name, rest)
        sys.stdout.flush()
    except LrmTttError as error:
        # Of processes that were launched together the first one speaks, and the launcher then ends the others.
        time.sleep(SECONDS_FOR_THE_FIRST if int(os.environ.get("LOCAL_RANK", "0")) else 0)
        print(f"lrm-ttt {name}: {error}", file=sys.stderr)
        return USERS_MISTAKE
    except KeyboardInterrupt:
        print(f"\nlrm-ttt {name}: interrupted", file=sys.stderr)
        # Interrupted within an `exec` of text, as a dataclass is made by, CPython would end itself by SIGINT although
        # the interrupt was caught; another such call makes it forget (_Py_UnhandledKeyboardInterrupt, pythonrun.c).
        exec("")
        return INTERRUPTED
    except BrokenPipeError:
        if not reader_has_left():
            raise
        # Nothing more can be printed; Python would fail again when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def run(name: str, words: Sequence[str]) -> None:
    """Parse the words that follow the command's name and run it; a usage error exits with status 2."""
    import tyro

    module = load_command(name)
    description = module.__doc__ or COMMANDS[name]
    module.run(tyro.cli(module.Arguments, prog=f"lrm-ttt {name}", description=description, args=list(words)))


def load_command(name: str) -> ModuleType:
    """Import the module of a command; a dash in the name is an underscore in the module's."""
    return importlib.import_module(f"lrm_ttt.cli.{name.replace('-', '_')}")


def reader_has_left() -> bool:
    """Return whether standard output is a pipe that nobody reads any more, as in `lrm-ttt doctor | head -1`."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lrm-ttt COMMAND ...",
            "",
            "Posed images in, Gaussian splats out.",
            "",
            *rows,
            "",
            "lrm-ttt COMMAND --help lists a command's flags; lrm-ttt --version prints the version.",
        ]
    )


def unknown_command(name: str) -> str:
    """Say that there is no such command, and name the nearest one."""
    nearest = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(COMMANDS)}"
    return f"lrm-ttt: no command is called {name!r}; {hint}"
