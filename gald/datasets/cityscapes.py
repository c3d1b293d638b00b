"""Cityscapes: 19 classes of street scenes at 2048x1024, with fine masks, and with coarse ones for 19997 images more.

Train and val hold 2975 and 500 images. The 1525 of the test split come without labels: its masks in the archive are
dummies (scores come from the benchmark's server), so only its images are unpacked. Masks are ``labelIds`` PNGs of raw
ids 0 to 33; the table below is the official one, which makes the official redraw from polygons unnecessary. The source
``fine`` has these splits; ``coarse`` adds the split ``train_extra``: roughly outlined objects, with much left
unlabeled in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gald.datasets._raw import read_classes, read_png_ids
from gald.datasets._spec import Archive, DatasetSpec, Login, RawSample, Submission, Terms

_IMAGE = "_leftImg8bit.png"
_LABELLED = ("train", "val")
_COUNTS = {"train": 2975, "val": 500, "test": 1525}
_EXTRA = "train_extra"
_BROKEN = "troisdorf_000000_000073"
"""Image of train_extra that is black and one-channel in the archive: 19997 of its 19998 can be used."""
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
_LOGIN = Login(
    title="Cityscapes",
    url="https://www.cityscapes-dataset.com/login",
    register="https://www.cityscapes-dataset.com/register/",
    variables=("CITYSCAPES_USERNAME", "CITYSCAPES_PASSWORD"),
    client="cityscapesscripts",
    author="cityscapes",
)


def _stems(folder: Path, suffix: str) -> set[tuple[str, str]]:
    """City and ``<city>_<sequence>_<frame>`` of files, the part that the names of image and mask share."""
    return {(path.parent.name, path.name.removesuffix(suffix)) for path in folder.glob(f"*/*{suffix}")}


def _labelled(raw: Path, split: str, kind: str) -> list[RawSample]:
    """List what has an image or a mask; of one that lacks the other, prepare says what is missing."""
    images, masks, suffix = raw / "leftImg8bit" / split, raw / kind / split, f"_{kind}_labelIds.png"
    stems = _stems(images, _IMAGE) | _stems(masks, suffix)
    return [
        RawSample(stem, images / city / f"{stem}{_IMAGE}", masks / city / f"{stem}{suffix}")
        for city, stem in sorted(stems)
    ]


def index(raw: Path) -> dict[str, list[RawSample]]:
    """List the samples of the fine annotations, and the test images without masks."""
    images = raw / "leftImg8bit" / "test"
    tested = [RawSample(stem, images / city / f"{stem}{_IMAGE}", None) for city, stem in sorted(_stems(images, _IMAGE))]
    return {split: _labelled(raw, split, "gtFine") for split in _LABELLED} | {"test": tested}


def index_coarse(raw: Path) -> dict[str, list[RawSample]]:
    """List the samples of the fine annotations, and those of train_extra except the broken one."""
    extra = [sample for sample in _labelled(raw, _EXTRA, "gtCoarse") if sample.id != _BROKEN]
    return index(raw) | {_EXTRA: extra}


def _archive(name: str, package: int, members: Iterable[str], about: int, unpacked: int, **digests: str) -> Archive:
    """Describe one of the host's packages; its members' paths end in one of the given forms."""
    url = f"https://www.cityscapes-dataset.com/file-handling/?packageID={package}"
    return Archive(
        name=name,
        urls=(url,),
        members="|".join(members),
        digests=digests,
        about=about,
        unpacked=unpacked,
        page=url,
        login=_LOGIN,
    )


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
    unlabelled=("test",),
    size=(1024, 2048),
    archives=(
        _archive(
            "gtFine_trainvaltest.zip",
            1,
            [r"gtFine/(train|val)/[^/]+/[^/]+_gtFine_labelIds\.png"],
            about=241_000_000,
            unpacked=150_000_000,
            md5="4237c19de34c8a376e9ba46b495d6f66",
            sha1="99f532cb1af174f5fcc4c5bc8feea8c66246ddbc",
        ),
        _archive(
            "leftImg8bit_trainvaltest.zip",
            3,
            [r"leftImg8bit/(train|val|test)/[^/]+/[^/]+_leftImg8bit\.png"],
            about=11_000_000_000,
            unpacked=11_600_000_000,
            md5="0a6e97e94b616a514066c9e2adb0c97f",
            sha1="2c0b77ce9933cc635adda307fbba5566f5d9d404",
        ),
    ),
    licence="Cityscapes terms; images must not be republished",
    terms=Terms("accept its own terms on registration", ("https://www.cityscapes-dataset.com/license/",)),
    index=index,
    read_mask=read_png_ids,
    submission=Submission(
        page="https://www.cityscapes-dataset.com/submit/",
        pattern=r"(?P<name>[^_]+_\d{6}_\d{6}).*",
        example="berlin_000000_000019_leftImg8bit",
        images=_COUNTS["test"],
    ),
)

_COARSE = replace(
    SPEC,
    source="coarse",
    about_source="fine annotations, and coarse ones for the split train_extra",
    counts={**_COUNTS, _EXTRA: 19997},
    archives=(
        *SPEC.archives,
        _archive(
            "gtCoarse.zip",
            2,
            [r"gtCoarse/train_extra/[^/]+/[^/]+_gtCoarse_labelIds\.png"],
            about=1_300_000_000,
            unpacked=500_000_000,
            md5="1c7b95c84b1d36cc59a9194d8e5b989f",
        ),
        _archive(
            "leftImg8bit_trainextra.zip",
            4,
            [r"leftImg8bit/train_extra/[^/]+/[^/]+_leftImg8bit\.png"],
            about=44_000_000_000,
            unpacked=46_000_000_000,
            md5="9167a331a158ce3e8989e166c95d56d4",
        ),
    ),
    index=index_coarse,
)
SPEC = replace(SPEC, alternatives=(_COARSE,))
