"""The command line: parsing and messages only; each verb imports its code when it is called."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gald import __version__, watch
from gald.errors import GaldError, ParamsError, TrainingInterrupted

if TYPE_CHECKING:
    from gald.datasets._reader import Store
    from gald.params import Run

BENCHMARKS = ("pipeline", "loader", "prepare")
RELEASED = ("dualgcn_res101", "dualgcn_res50", "gald_res101", "gald_res50")
Action = Callable[[argparse.Namespace], None]
Verb = Callable[[str, Action, str], argparse.ArgumentParser]
LOGGER = logging.getLogger("gald")


def _download(args: argparse.Namespace) -> None:
    from gald.download.run import download
    from gald.params import data_params

    download(*_edition_and_dataset(args.data), data_params()[0])


def _prepare(args: argparse.Namespace) -> None:
    from gald.params import data_params
    from gald.prepare.run import prepare

    params = data_params()[1]
    if args.processes is not None:
        params = params.model_copy(update={"processes": args.processes})
    prepare(*_edition_and_dataset(args.data), params)


def _pack(args: argparse.Namespace) -> None:
    from gald.prepare.pack import pack

    pack(*_edition_and_dataset(args.data))


def _audit(args: argparse.Namespace) -> None:
    from gald.commands.audit import audit

    audit(*_edition_and_dataset(args.data))


def _datasets(args: argparse.Namespace) -> None:
    from gald.commands.datasets import datasets
    from gald.params import data_params

    sys.stdout.write(datasets(data_params()[0]))


def _train(args: argparse.Namespace) -> None:
    run = _run(args.run, args.digest, evaluate=False)
    from gald.train.run import train

    train(run, store=_store())
    _tell_progress(run)


def _evaluate(args: argparse.Namespace) -> None:
    run = _run(args.run, args.digest, evaluate=True)
    from gald.evaluate.run import evaluate

    evaluate(run, store=_store())
    _tell_progress(run)


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
    from gald.commands.track import track

    track(args.suites)


def _status(args: argparse.Namespace) -> None:
    from gald.commands.status import status

    sys.stdout.write(status(args.suite))


def _params(args: argparse.Namespace) -> None:
    from gald.commands.params import describe

    sys.stdout.write(describe(args.what))


def _bench(args: argparse.Namespace) -> None:
    from gald.bench import bench

    sys.stdout.write(bench(args.what))


def _predict(args: argparse.Namespace) -> None:
    from gald import paths
    from gald.commands.predict import predict

    weights = args.weights or paths.weights(args.run)
    problems = predict(args.inputs, weights, args.out, dataset=args.dataset, raw_ids=args.raw_ids, device=args.device)
    if problems:
        raise GaldError(f"{len(problems)} of the inputs could not be predicted; they are named above")


def _import_weights(args: argparse.Namespace) -> None:
    from gald.commands.import_weights import import_weights

    sys.stdout.write(import_weights(args.file, args.net, args.classes, args.out, rgb=args.rgb).rstrip() + "\n")


def _cost(args: argparse.Namespace) -> None:
    from gald.commands.cost import cost

    names = ("channels", "device", "threads", "runs", "csv")
    sys.stdout.write(cost(args.what, size=args.size and (*args.size,), **{name: getattr(args, name) for name in names}))


def _edition_and_dataset(data: str) -> tuple[str, str]:
    from gald import plugins

    edition, _, dataset = data.partition("/")
    if edition not in ("mini", "full"):
        raise ParamsError(f"{data!r}: expected EDITION/DATASET with edition mini or full, for example mini/camvid")
    plugins.check_name("datasets", dataset)
    return edition, dataset


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

    _add_data(verb)
    _add_runs(verb)
    _add_networks(verb)
    _add_views(verb)
    return root


def _add_data(verb: Verb) -> None:
    for name, action, text in (
        ("download", _download, "fetch and verify a benchmark's archives, or draw its miniature, and unpack"),
        ("prepare", _prepare, "turn unpacked archives into images and trainId masks"),
        ("pack", _pack, "pack a prepared benchmark into memory-mapped shards, or check the shards by digest"),
        ("audit", _audit, "write the page that shows what a prepared benchmark holds"),
    ):
        one = verb(name, action, text)
        one.add_argument("data", metavar="EDITION/DATASET", help="for example mini/camvid")
        if name == "prepare":
            one.add_argument("--processes", type=int, metavar="N", help="instead of what params/base.yaml says")
    verb("datasets", _datasets, "list the benchmarks: what is here, what is missing, and the next command to type")


def _add_runs(verb: Verb) -> None:
    for name, action, text in (
        ("train", _train, "train one run, or go on where it stopped"),
        ("evaluate", _evaluate, "score one trained run"),
    ):
        one = verb(name, action, text)
        one.add_argument("run", metavar="RUN", help="for example mini/cityscapes/psp-affinity-seed0")
        one.add_argument("--digest", help="refuse unless the run's params have this digest")
    one = verb("tables", _tables, "build a suite's tables from the metrics of its runs")
    one.add_argument("suite", metavar="SUITE")
    one.add_argument("table", metavar="TABLE", nargs="?", help="one table; all if not given")
    verb("report", _report, "build a suite's start page").add_argument("suite", metavar="SUITE")


def _add_networks(verb: Verb) -> None:
    one = verb("predict", _predict, "predict pictures: colours over them, train ids, raw ids")
    one.add_argument("inputs", metavar="IMAGE|FOLDER", nargs="+", type=Path)
    source = one.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help="a trained run, for example mini/cityscapes/psp-affinity-seed0")
    source.add_argument("--weights", type=Path, metavar="FILE", help="a weights file")
    one.add_argument("-o", "--out", type=Path, default=Path("predicted"), help="folder of the results (predicted)")
    one.add_argument("--dataset", help="benchmark of colours and raw ids, for example camvid or camvid/original")
    one.add_argument("--raw-ids", action="store_true", help="also write the benchmark's raw ids")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one = verb("import-weights", _import_weights, "make a weights file of the authors' released checkpoint")
    one.add_argument("file", type=Path, metavar="FILE.pth")
    one.add_argument("--net", required=True, choices=RELEASED, help="one of " + ", ".join(RELEASED))
    one.add_argument("--classes", type=int, default=19, help="of the checkpoint (19)")
    one.add_argument("-o", "--out", type=Path, required=True, help="weights file to write")
    one.add_argument("--rgb", action=argparse.BooleanOptionalAction, help="trained with `--rgb 1`; else as released")
    one = verb("cost", _cost, "parameters, GMACs, memory and latency of runs, suites or all aggregations")
    one.add_argument("what", metavar="RUN|SUITE", nargs="*", help="none: every aggregation, alone and with affinity")
    one.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the image, or positions")
    one.add_argument("--channels", type=int, default=512, help="of the aggregations' features (512)")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--runs", type=int, default=5, help="timed passes (5)")
    one.add_argument("--csv", type=Path, help="also write the figures here")


def _add_views(verb: Verb) -> None:
    one = verb("track", _track, "bring the MLflow store up to date with the files")
    one.add_argument("suites", metavar="SUITE", nargs="*", help="all suites with results if none is given")
    one = verb("status", _status, "list runs and their state, also those whose code has changed since")
    one.add_argument("suite", metavar="SUITE", nargs="?", default="mini")
    one = verb("params", _params, "check a suite's params and list its runs, or show a run's merged params")
    one.add_argument("what", metavar="SUITE|RUN")
    one = verb("bench", _bench, "measure this machine: ratios against the obvious alternative")
    one.add_argument("what", metavar="WHAT", choices=BENCHMARKS, help="one of " + ", ".join(BENCHMARKS))


def _configure_logging(log: Path | None) -> None:
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.addHandler(console)
    LOGGER.setLevel(logging.INFO)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(log, mode="w")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOGGER.addHandler(file)


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit status: 0 done, 1 failed, 2 refused params, 75 stopped and resumable."""
    args = parser().parse_args(argv)
    try:
        _configure_logging(args.log)
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


if __name__ == "__main__":
    sys.exit(main())
