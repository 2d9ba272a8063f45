"""The errors a user can cause, each with the remedy in its text and an exit status."""

from __future__ import annotations


class SaccadeError(Exception):
    """A problem that the user can fix; the text names the file or field, what was expected and what to do.

    The command line prints it without a traceback and leaves with :attr:`exit_status`.
    """

    exit_status = 2


class ConfigurationError(SaccadeError):
    """A configuration field, file or command-line option is wrong."""


class SceneError(SaccadeError):
    """A scene cannot be used: missing file or prim, no physics, no humanoid."""


class ModelError(SaccadeError):
    """A network cannot be used: unreadable, corrupt, or with other inputs and outputs than configured."""


class DependencyError(SaccadeError):
    """An optional dependency is missing; the text holds the command that installs it."""


class RecordError(SaccadeError):
    """A run folder cannot be read or written."""


class EngineError(SaccadeError):
    """An engine failed while it ran; the run is invalid."""

    exit_status = 3
