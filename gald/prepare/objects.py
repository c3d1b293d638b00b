"""How large the objects of a benchmark are: the bins that scores by object size use, fixed once and stored.

An object is an 8-connected component of one class in a mask. The bins are the quarters of all objects' areas in the
split that the literature reports on, so that each holds as many objects as the others, whatever a run is scored on.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gald import paths
from gald.datasets import load_spec
from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError
from gald.files import write_json
from gald.metrics.objects import area_edges, component_areas

_LOG = logging.getLogger("gald")


def objects(edition: str, dataset: str) -> Path:
    """Write ``reports/datasets/<edition>/<dataset>-objects.json``.

    Parameters
    ----------
    edition : {"mini", "full"}
    dataset : str
        Name of a file in ``gald/datasets``.

    Returns
    -------
    Path
        The file: areas in pixels at which one quarter of the objects ends and the next begins.

    Raises
    ------
    DatasetError
        The benchmark was not prepared, or a mask of it is damaged.
    """
    folder = paths.prepared(edition, dataset)
    spec = load_spec(dataset)
    split = PreparedSplit(folder, [spec.eval_split])
    classes = len(split.manifest["classes"])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(lambda index: component_areas(split.verified(index).mask, classes), range(len(split))))
    areas = np.concatenate([np.zeros(0, np.int64), *found])
    if not areas.size:
        raise DatasetError(f"{folder}: no mask of split {spec.eval_split!r} holds a class, so there are no objects")
    target = paths.objects(edition, dataset)
    edges = area_edges(areas)
    content = {
        "edition": edition,
        "dataset": dataset,
        "split": spec.eval_split,
        "images": len(split),
        "objects": len(areas),
        "area_edges": list(edges),
        "manifest_sha256": split.manifest_sha256,
    }
    write_json(target, content)
    _LOG.info("%s: %d objects, quarters end at %s pixels", target, len(areas), ", ".join(map(str, edges)))
    return target
