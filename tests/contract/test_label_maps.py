"""Every benchmark's label map, id by id and in both directions, against lists typed here from their documents.

A wrong map spoils every score and shows in none, so that nothing here is taken from the class lists under test.
"""

import csv
import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from gald.datasets import load_spec, names
from gald.datasets._spec import IGNORE_INDEX, UNKNOWN, DatasetSpec

_PASCAL = (
    "2 9 18 19 22 23 25 31 33 34 44 45 46 59 65 68 72 80 85 98 104 105 113 115 144 158 159 162 187 189 207 220 232 258 "
    "259 260 284 295 296 308 324 326 347 349 354 355 360 366 368 397 415 416 420 424 427 440 445 454 458"
)
_PASCAL_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow table dog horse motorbike person pottedplant sheep sofa "
    "train tvmonitor bag bed bench book building cabinet ceiling cloth computer cup door fence floor flower food grass "
    "ground keyboard light mountain mouse curtain platform sign plate road rock shelves sidewalk sky snow bedclothes "
    "track tree truck wall water window wood"
)
"""The authors' own order; three under the names of the 459 labels: diningtable, clothes and bedcloth are theirs."""
_COCO_HOLES = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
_CITYSCAPES = (
    "unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road, sidewalk, parking, rail "
    "track, building, wall, fence, guard rail, bridge, tunnel, pole, polegroup, traffic light, traffic sign, "
    "vegetation, terrain, sky, person, rider, car, truck, bus, caravan, trailer, train, motorcycle, bicycle"
)
_CAMVID = {
    "Sky": "Sky 128,128,128",
    "Building": "Building 128,0,0; Bridge 0,128,64; Wall 64,192,0; Tunnel 64,0,64; Archway 192,0,128",
    "Pole": "Column_Pole 192,192,128; TrafficCone 0,0,64",
    "Road": "Road 128,64,128; LaneMkgsDriv 128,0,192; LaneMkgsNonDriv 192,0,64",
    "Pavement": "Sidewalk 0,0,192; ParkingBlock 64,192,128; RoadShoulder 128,128,192",
    "Tree": "Tree 128,128,0; VegetationMisc 192,192,0",
    "SignSymbol": "SignSymbol 192,128,128; Misc_Text 128,128,64; TrafficLight 0,64,64",
    "Fence": "Fence 64,64,128",
    "Car": "Car 64,0,128; SUVPickupTruck 64,128,192; Truck_Bus 192,128,192; Train 192,64,128; OtherMoving 128,64,64",
    "Pedestrian": "Pedestrian 64,64,0; Child 192,128,64; CartLuggagePram 64,0,192; Animal 64,128,64",
    "Bicyclist": "Bicyclist 0,128,192; MotorcycleScooter 192,0,192",
    "Void": "Void 0,0,0",
}
_MERGED = {kind: [part.rsplit(" ", 1)[0] for part in listed.split("; ")] for kind, listed in _CAMVID.items()}
_ALPHABETICAL = sorted((name for kin in _MERGED.values() for name in kin), key=str.lower)
RAW_IDS: dict[tuple[str, str], list[tuple[int, ...]]] = {
    ("cityscapes", "fine"): [(raw,) for raw in (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)],
    ("ade20k", "challenge"): [(raw,) for raw in range(1, 151)],
    ("pascal_context", "json"): [(int(raw),) for raw in _PASCAL.split()],
    ("camvid", "segnet"): [(raw,) for raw in range(11)],
    ("camvid", "original"): [
        tuple(sorted(_ALPHABETICAL.index(name) for name in kin)) for kind, kin in _MERGED.items() if kind != "Void"
    ],
    ("coco_stuff10k", "v1.1"): [(raw,) for raw in range(1, 183) if raw not in _COCO_HOLES],
}
"""Raw ids of each train id, typed from the benchmarks' own documents, apart from the class lists."""
RAW_IDS["cityscapes", "coarse"] = RAW_IDS["cityscapes", "fine"]
RAW_IDS["pascal_context", "mat"] = RAW_IDS["pascal_context", "json"]
_UNLABELLED = (0, *(raw for raw in range(1, 460) if str(raw) not in _PASCAL.split()))
RAW_IDS["pascal_context", "json-60"] = [(0,), *RAW_IDS["pascal_context", "json"]]
RAW_IDS["pascal_context", "mat-60"] = [_UNLABELLED, *RAW_IDS["pascal_context", "mat"]]
IGNORED = {
    ("cityscapes", "fine"): {0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30},
    ("cityscapes", "coarse"): {0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30},
    ("ade20k", "challenge"): {0},
    ("pascal_context", "json"): {0},
    ("pascal_context", "mat"): set(range(460)) - {int(raw) for raw in _PASCAL.split()},
    ("pascal_context", "json-60"): set(),
    ("pascal_context", "mat-60"): set(),
    ("camvid", "segnet"): {11},
    ("camvid", "original"): {30},
    ("coco_stuff10k", "v1.1"): {0},
}
CHECKED = {
    "ade20k": "91c96e580ffd77f4",
    "camvid": "1e24353e82b42fd8",
    "camvid_32": "54167a3029d554f1",
    "camvid_splits": "a7a004b66f15bad9",
    "cityscapes": "2e5f0307cd0147a2",
    "coco_stuff10k": "876fc54b9a407c37",
    "pascal_context": "00f6ad4fbda37d93",
    "pascal_context_459": "09accd683b0ef289",
}
"""First digits of the sha256 of each list, as compared row by row with the published ones."""
CLASSES = {"cityscapes": 19, "ade20k": 150, "pascal_context": 59, "camvid": 11, "coco_stuff10k": 171}

every_source = pytest.mark.parametrize(
    "spec",
    [spec for name in names() for spec in load_spec(name).sources.values()],
    ids=lambda spec: f"{spec.name}-{spec.source}",
)


def table(name: str) -> list[dict[str, str]]:
    """A file of the class lists, read without the package's own readers."""
    folder = Path(sys.modules["gald.datasets"].__path__[0]) / "classes"
    return list(csv.DictReader((folder / f"{name}.csv").read_text().splitlines()))


def test_the_lists_are_the_ones_that_were_checked() -> None:
    folder = Path(sys.modules["gald.datasets"].__path__[0]) / "classes"
    assert {path.stem: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in folder.iterdir()} == CHECKED


@every_source
def test_classes_and_ids_both_ways(spec: DatasetSpec) -> None:
    expected, ignored = RAW_IDS[spec.name, spec.source], IGNORED[spec.name, spec.source]
    classes = CLASSES[spec.name] + spec.source.endswith("-60")
    assert len(spec.classes) == len(spec.class_names) == len(spec.palette) == classes == len(expected)
    assert len(set(spec.class_names)) == classes
    assert [tuple(sorted(info.raw_ids)) for info in spec.classes] == expected
    assert set(spec.ignored) == ignored
    lookup = spec.lookup()
    back = {raw: train_id for train_id, raw_ids in enumerate(expected) for raw in raw_ids}
    for raw in range(1000):
        found = lookup[raw] if raw < len(lookup) else UNKNOWN
        assert found == back.get(raw, IGNORE_INDEX if raw in ignored else UNKNOWN)
    assert set(np.unique(lookup)) - {UNKNOWN} == {*range(classes), *([IGNORE_INDEX] if ignored else [])}


@every_source
def test_the_class_lists_say_the_same(spec: DatasetSpec) -> None:
    rows, extra = table(spec.name), spec.source.endswith("-60")
    assert [int(row["index"]) for row in rows] == list(range(CLASSES[spec.name]))
    assert tuple(row["name"] for row in rows) == spec.class_names[extra:]
    assert tuple(tuple(int(row[key]) for key in ("red", "green", "blue")) for row in rows) == spec.palette[extra:]
    if spec.source != "original":  # whose raw ids are those of camvid_32.csv
        assert [tuple(map(int, row["raw_ids"].split())) for row in rows] == RAW_IDS[spec.name, spec.source][extra:]


@pytest.mark.parametrize(("source", "unlabelled"), [("json-60", 1), ("mat-60", 401)])
def test_the_background_may_be_a_class_that_counts(source: str, unlabelled: int) -> None:
    spec, usual = load_spec("pascal_context", source), load_spec("pascal_context", source[:-3])
    first = spec.classes[0]
    assert (first.name, first.colour) == ("background", (0, 0, 0))
    assert len(first.raw_ids) == len(usual.ignored) == unlabelled
    assert spec.classes[1:] == usual.classes
    assert not spec.ignored
    seen, shifted = usual.lookup().astype(int), spec.lookup()
    known = seen != UNKNOWN
    assert (shifted[known] == np.where(seen == IGNORE_INDEX, 0, seen + 1)[known]).all()
    assert (shifted[~known] == UNKNOWN).all()


def test_names_stand_at_their_ids() -> None:
    for source in ("fine", "coarse"):
        spec = load_spec("cityscapes", source)
        official = _CITYSCAPES.split(", ")
        assert len(official) == 34
        named = {raw: info.name for info in spec.classes for raw in info.raw_ids} | dict(spec.ignored)
        assert [named[raw] for raw in range(34)] == official
    ade, coco = load_spec("ade20k"), load_spec("coco_stuff10k")
    anchors = {1: "wall", 2: "building", 3: "sky", 7: "road", 13: "person", 21: "car", 49: "skyscraper", 150: "flag"}
    assert {raw: ade.class_names[raw - 1] for raw in anchors} == anchors
    named = {raw: info.name for info in coco.classes for raw in info.raw_ids}
    anchors = {1: "person", 11: "fire hydrant", 13: "stop sign", 90: "toothbrush", 92: "banner", 182: "wood"}
    assert {raw: named[raw] for raw in anchors} == anchors
    assert _MERGED.keys() - {"Void"} == set(load_spec("camvid").class_names)
    assert list(load_spec("camvid").class_names) == [name for name in _CAMVID if name != "Void"]


@pytest.mark.parametrize("source", ["json", "mat"])
def test_pascal_context_ids_bear_the_authors_names(source: str) -> None:
    labels = {int(row["raw_id"]): row["name"] for row in table("pascal_context_459")}
    assert list(labels) == list(range(1, 460))
    listed = list(labels.values())
    assert listed == sorted(set(listed))  # the authors' list is alphabetical, so that a shift or a loss would show
    ends = {1: "accordion", 19: "bedclothes", 80: "cloth", 397: "table", 431: "unknown", 459: "wool"}
    assert {raw: labels[raw] for raw in ends} == ends
    spec = load_spec("pascal_context", source)
    assert {info.name for info in spec.classes} == set(_PASCAL_NAMES.split())
    assert all(labels[info.raw_ids[0]] == info.name for info in spec.classes)
    expected = {0: "background"}
    if source == "mat":
        expected |= {raw: name for raw, name in labels.items() if name not in _PASCAL_NAMES.split()}
    assert spec.ignored == expected
    assert len(expected) == (401 if source == "mat" else 1)


def test_camvid_colours_are_the_32() -> None:
    spec = load_spec("camvid", "original")
    colours = {
        name: tuple(map(int, colour.split(",")))
        for listed in _CAMVID.values()
        for name, colour in (part.rsplit(" ", 1) for part in listed.split("; "))
    }
    rows = table("camvid_32")
    assert [int(row["raw_id"]) for row in rows] == list(range(32))
    assert [row["name"] for row in rows] == _ALPHABETICAL
    assert [tuple(int(row[key]) for key in ("red", "green", "blue")) for row in rows] == [
        colours[name] for name in _ALPHABETICAL
    ]
    assert len(set(colours.values())) == 32
    for row in rows:  # each by name, to its class and from it
        assert row["name"] in _MERGED[row["class"]]
        train_id = spec.lookup()[int(row["raw_id"])]
        assert train_id == (255 if row["class"] == "Void" else spec.class_names.index(row["class"]))
    namesakes = {"Pole": "Column_Pole", "Pavement": "Sidewalk"}
    for info in spec.classes:  # the palette is that of the 11 namesakes
        assert info.colour == colours[namesakes.get(info.name, info.name)]


@every_source
def test_no_id_is_both_a_class_and_ignored(spec: DatasetSpec) -> None:
    mapped = [raw for info in spec.classes for raw in info.raw_ids]
    assert len(mapped) == len(set(mapped))
    assert not set(mapped) & set(spec.ignored)
    assert all(spec.ignored.values())
