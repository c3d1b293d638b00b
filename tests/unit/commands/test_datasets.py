"""`gald datasets`: states, sizes and next commands, read from files that say so."""

import dataclasses
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gald import paths
from gald.commands.datasets import datasets as listed
from gald.datasets import cityscapes, load_spec, names
from gald.download.run import archives_folder
from gald.errors import ParamsError
from gald.files import sha256


def params(**sources: str) -> SimpleNamespace:
    return SimpleNamespace(seed=7, source=lambda name: sources.get(name) or load_spec(name).source)


def datasets(download: SimpleNamespace, *names: str, store: str = "packed", as_json: bool = False) -> str:
    return listed(download, SimpleNamespace(store=store), names, as_json=as_json)


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    for name in ("GALD_MIRROR", "GALD_OFFLINE", "CITYSCAPES_USERNAME", "CITYSCAPES_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def row(text: str, name: str) -> str:
    """Columns source, state, size and disk of a benchmark, its first line of the table."""
    return next(line for line in text.splitlines() if line.startswith(name))


def step(text: str, name: str) -> str:
    """What follows the benchmark's next command, in one line; empty if there is none."""
    lines = text.split("\n\n")[1].splitlines()
    found = [number for number, line in enumerate(lines) if f"full/{name} " in f"{line} "]
    if not found or not lines[0].startswith("Next"):
        return ""
    rest = lines[found[0] + 1 :]
    follow = next((number for number, line in enumerate(rest) if line.startswith("  gald")), len(rest))
    return " ".join(" ".join([lines[found[0]], *rest[:follow]]).split())


def archives(name: str) -> Path:
    folder = archives_folder("full", name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def whole(path: Path, *members: str) -> Path:
    """Write a small archive that holds these."""
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "x")
    return path


def test_an_empty_machine(tmp_path: Path) -> None:
    text = datasets(params())
    for name in names():
        spec = load_spec(name)
        assert row(text, name).split()[:3] == [name, spec.source, "missing"]
        assert f"gald download full/{name}" in step(text, name)
        assert all(archive.name in step(text, name) for archive in spec.archives)
        assert all(word in " ".join(text.split()) for word in spec.licence.split())
        assert all(word in text.split("\n\n")[2].split() for word in str(spec.terms).split())
        for other in spec.alternatives:
            assert any(line.split()[:2] == [name, other.source] for line in text.splitlines())
    assert "967 MB" in row(text, "ade20k")
    assert "11 GB" in row(text, "cityscapes")
    assert "1.3 GB+" in row(text, "pascal_context")  # the size of its JSON is not published
    assert "62 GB+" in row(text, "cityscapes")  # 11.2 and 11.8 of archives, 38.7 of the packed store
    assert "23 GB+" in row(datasets(params(), store="files"), "cityscapes")
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 120
    assert "seed 7" in text
    assert "prepared: none" in text


def test_what_a_login_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = step(datasets(params()), "cityscapes")
    assert "first register at https://www.cityscapes-dataset.com/register/" in needed
    assert "CITYSCAPES_USERNAME and CITYSCAPES_PASSWORD" in needed
    assert "data/raw/full/cityscapes/archives" in needed
    with monkeypatch.context() as patch:
        patch.setenv("CITYSCAPES_USERNAME", "me")
        needed = step(datasets(params()), "cityscapes")
        assert "first set the other one too: CITYSCAPES_USERNAME is set, but CITYSCAPES_PASSWORD is not" in needed
    write(tmp_path / "home" / "cityscapesscripts" / "credentials.json", {"username": "me", "password": "s3cr3t"})
    text = datasets(params())
    assert "register" not in step(text, "cityscapes")
    assert "s3cr3t" not in text
    monkeypatch.setenv("GALD_OFFLINE", "1")
    assert step(datasets(params()), "ade20k").endswith("first unset GALD_OFFLINE")


def test_archives_on_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = cityscapes.SPEC.archives
    whole(archives("cityscapes") / first.name, "gtFine/val/ulm/ulm_000000_000000_gtFine_labelIds.png")
    (archives("cityscapes") / f".{second.name}.part").write_bytes(bytes(2_000_000))
    text = datasets(params())
    assert "archives: 1 of 2, 2 MB begun" in row(text, "cityscapes")
    assert first.name not in step(text, "cityscapes")
    assert f"{second.name} (11 GB)" in step(text, "cityscapes")
    (tmp_path / "mirror").mkdir()
    whole(tmp_path / "mirror" / second.name, "leftImg8bit/val/ulm/ulm_000000_000000_leftImg8bit.png")
    monkeypatch.setenv("GALD_MIRROR", str(tmp_path / "mirror"))
    text = datasets(params())
    assert "archives: 2 of 2" in row(text, "cityscapes")
    assert step(text, "cityscapes") == "gald download full/cityscapes verifies and unpacks the archives that are here"
    assert str(tmp_path / "mirror") in text.replace("\n", " ")


def test_downloaded_prepared_packed() -> None:
    write(paths.raw_json("full", "camvid"), {"source": "segnet", "tree_sha256": "t"})
    text = datasets(params())
    assert " downloaded " in row(text, "camvid")
    assert step(text, "camvid") == "gald prepare full/camvid makes images and masks of what is unpacked"
    write(paths.manifest("full", "camvid"), {"source": "segnet", "raw_sha256": "t"})
    write(paths.manifest("mini", "ade20k"), {})
    text = datasets(params())
    assert " prepared " in row(text, "camvid")
    assert step(text, "camvid").startswith("gald pack full/camvid makes the store that trainings read (485 MB)")
    assert step(datasets(params(), store="files"), "camvid") == ""
    assert "prepared: ade20k." in text
    write(paths.packed_json("full", "camvid"), {"manifest_sha256": "of another"})
    assert "packed" not in row(datasets(params()), "camvid")
    assert step(datasets(params()), "camvid").startswith("gald pack")
    write(paths.packed_json("full", "camvid"), {"manifest_sha256": sha256(paths.manifest("full", "camvid"))})
    text = datasets(params())
    assert " prepared, packed " in row(text, "camvid")
    assert step(text, "camvid") == ""


def test_what_is_here_is_of_other_raw_data() -> None:
    write(paths.raw_json("full", "camvid"), {"source": "segnet", "tree_sha256": "t"})
    write(paths.manifest("full", "camvid"), {"source": "segnet", "raw_sha256": "another"})
    text = datasets(params())
    assert " prepared from older files " in row(text, "camvid")
    assert step(text, "camvid").startswith("gald prepare full/camvid")
    text = datasets(params(camvid="original"))
    assert " only segnet is here " in row(text, "camvid")
    assert step(text, "camvid").startswith("gald download full/camvid 701_StillsRaw_full.zip")
    write(paths.raw_json("full", "camvid"), {"tree_sha256": "t"})
    paths.manifest("full", "camvid").unlink()
    assert " of an older version " in row(datasets(params()), "camvid")
    paths.raw_json("full", "camvid").write_text("{")
    assert " missing " in row(datasets(params()), "camvid")


def test_what_lies_under_an_archives_name_without_being_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (archives("ade20k") / "ADEChallengeData2016.zip").write_bytes(bytes(9))
    (archives("cityscapes") / "gtFine_trainvaltest.zip").write_text("<html>log in first</html>")
    stuff = whole(archives("coco_stuff10k") / "cocostuff-10k-v1.1.zip", "train2017/000000000009.png")
    other = whole(archives("camvid") / load_spec("camvid").archives[0].name, "README.md")
    text = datasets(params())
    for name, present in (
        ("ade20k", "0 of 1"),
        ("cityscapes", "0 of 2"),
        ("coco_stuff10k", "0 of 1"),
        ("camvid", "0 of 1"),
    ):
        assert f"archives: {present}, 1 mistaken" in row(text, name)
    assert "ADEChallengeData2016.zip has 9 bytes instead of 967382037: move it away" in step(text, "ade20k")
    assert "gtFine_trainvaltest.zip is no whole archive: move it away; gtFine_" in step(text, "cityscapes")
    assert f"{stuff} is the masks of COCO-Stuff 164k" in step(text, "coco_stuff10k")
    assert f"{other} holds nothing of" in step(text, "camvid")
    stuff.unlink()
    whole(archives("coco_stuff10k") / "cocostuff-10k-data-v1.0.zip", "images/a.jpg")
    text = datasets(params())
    assert " missing " in row(text, "coco_stuff10k")
    assert "cocostuff-10k-data-v1.0.zip is version 1.0 of COCO-Stuff 10k" in step(text, "coco_stuff10k")


def test_an_archive_of_parts_of_objects_is_told_by_its_first_members() -> None:
    folder = archives("pascal_context")
    path, voc = folder / "trainval.tar.gz", folder / "VOCtrainval_03-May-2010.tar"
    for target, member in ((path, "Annotations_Part/2008_000003.mat"), (voc, "VOCdevkit/VOC2010/Annotations/a.xml")):
        with tarfile.open(target, "w:gz" if target == path else "w") as archive:
            archive.addfile(tarfile.TarInfo(member))
    text = datasets(params(pascal_context="mat"))
    assert "archives: 1 of 2, 1 mistaken" in row(text, "pascal_context")  # VOC's own begins with what is not needed
    assert f"{path} is the trainval.tar.gz of PASCAL-Part" in step(text, "pascal_context")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"{path} is no whole archive" in step(datasets(params(pascal_context="mat")), "pascal_context")


def test_chosen_benchmarks_and_numbers_for_machines() -> None:
    write(paths.raw_json("full", "camvid"), {"source": "segnet", "tree_sha256": "t"})
    manifest = {
        "source": "challenge",
        "pixel_counts": {"train": [3, 4], "val": [5]},
        "ignored_pixels": {"train": 1, "val": 0},
    }
    write(paths.manifest("full", "ade20k"), manifest)
    text = datasets(params(), "camvid")
    assert [name for name in names() if name in text.split("\n\n")[0]] == ["camvid"]
    assert step(text, "ade20k") == ""
    with pytest.raises(ParamsError, match="did you mean 'camvid'"):
        datasets(params(), "camvit")
    found = {entry["name"]: entry for entry in json.loads(datasets(params(), as_json=True))}
    assert list(found) == list(names())
    assert found["camvid"]["state"] == "downloaded"
    assert found["camvid"]["next"]["command"] == "gald prepare full/camvid"
    assert found["camvid"]["terms"]["urls"] == ["https://creativecommons.org/licenses/by-nc/4.0/"]
    pixels = 480 * 360 * (367 + 101 + 233)
    disk = {"archives": [187_236_244], "unpacked": [186_900_000], "prepared": None, "packed": 4 * pixels}
    assert found["camvid"]["disk"] == disk | {"known": 187_236_244 + 186_900_000 + 4 * pixels}
    assert found["ade20k"]["disk"]["packed"] == 4 * 13
    assert found["ade20k"]["disk"]["prepared"] == paths.manifest("full", "ade20k").stat().st_size
    assert found["cityscapes"]["disk"]["packed"] == 2048 * 1024 * (4 * (2975 + 500) + 3 * 1525)
    assert found["pascal_context"]["archives"][1] == {
        "name": "trainval_merged.json",
        "bytes": None,
        "present": False,
        "mistaken": None,
    }


@pytest.mark.parametrize("file", ["docs/data.md", "dvc.yaml"])
def test_the_packed_cityscapes_is_as_large_everywhere(file: str) -> None:
    (cityscapes,) = json.loads(datasets(params(), "cityscapes", as_json=True))
    text = " ".join((Path(__file__).parents[3] / file).read_text().split())
    assert f" {cityscapes['disk']['packed'] / 1e9:.0f} GB for Cityscapes" in text


def test_an_archive_that_only_a_person_can_get(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = tuple(dataclasses.replace(archive, urls=(), login=None) for archive in cityscapes.SPEC.archives)
    monkeypatch.setattr(cityscapes, "SPEC", dataclasses.replace(cityscapes.SPEC, archives=alone))
    assert "first get it from https://" in step(datasets(params()), "cityscapes")


def test_data_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "DATA_ROOT", tmp_path / "other" / "disk")
    write(paths.raw_json("full", "camvid"), {"source": "segnet", "tree_sha256": "t"})
    text = datasets(params())
    assert " downloaded " in row(text, "camvid")
    assert f"Data lie in {tmp_path / 'other' / 'disk'}" in text.replace("\n", " ")


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    """The command answers at once: neither torch nor numpy nor a library of the network is imported."""
    code = (
        "import sys\n"
        "from types import SimpleNamespace\n"
        "from gald.datasets import load_spec\n"
        "from gald.commands.datasets import datasets\n"
        "params = SimpleNamespace(seed=0, source=lambda name: load_spec(name).source, store='packed')\n"
        "datasets(params, params)\n"
        "print(sorted({'torch', 'numpy', 'requests', 'pooch', 'scipy', 'PIL'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("columns", "most"), [(100, 100), (300, 120)])
def test_the_list_fits_the_terminal(columns: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    widths = [
        len(line) for line in datasets(params()).splitlines() if "https://" not in line and str(Path.cwd()) not in line
    ]
    assert most - 20 < max(widths) <= most
