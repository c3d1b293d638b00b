"""What every benchmark's file promises, by listing: each benchmark in each form that it is published in."""

import re
import subprocess
import sys

import pytest

from gald.datasets import load_spec, names
from gald.datasets import pascal_context as pascal_module
from gald.datasets._native import MINIATURES
from gald.datasets._spec import IGNORE_INDEX, DatasetSpec
from gald.datasets._synthetic import Part
from gald.errors import DatasetError

SOURCES = {
    "ade20k": ("challenge",),
    "camvid": ("segnet", "original"),
    "cityscapes": ("fine", "coarse"),
    "coco_stuff10k": ("v1.1",),
    "pascal_context": ("json", "mat", "json-60", "mat-60"),
}
COUNTS = {
    ("cityscapes", "fine"): {"train": 2975, "val": 500, "test": 1525},
    ("cityscapes", "coarse"): {"train": 2975, "val": 500, "test": 1525, "train_extra": 19997},
    ("ade20k", "challenge"): {"train": 20210, "val": 2000},
    ("pascal_context", "json"): {"train": 4996, "val": 5104},
    ("pascal_context", "mat"): {"train": 4998, "val": 5105},
    ("pascal_context", "json-60"): {"train": 4996, "val": 5104},
    ("pascal_context", "mat-60"): {"train": 4998, "val": 5105},
    ("camvid", "segnet"): {"train": 367, "val": 101, "test": 233},
    ("camvid", "original"): {"train": 367, "val": 101, "test": 233},
    ("coco_stuff10k", "v1.1"): {"train": 9000, "test": 1000},
}

every_dataset = pytest.mark.parametrize("name", names())
every_source = pytest.mark.parametrize(
    "spec",
    [spec for name in names() for spec in load_spec(name).sources.values()],
    ids=lambda spec: f"{spec.name}-{spec.source}",
)


def test_the_five_benchmarks_and_their_sources_are_listed() -> None:
    assert {name: tuple(load_spec(name).sources) for name in names()} == SOURCES


@every_source
def test_sources_share_all_but_raw_ids(spec: DatasetSpec) -> None:
    usual = load_spec(spec.name)
    extra = spec.source.endswith("-60")  # the background, in front
    assert (spec.title, spec.class_names[extra:], spec.palette[extra:]) == (
        usual.title, usual.class_names, usual.palette,
    )  # fmt: skip
    assert (spec.train_splits, spec.eval_split, spec.ignore_index) == (usual.train_splits, usual.eval_split, 255)
    assert load_spec(spec.name, spec.source) is spec
    assert (spec is usual) or spec.alternatives == ()
    assert len({source.about_source for source in usual.sources.values()}) == len(usual.sources)


@every_dataset
def test_colours_are_bytes_and_tell_classes_apart(name: str) -> None:
    palette = load_spec(name).palette
    assert all(0 <= value <= 255 for colour in palette for value in colour)
    # the official ADE20K colours give road and skyscraper one colour
    assert len(set(palette)) == len(palette) - (1 if name == "ade20k" else 0)


@every_source
def test_splits(spec: DatasetSpec) -> None:
    assert spec.counts == COUNTS[spec.name, spec.source]
    assert {*spec.train_splits, spec.eval_split} <= set(spec.labelled)
    assert spec.eval_split not in spec.train_splits
    assert spec.unlabelled == (("test",) if spec.name == "cityscapes" else ())


@every_source
def test_what_a_test_server_takes(spec: DatasetSpec) -> None:
    assert (spec.submission is not None) == (spec.name in ("ade20k", "cityscapes"))
    if spec.submission is not None:
        assert re.fullmatch(spec.submission.pattern, spec.submission.example)["name"]
        assert spec.submission.page.startswith(("http://", "https://"))


@every_source
def test_archives(spec: DatasetSpec) -> None:
    assert spec.licence
    assert spec.terms.text
    assert "://" not in spec.licence + spec.terms.text
    assert spec.terms.urls  # where the terms are that a user accepts
    assert all(re.fullmatch(r"https?://\S+", url) for url in spec.terms.urls)
    assert ("registration" in spec.terms.text) == (spec.name == "cityscapes")
    assert len({archive.name for archive in spec.archives}) == len(spec.archives)
    for archive in spec.archives:
        re.compile(archive.strip)
        wanted = re.compile(archive.members)
        assert not any(wanted.fullmatch(name) for name in ("README", "license.txt") if archive.members != ".*")
        assert archive.page.startswith(("http://", "https://"))
        assert archive.urls
        assert all(re.fullmatch(r"https?://\S+", url) for url in archive.urls)
        assert (archive.login is not None) == (spec.name == "cityscapes")
        assert archive.size or archive.about or archive.name == "trainval_merged.json"  # of which no size is published
        assert archive.unpacked or archive.name == "trainval_merged.json"
        lengths = {"sha256": 64, "sha1": 40, "md5": 32}
        assert all(re.fullmatch(f"[0-9a-f]{{{lengths[key]}}}", value) for key, value in archive.digests.items())
    checked = {archive.name for archive in spec.archives if archive.digests} | ({"tree"} if spec.tree_sha256 else set())
    unchecked = {"cocostuff-10k-v1.1.zip", "trainval.tar.gz", "701_StillsRaw_full.zip", "LabeledApproved_full.zip"}
    assert checked or {archive.name for archive in spec.archives} <= unchecked  # none is published for these


@every_source
def test_lookalikes_are_told_from_the_archives(spec: DatasetSpec) -> None:
    strangers = {
        "ade20k": [
            "ADE20K_2016_07_26.zip",
            "ADE20K_2021_17_01.zip",
            "ADE20K_2016_07_26/images/training/a/abbey/ADE_train_00000970.jpg",
            "ADE20K_2021_17_01/index_ade20k.pkl",
            "full_data/images/validation/c/castle/ADE_val_00000001_seg.png",
        ],
        "coco_stuff10k": [
            "cocostuff-10k-v1.0.zip",
            "cocostuff-10k-data-v1.0.zip",
            "stuffthingmaps_trainval2017.zip",
            "train2017/000000000009.png",
        ],
        "pascal_context": ["Annotations_Part/2008_000003.mat"] if spec.source.startswith("mat") else [],
    }.get(spec.name, [])
    for stranger in strangers:
        assert any(re.match(lookalike.pattern, stranger) for lookalike in spec.lookalikes), stranger
    own = [archive.name for archive in spec.archives] + [
        "ADEChallengeData2016/images/training/ADE_train_00000001.jpg",
        "images/COCO_train2014_000000000009.jpg",
        "trainval/2008_000002.mat",
        "labels.txt",
    ]
    for lookalike in spec.lookalikes:
        assert not any(re.match(lookalike.pattern, name) for name in own)
        assert any(archive.name in lookalike.what for archive in spec.archives)  # which one is meant instead


@every_dataset
def test_the_miniature_uses_real_ids(name: str) -> None:
    spec, miniature = load_spec(name), MINIATURES[name]
    known = spec.train_ids()
    assert set(miniature.raw_ids) == set(Part)
    assert len({known[raw] for raw in miniature.raw_ids.values()} - {IGNORE_INDEX}) == len(Part)
    assert miniature.void in spec.ignored
    assert set(spec.counts) <= set(miniature.splits)


@every_source
def test_the_file_says_what_it_is(spec: DatasetSpec) -> None:
    module = sys.modules[spec.index.__module__]
    assert module.__doc__
    assert len(module.__doc__.splitlines()) >= 3
    assert len(spec.sources) == 1 or f"``{spec.source}``" in module.__doc__


def test_import_is_cheap() -> None:
    code = (
        "import sys; from gald.datasets import load_spec, names; "
        "[spec.train_ids() for n in names() for spec in load_spec(n).sources.values()]; "
        "print({'torch', 'numpy', 'scipy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_misspelt_name_or_source_gets_help() -> None:
    with pytest.raises(DatasetError, match="did you mean 'camvid'"):
        load_spec("camvit")
    with pytest.raises(DatasetError, match=r"pascal_context has no source 'mats'; .*'mat'"):
        load_spec("pascal_context", "mats")
    assert load_spec("pascal_context") is pascal_module.SPEC
