"""Pascal Context with 59 classes, or with the background as a sixtieth: VOC 2010 photographs, labelled everywhere.

There are two sets of masks, and they differ, and so do their counts. The source ``json`` is ``trainval_merged.json``,
which the literature has used since EncNet: 4996 training and 5104 validation images; a mask is painted from an image's
entries in file order, later ones over earlier ones. The source ``mat`` is the authors' original label maps, one MATLAB
file per image: 4998 and 5105 images by VOC's own lists, and 459 labels, of which the 59 are mapped and all others
ignored by name. Those names (``classes/pascal_context_459.csv``) are the ones of the archive's ``labels.txt``, which
agree in shelhamer/fcn.berkeleyvision.org and in mseg-api.

Train ids follow ascending raw ids, which both sources share; pixels without a label are background, ignored in the
59-class protocol. In the 60-class one, of the sources ``json-60`` and ``mat-60``, the background is class 0 and counts
in the mean; of the original label maps it is all that is none of the 59, as for the FCNs whose code is published
(shelhamer/fcn.berkeleyvision.org, ``pascalcontext_layers.py``). HRNet-W48 has 54.1 with 59 classes and 48.3 with 60
(its README): numbers of the two are never compared.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gald.datasets._raw import read_classes, read_list, read_mat_ids, read_table
from gald.datasets._spec import Archive, ClassInfo, DatasetSpec, Lookalike, RawSample, Segment, Terms
from gald.errors import DatasetError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_JSON = "trainval_merged.json"
_COUNTS = {"train": 4996, "val": 5104}  # the JSON's third phase, test, has no annotation
_MAT_COUNTS = {"train": 4998, "val": 5105}
_LONGEST = 10_000  # pixels; photographs of VOC have 500, and damage must not ask for all memory
_BACKGROUND = {0: "background"}
_BLACK = (0, 0, 0)  # what the colours of the 59 leave free
_IMAGES = r"JPEGImages/[^/]+\.jpg"
_LISTS = r"ImageSets/Main/(train|val)\.txt"


def index(raw: Path) -> dict[str, list[RawSample]]:
    """List the samples of the JSON's phases train and val, each with its segments in file order.

    Raises
    ------
    DatasetError
        The JSON is missing, damaged, or lacks a key.
    """
    path = raw / _JSON
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
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
        A segment is damaged, its size is not the image's, or that is no photograph's.
    """
    import numpy as np

    from gald.datasets._rle import decode

    assert sample.size is not None  # set by `index`
    if not 0 < min(sample.size) <= max(sample.size) <= _LONGEST:
        raise DatasetError(f"an image of size {sample.size}")
    ids = np.zeros(sample.size, dtype=np.uint16)
    for segment in sample.segments:
        if segment.size != sample.size:
            raise DatasetError(f"a segment of size {segment.size} in an image of size {sample.size}")
        ids[decode(segment.counts, segment.size)] = segment.raw_id
    return ids


def index_mat(raw: Path) -> dict[str, list[RawSample]]:
    """List the samples of VOC's own lists, ``ImageSets/Main/{train,val}.txt``, one stem per line.

    Raises
    ------
    DatasetError
        A list is missing, or ``labels.txt`` gives an id of the 59 classes to another label.
    """
    _check_labels(raw / "labels.txt")
    return {
        split: [
            RawSample(stem, raw / "JPEGImages" / f"{stem}.jpg", raw / "trainval" / f"{stem}.mat")
            for stem in (line.strip() for line in read_list(raw / "ImageSets" / "Main" / f"{split}.txt"))
        ]
        for split in _MAT_COUNTS
    }


def _check_labels(path: Path) -> None:
    """Compare the archive's own list of labels, ``1: accordion``, with the classes: ids are what masks are read by."""
    listed = {}
    for line in read_list(path):
        raw_id, _, name = line.partition(":")
        listed[raw_id.strip()] = name.strip()
    for info in read_classes("pascal_context"):  # of every form, with the background or without
        found = listed.get(str(info.raw_ids[0]))
        if found != info.name:
            raise DatasetError(
                f"{path}: id {info.raw_ids[0]} is {found or 'missing'}, expected {info.name}; is it the "
                "trainval.tar.gz of PASCAL-Context?"
            )


def read_mat_mask(sample: RawSample) -> npt.NDArray[np.generic]:
    """Read field ``LabelMap`` of the MATLAB file.

    Returns
    -------
    ndarray of uint16, shape (h, w)
        Ids 0 to 459.

    Raises
    ------
    DatasetError
        The file has no such field, or it is no map of whole numbers.
    """
    return read_mat_ids(sample, "LabelMap")


def _with_background(spec: DatasetSpec) -> DatasetSpec:
    """The same masks in the 60-class protocol."""
    background = ClassInfo("background", _BLACK, tuple(sorted(spec.ignored)))
    return replace(
        spec,
        source=f"{spec.source}-60",
        about_source=f"{spec.about_source}, with the background as class 0 of 60",
        classes=(background, *spec.classes),
        ignored={},
    )


_VOC = Archive(
    name="VOCtrainval_03-May-2010.tar",
    urls=("http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",),
    strip=r"VOCdevkit/VOC2010/",
    members=_IMAGES,
    digests={"md5": "da459979d0c395079b5c75ee67908abb", "sha1": "bf9985e9f2b064752bf6bd654d89f017c76c395a"},
    about=1_300_000_000,
    unpacked=1_200_000_000,
    page="http://host.robots.ox.ac.uk/pascal/VOC/voc2010/",
)

SPEC = DatasetSpec(
    name="pascal_context",
    title="Pascal Context",
    source="json",
    about_source="masks of trainval_merged.json",
    classes=read_classes("pascal_context"),
    ignored=_BACKGROUND,
    train_splits=("train",),
    eval_split="val",
    counts=_COUNTS,
    archives=(
        _VOC,
        Archive(
            name=_JSON,
            urls=("https://codalabuser.blob.core.windows.net/public/trainval_merged.json",),
            digests={"sha1": "169325d9f7e9047537fedca7b04de4dddf10b881"},
            page="https://github.com/ccvl/detail-api",
        ),
    ),
    licence="photographs under the Flickr terms; the labels state none",
    terms=Terms("no account; keep to the terms of the photographs", ("https://www.flickr.com/help/terms",)),
    index=index,
    read_mask=read_mask,
)

_CLASS_IDS = {raw_id for info in SPEC.classes for raw_id in info.raw_ids}
_MAT = replace(
    SPEC,
    source="mat",
    about_source="original label maps, one .mat file per image",
    ignored=_BACKGROUND
    | {
        int(row["raw_id"]): row["name"]
        for row in read_table("pascal_context_459")
        if int(row["raw_id"]) not in _CLASS_IDS
    },
    counts=_MAT_COUNTS,
    archives=(
        replace(_VOC, members=f"{_IMAGES}|{_LISTS}"),
        Archive(
            name="trainval.tar.gz",
            urls=(
                "https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz",
                "https://roozbehm.info/pascal-context/trainval.tar.gz",
            ),
            strip=r"(\./)?",
            members=r"trainval/[^/]+\.mat|labels\.txt",
            about=30_700_000,
            unpacked=200_000_000,
            page="https://cs.stanford.edu/~roozbeh/pascal-context/",
        ),
    ),
    index=index_mat,
    read_mask=read_mat_mask,
    lookalikes=(
        Lookalike(
            r"Annotations_Part/",
            "the trainval.tar.gz of PASCAL-Part, parts of objects; that of PASCAL-Context bears the same name and is "
            "meant, https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz",
        ),
    ),
)
SPEC = replace(SPEC, alternatives=(_MAT, _with_background(SPEC), _with_background(_MAT)))
