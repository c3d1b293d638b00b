"""Miniatures as if they were published: their native archives, served at the addresses of the benchmark's SPEC.

They are laid out as the real archives are. Of the SPEC all else stays: names, addresses but for the host, logins,
algorithms of the digests, members, and how the files are read.
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
from gald.datasets._native import TRAIN_EXTRA
from gald.datasets._reader import PreparedSplit
from gald.datasets._spec import Archive, DatasetSpec
from gald.download.run import archives_folder, download
from gald.prepare.run import prepare
from tests.unit.conftest import SMALL
from tests.unit.download.conftest import PASSWORD, USER

KINDS = {".json": "application/json", ".tar": "application/x-tar", ".gz": "application/x-gzip"}
PREPARE = SimpleNamespace(processes=1, on_error="stop")
Drawn = tuple[dict[str, Any], dict[str, Any]]
FORMS = [(name, source) for name in names() for source in load_spec(name).sources]


def make_by_drawing(name: str, source: str) -> Drawn:
    """Make a miniature directly, prepared; return its raw.json and manifest."""
    raw = json.loads(download("mini", name, section(source)).read_text())
    return raw, json.loads(prepare("mini", name, PREPARE).read_text())


def section(source: str) -> SimpleNamespace:
    return SimpleNamespace(seed=3, source=lambda _: source)


def publish(site: Any, spec: DatasetSpec, raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> DatasetSpec:
    """Serve a miniature's archives as the SPEC says the real ones are served, and put it in the SPEC's place."""
    archives = tuple(serve(site, archive, archives_folder("mini", spec.name)) for archive in spec.archives)
    changed = replace(
        spec,
        archives=archives,
        counts={split: SMALL.get(split, TRAIN_EXTRA) for split in spec.counts},
        tree_sha256=None if spec.tree_sha256 is None else raw["tree_sha256"],
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


def assert_made_alike(spec: DatasetSpec, drawn: Drawn, *, changed: set[str]) -> None:
    """Hold what was downloaded and prepared against what was drawn: raw files, digests of pixels, pixels."""
    raw, manifest = drawn
    found = json.loads(paths.raw_json("full", spec.name).read_text())
    assert [found[key] for key in ("tree_sha256", "files")] == [raw[key] for key in ("tree_sha256", "files")]
    made = json.loads(paths.manifest("full", spec.name).read_text())
    assert made["edition"] == "full"
    assert {key for key in manifest if made[key] != manifest[key]} == {"edition", "splits"} | changed
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
