"""Verbs of the data: download, prepare, pack, audit, objects, datasets."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gald.cli._verb import Verb, positive
from gald.errors import ParamsError


def add(verb: Verb) -> None:
    """Declare the verbs of the data."""
    for name, action, text in (
        ("download", _download, "fetch and verify a benchmark's archives, or draw its miniature, and unpack"),
        ("prepare", _prepare, "turn unpacked archives into images and trainId masks"),
        ("pack", _pack, "pack a prepared benchmark into memory-mapped shards, or check the shards by digest"),
        ("audit", _audit, "write the page that shows what a prepared benchmark holds"),
        ("objects", _objects, "write down how large a benchmark's objects are, for scores by their size"),
    ):
        one = verb(name, action, text)
        one.add_argument("data", metavar="EDITION/DATASET", help="for example mini/camvid")
        if name == "download":
            help_ = "take the files of the real benchmark from the folder that its archives were unpacked into already"
            one.add_argument("--unpacked", type=Path, metavar="FOLDER", help=help_)
        if name == "prepare":
            one.add_argument("--processes", type=positive, metavar="N", help="instead of what params/base.yaml says")
    one = verb(
        "datasets", _datasets, "list the benchmarks: what is here, what is missing, and the next command to type"
    )
    one.add_argument("names", metavar="BENCHMARK", nargs="*", help="for example camvid; all if none is given")
    one.add_argument("--json", action="store_true", help="for machines, with sizes in bytes")


def _download(args: argparse.Namespace) -> None:
    from gald.download.run import download
    from gald.params import data_params

    edition, dataset = edition_and_dataset(args.data)
    if args.unpacked is not None and edition != "full":
        raise ParamsError(f"{args.data}: --unpacked goes with the real benchmark, full/{dataset}; a miniature is drawn")
    download(edition, dataset, data_params()[0], unpacked=args.unpacked)


def _prepare(args: argparse.Namespace) -> None:
    from gald.params import data_params
    from gald.prepare.run import prepare

    params = data_params()[1]
    if args.processes is not None:
        params = params.model_copy(update={"processes": args.processes})
    prepare(*edition_and_dataset(args.data), params)


def _pack(args: argparse.Namespace) -> None:
    from gald.prepare.pack import pack

    pack(*edition_and_dataset(args.data))


def _audit(args: argparse.Namespace) -> None:
    from gald.commands.audit import audit

    audit(*edition_and_dataset(args.data))


def _objects(args: argparse.Namespace) -> None:
    from gald.prepare.objects import objects

    objects(*edition_and_dataset(args.data))


def _datasets(args: argparse.Namespace) -> None:
    from gald.commands.datasets import datasets
    from gald.params import data_params

    sys.stdout.write(datasets(*data_params(), args.names, as_json=args.json))


def edition_and_dataset(data: str) -> tuple[str, str]:
    """Read EDITION/DATASET, and check both."""
    from gald import plugins

    edition, _, dataset = data.partition("/")
    if edition not in ("mini", "full") or "/" in dataset:  # a run, where a benchmark is asked for
        raise ParamsError(f"{data!r}: expected EDITION/DATASET with edition mini or full, for example mini/camvid")
    plugins.check_name("datasets", dataset)
    return edition, dataset
