"""Each benchmark in each of its forms as it is published: its native archives, served at the addresses of its SPEC.

The archives are the miniature's, which are laid out as the real ones are. Of the SPEC all else stays: names, addresses
but for the host, logins, algorithms of the digests, members, and how the files are read.
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from gald import paths
from gald.datasets import load_spec, names
from gald.datasets._native import MINIATURES, TRAIN_EXTRA
from gald.datasets._reader import PreparedSplit
from gald.datasets._spec import Archive, DatasetSpec
from gald.download import transfer
from gald.download.run import archives_folder, download
from gald.prepare.run import prepare
from tests.unit.download.conftest import PASSWORD, USER

SMALL = {"train": 9, "val": 3, "test": 3}  # nine, so that the training split's oddities are still drawn
KINDS = {".json": "application/json", ".tar": "application/x-tar", ".gz": "application/x-gzip"}
PREPARE = SimpleNamespace(processes=1, on_error="stop")
FORMS = [(name, source) for name in names() for source in load_spec(name).sources]


@pytest.fixture
def made_by_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a miniature of a few scenes directly, prepared; return its raw.json and manifest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    for name, miniature in list(MINIATURES.items()):
        splits = {split: SMALL[split] for split in miniature.splits}
        monkeypatch.setitem(MINIATURES, name, miniature._replace(splits=splits))

    def make(name: str, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
        raw = json.loads(download("mini", name, section(source)).read_text())
        return raw, json.loads(prepare("mini", name, PREPARE).read_text())

    return make


def section(source: str) -> SimpleNamespace:
    return SimpleNamespace(seed=3, source=lambda _: source)


def publish(site: Any, spec: DatasetSpec, tree: str, monkeypatch: pytest.MonkeyPatch) -> DatasetSpec:
    """Serve a miniature's archives as the SPEC says the real ones are served, and put it in the SPEC's place."""
    archives = tuple(serve(site, archive, archives_folder("mini", spec.name)) for archive in spec.archives)
    changed = replace(
        spec,
        archives=archives,
        counts={split: SMALL.get(split, TRAIN_EXTRA) for split in spec.counts},
        tree_sha256=None if spec.tree_sha256 is None else tree,
        alternatives=(),
    )
    monkeypatch.setattr(sys.modules[spec.index.__module__], "SPEC", changed)
    for archive in archives:
        if archive.login is not None:
            for variable, word in zip(archive.login.variables, (USER, PASSWORD), strict=True):
                monkeypatch.setenv(variable, word)
    return changed


def serve(site: Any, archive: Archive, folder: Path) -> Archive:
    content = (folder / archive.name).read_bytes()
    urls = []
    for url in archive.urls:
        parts = urlsplit(url)
        path = f"{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        kind = KINDS.get(Path(archive.name).suffix, "application/zip")
        site.add(path, content=content, protected=archive.login is not None, kind=kind)
        urls.append(f"{site.url}/{path}")
    return replace(
        archive,
        urls=tuple(urls),
        digests={algorithm: hashlib.new(algorithm, content).hexdigest() for algorithm in archive.digests},
        size=None if archive.size is None else len(content),
        about=None if archive.about is None else len(content),
        unpacked=None if archive.unpacked is None else len(content),
        login=archive.login and replace(archive.login, url=f"{site.url}/login"),
    )


def assert_made_alike(spec: DatasetSpec, drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Hold what was downloaded and prepared against what was drawn: raw files, digests of pixels, pixels."""
    raw, manifest = drawn
    found = json.loads(paths.raw_json("full", spec.name).read_text())
    assert [found[key] for key in ("tree_sha256", "files")] == [raw[key] for key in ("tree_sha256", "files")]
    assert [one["sha256"] for one in found["archives"]] == [one["sha256"] for one in raw["archives"]]
    assert [one["source"] for one in found["archives"]] == [archive.urls[0] for archive in spec.archives]
    made = json.loads(paths.manifest("full", spec.name).read_text())
    assert made["edition"] == "full"
    changed = {key for key in manifest if made[key] != manifest[key]}
    assert changed == {"edition", "splits"}
    for split, entry in manifest["splits"].items():
        assert made["splits"][split] == entry | {"published": spec.counts[split]}
        mini, full = (PreparedSplit(paths.prepared(edition, spec.name), (split,)) for edition in ("mini", "full"))
        assert full.rows == mini.rows
        assert len(full) == spec.counts[split]
        assert all(row["image_sha256"] for row in full.rows)
        if split in spec.labelled:
            assert all(row["mask_sha256"] for row in full.rows)
            for one, other in zip(mini, full, strict=True):
                np.testing.assert_array_equal(other.image, one.image)
                np.testing.assert_array_equal(other.mask, one.mask)


@pytest.mark.parametrize(("name", "source"), FORMS)
def test_from_the_published_addresses_to_samples(
    name: str, source: str, site: Any, made_by_drawing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = made_by_drawing(name, source)
    spec = publish(site, load_spec(name, source), drawn[0]["tree_sha256"], monkeypatch)
    download("full", name, section(source))
    prepare("full", name, PREPARE)
    assert_made_alike(spec, drawn)
    assert site.logins == any(archive.login is not None for archive in spec.archives)
    asked = len(site.asked)
    download("full", name, section(source))
    assert len(site.asked) == asked


def test_with_all_that_a_connection_can_do(site: Any, made_by_drawing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO-Stuff, of which no digest is published: what comes to an end is whole all the same."""
    monkeypatch.setattr(transfer, "TRIES", 9)
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    monkeypatch.setattr(transfer, "TIMEOUT", 2.0)
    drawn = made_by_drawing("coco_stuff10k", "v1.1")
    spec = publish(site, load_spec("coco_stuff10k"), drawn[0]["tree_sha256"], monkeypatch)
    (page,) = site.pages.values()
    assert len(page.content) > 200_000
    page.faults = ["cut 70000", "503", "stall 70000", "416", "cut 70000", "shifted", "cut 70000", "whole"]
    download("full", "coco_stuff10k", section("v1.1"))
    prepare("full", "coco_stuff10k", PREPARE)
    assert_made_alike(spec, drawn)
    ranges = [asked is not None for asked in site.ranges()]
    assert ranges == [False, True, True, True, False, True, False, True]  # twice what was there was of no use
    assert not page.faults
