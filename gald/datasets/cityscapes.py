"""Cityscapes, fine annotations: 19 classes of street scenes at 2048x1024.

Train and val hold 2975 and 500 images. The test split's masks are dummies (its scores come from the benchmark's
server), so it is not unpacked. Masks are ``labelIds`` PNGs of raw ids 0 to 33; the table below is the official one,
which makes the official redraw from polygons unnecessary.
"""

from __future__ import annotations

from pathlib import Path

from gald.datasets._spec import Archive, DatasetSpec, RawSample, pair, read_classes, read_png_ids

_COUNTS = {"train": 2975, "val": 500}
_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"
_IGNORED = {
    0: "unlabeled",
    1: "ego vehicle",
    2: "rectification border",
    3: "out of roi",
    4: "static",
    5: "dynamic",
    6: "ground",
    9: "parking",
    10: "rail track",
    14: "guard rail",
    15: "bridge",
    16: "tunnel",
    18: "polegroup",
    29: "caravan",
    30: "trailer",
}


def index(raw: Path) -> dict[str, list[RawSample]]:
    """List the samples by ``<city>_<sequence>_<frame>``, the part that the names of image and mask share.

    Raises
    ------
    DatasetError
        An image has no mask, or a mask no image.
    """
    return {
        split: pair(
            {path.name.removesuffix(_IMAGE): path for path in (raw / "leftImg8bit" / split).glob(f"*/*{_IMAGE}")},
            {path.name.removesuffix(_MASK): path for path in (raw / "gtFine" / split).glob(f"*/*{_MASK}")},
            f"cityscapes {split}",
        )
        for split in _COUNTS
    }


SPEC = DatasetSpec(
    name="cityscapes",
    title="Cityscapes",
    source="fine",
    about_source="fine annotations",
    classes=read_classes("cityscapes"),
    ignored=_IGNORED,
    train_splits=("train",),
    eval_split="val",
    counts=_COUNTS,
    archives=(
        Archive(
            name="gtFine_trainvaltest.zip",
            members=r"gtFine/(train|val)/[^/]+/[^/]+_gtFine_labelIds\.png",
            digests={"md5": "4237c19de34c8a376e9ba46b495d6f66", "sha1": "99f532cb1af174f5fcc4c5bc8feea8c66246ddbc"},
            page="https://www.cityscapes-dataset.com/file-handling/?packageID=1 "
            "(register at https://www.cityscapes-dataset.com/register/)",
        ),
        Archive(
            name="leftImg8bit_trainvaltest.zip",
            members=r"leftImg8bit/(train|val)/[^/]+/[^/]+_leftImg8bit\.png",
            digests={"md5": "0a6e97e94b616a514066c9e2adb0c97f", "sha1": "2c0b77ce9933cc635adda307fbba5566f5d9d404"},
            page="https://www.cityscapes-dataset.com/file-handling/?packageID=3 "
            "(register at https://www.cityscapes-dataset.com/register/)",
        ),
    ),
    licence="Cityscapes terms, https://www.cityscapes-dataset.com/license/; images must not be republished",
    index=index,
    read_mask=read_png_ids,
)
