"""Verbs of a suite's runs and tables: train, evaluate, tables, report, track, status, compare, power, params."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gald.cli._verb import RUN, SUITE, Verb
from gald.cli.data import edition_and_dataset
from gald.errors import ParamsError

if TYPE_CHECKING:
    from gald.datasets._reader import Store
    from gald.params import Run

LOGGER = logging.getLogger("gald")


def add(verb: Verb) -> None:
    """Declare the verbs of runs and tables."""
    for name, action, text in (
        ("train", _train, "train one run, or go on where it stopped"),
        ("evaluate", _evaluate, "score one trained run"),
    ):
        one = verb(name, action, text)
        one.add_argument("run", metavar="RUN", help=RUN)
        one.add_argument("--digest", metavar="HEX", help="refuse unless the run's params have this digest")
        if name == "train":
            _add_trials(one)
        else:
            _add_questions(one)
    one = verb("tables", _tables, "build a suite's tables from the metrics of its runs")
    one.add_argument("suite", metavar="SUITE", help=SUITE)
    one.add_argument("table", metavar="TABLE", nargs="?", help="one table, for example components; all if not given")
    verb("report", _report, "build a suite's start page").add_argument("suite", metavar="SUITE", help=SUITE)
    _add_views(verb)


def _add_trials(one: argparse.ArgumentParser) -> None:
    trials = one.add_argument_group("trials", "of the recipe; they leave the run and its results alone")
    kinds = trials.add_mutually_exclusive_group()
    kinds.add_argument("--overfit", type=int, metavar="N", help="learn the first N samples, and score those")
    kinds.add_argument("--profile", action="store_true", help="show which operations take the time")
    kinds.add_argument("--find-batch", action="store_true", help="find the largest batch of a device")
    trials.add_argument("--limit", type=int, metavar="ITERS", help="iterations of --overfit, or of a plain trial")


def _add_questions(one: argparse.ArgumentParser) -> None:
    other = one.add_argument_group("other questions", "beside what the tables ask; the run's own scores stay")
    other.add_argument("--protocol", metavar="NAME", help="of params/protocols.yaml, for example multi_scale")
    other.add_argument("--split", metavar="NAME", help="instead of the one that the params name; it may be unlabelled")
    other.add_argument(
        "--best", action="store_true", help="the weights that validated best; not on the split that chose them"
    )
    other.add_argument("--images", type=Path, metavar="FOLDER", help="images without a truth, instead of a split")
    other.add_argument("--save-predictions", type=Path, metavar="FOLDER", help="keep every mask, as ids and as colours")
    other.add_argument("--submission", type=Path, metavar="ZIP", help="write what the benchmark's test server takes")
    other.add_argument("-o", "--out", type=Path, metavar="JSON", help="write protocol and scores")
    masks = one.add_argument_group("anybody's masks", "RUN is then a benchmark, for example full/cityscapes")
    masks.add_argument("--predictions", type=Path, metavar="FOLDER", help="score these PNG masks")
    masks.add_argument("--ids", choices=("train", "raw"), default="train", help="what their pixels are (train)")


def _add_views(verb: Verb) -> None:
    one = verb("track", _track, "bring the MLflow store up to date with the files")
    one.add_argument("suites", metavar="SUITE", nargs="*", help="all suites with results if none is given")
    one.add_argument("--follow", action="store_true", help="show trainings while they run; end when none is left")
    one = verb("status", _status, "list runs and their state, also those whose code has changed since")
    one.add_argument("suite", metavar="SUITE", nargs="?", default="mini", help="a file of params/suites (mini)")
    one = verb("compare", _compare, "compare two evaluated runs image by image: what gains, what loses, with pictures")
    one.add_argument("first", metavar="FIRST", help=RUN)
    one.add_argument("second", metavar="SECOND", help="another run; differences are this one minus the first")
    one.add_argument(
        "-o", "--out", type=Path, metavar="FOLDER", default=Path("compared"), help="of the page (compared)"
    )
    one = verb("power", _power, "say how many seeds would resolve a difference, from the spread seen so far")
    one.add_argument("suite", metavar="SUITE", help=SUITE)
    one.add_argument("table", metavar="TABLE", nargs="?", help="one table; all that show scores if not given")
    one.add_argument("--difference", type=float, metavar="POINTS", help="instead of 0.1, 0.2, 0.5, 1 and 2 points")
    one.add_argument("--score", metavar="NAME", help="for example boundary_iou_3; the table's named one if not given")
    one.add_argument("--rows", nargs=2, metavar=("A", "B"), help="compare A minus B alone; every two rows if not given")
    one = verb("params", _params, "check a suite's params and list its runs, or show a run's merged params")
    one.add_argument("what", metavar="SUITE|RUN", help="for example mini, or mini/cityscapes/psp-affinity-seed0")


def _train(args: argparse.Namespace) -> None:
    run = _run(args.run, args.digest, evaluate=False)
    if args.overfit is not None or args.limit is not None or args.profile or args.find_batch:
        _try(run, args)
        return
    from gald import paths, progress
    from gald.train.voices import of_several

    of_several()
    # Before torch is imported; the training looks again once it has the run to itself, and ends what was cut short.
    if progress.is_trained(run) and not paths.checkpoint_dir(run.name).exists():
        LOGGER.info(progress.TRAINED, run.name, paths.run_json(run.name))
        return
    from gald.train.run import train

    train(run, store=_store())
    _tell_progress(run)


def _try(run: Run, args: argparse.Namespace) -> None:
    """Try a recipe out without training the run."""
    if args.limit is not None and (args.profile or args.find_batch):
        raise ParamsError("--limit goes with --overfit or alone; --profile and --find-batch know how long they take")
    from gald.train import batch_search, trial

    if args.overfit is not None:
        text = trial.overfit(run, args.overfit, args.limit, store=_store())
    elif args.profile:
        text = trial.profile(run, store=_store())
    elif args.find_batch:
        text = batch_search.find_batch(run, store=_store())
    else:
        text = trial.limited(run, args.limit, store=_store())
    sys.stdout.write(text)


def _evaluate(args: argparse.Namespace) -> None:
    if args.predictions is not None:
        _score_predictions(args)
        return
    if args.ids != "train":
        raise ParamsError("--ids says what the pixels of --predictions are; give both or neither")
    from gald.train.voices import of_several

    of_several()
    run = _run(args.run, args.digest, evaluate=True)
    asked = (args.protocol, args.split, args.images, args.save_predictions, args.submission, args.out)
    if args.best or any(one is not None for one in asked):
        from gald.commands.evaluation import Question, evaluate_otherwise

        sys.stdout.write(evaluate_otherwise(run, Question(*asked, best=args.best), store=_store()))
        return
    from gald.evaluate.run import evaluate

    evaluate(run, store=_store())
    _tell_progress(run)


def _score_predictions(args: argparse.Namespace) -> None:
    """Score masks of any origin."""
    for name in ("protocol", "best", "images", "save_predictions", "submission"):
        if getattr(args, name) not in (None, False):
            raise ParamsError(
                f"--{name.replace('_', '-')} is about a network, and --predictions has none; leave it out"
            )
    from gald.commands.score_predictions import score_predictions

    text = score_predictions(
        *edition_and_dataset(args.run), args.predictions, split=args.split, ids=args.ids, out=args.out, store=_store()
    )
    sys.stdout.write(text)


def _tables(args: argparse.Namespace) -> None:
    from gald.params import load_suite
    from gald.tables.run import build_table

    suite = load_suite(args.suite)
    for name in [args.table] if args.table else [table.name for table in suite.tables]:
        build_table(suite, name)


def _report(args: argparse.Namespace) -> None:
    from gald.params import load_suite
    from gald.tables.report import build_report

    build_report(load_suite(args.suite))


def _track(args: argparse.Namespace) -> None:
    from gald.commands.track import follow, track

    if args.follow:
        follow()
    else:
        track(args.suites)


def _status(args: argparse.Namespace) -> None:
    from gald.commands.status import status

    sys.stdout.write(status(args.suite))


def _compare(args: argparse.Namespace) -> None:
    from gald.commands.compare import compare
    from gald.params import find_run

    sys.stdout.write(compare(find_run(args.first), find_run(args.second), args.out))


def _power(args: argparse.Namespace) -> None:
    from gald.commands.power import power

    rows = None if args.rows is None else (args.rows[0], args.rows[1])
    sys.stdout.write(power(args.suite, args.table, difference=args.difference, score=args.score, rows=rows))


def _params(args: argparse.Namespace) -> None:
    from gald.commands.params import describe

    sys.stdout.write(describe(args.what))


def _run(name: str, digest: str | None, *, evaluate: bool) -> Run:
    """Look up a run; refuse when its params are not the ones that the caller planned with."""
    from gald.params import find_run

    run = find_run(name)
    found = run.evaluate_digest() if evaluate else run.digest()
    if digest not in (None, found):
        raise ParamsError(f"{name}: params changed since this job was planned; run the same command again")
    return run


def _store() -> Store:
    """Where pixels are read from: from files if the params say so, else from a packed store if there is one."""
    from gald.params import data_params

    return "files" if data_params()[1].store == "files" else "auto"


def _tell_progress(run: Run) -> None:
    from gald.progress import suite_line

    LOGGER.info(suite_line(run.scale))
