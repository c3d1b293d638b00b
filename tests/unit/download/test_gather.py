"""All archives of a benchmark at once: side by side, by hand, with too little room, and with all that is amiss."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gald import paths
from gald.datasets import camvid
from gald.datasets._spec import Archive, DatasetSpec, Lookalike
from gald.download import space
from gald.download.login import credentials_file, half_told
from gald.download.run import archives_folder, download, files
from gald.errors import ArchiveError


def zipped(name: str, count: int = 3) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(count):
            archive.writestr(f"{name}/{index}.txt", f"{name} {index}" * 2000)
    return buffer.getvalue()


CONTENTS = {name: zipped(name) for name in ("one", "two", "three")}


@pytest.fixture
def benchmark_of_three(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetSpec:
    """CamVid as if it were published in three archives on the site; the first has a digest, the last a login."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    for name, content in CONTENTS.items():
        site.add(f"{name}.zip", content=content, protected=name == "three")
    archives = tuple(Archive(f"{name}.zip", (f"{site.url}/{name}.zip",), page="https://page") for name in CONTENTS)
    digests = {"sha256": hashlib.sha256(CONTENTS["one"]).hexdigest()}
    archives = (dataclasses.replace(archives[0], digests=digests), archives[1], archives[2])
    archives = (*archives[:2], dataclasses.replace(archives[2], login=site.login))
    spec = dataclasses.replace(
        camvid.SPEC,
        archives=archives,
        tree_sha256=None,
        lookalikes=(Lookalike(r"two-v\d", "another version of two; two.zip is meant"), Lookalike("odd/", "an oddity")),
    )
    monkeypatch.setattr(camvid, "SPEC", spec)
    return spec


def run() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        download("full", "camvid", SimpleNamespace(seed=0, source=lambda _: "segnet")).read_text()
    )
    return content


def refused(match: str) -> str:
    with pytest.raises(ArchiveError, match=match) as caught:
        run()
    assert not paths.raw_json("full", "camvid").exists()
    assert not files("full", "camvid").exists()
    return str(caught.value)


def log_in(monkeypatch: pytest.MonkeyPatch, password: str = "hunter2-never-shown") -> None:
    monkeypatch.setenv("SITE_USERNAME", "someone@example.org")
    monkeypatch.setenv("SITE_PASSWORD", password)


def test_all_three(benchmark_of_three: DatasetSpec, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch)
    content = run()
    assert content["source"] == "segnet"
    assert list(content) == ["edition", "dataset", "source", "archives", "tree_sha256", "files", "generator"]
    assert content["archives"] == [
        {
            "name": f"{name}.zip",
            "sha256": hashlib.sha256(packed).hexdigest(),
            "bytes": len(packed),
            "source": f"{site.url}/{name}.zip",
        }
        for name, packed in CONTENTS.items()
    ]
    assert content["files"] == 9
    asked = len(site.asked)
    assert run() == content
    assert len(site.asked) == asked


def test_the_other_source_is_made_anew(
    benchmark_of_three: DatasetSpec, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch)
    run()
    other = dataclasses.replace(benchmark_of_three, source="other", archives=benchmark_of_three.archives[:1])
    monkeypatch.setattr(camvid, "SPEC", dataclasses.replace(benchmark_of_three, alternatives=(other,)))
    asked = len(site.asked)
    boundary = download("full", "camvid", SimpleNamespace(seed=0, source=lambda _: "other"))
    assert json.loads(boundary.read_text())["source"] == "other"
    assert json.loads(boundary.read_text())["files"] == 3
    assert len(list(archives_folder("full", "camvid").glob("*.zip"))) == 3  # they lie side by side
    assert run()["files"] == 9
    assert len(site.asked) == asked


def test_side_by_side(benchmark_of_three: DatasetSpec, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch)
    for name in CONTENTS:
        site.pages[f"/{name}.zip"].faults = ["meet"]
    run()
    assert len(site.asked) == 2 + 3  # nobody had to ask again, so all three had met


def test_one_that_fails_lets_the_others_end(
    benchmark_of_three: DatasetSpec, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, "wrong-never-shown")
    del site.pages["/two.zip"]
    site.pages["/one.zip"].faults = ["pause 0.2"]
    text = refused("two.zip: HTTP status 404")
    assert (
        "three.zip cannot be downloaded: The Site does not accept the user name and password in SITE_USERNAME" in text
    )
    assert "one.zip" not in text
    assert f"Register at {site.url}/register/" in text
    assert "Check the network and run the command again, which goes on where this one stopped" in text
    assert "never-shown" not in text
    assert (archives_folder("full", "camvid") / "one.zip").read_bytes() == CONTENTS["one"]


def test_no_account(benchmark_of_three: DatasetSpec, site: Any, tmp_path: Path) -> None:
    text = refused("needs archives that a person must get: three.zip from https://page")
    for part in (
        f"Register at {site.url}/register/",
        "set SITE_USERNAME and SITE_PASSWORD in the environment",
        f"store them in {tmp_path}/home/siteclient/credentials.json",
        "pip install siteclient",
        "put them into data/raw/full/camvid/archives under the names above",
        "GALD_MIRROR",
    ):
        assert part in text
    assert "is set, but" not in text
    archives_folder("full", "camvid").joinpath("three.zip").write_bytes(CONTENTS["three"])
    assert [archive["source"] for archive in run()["archives"]][2] == "by hand"


@pytest.mark.parametrize(("told", "missing"), [("SITE_USERNAME", "SITE_PASSWORD"), ("SITE_PASSWORD", "SITE_USERNAME")])
def test_half_an_account(
    benchmark_of_three: DatasetSpec, site: Any, monkeypatch: pytest.MonkeyPatch, told: str, missing: str
) -> None:
    monkeypatch.setenv(told, "never-shown")
    text = refused("needs archives that a person must get: three.zip from https://page")
    assert f"\n{told} is set, but {missing} is not.\n  1. Register at" in text
    assert "never-shown" not in text
    path = credentials_file(site.login)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"username": "someone@example.org", "password": "hunter2-never-shown"}))
    assert half_told(site.login) is None  # the file of the official client has both
    run()


def test_by_hand(benchmark_of_three: DatasetSpec, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALD_OFFLINE", "1")
    folder = archives_folder("full", "camvid")
    folder.mkdir(parents=True)
    (folder / "two.zip").write_bytes(CONTENTS["two"])
    text = refused("one.zip: not asked, since GALD_OFFLINE is set")
    assert "Unset GALD_OFFLINE, put the files into data/raw/full/camvid/archives, or set GALD_MIRROR" in text
    (folder / "three.zip").write_bytes(CONTENTS["three"])
    (folder / "one.zip").write_bytes(CONTENTS["two"])
    assert "delete it and run the command again" in refused("one.zip: expected sha256 .* found ")
    (folder / "one.zip").write_bytes(CONTENTS["one"])
    assert [archive["source"] for archive in run()["archives"]] == ["by hand"] * 3
    assert not site.asked


def test_lookalikes(
    benchmark_of_three: DatasetSpec, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = archives_folder("full", "camvid")
    folder.mkdir(parents=True)
    (folder / "two-v9.zip").write_bytes(b"")
    text = refused(r"archives/two-v9\.zip is another version of two; two\.zip is meant; move it out of that folder")
    assert "\n" not in text
    assert not site.asked
    (tmp_path / "mirror").mkdir()
    (folder / "two-v9.zip").rename(tmp_path / "mirror" / "two-v9.zip")
    monkeypatch.setenv("GALD_MIRROR", str(tmp_path / "mirror"))
    assert "Not taken: " in refused("needs archives that a person must get: three.zip")  # a mirror may hold anything
    log_in(monkeypatch)
    run()
    (folder / "two-v9.zip").write_bytes(b"")
    run()  # nothing is missing, so nothing is taken for it


def test_a_lookalike_under_the_right_name(
    benchmark_of_three: DatasetSpec, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch)
    members = tuple(dataclasses.replace(a, members=rf"{a.name[:-4]}/.*") for a in benchmark_of_three.archives)
    monkeypatch.setattr(camvid, "SPEC", dataclasses.replace(benchmark_of_three, archives=members))
    site.pages["/two.zip"].content = zipped("odd")
    refused(r"two\.zip is an oddity; delete it and run the command again")


def test_the_full_ade20k_under_the_right_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another size and digest, which would say nothing but that."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GALD_MIRROR", raising=False)
    folder = archives_folder("full", "ade20k")
    folder.mkdir(parents=True)
    (folder / "ADEChallengeData2016.zip").write_bytes(zipped("ADE20K_2016_07_26/images"))
    with pytest.raises(ArchiveError, match=r"ADEChallengeData2016\.zip is the full ADE20K dataset, .*; delete it and"):
        download("full", "ade20k", SimpleNamespace(seed=0, source=lambda _: "challenge"))


def test_room_for_archives_and_what_is_in_them(
    benchmark_of_three: DatasetSpec, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch)
    sized = tuple(
        dataclasses.replace(archive, **fields)
        for archive, fields in zip(
            benchmark_of_three.archives,
            (
                {"about": 10_000_000, "unpacked": 7_000_000},
                {"size": len(CONTENTS["two"]), "unpacked": 0},
                {"about": 100},
            ),
            strict=True,
        )
    )
    monkeypatch.setattr(camvid, "SPEC", dataclasses.replace(benchmark_of_three, archives=sized))
    needed = 10_000_000 + 7_000_000 + len(CONTENTS["two"]) + 100 + 105
    usage = shutil.disk_usage(tmp_path)
    free = needed - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    text = refused(rf"full/camvid needs {needed} bytes \(10 MB to download, 7 MB unpacked\) on the disk of data/raw")
    assert f"where {free} (17 MB) are free" in text
    assert "leave a symbolic link data in its place" in text
    assert not site.asked
    folder = archives_folder("full", "camvid")
    (folder / ".one.zip.part").write_bytes(b"x")  # what has arrived is not downloaded again
    rest = folder.parent / ".files.part"
    rest.mkdir()
    run()
    assert not rest.exists()
    refused_again = space.check_room(camvid.SPEC, folder, files("full", "camvid"))
    assert refused_again is None  # with the archives here, only what is in them counts


def test_a_mirror_that_is_a_folder_needs_no_room(
    benchmark_of_three: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror").mkdir()
    for name, content in CONTENTS.items():
        (tmp_path / "mirror" / f"{name}.zip").write_bytes(content)
    monkeypatch.setenv("GALD_MIRROR", str(tmp_path / "mirror"))
    needed = sum(int(1.05 * len(content)) for content in CONTENTS.values())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    assert "0 kB to download" in refused(f"needs {needed} bytes")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    assert [archive["source"] for archive in run()["archives"]] == ["mirror"] * 3
    assert not list(archives_folder("full", "camvid").iterdir())


def test_data_elsewhere(benchmark_of_three: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch)
    monkeypatch.setattr(paths, "DATA_ROOT", tmp_path / "other" / "disk")
    assert str(tmp_path) not in json.dumps(run())
    assert (tmp_path / "other" / "disk" / "raw" / "full" / "camvid" / "raw.json").is_file()
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_takes_no_file(benchmark_of_three: DatasetSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch)
    folder = archives_folder("full", "camvid")
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    with pytest.raises(PermissionError):
        run()
    folder.chmod(0o755)
