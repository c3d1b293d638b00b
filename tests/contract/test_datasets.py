"""What every benchmark's file promises, by listing."""

import re
import subprocess
import sys

import pytest

from gald.datasets import load_spec, names
from gald.datasets._native import MINIATURES
from gald.datasets._spec import IGNORE_INDEX, UNKNOWN
from gald.datasets._synthetic import Part
from gald.errors import DatasetError

_PASCAL = (
    "2 9 18 19 22 23 25 31 33 34 44 45 46 59 65 68 72 80 85 98 104 105 113 115 144 158 159 162 187 189 207 220 232 258 "
    "259 260 284 295 296 308 324 326 347 349 354 355 360 366 368 397 415 416 420 424 427 440 445 454 458"
)
_COCO_HOLES = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
RAW_IDS = {
    "cityscapes": [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33],
    "ade20k": list(range(1, 151)),
    "pascal_context": [int(raw) for raw in _PASCAL.split()],
    "camvid": list(range(11)),
    "coco_stuff10k": [raw for raw in range(1, 183) if raw not in _COCO_HOLES],
}
"""Raw id of each train id, typed from the benchmarks' own documents, apart from the class lists."""
IGNORED = {
    "cityscapes": set(range(34)) - set(RAW_IDS["cityscapes"]),
    "ade20k": {0},
    "pascal_context": {0},
    "camvid": {11},
    "coco_stuff10k": {0},
}
CLASSES = {"cityscapes": 19, "ade20k": 150, "pascal_context": 59, "camvid": 11, "coco_stuff10k": 171}

every_dataset = pytest.mark.parametrize("name", names())


def test_the_five_benchmarks_are_listed() -> None:
    assert names() == ("ade20k", "camvid", "cityscapes", "coco_stuff10k", "pascal_context")


@every_dataset
def test_classes_and_ids_both_ways(name: str) -> None:
    spec = load_spec(name)
    assert len(spec.classes) == len(spec.class_names) == len(spec.palette) == CLASSES[name]
    assert len(set(spec.class_names)) == CLASSES[name]
    table = spec.lookup()
    for train_id, raw in enumerate(RAW_IDS[name]):
        assert table[raw] == train_id
        assert spec.classes[train_id].raw_ids == (raw,)
    assert set(spec.ignored) == IGNORED[name]
    for raw, train_id in enumerate(table):
        if raw in IGNORED[name]:
            assert train_id == IGNORE_INDEX
        elif raw in RAW_IDS[name]:
            assert RAW_IDS[name][train_id] == raw
        else:
            assert train_id == UNKNOWN


@every_dataset
def test_no_id_is_both_a_class_and_ignored(name: str) -> None:
    spec = load_spec(name)
    mapped = [raw for info in spec.classes for raw in info.raw_ids]
    assert len(mapped) == len(set(mapped))
    assert not set(mapped) & set(spec.ignored)


@every_dataset
def test_colours_are_bytes_and_tell_classes_apart(name: str) -> None:
    palette = load_spec(name).palette
    assert all(0 <= value <= 255 for colour in palette for value in colour)
    # the official ADE20K colours give road and skyscraper one colour
    assert len(set(palette)) == len(palette) - (1 if name == "ade20k" else 0)


@every_dataset
def test_splits_and_archives(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert {*spec.train_splits, spec.eval_split} <= set(spec.counts)
    assert spec.eval_split not in spec.train_splits
    assert spec.licence
    for archive in spec.archives:
        re.compile(archive.members)
        re.compile(archive.strip)
        assert archive.page
        assert set(archive.digests) <= {"sha256", "sha1", "md5"}
        lengths = {"sha256": 64, "sha1": 40, "md5": 32}
        assert all(re.fullmatch(f"[0-9a-f]{{{lengths[key]}}}", value) for key, value in archive.digests.items())


@every_dataset
def test_the_miniature_uses_real_ids(name: str) -> None:
    spec, miniature = load_spec(name), MINIATURES[name]
    known = spec.train_ids()
    assert set(miniature.raw_ids) == set(Part)
    assert len({known[raw] for raw in miniature.raw_ids.values()} - {IGNORE_INDEX}) == len(Part)
    assert miniature.void in spec.ignored
    assert set(spec.counts) <= set(miniature.splits)


@every_dataset
def test_the_file_says_what_it_is(name: str) -> None:
    module = sys.modules[load_spec(name).index.__module__]
    assert module.__doc__
    assert len(module.__doc__.splitlines()) >= 3


def test_import_is_cheap() -> None:
    code = (
        "import sys; from gald.datasets import load_spec, names; [load_spec(n).train_ids() for n in names()]; "
        "print({'torch', 'numpy', 'scipy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_misspelt_name_gets_help() -> None:
    with pytest.raises(DatasetError, match="did you mean 'camvid'"):
        load_spec("camvit")
