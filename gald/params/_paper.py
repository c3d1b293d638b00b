"""The paper's recipe of a benchmark, which every training says how far it departs from.

It lies inside the package, since the folder params is what a user edits: a reference that is read from there would
follow every edit, and nothing would ever depart.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gald.params._merge import Merged, read_yaml
from gald.params._run_params import RunParams
from gald.params._suites import with_dataset
from gald.params._validate import validated

RECIPES = Path(__file__).with_name("paper_recipes.yaml")
"""What the authors, or else the literature, train with; complete, each value with its source."""


@cache
def paper_params(dataset: str) -> RunParams | None:
    """Read what the paper, or else the literature, trains a benchmark with, without any row of a table.

    Parameters
    ----------
    dataset : str
        Benchmark.

    Returns
    -------
    RunParams or None
        None for a benchmark that the file does not know.
    """
    if dataset not in read_yaml(RECIPES)["datasets"]:
        return None
    merged = Merged.of(list(with_dataset(RECIPES, "", dataset)))
    content = {"edition": "full", "dataset": dataset, **merged.values}
    return validated(RunParams, content, lambda path: merged.origin(path) or str(RECIPES))
