"""What planning, starting and doing nothing take: each figure is the median of several runs of a whole process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from gald import paths
from gald.bench._measure import Measured, machine, table, tell
from gald.errors import GaldError

_RUNS = 3
_RUN = "smoke/camvid/psp-seed0"
_TIMM = "{name: timm, model: tf_efficientnet_lite0, pretrained: package, fuse: concat}"


def bench() -> str:
    """Time planning, start-up and no-ops of a finished mini suite; return the report as Markdown.

    Raises
    ------
    GaldError
        What must exist for the measurement does not.
    """
    return f"{machine()}; {_RUNS} runs each\n\n{table(_pipeline())}"


def _pipeline() -> list[Measured]:
    if not Path("Snakefile").is_file():
        raise GaldError("no Snakefile here: run this in the repository's root")
    found = []
    for what, run, target in (
        ("`gald --help`", partial(_timed, ["gald", "--help"]), 0.5),
        ("`snakemake -n` on the mini suite", partial(_timed, ["snakemake", "-n", "--quiet"]), 4.0),
        ("`gald train` to its first iteration, tiny backbone", partial(_first_iteration, "smoke"), 5.0),
        ("`gald train` to its first iteration, timm backbone", partial(_first_iteration, "timm"), 10.0),
        ("`dvc repro` with nothing to do", partial(_timed, ["dvc", "repro", "--quiet"], check_idle=True), 10.0),
    ):
        tell("pipeline", what)
        found.append(Measured(what, run(), target))
    return found


def _timed(command: list[str], *, check_idle: bool = False) -> tuple[float, ...]:
    """Seconds of each of the counted runs, after one warm-up."""
    if shutil.which(command[0]) is None:
        raise GaldError(f"{command[0]!r} is not on the PATH: activate the environment the project is installed in")
    seconds = []
    for _ in range(_RUNS + 1):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
        if done.returncode != 0:
            raise GaldError(f"`{' '.join(command)}` failed: {done.stderr.strip().splitlines()[-1:]}")
    if check_idle and seconds[-1] > 60:
        raise GaldError("`dvc repro` did work; run it once more, then the benchmark")
    return tuple(seconds[1:])


def _first_iteration(backbone: str) -> tuple[float, ...]:
    """Seconds from starting the process to the end of the first iteration, in a copy of the params."""
    return tuple(_one_first_iteration(backbone) for _ in range(_RUNS + 1))[1:]


def _one_first_iteration(backbone: str) -> float:
    source = paths.prepared("mini", "camvid")
    if not source.is_dir():
        raise GaldError(f"{source} is missing: run `snakemake smoke` first")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree("params", root / "params")
        (root / source.parent).mkdir(parents=True)
        (root / source).symlink_to(source.resolve())
        suite = root / "params/suites/smoke.yaml"
        text = suite.read_text().replace("max_iters: 40", "max_iters: 1")
        if backbone == "timm":
            text = text.replace("overrides:", f"overrides:\n  model: {{backbone: {_TIMM}}}")
        suite.write_text(text)
        # The history grows beside the checkpoints, and moves to the run's folder when the training ends.
        histories = (root / paths.checkpoint_dir(_RUN) / "history.jsonl", root / paths.history(_RUN))
        return _seconds_until(histories, [sys.executable, "-m", "gald.cli", "train", _RUN], root)


def _seconds_until(any_of: tuple[Path, ...], command: list[str], folder: Path) -> float:
    """Run a command in a folder and return the seconds until one of the files exists."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    while not any(path.exists() for path in any_of):
        if process.poll() is not None:
            raise GaldError(f"the timed training failed: {process.communicate()[1].strip()}")
        time.sleep(0.005)
    seconds = time.perf_counter() - start
    process.communicate()
    return seconds
