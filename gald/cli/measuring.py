"""Verbs that measure: cost, bench."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gald.cli._verb import Verb

BENCHMARKS = ("block", "evaluate", "loader", "loss", "pipeline", "prepare", "step", "tracking", "train")


def add(verb: Verb) -> None:
    """Declare the verbs that measure."""
    one = verb("cost", _cost, "parameters, GMACs, memory and latency of networks or of all modules")
    one.add_argument(
        "what",
        metavar="RUN|SUITE|NET|FILE",
        nargs="*",
        help="runs, suites, released networks (gald_res50), weights files; none: every aggregation and distribution",
    )
    one.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the image (a run's crop, else 769 769), or of features (97 97)",
    )
    one.add_argument("--channels", type=int, metavar="C", default=512, help="of the modules' features (512)")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="to measure (cpu)")
    one.add_argument("--threads", type=int, metavar="N", default=1, help="of the CPU (1)")
    one.add_argument("--runs", type=int, metavar="N", default=5, help="timed passes (5)")
    one.add_argument("--csv", type=Path, metavar="FILE", help="also write the figures here, unrounded")
    one = verb("bench", _bench, "measure this machine: ratios against the obvious alternative")
    one.add_argument("what", metavar="WHAT", choices=BENCHMARKS, help="one of " + ", ".join(BENCHMARKS))


def _cost(args: argparse.Namespace) -> None:
    from gald.commands.cost import cost

    names = ("channels", "device", "threads", "runs", "csv")
    sys.stdout.write(cost(args.what, size=args.size and (*args.size,), **{name: getattr(args, name) for name in names}))


def _bench(args: argparse.Namespace) -> None:
    from gald.bench import bench

    sys.stdout.write(bench(args.what))
