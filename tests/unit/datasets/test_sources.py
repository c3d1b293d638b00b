"""From each source's drawn archives to raw samples: what `index` lists and `read_mask` reads, pixel for pixel."""

import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald.datasets import load_spec, names
from gald.datasets._native import MINIATURES, mat
from gald.datasets._spec import UNKNOWN, Archive, DatasetSpec, RawSample
from gald.datasets._synthetic import VOID, Part, Scene, draw
from gald.datasets._writers import _upright, draw_archives
from gald.errors import DatasetError

SEED = 3
SMALL = {"train": 9, "val": 3, "test": 3}  # nine, so that the training split's oddities are still drawn
CLASS_OF = {
    "cityscapes": "sky, road, sidewalk, building, vegetation, pole, traffic sign, car",
    "ade20k": "sky, road, water, building, tree, pole, signboard, car",
    "pascal_context": "sky, road, water, building, tree, fence, sign, car",
    "camvid": "Sky, Road, Pavement, Building, Tree, Pole, SignSymbol, Car",
    "coco_stuff10k": "sky-other, road, water-other, wood, tree, fence, stop sign, car",
}
"""Class of each part of a scene, in the order of `Part`."""

Unpacked = Callable[[str, str], Path]

every_source = pytest.mark.parametrize(
    ("name", "source"), [(name, source) for name in names() for source in load_spec(name).sources]
)


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unpacked:
    """Draw a source's archives, a few scenes of each split, and unpack what its description asks for."""
    for name, miniature in list(MINIATURES.items()):
        splits = {split: SMALL[split] for split in miniature.splits}
        monkeypatch.setitem(MINIATURES, name, miniature._replace(splits=splits))
    monkeypatch.setattr("gald.datasets._native.TRAIN_EXTRA", 4)

    def make(name: str, source: str) -> Path:
        archives, files = tmp_path / "archives", tmp_path / "files"
        archives.mkdir()
        draw_archives(name, archives, SEED, source)
        spec = load_spec(name, source)
        assert {path.name for path in archives.iterdir()} == {archive.name for archive in spec.archives}
        for archive in spec.archives:
            unpack(archives / archive.name, archive, files)
        return files

    return make


def members(path: Path) -> dict[str, bytes]:
    """Every regular file of a zip, a tar, or the file itself."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as opened:
            return {info.filename: opened.read(info) for info in opened.infolist()}
    if ".tar" in path.name:
        with tarfile.open(path) as archive:
            return {info.name: archive.extractfile(info).read() for info in archive.getmembers()}  # type: ignore[union-attr]
    return {path.name: path.read_bytes()}


def unpack(path: Path, archive: Archive, target: Path) -> None:
    """What download does, without its checks."""
    for name, content in members(path).items():
        start = re.match(archive.strip, name)
        inner = name[start.end() if start else 0 :]
        if re.fullmatch(archive.members, inner):
            (target / inner).parent.mkdir(parents=True, exist_ok=True)
            (target / inner).write_bytes(content)


def expected_mask(name: str, source: str, labels: np.ndarray) -> np.ndarray:
    """Train ids of a scene by the names of classes, and without any table of the package."""
    classes = load_spec(name, source).class_names
    table = np.full(256, classes.index("background") if source.endswith("-60") else 255)
    for part, wanted in zip(Part, CLASS_OF[name].split(", "), strict=True):
        table[part] = classes.index(wanted)
    return table[labels]


def coarse(mask: np.ndarray) -> np.ndarray:
    """Train ids in squares of 8 pixels, ignored where a square holds more than one."""
    result = np.full_like(mask, 255)
    for top in range(0, mask.shape[0], 8):
        for left in range(0, mask.shape[1], 8):
            square = mask[top : top + 8, left : left + 8]
            if (square == square[0, 0]).all():
                result[top : top + 8, left : left + 8] = square[0, 0]
    return result


def train_ids(spec: DatasetSpec, sample: RawSample) -> np.ndarray:
    """The sample's mask by the one table of its source."""
    ids = spec.read_mask(sample)
    assert ids.ndim == 2
    assert np.issubdtype(ids.dtype, np.integer)
    mask = spec.lookup()[ids]
    assert (mask != UNKNOWN).all()
    return mask


def scene_of(name: str, split: str, position: int, sample: RawSample) -> tuple[int, Scene]:
    """The scene a sample was drawn from: cities take turns, all else is in order."""
    index = int(sample.id.split("_")[1]) if name == "cityscapes" else position
    scene = draw(SEED, name, split, index)
    return index, _upright(scene) if (name, split, index) == ("ade20k", "train", 6) else scene


@every_source
def test_drawn_scenes_come_back(name: str, source: str, unpacked: Unpacked) -> None:
    files = unpacked(name, source)
    spec = load_spec(name, source)
    samples = spec.index(files)
    assert list(samples) == list(spec.counts)
    for split, listed in samples.items():
        assert len(listed) == (4 if split == "train_extra" else SMALL[split])
        assert len({sample.id for sample in listed}) == len(listed)
        for position, sample in enumerate(listed):
            index, scene = scene_of(name, split, position, sample)
            with Image.open(sample.image) as picture:
                image = np.array(picture.convert("RGB"))
            odd = split == "train" and name in ("ade20k", "coco_stuff10k") and index == 5  # grayscale
            lossless = name in ("cityscapes", "camvid")
            assert np.abs(image.astype(int) - scene.image).max() == 0 if lossless else True
            assert lossless or odd or np.abs(image.astype(int) - scene.image).mean() < 4  # JPEG
            if split in spec.unlabelled:
                assert sample.mask is None
                continue
            mask = expected_mask(name, source, scene.labels)
            if (name, split, index) == ("ade20k", "train", 7):
                mask = np.full_like(mask, 255)
            np.testing.assert_array_equal(
                train_ids(spec, sample), coarse(mask) if split == "train_extra" else mask, err_msg=sample.id
            )


def test_cityscapes_test_images_come_without_masks(unpacked: Unpacked) -> None:
    files = unpacked("cityscapes", "fine")
    assert not (files / "gtFine" / "test").exists()  # dummies, and so not even unpacked
    assert [sample.id for sample in load_spec("cityscapes").index(files)["test"]] == [
        f"bonn_{index:06d}_000019" for index in range(3)
    ]


def test_cityscapes_coarse_leaves_the_broken_image_out_by_name(unpacked: Unpacked) -> None:
    files = unpacked("cityscapes", "coarse")
    spec = load_spec("cityscapes", "coarse")
    broken = files / "leftImg8bit/train_extra/troisdorf/troisdorf_000000_000073_leftImg8bit.png"
    with Image.open(broken) as picture:
        assert (picture.mode, picture.getextrema()) == ("L", (0, 0))
    listed = [sample.id for sample in spec.index(files)["train_extra"]]
    assert listed == [
        "augsburg_000000_000019",
        "augsburg_000003_000019",
        "bad-honnef_000001_000019",
        "troisdorf_000002_000019",  # its city stays
    ]
    assert not (files / "gtCoarse" / "train").exists()
    broken.unlink()  # as some people do by hand
    assert [sample.id for sample in spec.index(files)["train_extra"]] == listed
    mask = min((files / "gtCoarse/train_extra/augsburg").iterdir())
    mask.unlink()
    first, *_ = spec.index(files)["train_extra"]  # is listed, so that prepare can say what it lacks
    assert (first.id, first.mask) == (listed[0], mask)


def test_cityscapes_coarse_masks_are_squares_with_gaps(unpacked: Unpacked) -> None:
    files = unpacked("cityscapes", "coarse")
    spec = load_spec("cityscapes", "coarse")
    for sample in spec.index(files)["train_extra"]:
        ids = spec.read_mask(sample)
        assert (ids == np.kron(ids[::8, ::8], np.ones((8, 8)))).all()
        assert 0.1 < (ids == 0).mean() < 0.7


def test_pascal_context_maps_hold_labels_of_no_class(unpacked: Unpacked) -> None:
    files = unpacked("pascal_context", "mat")
    spec = load_spec("pascal_context", "mat")
    seen = set()
    for sample in spec.index(files)["train"]:
        ids = spec.read_mask(sample)
        seen |= set(np.unique(ids[draw(SEED, "pascal_context", "train", int(sample.id[-6:]) - 1).labels == VOID]))
    assert seen == {0, 1, 431, 459}  # labels of no class; 459 needs more than 8 bits


def test_pascal_context_skips_the_phase_test_of_the_json(unpacked: Unpacked) -> None:
    files = unpacked("pascal_context", "json")
    samples = load_spec("pascal_context").index(files)
    phases = [image["phase"] for image in json.loads((files / "trainval_merged.json").read_text())["images"]]
    assert sorted(set(phases)) == ["test", "train", "val"]
    assert {split: len(listed) for split, listed in samples.items()} == {"train": 9, "val": 3}
    assert samples["train"][0].id == "2008_000001"


def test_pascal_context_compares_the_archives_own_labels(unpacked: Unpacked) -> None:
    files = unpacked("pascal_context", "mat")
    spec = load_spec("pascal_context", "mat")
    labels = files / "labels.txt"
    lines = labels.read_text().splitlines()
    assert (len(lines), lines[0], lines[458]) == (459, "1: accordion", "459: wool")
    labels.write_text("\n".join(line.replace(": ", ":") for line in lines) + "\r\n")
    spec.index(files)
    names = [line.split(": ")[1] for line in lines]
    labels.write_text("\n".join(f"{raw}: {name}" for raw, name in enumerate(names)))  # shifted by one
    with pytest.raises(DatasetError, match=r"labels\.txt: id 2 is air conditioner, expected aeroplane; is it the "):
        spec.index(files)
    labels.write_text("\n".join(lines[:300]))
    with pytest.raises(DatasetError, match="id 308 is missing, expected pottedplant"):
        spec.index(files)
    labels.unlink()
    with pytest.raises(DatasetError, match=r"labels\.txt is missing; run `gald download` again"):
        spec.index(files)


def test_camvid_colours_of_one_class_are_merged(unpacked: Unpacked) -> None:
    files = unpacked("camvid", "original")
    spec = load_spec("camvid", "original")
    by_class: dict[int, set[int]] = {}
    for listed in spec.index(files).values():
        for sample in listed:
            ids, mask = spec.read_mask(sample), train_ids(spec, sample)
            for pair in np.unique(np.stack([mask.ravel(), ids.ravel()]), axis=1).T.tolist():
                by_class.setdefault(pair[0], set()).add(pair[1])
    assert by_class[255] == {30}
    drawn = {"Sky": 1, "Building": 5, "Pole": 2, "Road": 3, "Pavement": 3, "Tree": 2, "SignSymbol": 3, "Car": 5}
    assert {spec.class_names[train_id]: len(ids) for train_id, ids in by_class.items() if train_id != 255} == drawn


def test_camvid_frames_are_paired_by_name(unpacked: Unpacked) -> None:
    files = unpacked("camvid", "original")
    spec = load_spec("camvid", "original")
    samples = spec.index(files)
    assert [sample.id for sample in samples["train"][:2]] == ["0001TP_006690", "0001TP_006720"]
    assert samples["test"][0].mask == files / f"{samples['test'][0].id}_L.png"
    (files / "0001TP_006690.png").rename(files / "0001TP_006691.png")
    with pytest.raises(DatasetError, match=r"1 frames are none of the 701: 0001TP_006691; get 701_Stills"):
        spec.index(files)
    (files / "0001TP_006691.png").unlink()
    assert spec.index(files)["train"][0] == samples["train"][0]  # its mask alone is here
    (files / "0001TP_006691.png").touch()
    (files / "0001TP_006690_L.png").rename(files / "0001TP_006691_L.png")
    with pytest.raises(DatasetError, match=r"1 frames are none of the 701: 0001TP_006691; get 701_Stills"):
        spec.index(files)


def test_coco_stuff_ids_at_the_edges_of_the_holes(unpacked: Unpacked) -> None:
    files = unpacked("coco_stuff10k", "v1.1")
    spec = load_spec("coco_stuff10k")
    sample = spec.index(files)["train"][0]
    assert sample.mask is not None
    edges = np.array([[0, 1], [11, 13], [92, 182]])
    for dtype in (np.uint8, np.float64):
        sample.mask.write_bytes(mat(S=edges.astype(dtype)))
        assert spec.lookup()[spec.read_mask(sample)].tolist() == [[255, 0], [10, 11], [80, 170]]
    sample.mask.write_bytes(mat(S=np.array([[12, 182]])))
    assert spec.lookup()[spec.read_mask(sample)].tolist() == [[UNKNOWN, 170]]  # a hole is no class


@every_source
def test_an_empty_folder_lists_nothing_or_is_told(name: str, source: str, tmp_path: Path) -> None:
    spec = load_spec(name, source)
    if name in ("ade20k", "cityscapes") or source == "original":
        assert spec.index(tmp_path) == {split: [] for split in spec.counts}  # prepare refuses the counts
    else:
        with pytest.raises(DatasetError, match=f"{tmp_path}.* is missing; run `gald download` again"):
            spec.index(tmp_path)
