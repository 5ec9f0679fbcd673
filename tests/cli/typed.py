"""Run a command as if it had been typed, and collect what it says."""

import sys

import pytest

from lrm_ttt import cli


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message of a command that must end with status 2: from the parser, in a box, or from the command."""
    with pytest.raises(SystemExit) as exit_:
        sys.exit(cli.main(words))
    assert exit_.value.code == cli.USERS_MISTAKE
    said = capsys.readouterr().err
    assert "Traceback" not in said
    boxed = "Value error" in said
    assert boxed != any(line.startswith("lrm-ttt ") for line in said.splitlines()), "one message"
    return " ".join(said.replace("│", " ").split())
