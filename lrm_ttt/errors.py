"""Errors that a user can cause, and can therefore mend.

Every message says what is wrong, where, and what to do now. The command line prints the message alone and exits with
status 2. A mistake that only a programmer can make is an `assert`, never one of these.
"""


class LrmTttError(ValueError):
    """Say what is wrong with the user's input, where, and what to do now."""


class UnreadableScene(LrmTttError):
    """A capture cannot be opened: no cameras, a missing or broken image, a matrix that is not rigid."""


class IncompatibleCheckpoint(LrmTttError):
    """A checkpoint, scene state or .ply is corrupt, or was made for something else; the message says what differs."""


class InvalidConfig(LrmTttError):
    """A configuration or a command-line value is out of range, unknown or contradicts another one."""


class BackendUnavailable(LrmTttError):
    """A device, a backend or an optional dependency was asked for by name and is not there."""


class OutputExists(LrmTttError):
    """The output folder holds another result, and nobody asked to replace it."""


class RunFailed(LrmTttError):
    """A run cannot go on: it diverged, its data is broken, or its disk is full; the message says what is kept."""
