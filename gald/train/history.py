"""What a training writes down while it runs: one JSON line per interval, and a line on the terminal."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from gald import files
from gald.progress import spell

CSV_ROWS = 200
_LOG = logging.getLogger("gald.train")
_LOGGERS = ("gald", "gald.train", "gald.models")
_PLAIN_LINE_EVERY_S = 15.0
_LIVE_LINE_EVERY_S = 0.2


def append(path: Path, line: dict[str, Any]) -> None:
    """Add one line to a history."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.naming(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Lines of a history; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():  # a crash may leave garbage
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def truncate(path: Path, iteration: int) -> None:
    """Forget what was written after `iteration`, since a resumed training writes it again."""
    kept = [line for line in read(path) if line["iteration"] <= iteration]
    files.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def as_csv(lines: list[dict[str, Any]], rows: int = CSV_ROWS) -> str:
    r"""Thin a history evenly to at most `rows` lines of iteration, loss and learning rate; the last one stays.

    Examples
    --------
    >>> as_csv([{"iteration": i, "loss": 1 / i, "learning_rate": 0.01} for i in (10, 20, 30)], rows=2)
    'iteration,loss,learning_rate\n10,0.1,0.01\n30,0.0333333,0.01\n'
    """
    stride = max(1, -(-len(lines) // rows))
    kept = lines[::-1][::stride][::-1]
    body = (f"{line['iteration']},{line['loss']:.6g},{line['learning_rate']:.6g}\n" for line in kept)
    return "iteration,loss,learning_rate\n" + "".join(body)


class Progress:
    """Tell how far a training is: one updating line at a terminal, else a plain line now and then.

    Parameters
    ----------
    run : str
        Name of the run, which starts each line.
    start, stop : int
        Iterations made before, and to be made in all.
    """

    _shown_live: ClassVar[bool] = False  # whether the terminal's last line is one that will be replaced

    def __init__(self, run: str, start: int, stop: int) -> None:
        self._run = run
        self._start = start
        self._stop = stop
        self._began = self._shown = time.monotonic()
        # With a log file the caller is a workflow, whose jobs would overwrite each other's line.
        logs = logging.getLogger("gald").handlers
        self._live = sys.stderr.isatty() and not any(isinstance(handler, logging.FileHandler) for handler in logs)
        if self._live:
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(_make_room)  # adding one twice does nothing

    def show(self, iteration: int, loss: float) -> None:
        """Say that `iteration` iterations are done."""
        now = time.monotonic()
        done = iteration == self._stop
        if now - self._shown < (_LIVE_LINE_EVERY_S if self._live else _PLAIN_LINE_EVERY_S) and not done:
            return
        self._shown = now
        pace = (now - self._began) / (iteration - self._start)
        line = f": {iteration}/{self._stop}, loss {loss:.4f}, {pace:.3g} s/it, "
        line += f"took {spell(now - self._began)}" if done else f"{spell(pace * (self._stop - iteration))} left"
        if not self._live:
            _LOG.info("%s%s", self._run, line)
            return
        width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be replaced
        sys.stderr.write(f"\r\x1b[K{_end_of(self._run, width - len(line))}{line}"[: width + len("\r\x1b[K")])
        sys.stderr.write("\n" if done else "")
        sys.stderr.flush()
        Progress._shown_live = not done


def _end_of(name: str, width: int) -> str:
    """Shorten a name to some columns; its end tells runs apart, and what follows it matters more."""
    if len(name) <= width:
        return name
    return f"...{name[len(name) - width + 3 :]}" if width > 3 else ""


def _make_room(_record: logging.LogRecord) -> bool:
    """Take the updating line away before a message would be written behind it."""
    if Progress._shown_live:
        sys.stderr.write("\r\x1b[K")
        Progress._shown_live = False
    return True
