"""ADE20K as SceneParse150: 150 classes of indoor and outdoor scenes, 20210 training and 2000 validation images.

Masks hold 0 for all else and k = 1 to 150 for class k - 1. The table does that shift once, without the wrap-around of
subtracting one from 0 in 8 bits. Four training images are grayscale; prepare makes them RGB. The full ADE20K dataset,
with thousands of object names and parts in coloured masks, is another one and is refused by name.
"""

from __future__ import annotations

from pathlib import Path

from gald.datasets._raw import read_classes, read_png_ids
from gald.datasets._spec import Archive, DatasetSpec, Lookalike, RawSample, Submission, Terms

_FOLDERS = {"train": "training", "val": "validation"}


def index(raw: Path) -> dict[str, list[RawSample]]:
    """List the samples by file stem: of an image without a mask and of a mask without an image, too.

    Prepare says of those what is missing, together with all else that is wrong.
    """
    samples = {}
    for split, folder in _FOLDERS.items():
        images, masks = raw / "images" / folder, raw / "annotations" / folder
        stems = {path.stem for path in (*images.glob("*.jpg"), *masks.glob("*.png"))}
        samples[split] = [RawSample(stem, images / f"{stem}.jpg", masks / f"{stem}.png") for stem in sorted(stems)]
    return samples


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
            digests={
                "sha256": "7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
                "sha1": "219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
                "md5": "7328b3957e407ddae1d3cbf487f149ef",
            },
            size=967382037,
            unpacked=1_000_000_000,
            page="http://sceneparsing.csail.mit.edu/",
        ),
    ),
    licence="ADE20K terms of use",
    terms=Terms("no account; keep to the terms of the site", ("https://groups.csail.mit.edu/vision/ADE20K/terms/",)),
    index=index,
    read_mask=read_png_ids,
    submission=Submission(
        page="http://sceneparsing.csail.mit.edu/eval/",
        pattern=r"(?P<name>ADE_test_\d{8})",
        example="ADE_test_00000001",
        images=3352,
    ),
    lookalikes=(
        Lookalike(
            r"(ADE20K_20\d\d_\d\d_\d\d|full_data)(\.zip$|\.tar|/)",
            "the full ADE20K dataset, whose masks are coloured and whose classes are others; the benchmark of 150 "
            "classes is ADEChallengeData2016.zip",
        ),
    ),
)
