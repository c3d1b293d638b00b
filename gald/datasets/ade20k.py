"""ADE20K as SceneParse150: 150 classes of indoor and outdoor scenes, 20210 training and 2000 validation images.

Masks hold 0 for all else and k = 1 to 150 for class k - 1. The table does that shift once, without the wrap-around of
subtracting one from 0 in 8 bits. Four training images are grayscale; prepare makes them RGB.
"""

from __future__ import annotations

from pathlib import Path

from gald.datasets._spec import Archive, DatasetSpec, RawSample, pair, read_classes, read_png_ids

_FOLDERS = {"train": "training", "val": "validation"}


def index(raw: Path) -> dict[str, list[RawSample]]:
    """List the samples by file stem.

    Raises
    ------
    DatasetError
        An image has no mask, or a mask no image.
    """
    return {
        split: pair(
            {path.stem: path for path in (raw / "images" / folder).glob("*.jpg")},
            {path.stem: path for path in (raw / "annotations" / folder).glob("*.png")},
            f"ade20k {split}",
        )
        for split, folder in _FOLDERS.items()
    }


SPEC = DatasetSpec(
    name="ade20k",
    title="ADE20K",
    source="challenge",
    about_source="SceneParse150, the challenge of 2016",
    classes=read_classes("ade20k"),
    ignored={0: "other objects"},
    train_splits=("train",),
    eval_split="val",
    counts={"train": 20210, "val": 2000},
    archives=(
        Archive(
            name="ADEChallengeData2016.zip",
            urls=("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
            strip=r"ADEChallengeData2016/",
            members=r"images/(training|validation)/[^/]+\.jpg|annotations/(training|validation)/[^/]+\.png",
            digests={"sha256": "7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29"},
            size=967382037,
            page="http://sceneparsing.csail.mit.edu/",
        ),
    ),
    licence="ADE20K terms, https://groups.csail.mit.edu/vision/ADE20K/terms/",
    index=index,
    read_mask=read_png_ids,
)
