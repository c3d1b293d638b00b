"""COCO-Stuff 10k, version 1.1: 171 classes of things and stuff, 9000 training and 1000 test images.

Annotations are MATLAB files whose field ``S`` holds raw ids 0 to 182; 0 is unlabeled and ignored. Eleven thing ids
never occur: they are in no list here, so that one of them is an error and not a class. The 164k version and version
1.0 number the classes otherwise; their masks do not belong here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gald.datasets._spec import Archive, DatasetSpec, RawSample, read_classes, read_list
from gald.errors import DatasetError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_COUNTS = {"train": 9000, "test": 1000}


def index(raw: Path) -> dict[str, list[RawSample]]:
    """List the samples of ``imageLists/{train,test}.txt``, one stem per line.

    Raises
    ------
    DatasetError
        A list is missing.
    """
    return {
        split: [
            RawSample(stem, raw / "images" / f"{stem}.jpg", raw / "annotations" / f"{stem}.mat")
            for stem in (line.strip() for line in read_list(raw / "imageLists" / f"{split}.txt"))
        ]
        for split in _COUNTS
    }


def read_mask(sample: RawSample) -> npt.NDArray[np.generic]:
    """Read field ``S`` of the MATLAB file.

    Returns
    -------
    ndarray, shape (h, w)
        Raw ids, of the type the file has: uint8 or float64.

    Raises
    ------
    DatasetError
        The file has no such field.
    """
    from scipy.io import loadmat

    content = loadmat(sample.mask, variable_names=["S"])
    if "S" not in content:
        raise DatasetError("the MATLAB file has no field S")
    ids: npt.NDArray[np.generic] = content["S"]
    return ids


SPEC = DatasetSpec(
    name="coco_stuff10k",
    title="COCO-Stuff 10k",
    source="v1.1",
    about_source="10k images, version 1.1",
    classes=read_classes("coco_stuff10k"),
    ignored={0: "unlabeled"},
    train_splits=("train",),
    eval_split="test",
    counts=_COUNTS,
    archives=(
        Archive(
            name="cocostuff-10k-v1.1.zip",
            urls=("http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/cocostuff-10k-v1.1.zip",),
            members=r"images/[^/]+\.jpg|annotations/[^/]+\.mat|imageLists/(train|test)\.txt",
            page="https://github.com/nightrome/cocostuff10k",
        ),
    ),
    licence="photographs under the Flickr terms; annotations CC BY 4.0",
    index=index,
    read_mask=read_mask,
)
