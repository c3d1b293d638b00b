"""The paper's recipe of a benchmark, which every training says how far it departs from."""

from __future__ import annotations

from pathlib import Path

from gald import paths
from gald.params._merge import Merged
from gald.params._protocols import resolve_protocol
from gald.params._run_params import RunParams
from gald.params._suites import data_params, with_dataset
from gald.params._validate import validated

PAPER = "paper"
"""Entry of recipes.yaml that holds what the authors, or else the literature, train with."""


def paper_params(dataset: str, root: Path = paths.PARAMS) -> RunParams | None:
    """Merge what the paper's scale says of a benchmark, without any row of a table.

    Parameters
    ----------
    dataset : str
        Benchmark.
    root : Path
        Folder of the params.

    Returns
    -------
    RunParams or None
        None where there is no such folder, as for a training that somebody starts from Python elsewhere.

    Raises
    ------
    ParamsError
        The entry is missing or invalid.
    """
    if not root.is_dir():
        return None
    layers = [
        *with_dataset(root / "base.yaml", "", dataset, shared=("download", "prepare")),
        *with_dataset(root / "recipes.yaml", PAPER, dataset),
    ]
    merged = Merged.of(layers)
    merged.values.setdefault("train", {})["seed"] = 0
    resolve_protocol(merged, root)
    content = {"edition": "full", "dataset": dataset, "source": data_params(root)[0].source(dataset), **merged.values}
    return validated(RunParams, content, lambda path: merged.origin(path) or layers[-1].origin)
