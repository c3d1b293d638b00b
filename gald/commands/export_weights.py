"""`gald export-weights`: the weights of a trained run as one file that needs nothing beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gald import files, paths
from gald.commands._targets import check_file
from gald.errors import GaldError, ModelError, StaleMetrics
from gald.models import weights
from gald.params import Run


def export_weights(run: Run, out: Path, *, best: bool = False) -> str:
    """Copy a run's weights, once they are known to be what its run.json promises.

    Parameters
    ----------
    run : Run
        A trained run, with the very params it has now.
    out : Path
        File to write, with the suffix ``.safetensors``; `gald.load` makes the network of it.
    best : bool
        The weights that validated best on the way, instead of the last ones.

    Returns
    -------
    str
        What was written, and how to load it.

    Raises
    ------
    StaleMetrics
        The run is not trained, or its params or weights are not those of its run.json.
    ModelError
        There are no best weights, or the weights cannot be loaded.
    GaldError
        `out` is of another kind.
    ParamsError
        `out` cannot be written, or lies where trainings keep their files.
    """
    if out.suffix != ".safetensors":
        raise GaldError(f"{out}: weights are written as .safetensors; name the file so")
    check_file("-o", out)
    record = _record(run)
    source = best_weights(run, record) if best else _checked(paths.weights(run.name), record["weights"]["sha256"], run)
    model = weights.load(source)
    files.write_bytes(out, source.read_bytes())
    which = "the best validated weights" if best else "the last weights"
    at = record["best"]["iteration"] if best else record["iterations"]
    return (
        f"{out}: {which} of {run.name}, after {at} iterations, {model.num_classes} classes; in Python: "
        f"gald.load({str(out)!r})\n"
    )


def best_weights(run: Run, record: dict[str, Any]) -> Path:
    """Find the weights that validated best, once they are known to be what run.json promises.

    Raises
    ------
    ModelError
        The run was not validated on the way.
    StaleMetrics
        They are missing or others.
    """
    promised = record.get("best")
    if promised is None:
        raise ModelError(
            f"{run.name} has no best weights, since it was not validated on the way; set train.validation.every and "
            "train it again, or leave out --best"
        )
    return _checked(paths.best_weights(run.name), promised["sha256"], run)


def _record(run: Run) -> dict[str, Any]:
    path = paths.run_json(run.name)
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StaleMetrics(f"{path} is missing: run `gald train {run.name}` first") from None
    except ValueError as error:
        raise StaleMetrics(f"{path} is damaged ({error}): run `gald train {run.name}` again") from None
    if record.get("params_sha256") != run.digest():
        raise StaleMetrics(
            f"{path}: the run's params have changed since it was trained; run `gald train {run.name}` again"
        )
    return record


def _checked(file: Path, promised: str, run: Run) -> Path:
    """Hold a weights file against the digest that run.json promises.

    Raises
    ------
    StaleMetrics
        It is missing or another.
    """
    if not file.exists():
        raise StaleMetrics(f"{file} is missing: run `gald train {run.name}` again")
    found = files.sha256(file)
    if found != promised:
        raise StaleMetrics(
            f"{file} is not what {paths.run_json(run.name)} promises (sha256 {found}, expected {promised}): run "
            f"`gald train {run.name}` again"
        )
    return file
