"""Every error that umtlib raises on purpose, and its warning.

A message names the offending value, the file if there is one, and the mend. The command line
prints it on one line and exits with status 2.
"""


class UmtError(Exception):
    """Base of all errors raised on purpose by umtlib."""


class UmtWarning(UserWarning):
    """What was mended on the way, or could not be used; the command line prints it on one line."""


class ConfigError(UmtError):
    """A configuration value is unknown, out of range or contradicts another one."""


class AudioError(UmtError):
    """An audio file cannot be read or written, or holds nothing that can be translated."""


class CorpusError(UmtError):
    """A corpus folder or its manifest is missing, damaged or cannot be made."""


class CheckpointError(UmtError):
    """A model folder is missing, damaged or belongs to another configuration."""


class NativeError(UmtError):
    """The package's C++ code cannot be compiled or loaded on this machine."""


class GenerationError(UmtError):
    """A generator was asked for something that it cannot make."""


class TrainingError(UmtError):
    """A training run cannot start, or has gone wrong and stopped itself."""


class EvaluationError(UmtError):
    """The input of a metric does not follow its conventions."""
