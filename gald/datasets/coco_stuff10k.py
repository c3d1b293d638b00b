"""COCO-Stuff 10k, version 1.1: 171 classes of things and stuff, 9000 training and 1000 test images.

Annotations are MATLAB files whose field ``S`` holds raw ids 0 to 182; 0 is unlabeled and ignored. Eleven thing ids
never occur: they are in no list here, so that one of them is an error and not a class. The 164k version and version
1.0 number the classes otherwise; their archives are refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gald.datasets._raw import read_classes, read_list, read_mat_ids
from gald.datasets._spec import Archive, DatasetSpec, Lookalike, RawSample, Terms

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
    ndarray of an integer type, shape (h, w)
        Raw ids; the file has them as uint8 or float64.

    Raises
    ------
    DatasetError
        The file has no such field, or it is no map of whole numbers.
    """
    return read_mat_ids(sample, "S")


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
            about=2_000_000_000,
            unpacked=2_100_000_000,
            page="https://github.com/nightrome/cocostuff10k",
        ),
    ),
    licence="photographs under the Flickr terms; annotations CC BY 4.0",
    terms=Terms(
        "no account; keep to the terms of the photographs, and name the annotations' authors",
        ("https://www.flickr.com/help/terms", "https://creativecommons.org/licenses/by/4.0/"),
    ),
    index=index,
    read_mask=read_mask,
    lookalikes=(
        Lookalike(
            r"cocostuff-10k-(data-)?v1\.0",
            "version 1.0 of COCO-Stuff 10k, which numbers the classes otherwise; version 1.1 is cocostuff-10k-v1.1.zip",
        ),
        Lookalike(
            r"stuffthingmaps_|(train|val)2017/\d{12}\.png",
            "the masks of COCO-Stuff 164k, whose ids are shifted by one; the 10k benchmark is cocostuff-10k-v1.1.zip",
        ),
    ),
)
