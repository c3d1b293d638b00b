"""Pascal Context with 59 classes: VOC 2010 photographs, labelled everywhere.

The masks are those of ``trainval_merged.json``, which the literature has used since EncNet (the older ``.mat`` masks
differ): 4996 training and 5104 validation images, not the 4998 and 5105 often quoted. A mask is painted from an
image's entries in file order, later ones over earlier ones. Train ids follow ascending raw ids; what no entry covers
is background, ignored in the 59-class protocol.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from gald.datasets._spec import Archive, DatasetSpec, RawSample, Segment, read_classes
from gald.errors import DatasetError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_JSON = "trainval_merged.json"
_COUNTS = {"train": 4996, "val": 5104}  # the JSON's third phase, test, has no annotation


def index(raw: Path) -> dict[str, list[RawSample]]:
    """List the samples of the JSON's phases train and val, each with its segments in file order.

    Raises
    ------
    DatasetError
        The JSON is missing, damaged, or lacks a key.
    """
    path = raw / _JSON
    try:
        content = json.loads(path.read_text())
        segments = defaultdict(list)
        for entry in content["annos_segmentation"]:
            height, width = entry["segmentation"]["size"]
            segment = Segment(int(entry["category_id"]), (height, width), entry["segmentation"]["counts"])
            segments[entry["image_id"]].append(segment)
        samples: dict[str, list[RawSample]] = {split: [] for split in _COUNTS}
        for image in content["images"]:
            if image["phase"] in samples:
                file = raw / "JPEGImages" / Path(image["file_name"]).name
                painted = tuple(segments[image["image_id"]])
                size = (int(image["height"]), int(image["width"]))
                samples[image["phase"]].append(RawSample(file.stem, file, path, painted, size))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing; run `gald download` again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error!r}); get it again") from error
    return samples


def read_mask(sample: RawSample) -> npt.NDArray[np.generic]:
    """Paint the segments in order, later ones over earlier ones; 0 where there is none.

    Returns
    -------
    ndarray of uint16, shape (h, w)

    Raises
    ------
    DatasetError
        A segment is damaged, or its size is not the image's.
    """
    import numpy as np

    from gald.datasets._rle import decode

    assert sample.size is not None  # set by `index`
    ids = np.zeros(sample.size, dtype=np.uint16)
    for segment in sample.segments:
        if segment.size != sample.size:
            raise DatasetError(f"a segment of size {segment.size} in an image of size {sample.size}")
        ids[decode(segment.counts, segment.size)] = segment.raw_id
    return ids


SPEC = DatasetSpec(
    name="pascal_context",
    title="Pascal Context",
    source="json",
    about_source="masks of trainval_merged.json",
    classes=read_classes("pascal_context"),
    ignored={0: "background"},
    train_splits=("train",),
    eval_split="val",
    counts=_COUNTS,
    archives=(
        Archive(
            name="VOCtrainval_03-May-2010.tar",
            urls=("http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",),
            strip=r"VOCdevkit/VOC2010/",
            members=r"JPEGImages/[^/]+\.jpg",
            digests={"md5": "da459979d0c395079b5c75ee67908abb", "sha1": "bf9985e9f2b064752bf6bd654d89f017c76c395a"},
            page="http://host.robots.ox.ac.uk/pascal/VOC/voc2010/",
        ),
        Archive(
            name=_JSON,
            urls=("https://codalabuser.blob.core.windows.net/public/trainval_merged.json",),
            digests={"sha1": "169325d9f7e9047537fedca7b04de4dddf10b881"},
            page="https://github.com/ccvl/detail-api",
        ),
    ),
    licence="photographs under the Flickr terms; the labels state none",
    index=index,
    read_mask=read_mask,
)
