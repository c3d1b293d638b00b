"""Who speaks when several processes train together: the first one, and of a failure the one that failed.

What happens to all is told by the first process. The others tell only what is wrong with themselves, under their rank;
and an end that another process explains is no news.
"""

from __future__ import annotations

import logging
from typing import TypeVar

from gald.errors import ParamsError
from gald.process.ranks import ranks

E = TypeVar("E", bound=Exception)
_LOGGERS = ("gald", "gald.train", "gald.models")  # each by itself: a logger's filter does not see what children log
_TOLD = "_told_elsewhere"


def of_several() -> None:
    """Let the log messages of this process be those of one of several, if torchrun says that it is one."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_speak)  # adding one twice does nothing


def told_elsewhere(error: E) -> E:
    """Mark an error whose cause another process tells: it ends this one without a word."""
    setattr(error, _TOLD, True)
    return error


def is_told_elsewhere(error: BaseException) -> bool:
    """Whether another process tells the cause of an error."""
    return getattr(error, _TOLD, False)


def _speak(record: logging.LogRecord) -> bool:
    """Drop what another process tells, and say whose the rest is."""
    try:
        rank, size, _ = ranks()
    except ParamsError:  # the verb refuses it, and must be heard
        return True
    if size == 1:
        return True
    arguments = record.args if isinstance(record.args, tuple) else ()
    if any(isinstance(argument, BaseException) and is_told_elsewhere(argument) for argument in arguments):
        return False
    if rank == 0 and record.levelno < logging.ERROR:
        return True
    record.msg = f"process {rank} of {size}: {record.msg}"
    return record.levelno >= logging.WARNING
