"""The command line: parsing and messages only; each verb imports its code when it is called."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gald import __version__, watch
from gald.cli import data, measuring, networks, runs
from gald.cli._verb import Action
from gald.errors import GaldError, ParamsError, TrainingInterrupted

LOGGER = logging.getLogger("gald")


def parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs."""
    root = argparse.ArgumentParser(
        prog="gald",
        description="Global aggregation then local distribution: rebuild the paper's tables.",
        epilog="`snakemake --cores all` runs the first of these verbs in order; each can be called alone.",
    )
    root.add_argument("--version", action="version", version=f"gald {__version__}")
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, action: Action, text: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(action=action)
        one.add_argument("--log", type=Path, help="also write plain lines to this file")
        return one

    data.add(verb)
    runs.add(verb)
    networks.add(verb)
    measuring.add(verb)
    return root


@contextmanager
def _messages(log: Path | None) -> Iterator[None]:
    """Send the package's messages to the terminal, and to a file if one is named, for the length of the block."""
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [console]
    level = LOGGER.level
    LOGGER.addHandler(console)
    LOGGER.setLevel(logging.INFO)
    try:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            file = logging.FileHandler(log, mode="w")
            file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            handlers.append(file)
            LOGGER.addHandler(file)
        yield
    finally:
        LOGGER.setLevel(level)
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit status: 0 done, 1 failed, 2 refused params, 75 stopped and resumable."""
    args = parser().parse_args(argv)
    try:
        with _messages(args.log):
            return _status(args)
    except OSError as error:  # the log cannot be written
        return _fail(args.verb, error, 1)


def _status(args: argparse.Namespace) -> int:
    try:
        if args.verb != "train":  # which saves its state before it ends
            watch.end_with_parent()
        args.action(args)
    except ParamsError as error:
        return _fail(args.verb, error, 2)
    except TrainingInterrupted as error:
        return _fail(args.verb, error, watch.EX_TEMPFAIL)
    except (GaldError, OSError) as error:
        return _fail(args.verb, error, 1)
    except KeyboardInterrupt:
        return _fail(args.verb, GaldError("stopped; the same command goes on"), 130)
    return 0


def _fail(verb: str, error: Exception, status: int) -> int:
    LOGGER.error("gald %s: %s", verb, error)
    return status
