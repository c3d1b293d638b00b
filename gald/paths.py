"""Where each artefact lives; the only file that joins such paths.

All paths are relative to the repository's root, which is the current folder of every command; data may lie elsewhere.
A run is named ``<scale>/<dataset>/<row>-seed<k>``; miniature and real data never share a folder, because the edition is
part of it.
"""

from __future__ import annotations

import os
from pathlib import Path

PARAMS = Path("params")
STATE = Path(".gald")
RUNS = Path("runs")
DATA_ROOT = Path(os.environ.get("GALD_DATA") or "data").expanduser()
"""Raw, prepared and packed data; the environment variable moves them to another disk."""


def raw(edition: str, dataset: str) -> Path:
    """Folder of one benchmark's unpacked archives."""
    return DATA_ROOT / "raw" / edition / dataset


def raw_json(edition: str, dataset: str) -> Path:
    """Boundary file of the download stage."""
    return raw(edition, dataset) / "raw.json"


def prepared(edition: str, dataset: str) -> Path:
    """Folder of one benchmark's images and trainId masks."""
    return DATA_ROOT / "prepared" / edition / dataset


def manifest(edition: str, dataset: str) -> Path:
    """Boundary file of the prepare stage."""
    return prepared(edition, dataset) / "manifest.json"


def packed(edition: str, dataset: str) -> Path:
    """Folder of one benchmark's packed store."""
    return DATA_ROOT / "packed" / edition / dataset


def packed_json(edition: str, dataset: str) -> Path:
    """List of a packed store's shards and their digests."""
    return packed(edition, dataset) / "store.json"


def verified(edition: str, dataset: str) -> Path:
    """Which shards of a packed store were found to be whole, so that not every training reads them all again."""
    return STATE / "verified" / edition / f"{dataset}.json"


def audit(edition: str, dataset: str) -> Path:
    """Page that shows what a prepared benchmark holds."""
    return Path("reports") / "datasets" / edition / f"{dataset}.html"


def objects(edition: str, dataset: str) -> Path:
    """Areas that separate the quarters of a benchmark's objects."""
    return Path("reports") / "datasets" / edition / f"{dataset}-objects.json"


def run_dir(run: str) -> Path:
    """Folder of one trained run."""
    return RUNS / run


def is_of_runs(path: Path) -> bool:
    """Whether a path lies where trainings keep what is theirs, itself or, as a link, by what it leads to."""
    places = (os.path.realpath(path), Path(os.path.realpath(path.parent), path.name))  # loops of links raise nothing
    return any(Path(place).is_relative_to(os.path.realpath(folder)) for place in places for folder in (RUNS, STATE))


def run_json(run: str) -> Path:
    """Boundary file of the train stage."""
    return run_dir(run) / "run.json"


def weights(run: str) -> Path:
    """Weights of the last iterate."""
    return run_dir(run) / "weights.safetensors"


def best_weights(run: str) -> Path:
    """Weights that validated best, where a run was validated on the way."""
    return run_dir(run) / "best.safetensors"


def run_params(run: str) -> Path:
    """Merged params of the run, written out by the training."""
    return run_dir(run) / "params.yaml"


def history(run: str) -> Path:
    """Training history, one JSON line per logged interval."""
    return run_dir(run) / "history.jsonl"


def predictions(run: str) -> Path:
    """Folder of one run's predictions."""
    return Path("predictions") / run


def predictions_json(run: str) -> Path:
    """List of a run's kept predictions and their digests."""
    return predictions(run) / "predictions.json"


def counts(run: str) -> Path:
    """Counts of each image of a run's evaluation, from which every score follows."""
    return predictions(run) / "counts.npz"


def _report_file(run: str, folder: str, suffix: str) -> Path:
    scale, dataset, leaf = run.split("/")
    return reports(scale) / folder / dataset / f"{leaf}{suffix}"


def metrics(run: str) -> Path:
    """Boundary file of the evaluate stage."""
    return _report_file(run, "metrics", ".json")


def history_csv(run: str) -> Path:
    """Thinned training history, in the form that DVC plots."""
    return _report_file(run, "history", ".csv")


def reports(suite: str) -> Path:
    """Folder of one suite's reports."""
    return Path("reports") / suite


def table(suite: str, name: str, suffix: str) -> Path:
    """One rendered table; `suffix` is csv, md, tex or html."""
    return reports(suite) / "tables" / f"{name}.{suffix}"


def figures(suite: str) -> Path:
    """Folder of one suite's plots."""
    return reports(suite) / "figures"


def gallery(suite: str) -> Path:
    """Folder of one suite's qualitative pictures."""
    return reports(suite) / "gallery"


def index(suite: str) -> Path:
    """Start page of one suite's report."""
    return reports(suite) / "index.html"


def tracking_stamp(suite: str) -> Path:
    """What the tracking store was told of a suite last; not a result, so it lies beside the other state."""
    return STATE / "tracking" / f"{suite}.json"


def live_card(run: str) -> Path:
    """What a training announces itself with, until the tracking store was told how it ended."""
    return STATE / "live" / f"{run}.json"


def follow_log() -> Path:
    """Log of the process that tells the tracking store of trainings under way."""
    return STATE / "follow.log"


def checkpoint_dir(run: str) -> Path:
    """Folder of the state to resume from; never a declared output, since those are removed before a job."""
    return STATE / "checkpoints" / run


def growing_history(run: str) -> Path:
    """History of a training under way, beside its checkpoints: declared outputs may be removed or made read-only."""
    return checkpoint_dir(run) / "history.jsonl"


def evaluation_dir(run: str) -> Path:
    """Folder of what an evaluation under way has counted."""
    return STATE / "evaluations" / run


def questions_dir(run: str) -> Path:
    """Folder of what questions of their own about a run have counted, a folder for each state of weights and code."""
    return STATE / "questions" / run


def question_dir(run: str, state: str, identity: str) -> Path:
    """Folder of one of them, by the digests of weights and code, and of all that decides the counts."""
    return questions_dir(run) / state[:16] / identity[:16]


def trial_dir(run: str) -> Path:
    """Folder of what trials of a run's recipe leave; never a result."""
    return STATE / "trials" / run


def lock(name: str) -> Path:
    """File lock of the given name, for example a run's; that of data lies with the data, which clones may share."""
    if name.partition("/")[0] in ("download", "prepare", "pack"):
        return DATA_ROOT / ".locks" / f"{name}.lock"
    return STATE / "locks" / f"{name}.lock"


def suite_params(suite: str) -> Path:
    """Params file of a suite."""
    return PARAMS / "suites" / f"{suite}.yaml"
