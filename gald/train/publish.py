"""What a finished training leaves: weights, history, merged params and, last of all, run.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from gald import files, paths
from gald.errors import DatasetError
from gald.models import weights
from gald.train import checkpoint, history
from gald.train.loop import State
from gald.train.parallel import World
from gald.train.recipe import Line, as_record, changed_since, reached
from gald.train.start import environment
from gald.train.task import Task
from gald.train.validation import publish_best, published


def publish(task: Task, state: State, origins: list[dict[str, Any]], recipe: Sequence[Line], world: World) -> None:
    """Write the run's files, run.json last, so that it never promises what is not there.

    Raises
    ------
    DatasetError
        The data changed while the training ran.
    """
    run = task.run
    _check_unchanged(task)
    for rest in paths.run_dir(run.name).glob(".*.part"):
        rest.unlink()  # of a kill while writing here
    lines = history.read(task.growing_history)
    files.write_bytes(paths.history(run.name), task.growing_history.read_bytes())
    files.write_text(paths.history_csv(run.name), history.as_csv(lines))
    merged = {"run": run.name, **run.params.model_dump(mode="json")}
    files.write_text(paths.run_params(run.name), yaml.safe_dump(merged, sort_keys=False))
    weights.save(paths.weights(run.name), published(state.model, state.average), run.params.model, task.classes)
    paths.best_weights(run.name).unlink(missing_ok=True)  # of an earlier training
    best = publish_best(task.folder, state.best, paths.best_weights(run.name)) if state.best else None
    files.write_json(paths.run_json(run.name), _record(task, state, origins, recipe, world, best))


def _check_unchanged(task: Task) -> None:
    """Refuse weights of data that are no longer there: some samples may have been of these, some of those."""
    run = task.run
    manifest = paths.manifest(run.params.edition, run.dataset)
    if not manifest.exists():  # nobody knows yet whether the data will be the same again, so the checkpoint stays
        raise DatasetError(
            f"{manifest} went away during the training; run `gald prepare {run.params.edition}/{run.dataset}`, then "
            "the same command again"
        )
    if files.sha256(manifest) != task.split.manifest_sha256:
        checkpoint.clear(task.folder)
        raise DatasetError(
            f"{manifest} changed during the training of {run.name}, so its weights are of mixed data and were dropped; "
            f"run `gald train {run.name}` again"
        )


def _record(
    task: Task,
    state: State,
    origins: list[dict[str, Any]],
    recipe: Sequence[Line],
    world: World,
    best: dict[str, Any] | None,
) -> dict[str, Any]:
    run, params = task.run, task.run.params.train
    file = paths.weights(run.name)
    told = as_record(recipe)
    changed = changed_since(told, [origin.get("recipe", ()) for origin in origins[:-1]])
    return {
        "run": run.name,
        "dataset": run.dataset,
        "edition": run.params.edition,
        "seed": run.seed,
        "params_sha256": run.digest(),
        "manifest_sha256": task.split.manifest_sha256,
        "weights": {"file": file.name, "sha256": files.sha256(file)},
        "best": best,
        "iterations": state.iteration,
        "stopped_early": state.iteration < params.max_iters,
        "num_classes": len(task.classes),
        "code": task.code,
        "environment": environment(params, world),
        "recipe": [line | {"changed": line["what"] in changed} for line in told],  # on the way, see resumed_from
        "pretrained": state.model.coverage,
        "resumed_from": origins[:-1],  # other code or machines that made a part of it; those promise no bits
        "determinism": reached(params) if len(origins) == 1 else "seeded",
    }
