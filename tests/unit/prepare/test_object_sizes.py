"""The bins of object sizes that `gald objects` fixes for a benchmark, and what reading them refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from gald import files, paths
from gald.datasets._objects import read_edges
from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError
from gald.prepare.objects import objects
from tests.unit.conftest import write_samples


def test_the_bins_are_the_quarters_of_the_components_of_the_evaluated_split(prepared: Path) -> None:
    areas: list[int] = []
    for sample in PreparedSplit(prepared, ["test"]):
        for train_id in range(4):
            labels, _ = ndimage.label(sample.mask == train_id, np.ones((3, 3)))
            areas += np.bincount(labels.ravel())[1:].tolist()
    content = json.loads(objects("mini", "camvid").read_text())
    ranked = sorted(areas)
    expected = [ranked[int(np.ceil(len(ranked) * share)) - 1] for share in (0.25, 0.5, 0.75)]
    assert content["area_edges"] == expected
    assert (content["split"], content["images"], content["objects"]) == ("test", 5, len(areas))
    assert read_edges("mini", "camvid") == tuple(expected)


def test_a_split_without_an_object_has_no_bins(prepared: Path) -> None:
    ignored = (np.zeros((8, 9, 3), np.uint8), np.full((8, 9), 255, np.uint8))
    write_samples(prepared, {"train": [ignored], "test": [ignored]})
    with pytest.raises(DatasetError, match="no mask of split 'test' holds a class"):
        objects("mini", "camvid")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing"),
        ('{"area_edges": [1, 2', "is damaged"),
        ("[]", "is damaged"),
        ('{"area_edges": [3, 2, 1], "manifest_sha256": "0"}', "not three ascending areas"),
        ('{"area_edges": [1, 2], "manifest_sha256": "0"}', "not three ascending areas"),
        ('{"area_edges": [1, 2, 3], "manifest_sha256": "0"}', "was made of camvid as it was prepared before"),
    ],
)
def test_bins_that_are_none_are_refused(prepared: Path, text: str | None, message: str) -> None:
    path = paths.objects("mini", "camvid")
    path.unlink(missing_ok=True)
    if text is not None:
        files.write_text(path, text)
    with pytest.raises(DatasetError, match=rf"{message}.*: run `gald objects mini/camvid`"):
        read_edges("mini", "camvid")
