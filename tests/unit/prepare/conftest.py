"""Raw data of miniatures, laid out as the download stage does."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gald import paths
from gald.datasets import load_spec
from gald.datasets._writers import draw_archives
from gald.download.archives import unpack
from gald.files import LISTING, listing_digest, sha256, tree_listing, write_json, write_text
from gald.prepare import convert as module
from gald.prepare.convert import Failure, Record, Task


def relist(name: str, edition: str = "mini") -> None:
    """Let raw.json and the list vouch for the files as they are now, as if the archive had held them."""
    boundary = paths.raw_json(edition, name)
    listing = tree_listing(boundary.parent / "files")
    write_text(boundary.with_name(LISTING), listing)
    write_json(boundary, json.loads(boundary.read_text()) | {"tree_sha256": listing_digest(listing)})


@pytest.fixture
def lay_out(repository: Path) -> Callable[..., Path]:
    """Draw and unpack a miniature, write its raw.json; return the folder of its files."""

    def lay(name: str, source: str | None = None) -> Path:
        spec, root = load_spec(name, source), paths.raw("mini", name)
        for part in ("archives", "files"):
            (root / part).mkdir(parents=True)
        draw_archives(name, root / "archives", 3, source)
        listed = []
        for archive in spec.archives:
            path = root / "archives" / archive.name
            unpack(path, archive, root / "files", "draw it again")
            entry = {"name": archive.name, "sha256": sha256(path), "bytes": path.stat().st_size, "source": "drawn"}
            listed.append(entry)
        raw = {"edition": "mini", "dataset": name, "source": spec.source, "archives": listed}
        write_json(paths.raw_json("mini", name), raw | {"tree_sha256": "", "files": 1, "generator": None})
        relist(name)
        return root / "files"

    return lay


@pytest.fixture
def params() -> Callable[..., SimpleNamespace]:
    """Make a prepare section."""

    def make(processes: int | None = 1, on_error: str = "stop") -> SimpleNamespace:
        return SimpleNamespace(processes=processes, on_error=on_error)

    return make


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the samples that are converted in this process."""
    found: list[str] = []

    def counted(*arguments: object) -> Record | Failure:
        task = arguments[-1]
        assert isinstance(task, Task)
        found.append(task.sample.id)
        return module.convert(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("gald.prepare.run.convert", counted)
    return found
