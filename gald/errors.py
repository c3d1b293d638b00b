"""Errors a user can act on: each message names the file, key or value, and says what to do."""


class GaldError(Exception):
    """Base of all errors that end a command with one clear line instead of a traceback."""


class ParamsError(GaldError):
    """A parameter file says something unknown, of the wrong type, or impossible."""


class DatasetError(GaldError):
    """Raw or prepared data is missing, damaged, or not what its benchmark promises."""


class ArchiveError(DatasetError):
    """An archive cannot be had, is damaged, or holds what it must not hold."""


class ModelError(GaldError):
    """A network cannot be built as asked, or weights do not fit it."""


class TrainingDiverged(GaldError):
    """The loss is no longer finite; the message names iteration, samples and learning rate."""


class TrainingInterrupted(GaldError):
    """Training stopped before its last iteration and can be resumed by the same command."""


class RunBusy(GaldError):
    """Another process holds the run; two must never write one folder."""


class StaleMetrics(GaldError):
    """Metrics or predictions belong to other weights than the ones now present."""
