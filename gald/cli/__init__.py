"""The command line: parsing and messages only; each verb imports its code when it is called."""

from __future__ import annotations

import argparse
import logging
import os
import select
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gald import __version__, paths, plugins
from gald.cli import data, measuring, networks, runs
from gald.cli._verb import Action
from gald.commands._targets import check_owner
from gald.errors import GaldError, ParamsError, TrainingInterrupted
from gald.process import watch

LOGGER = logging.getLogger("gald")
_SIGPIPE = 128 + 13  # what a shell shows of a program that the signal ended
_PACKAGE = Path(__file__).parents[1]
_LOG = "also write the messages to this file, with times (--log-file under torchrun, which has a --log of its own)"
_EPILOG = """\
`snakemake --cores all` calls download to track for all runs of a suite; each
can be called alone. A SUITE is a file of params/suites; a RUN is one of those
that `gald params SUITE` lists.

  gald status mini                     how far a suite is, and each run's mIoU
  gald params mini/camvid/psp-seed0    what a run was asked to do
  gald VERB --help                     what a verb takes

exit status: 0 done, 1 failed, 2 refused before any work, 75 stopped (the same
command goes on)
"""


def parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs."""
    return _parser_and_verbs()[0]


def _parser_and_verbs() -> tuple[argparse.ArgumentParser, list[str]]:
    root = argparse.ArgumentParser(
        prog="gald",
        description="Global aggregation then local distribution: rebuild the paper's tables.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"gald {__version__}")
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")
    names: list[str] = []

    def verb(name: str, action: Action, text: str) -> argparse.ArgumentParser:
        names.append(name)
        one = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        one.set_defaults(action=action)
        # torchrun reads what stands behind the program too, and takes --log for a beginning of its own options.
        one.add_argument("--log", "--log-file", type=Path, metavar="FILE", help=_LOG)
        return one

    for group in (data, runs, networks, measuring):
        group.add(verb)
    return root, names


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments; without any show the help, and beside an unknown verb the nearest one."""
    root, verbs = _parser_and_verbs()
    if not argv:
        root.print_help(sys.stderr)
        raise SystemExit(2)
    first = next((word for word in argv if not word.startswith("-")), None)
    if first is not None and first not in verbs:
        root.error(f"no verb is called {first!r}; {plugins.nearest(first, verbs)} (`gald --help` explains all)")
    return root.parse_args(argv)


@contextmanager
def _messages(log: Path | None, mode: str) -> Iterator[None]:
    """Send the package's messages to the terminal, and to a file if one is named, for the length of the block."""
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [console]
    level = LOGGER.level
    LOGGER.addHandler(console)
    LOGGER.setLevel(logging.INFO)
    formerly = warnings.formatwarning
    warnings.formatwarning = _spell_warning
    try:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            file = logging.FileHandler(log, mode=mode)
            file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            handlers.append(file)
            LOGGER.addHandler(file)
        yield
    finally:
        warnings.formatwarning = formerly
        LOGGER.setLevel(level)
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()


def _log_mode(args: argparse.Namespace) -> str:
    """How to open the log: what is left of it by the attempt before this one, or by the first process, stays."""
    again = args.verb == "train" and not paths.run_json(args.run).exists()
    return "a" if again or os.environ.get("RANK", "0") != "0" else "w"


def _spell_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Spell the package's own warnings as messages: its source lines tell a user nothing."""
    if _PACKAGE in Path(filename).parents:
        return f"warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit status: 0 done, 1 failed, 2 refused params, 75 stopped and resumable."""
    args = _parse(sys.argv[1:] if argv is None else argv)
    try:
        check_owner("--log", args.log)
        with _messages(args.log, _log_mode(args)):
            return _status(args)
    except ParamsError as error:
        return _fail(args.verb, error, 2)
    except OSError as error:  # the log cannot be written
        return _fail(args.verb, error, 1)


def _status(args: argparse.Namespace) -> int:
    try:
        if args.verb != "train":  # which saves its state before it ends
            watch.end_with_parent()
        args.action(args)
        sys.stdout.flush()
    except ParamsError as error:
        return _fail(args.verb, error, 2)
    except TrainingInterrupted as error:
        return _fail(args.verb, error, watch.EX_TEMPFAIL)
    except (GaldError, OSError) as error:
        return _SIGPIPE if isinstance(error, BrokenPipeError) and _is_unread() else _fail(args.verb, error, 1)
    except KeyboardInterrupt:
        return _fail(args.verb, GaldError("stopped; the same command goes on"), 130)
    return 0


def _is_unread() -> bool:
    """Whether nobody reads the output any more, as after `| head`; if so, what is left of it is thrown away."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # no file at all
        return False
    poll = select.poll()
    poll.register(output, select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # or the interpreter complains on its way out
    return True


def _fail(verb: str, error: Exception, status: int) -> int:
    LOGGER.error("gald %s: %s", verb, error)
    return status
